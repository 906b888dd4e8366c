//! PDUs as bytes. The offsets, codes and bits are typed from the figures of RFC 7143 section 11.
//!
//! Nothing is checked here: a case may put any value anywhere. Integers are big-endian.

use std::fmt::Write as _;

/// Length of the basic header segment (section 11.2.1), in bytes.
pub const BHS_LEN: usize = 48;
/// The reserved value of Initiator Task Tag and Target Transfer Tag.
pub const NO_TAG: u32 = 0xffff_ffff;
/// F, the final bit (section 11.2.1.3); T in login PDUs.
pub const F: u8 = 0x80;
/// C, the continue bit of text and login PDUs.
pub const C: u8 = 0x40;

/// Opcodes (section 11.2.1.2).
pub mod op {
    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const SCSI_COMMAND: u8 = 0x01;
    /// Task Management Function Request.
    pub const TASK_REQUEST: u8 = 0x02;
    /// Login Request.
    pub const LOGIN_REQUEST: u8 = 0x03;
    /// Text Request.
    pub const TEXT_REQUEST: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA_OUT: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT_REQUEST: u8 = 0x06;
    /// SNACK Request.
    pub const SNACK: u8 = 0x10;
    /// NOP-In.
    pub const NOP_IN: u8 = 0x20;
    /// SCSI Response.
    pub const SCSI_RESPONSE: u8 = 0x21;
    /// Task Management Function Response.
    pub const TASK_RESPONSE: u8 = 0x22;
    /// Login Response.
    pub const LOGIN_RESPONSE: u8 = 0x23;
    /// Text Response.
    pub const TEXT_RESPONSE: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA_IN: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// Where fields begin in the basic header segment (sections 11.2 to 11.19), in bytes.
pub mod at {
    /// Opcode-specific flags.
    pub const FLAGS: usize = 1;
    /// Response of SCSI, task management and Logout Responses; Reason of a Reject; Version-max of login PDUs.
    pub const RESPONSE: usize = 2;
    /// Status of SCSI Response and Data-In; Version-min of Login Requests, Version-active of their responses.
    pub const STATUS: usize = 3;
    /// TotalAHSLength, in words of 4 bytes.
    pub const AHS_LEN: usize = 4;
    /// DataSegmentLength, 3 bytes.
    pub const DATA_LEN: usize = 5;
    /// LUN, 8 bytes.
    pub const LUN: usize = 8;
    /// ISID of login PDUs, 6 bytes.
    pub const ISID: usize = 8;
    /// TSIH of login PDUs, 2 bytes.
    pub const TSIH: usize = 14;
    /// Initiator Task Tag.
    pub const ITT: usize = 16;
    /// Target Transfer Tag; SNACK Tag.
    pub const TTT: usize = 20;
    /// Expected Data Transfer Length of a SCSI Command.
    pub const EDTL: usize = 20;
    /// Referenced Task Tag of a task management request.
    pub const REF_TAG: usize = 20;
    /// CID of Login and Logout Requests, 2 bytes.
    pub const CID: usize = 20;
    /// CmdSN of requests.
    pub const CMD_SN: usize = 24;
    /// StatSN of responses.
    pub const STAT_SN: usize = 24;
    /// ExpStatSN of requests.
    pub const EXP_STAT_SN: usize = 28;
    /// ExpCmdSN of responses.
    pub const EXP_CMD_SN: usize = 28;
    /// MaxCmdSN of responses.
    pub const MAX_CMD_SN: usize = 32;
    /// CDB of a SCSI Command, 16 bytes.
    pub const CDB: usize = 32;
    /// RefCmdSN of a task management request.
    pub const REF_CMD_SN: usize = 32;
    /// DataSN of data PDUs, R2TSN of an R2T, ExpDataSN of a SCSI Response and of TASK REASSIGN.
    pub const DATA_SN: usize = 36;
    /// Status-Class and Status-Detail of a Login Response, 2 bytes.
    pub const LOGIN_STATUS: usize = 36;
    /// AsyncEvent; AsyncVCode follows, then three parameters of 2 bytes.
    pub const ASYNC_EVENT: usize = 36;
    /// Buffer Offset of data PDUs and R2Ts.
    pub const OFFSET: usize = 40;
    /// BegRun of a SNACK.
    pub const BEG_RUN: usize = 40;
    /// Time2Wait of a Logout Response, 2 bytes; Time2Retain follows.
    pub const TIME2WAIT: usize = 40;
    /// Residual Count of SCSI Response and Data-In.
    pub const RESIDUAL: usize = 44;
    /// Desired Data Transfer Length of an R2T.
    pub const DESIRED: usize = 44;
    /// RunLength of a SNACK.
    pub const RUN_LENGTH: usize = 44;
}

/// A PDU taken apart into its segments; digests and padding belong to the connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Pdu {
    /// Basic header segment.
    pub bhs: [u8; BHS_LEN],
    /// Additional header segments with their padding.
    pub ahs: Vec<u8>,
    /// Data segment without its padding.
    pub data: Vec<u8>,
}

