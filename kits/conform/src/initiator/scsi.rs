//! As much of a disk as an initiator wants to see before it reads and writes (SPC-4, SBC-3).

/// What a CDB asks for.
pub(crate) enum Request {
    /// Nothing but good status.
    Nothing,
    /// INQUIRY, with the page if EVPD is set.
    Inquiry(Option<u8>, usize),
    /// READ CAPACITY(10).
    Capacity10,
    /// READ CAPACITY(16).
    Capacity16(usize),
    /// REPORT LUNS.
    Luns(usize),
    /// MODE SENSE(6) or (10): header only.
    Mode(usize),
    Read {
        lba: usize,
        blocks: usize,
    },
    Write {
        lba: usize,
        blocks: usize,
    },
    /// INVALID COMMAND OPERATION CODE.
    Unknown,
}

fn be(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b))
}

/// Takes a CDB of 16 bytes apart.
pub(crate) fn parse(cdb: &[u8]) -> Request {
    match cdb[0] {
        // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW, SYNCHRONIZE CACHE.
        0x00 | 0x1b | 0x1e | 0x35 | 0x91 => Request::Nothing,
        0x12 => Request::Inquiry((cdb[1] & 1 != 0).then_some(cdb[2]), be(&cdb[3..5])),
        0x1a => Request::Mode(4),
        0x5a => Request::Mode(8),
        0x25 => Request::Capacity10,
        0x9e if cdb[1] & 0x1f == 0x10 => Request::Capacity16(be(&cdb[10..14])),
        0xa0 => Request::Luns(be(&cdb[6..10])),
        0x08 => {
            let blocks = if cdb[4] == 0 { 256 } else { usize::from(cdb[4]) };
            Request::Read { lba: be(&cdb[1..4]) & 0x001f_ffff, blocks }
        }
        0x28 => Request::Read { lba: be(&cdb[2..6]), blocks: be(&cdb[7..9]) },
        0x88 => Request::Read { lba: be(&cdb[2..10]), blocks: be(&cdb[10..14]) },
        0x2a => Request::Write { lba: be(&cdb[2..6]), blocks: be(&cdb[7..9]) },
        0x8a => Request::Write { lba: be(&cdb[2..10]), blocks: be(&cdb[10..14]) },
        _ => Request::Unknown,
    }
}

/// The data of a request, or sense data.
pub(crate) fn execute(request: &Request, disk: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let last = u32::try_from(disk.len() / 512 - 1).unwrap_or(u32::MAX);
    let cut = |mut data: Vec<u8>, to: usize| {
        data.truncate(to);
        data
    };
    Ok(match *request {
        Request::Nothing | Request::Write { .. } => Vec::new(),
        Request::Inquiry(None, to) => {
            let mut data = vec![0, 0, 6, 2, 31, 0, 0, 2];
            data.extend_from_slice(b"EXAMPLE CONFORMANCE DISK0001");
            cut(data, to)
        }
        Request::Inquiry(Some(0x00), to) => cut(vec![0, 0, 0, 3, 0x00, 0x80, 0x83], to),
        Request::Inquiry(Some(0x80), to) => cut(b"\0\x80\0\x08CONFORM0".to_vec(), to),
        Request::Inquiry(Some(0x83), to) => {
            // A T10 vendor identification.
            let mut data = vec![0, 0x83, 0, 20, 2, 1, 0, 16];
            data.extend_from_slice(b"EXAMPLE CONFORM0");
            cut(data, to)
        }
        Request::Inquiry(..) => return Err(sense(5, 0x24, 0)),
        Request::Capacity10 => [last.to_be_bytes(), 512_u32.to_be_bytes()].concat(),
        Request::Capacity16(to) => {
            let mut data = u64::from(last).to_be_bytes().to_vec();
            data.extend_from_slice(&512_u32.to_be_bytes());
            data.resize(32, 0);
            cut(data, to)
        }
        Request::Luns(to) => {
            let mut data = vec![0, 0, 0, 8];
            data.resize(16, 0);
            cut(data, to)
        }
        Request::Mode(4) => vec![3, 0, 0, 0],
        Request::Mode(_) => vec![0, 6, 0, 0, 0, 0, 0, 0],
        Request::Read { lba, blocks } => {
            match disk.get(lba.saturating_mul(512)..lba.saturating_add(blocks) * 512) {
                Some(data) => data.to_vec(),
                None => return Err(sense(5, 0x21, 0)),
            }
        }
        Request::Unknown => return Err(sense(5, 0x20, 0)),
    })
}

/// Fixed format sense data of 18 bytes (SPC-4 4.5.3).
pub(crate) fn sense(key: u8, asc: u8, ascq: u8) -> Vec<u8> {
    let mut data = vec![0; 18];
    (data[0], data[2], data[7], data[12], data[13]) = (0x70, key, 10, asc, ascq);
    data
}
