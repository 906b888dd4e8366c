//! A raw connection: PDUs typed byte by byte from RFC 7143 section 11.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A PDU as it came: 48 bytes of header, then data.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bhs: [u8; 48],
    pub(crate) data: Vec<u8>,
}

impl Answer {
    /// Opcode; the first byte without its flags.
    pub(crate) fn opcode(&self) -> u8 {
        self.bhs[0] & 0x3f
    }

    pub(crate) fn itt(&self) -> u8 {
        self.bhs[19]
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bhs[at..at + 4].try_into().unwrap())
    }

    /// Status-Class and Status-Detail of a Login Response (section 11.13.5).
    pub(crate) fn login_status(&self) -> u16 {
        assert_eq!(self.opcode(), 0x23, "Login Response");
        u16::from_be_bytes([self.bhs[36], self.bhs[37]])
    }

    pub(crate) fn tsih(&self) -> u16 {
        u16::from_be_bytes([self.bhs[14], self.bhs[15]])
    }

    /// ASC and ASCQ of a CHECK CONDITION with fixed format sense data (section 11.4.7).
    pub(crate) fn asc(&self) -> (u8, u8) {
        assert_eq!((self.opcode(), self.bhs[2], self.bhs[3]), (0x21, 0, 2), "CHECK CONDITION: {self:?}");
        (self.data[14], self.data[15])
    }
}

/// Which connection of which session a login is for.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) isid: u8,
    pub(crate) tsih: u16,
    pub(crate) cid: u8,
    pub(crate) cmd_sn: u32,
}

pub(crate) struct Wire {
    stream: TcpStream,
    exp_stat_sn: u32,
}

impl Wire {
    pub(crate) fn new(portal: SocketAddr) -> Self {
        let stream = TcpStream::connect(portal).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, exp_stat_sn: 0 }
    }

    /// Sends a header with the data's length and ExpStatSN filled in, and the data with its padding.
    pub(crate) fn send(&mut self, mut bhs: [u8; 48], data: &[u8]) {
        bhs[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        bhs[28..32].copy_from_slice(&self.exp_stat_sn.to_be_bytes());
        let mut bytes = bhs.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let _ = self.stream.write_all(&bytes);
    }

    /// Sends headers in one piece, so that the target reads them at once.
    pub(crate) fn send_together(&mut self, headers: &[[u8; 48]]) {
        let mut bytes = headers.concat();
        for bhs in bytes.chunks_mut(48) {
            bhs[28..32].copy_from_slice(&self.exp_stat_sn.to_be_bytes());
        }
        let _ = self.stream.write_all(&bytes);
    }

    /// The next PDU; `None` when the target has closed.
    pub(crate) fn receive(&mut self) -> Option<Answer> {
        let mut bhs = [0; 48];
        match self.stream.read_exact(&mut bhs) {
            Ok(()) => (),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(e) => panic!("neither an answer nor an end: {e}"),
        }
        let length = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data).unwrap();
        data.truncate(length);
        let answer = Answer { bhs, data };
        // R2T and Data-In without status have no StatSN of their own, nor has a NOP-In that only pings.
        let numbered = match answer.opcode() {
            0x31 => false,
            0x25 => bhs[1] & 1 != 0,
            0x20 => answer.word(16) != u32::MAX,
            _ => true,
        };
        if numbered {
            self.exp_stat_sn = answer.word(24).wrapping_add(1);
        }
        Some(answer)
    }

    /// The next PDU but for pings, which are answered (section 11.18): the target asks for ExpStatSN by them.
    pub(crate) fn answer(&mut self) -> Answer {
        loop {
            let answer = self.receive().expect("an answer, not the connection's end");
            if answer.opcode() != 0x20 || answer.word(20) == u32::MAX {
                return answer;
            }
            let mut pong = [0; 48];
            pong[0] = 0x40;
            pong[1] = 0x80;
            pong[8..16].copy_from_slice(&answer.bhs[8..16]);
            pong[16..24].copy_from_slice(&answer.bhs[16..24]);
            pong[24..28].copy_from_slice(&answer.bhs[28..32]);
            self.send(pong, &[]);
        }
    }

    /// Whether nothing comes for a moment.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        peeked.is_err()
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }

    /// A Login Request in one step, CSG 1 and NSG 3, and its response.
    pub(crate) fn log_in(&mut self, place: Place, text: &str) -> Answer {
        self.send(login(place, 0x87), text.as_bytes());
        self.answer()
    }

    /// A connection in full feature phase, and its TSIH.
    pub(crate) fn logged_in(portal: SocketAddr, place: Place, text: &str) -> (Self, u16) {
        let mut wire = Self::new(portal);
        let answer = wire.log_in(place, text);
        assert_eq!((answer.login_status(), answer.bhs[1]), (0, 0x87), "{answer:?}");
        let tsih = answer.tsih();
        (wire, tsih)
    }
}