impl Pdu {
    /// A PDU of zeros with this first byte: opcode, and perhaps the immediate bit 0x40.
    pub fn new(first: u8) -> Self {
        let mut bhs = [0; BHS_LEN];
        bhs[0] = first;
        Self { bhs, ahs: Vec::new(), data: Vec::new() }
    }

    /// The opcode, without the immediate bit.
    pub fn opcode(&self) -> u8 {
        self.bhs[0] & 0x3f
    }

    /// The immediate bit of a request.
    pub fn immediate(&self) -> bool {
        self.bhs[0] & 0x40 != 0
    }

    /// The second byte.
    pub fn flags(&self) -> u8 {
        self.bhs[at::FLAGS]
    }

    /// One byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.bhs[at]
    }

    /// Two bytes.
    pub fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bhs[at], self.bhs[at + 1]])
    }

    /// Four bytes.
    pub fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.bhs[at], self.bhs[at + 1], self.bhs[at + 2], self.bhs[at + 3]])
    }

    /// DataSegmentLength as the header has it.
    pub fn data_len(&self) -> usize {
        (self.be32(at::DATA_LEN - 1) & 0x00ff_ffff) as usize
    }

    /// Initiator Task Tag.
    pub fn itt(&self) -> u32 {
        self.be32(at::ITT)
    }

    /// Target Transfer Tag.
    pub fn ttt(&self) -> u32 {
        self.be32(at::TTT)
    }

    /// Sets one byte.
    pub fn set(mut self, at: usize, value: u8) -> Self {
        self.bhs[at] = value;
        self
    }

    /// Sets two bytes.
    pub fn set16(self, at: usize, value: u16) -> Self {
        self.bytes(at, &value.to_be_bytes())
    }

    /// Sets four bytes.
    pub fn set32(self, at: usize, value: u32) -> Self {
        self.bytes(at, &value.to_be_bytes())
    }

    /// Sets any run of bytes of the header.
    pub fn bytes(mut self, at: usize, value: &[u8]) -> Self {
        self.bhs[at..at + value.len()].copy_from_slice(value);
        self
    }

    /// Sets the data segment and its length.
    pub fn with_data(mut self, data: &[u8]) -> Self {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.bhs[at::DATA_LEN..at::DATA_LEN + 3].copy_from_slice(&len[1..]);
        self.data = data.to_vec();
        self
    }

    /// Sets the additional header segments, a multiple of 4 bytes, and their length.
    pub fn with_ahs(mut self, ahs: &[u8]) -> Self {
        self.bhs[at::AHS_LEN] = u8::try_from(ahs.len() / 4).unwrap_or(u8::MAX);
        self.ahs = ahs.to_vec();
        self
    }

    /// The bytes on the wire, padded, with the digests that are asked for (section 11.2).
    pub fn wire(&self, header_digest: bool, data_digest: bool) -> Vec<u8> {
        let mut out = self.bhs.to_vec();
        out.extend_from_slice(&self.ahs);
        if header_digest {
            let digest = crc32c::crc32c(&out).to_le_bytes();
            out.extend_from_slice(&digest);
        }
        if !self.data.is_empty() {
            let start = out.len();
            out.extend_from_slice(&self.data);
            out.resize(start + self.data.len().next_multiple_of(4), 0);
            if data_digest {
                let digest = crc32c::crc32c(&out[start..]).to_le_bytes();
                out.extend_from_slice(&digest);
            }
        }
        out
    }

    /// Name and most telling fields, on one line.
    pub fn title(&self) -> String {
        let mut text = name(self.opcode()).to_owned();
        if self.immediate() && self.opcode() < 0x20 {
            text.push_str(" (immediate)");
        }
        let _ = write!(text, " flags {:02x} itt {:08x}", self.flags(), self.itt());
        match self.opcode() {
            op::LOGIN_RESPONSE => {
                let _ = write!(text, " status {:04x}", self.be16(at::LOGIN_STATUS));
            }
            op::REJECT => {
                let _ = write!(text, " reason {:02x}", self.byte(at::RESPONSE));
            }
            op::SCSI_RESPONSE | op::TASK_RESPONSE | op::LOGOUT_RESPONSE => {
                let _ = write!(text, " response {:02x}", self.byte(at::RESPONSE));
                if self.opcode() == op::SCSI_RESPONSE {
                    let _ = write!(text, " status {:02x}", self.byte(at::STATUS));
                }
            }
            op::ASYNC => {
                let _ = write!(text, " event {}", self.byte(at::ASYNC_EVENT));
            }
            _ => (),
        }
        text
    }

    /// The header, and the beginning of the data segment, in hexadecimal.
    pub fn dump(&self) -> String {
        let mut out = hexdump(&self.bhs);
        if !self.ahs.is_empty() {
            let _ = write!(out, "AHS\n{}", hexdump(&self.ahs));
        }
        if !self.data.is_empty() {
            let shown = &self.data[..self.data.len().min(128)];
            let _ = write!(out, "data segment, {} bytes\n{}", self.data.len(), hexdump(shown));
        }
        out
    }
}

