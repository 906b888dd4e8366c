//! Numbers and layouts of the NBD protocol (doc/proto.md of the NetworkBlockDevice project); all big endian.

/// First eight bytes of a server.
pub(super) const MAGIC: [u8; 8] = *b"NBDMAGIC";
/// Next eight bytes of a server of the newstyle, and first eight of every option.
pub(super) const OPTION_MAGIC: [u8; 8] = *b"IHAVEOPT";
/// First eight bytes of a reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Server and client speak the fixed newstyle.
pub(super) const FIXED_NEWSTYLE: u16 = 1;
/// No 124 zeros after the export's flags.
pub(super) const NO_ZEROES: u16 = 2;

/// Options of the handshake.
pub(super) mod option {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
}

/// Types of the replies to options; errors have the top bit.
pub(super) mod reply {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const META_CONTEXT: u32 = 4;
    pub(in super::super) const ERROR: u32 = 1 << 31;
    pub(in super::super) const ERR_UNSUP: u32 = ERROR | 1;
    pub(in super::super) const ERR_POLICY: u32 = ERROR | 2;
    pub(in super::super) const ERR_TLS_REQD: u32 = ERROR | 5;
    pub(in super::super) const ERR_UNKNOWN: u32 = ERROR | 6;
    pub(in super::super) const ERR_SHUTDOWN: u32 = ERROR | 7;
}

/// Pieces of information that the reply to GO carries.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what the export can do.
pub(super) mod flag {
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const ROTATIONAL: u16 = 1 << 4;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_CACHE: u16 = 1 << 10;
}

/// Requests.
pub(super) mod command {
    pub(in super::super) const READ: u16 = 0;
    pub(in super::super) const WRITE: u16 = 1;
    pub(in super::super) const DISC: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const TRIM: u16 = 4;
    pub(in super::super) const CACHE: u16 = 5;
    pub(in super::super) const WRITE_ZEROES: u16 = 6;
    pub(in super::super) const BLOCK_STATUS: u16 = 7;
}

/// A write is on the medium before its reply.
pub(super) const FLAG_FUA: u16 = 1;
/// WRITE_ZEROES keeps the blocks allocated.
pub(super) const FLAG_NO_HOLE: u16 = 2;

/// Types of the chunks of a structured reply; errors have the top bit.
pub(super) mod chunk {
    pub(in super::super) const NONE: u16 = 0;
    pub(in super::super) const OFFSET_DATA: u16 = 1;
    pub(in super::super) const OFFSET_HOLE: u16 = 2;
    pub(in super::super) const BLOCK_STATUS: u16 = 5;
    pub(in super::super) const ERROR: u16 = 1 << 15;
    pub(in super::super) const ERROR_OFFSET: u16 = ERROR | 2;
}

/// The last chunk of a structured reply.
pub(super) const CHUNK_DONE: u16 = 1;

/// In `base:allocation`, the run is not allocated.
pub(super) const STATE_HOLE: u32 = 1;

/// Length of a request's header.
pub(super) const REQUEST_LEN: usize = 28;

/// A request without its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    /// Byte of the export.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) len: u32,
}

impl Request {
    pub(super) fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        bytes[..4].copy_from_slice(&0x2560_9513u32.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

/// First four bytes of a simple reply: error (4 bytes) and cookie (8) follow.
pub(super) const SIMPLE_REPLY: u32 = 0x6744_6698;
/// First four bytes of a chunk: flags (2), type (2), cookie (8) and length (4) follow.
pub(super) const STRUCTURED_REPLY: u32 = 0x668e_33ef;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_the_protocol_lays_it_out() {
        let request = Request {
            flags: FLAG_FUA,
            command: command::WRITE,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1000,
            len: 512,
        };
        let expected = hex("25609513 0001 0001 0102030405060708 0000000000001000 00000200");
        assert_eq!(request.encode()[..], expected[..]);
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }
}