/// Login Request, section 11.12: I, opcode 03h; flags; a random ISID; TSIH; ITT 1; CID; CmdSN.
pub(crate) fn login(place: Place, flags: u8) -> [u8; 48] {
    let mut bhs = [0; 48];
    bhs[0] = 0x43;
    bhs[1] = flags;
    bhs[8] = 0x80;
    bhs[13] = place.isid;
    bhs[14..16].copy_from_slice(&place.tsih.to_be_bytes());
    bhs[19] = 1;
    bhs[21] = place.cid;
    bhs[24..28].copy_from_slice(&place.cmd_sn.to_be_bytes());
    bhs
}

/// The names that begin a login to the target of these tests, and further keys.
pub(crate) fn names(keys: &str) -> String {
    format!(
        "InitiatorName=iqn.2026-01.org.example:raw\0TargetName={}\0SessionType=Normal\0{keys}",
        super::IQN
    )
}

pub(crate) const READ: u8 = 0x40;
pub(crate) const WRITE: u8 = 0x20;

/// SCSI Command, section 11.3: F and the given direction, SIMPLE; LUN 0; ITT; EDTL; CmdSN; CDB.
pub(crate) fn command(direction: u8, itt: u8, length: u32, cmd_sn: u32, cdb: &[u8]) -> [u8; 48] {
    let mut bhs = [0; 48];
    bhs[0] = 0x01;
    bhs[1] = 0x80 | direction | 1;
    bhs[19] = itt;
    bhs[20..24].copy_from_slice(&length.to_be_bytes());
    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    bhs[32..32 + cdb.len()].copy_from_slice(cdb);
    bhs
}

/// TEST UNIT READY.
pub(crate) fn ready(itt: u8, cmd_sn: u32) -> [u8; 48] {
    command(0, itt, 0, cmd_sn, &[0; 6])
}

/// READ(10) and WRITE(10) of one block.
pub(crate) fn read_block(itt: u8, cmd_sn: u32, lba: u8) -> [u8; 48] {
    command(READ, itt, 512, cmd_sn, &[0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0])
}

pub(crate) fn write_block(itt: u8, cmd_sn: u32, lba: u8) -> [u8; 48] {
    command(WRITE, itt, 512, cmd_sn, &[0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0])
}

/// Task Management Function Request, section 11.5, immediate: function; LUN 0; ITT; no referenced task.
pub(crate) fn function(code: u8, itt: u8, cmd_sn: u32) -> [u8; 48] {
    let mut bhs = [0; 48];
    bhs[0] = 0x42;
    bhs[1] = 0x80 | code;
    bhs[19] = itt;
    bhs[20..24].copy_from_slice(&[0xff; 4]);
    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    bhs
}

/// Logout Request, section 11.14, immediate: reason; ITT; CID.
pub(crate) fn logout(reason: u8, itt: u8, cid: u8, cmd_sn: u32) -> [u8; 48] {
    let mut bhs = [0; 48];
    bhs[0] = 0x46;
    bhs[1] = 0x80 | reason;
    bhs[19] = itt;
    bhs[21] = cid;
    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    bhs
}