impl std::fmt::Debug for Pdu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.title(), self.dump())
    }
}

/// The RFC's name of an opcode.
pub fn name(opcode: u8) -> &'static str {
    match opcode {
        op::NOP_OUT => "NOP-Out",
        op::SCSI_COMMAND => "SCSI Command",
        op::TASK_REQUEST => "Task Management Function Request",
        op::LOGIN_REQUEST => "Login Request",
        op::TEXT_REQUEST => "Text Request",
        op::DATA_OUT => "SCSI Data-Out",
        op::LOGOUT_REQUEST => "Logout Request",
        op::SNACK => "SNACK Request",
        op::NOP_IN => "NOP-In",
        op::SCSI_RESPONSE => "SCSI Response",
        op::TASK_RESPONSE => "Task Management Function Response",
        op::LOGIN_RESPONSE => "Login Response",
        op::TEXT_RESPONSE => "Text Response",
        op::DATA_IN => "SCSI Data-In",
        op::LOGOUT_RESPONSE => "Logout Response",
        op::R2T => "R2T",
        op::ASYNC => "Asynchronous Message",
        op::REJECT => "Reject",
        _ => "unassigned opcode",
    }
}

/// Lines of offset, 16 bytes, and characters.
pub fn hexdump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "  {:04x} ", line * 16);
        for at in 0..16 {
            let gap = if at % 4 == 0 { " " } else { "" };
            match chunk.get(at) {
                Some(byte) => {
                    let _ = write!(out, "{gap}{byte:02x}");
                }
                None => {
                    let _ = write!(out, "{gap}  ");
                }
            }
        }
        let text: String =
            chunk.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b as char } else { '.' }).collect();
        let _ = writeln!(out, "  {text}");
    }
    out
}

/// `a` comes before `b` in the arithmetic of RFC 1982 with 32 bits.
pub fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The READ(10) PDU and its digest of RFC 7143, appendix A.
    #[test]
    fn read_pdu_of_the_rfc() {
        let pdu = Pdu::new(op::SCSI_COMMAND)
            .set(at::FLAGS, 0xc0)
            .set32(at::ITT, 0x1400_0000)
            .set32(at::EDTL, 0x0400)
            .set32(at::CMD_SN, 0x14)
            .set32(at::EXP_STAT_SN, 0x18)
            .bytes(at::CDB, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        let wire = pdu.wire(true, true);
        assert_eq!(wire[..4], [0x01, 0xc0, 0, 0]);
        assert_eq!(wire[48..], [0x56, 0x3a, 0x96, 0xd9]);
    }

    #[test]
    fn a_data_segment_is_padded_and_its_digest_covers_the_padding() {
        let wire = Pdu::new(op::NOP_OUT).with_data(&[1, 2, 3, 4, 5]).wire(false, true);
        assert_eq!(wire[4..8], [0, 0, 0, 5]);
        assert_eq!(wire.len(), 48 + 8 + 4);
        assert_eq!(wire[56..60], crc32c::crc32c(&[1, 2, 3, 4, 5, 0, 0, 0]).to_le_bytes());
        // RFC 7143 appendix A: 32 bytes of zeros.
        let wire = Pdu::new(op::NOP_OUT).with_data(&[0; 32]).wire(false, true);
        assert_eq!(wire[80..], [0xaa, 0x36, 0x91, 0x8a]);
    }

    #[test]
    fn serial_numbers_wrap() {
        assert!(before(0xffff_ffff, 0) && before(1, 2) && !before(2, 1) && !before(7, 7));
    }
}
