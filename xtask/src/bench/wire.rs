//! Just enough iSCSI for a client that measures: headers by hand, a login with fixed text (RFC 7143 section 11).
//!
//! Our own codecs are what is measured, so that none of them is used here.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};

pub(crate) const BHS: usize = 48;
/// What we take in one Data-In.
const OUR_SEGMENT: u32 = 256 << 10;

/// Opcodes of the PDUs that occur.
pub(crate) mod op {
    pub(crate) const NOP_OUT: u8 = 0x00;
    pub(crate) const COMMAND: u8 = 0x01;
    pub(crate) const LOGIN: u8 = 0x03;
    pub(crate) const DATA_OUT: u8 = 0x05;
    pub(crate) const NOP_IN: u8 = 0x20;
    pub(crate) const RESPONSE: u8 = 0x21;
    pub(crate) const DATA_IN: u8 = 0x25;
    pub(crate) const R2T: u8 = 0x31;
}

/// Big-endian 32 bits at an offset.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Data segment length.
pub(crate) fn segment(bhs: &[u8]) -> usize {
    be32(bhs, 4) as usize & 0x00ff_ffff
}

/// Bytes that follow a header: additional header segments, header digest, data, padding, data digest.
pub(crate) fn body(bhs: &[u8], digests: bool) -> usize {
    let data = segment(bhs);
    let digest = if digests { 4 } else { 0 };
    let data_digest = if data > 0 { digest } else { 0 };
    usize::from(bhs[4]) * 4 + digest + data.next_multiple_of(4) + data_digest
}

/// A target's portal, name and logical unit.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) portal: SocketAddr,
    pub(crate) name: String,
    pub(crate) lun: u16,
}

impl std::str::FromStr for Url {
    type Err = anyhow::Error;

    /// `iscsi://ADDRESS:PORT/NAME/LUN`.
    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("iscsi://").context("expected iscsi://ADDRESS:PORT/NAME/LUN")?;
        let mut parts = rest.splitn(3, '/');
        let mut part = || parts.next().context("expected iscsi://ADDRESS:PORT/NAME/LUN");
        Ok(Self { portal: part()?.parse()?, name: part()?.to_owned(), lun: part()?.parse()? })
    }
}

/// A session in full feature phase.
pub(crate) struct Session {
    pub(crate) socket: TcpStream,
    /// The first two bytes of the LUN field.
    pub(crate) lun: [u8; 2],
    pub(crate) digests: bool,
    /// What the target takes in one data segment, and unasked.
    pub(crate) segment: u32,
    pub(crate) immediate: u32,
    pub(crate) cmd_sn: u32,
    pub(crate) exp_stat_sn: u32,
    pub(crate) max_cmd_sn: u32,
    pub(crate) block_size: u32,
    pub(crate) blocks: u64,
}

impl Session {
    /// Connects, logs in without authentication, and asks for the capacity.
    pub(crate) fn open(url: &Url, digests: bool) -> Result<Self> {
        Self::open_as(url, digests, 0)
    }

    /// The same as an initiator port that this number tells from others that use the same local port in turn.
    pub(crate) fn open_as(url: &Url, digests: bool, port: u16) -> Result<Self> {
        let socket = TcpStream::connect(url.portal).with_context(|| url.portal.to_string())?;
        socket.set_nodelay(true)?;
        let mut session = Self {
            socket,
            // Peripheral device addressing, and flat space addressing beyond it (SAM-5 clauses 4.7.7.2, 4.7.7.3).
            lun: if url.lun < 256 { url.lun.to_be_bytes() } else { (url.lun | 0x4000).to_be_bytes() },
            digests: false,
            segment: 8192,
            immediate: 0,
            cmd_sn: 1,
            exp_stat_sn: 0,
            max_cmd_sn: 1,
            block_size: 0,
            blocks: 0,
        };
        session.login(&url.name, digests, port).context("login")?;
        session.digests = digests;
        // A new nexus begins with unit attentions.
        let ready = (0..8).any(|_| matches!(session.small(&[0; 16], 0), Ok((0, _))));
        ensure!(ready, "the unit is not ready");
        let (status, data) = session.small(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)?;
        ensure!(status == 0 && data.len() >= 8, "READ CAPACITY failed");
        session.blocks = u64::from(be32(&data, 0)) + 1;
        session.block_size = be32(&data, 4);
        Ok(session)
    }

    fn login(&mut self, name: &str, digests: bool, port: u16) -> Result<()> {
        let digest = if digests { "CRC32C" } else { "None" };
        let mut text = format!(
            "InitiatorName=iqn.2026-01.org.example:bench\0SessionType=Normal\0TargetName={name}\0HeaderDigest={digest}\0\
             DataDigest={digest}\0MaxRecvDataSegmentLength={OUR_SEGMENT}\0InitialR2T=Yes\0ImmediateData=Yes\0\
             FirstBurstLength=262144\0MaxBurstLength=1048576\0MaxOutstandingR2T=8\0ErrorRecoveryLevel=0\0\
             MaxConnections=1\0DefaultTime2Wait=0\0DefaultTime2Retain=0\0"
        );
        let mut answers = String::new();
        let (mut tsih, mut first_burst) = ([0; 2], 65536);
        for _ in 0..8 {
            let mut bhs = [0; BHS];
            bhs[0] = op::LOGIN | 0x40;
            // Transit from operational negotiation to full feature phase.
            bhs[1] = 0x80 | 1 << 2 | 3;
            put32(&mut bhs, 4, text.len() as u32);
            bhs[8] = 0x80;
            bhs[10..12].copy_from_slice(&port.to_be_bytes());
            bhs[12..14].copy_from_slice(&self.socket.local_addr()?.port().to_be_bytes());
            bhs[14..16].copy_from_slice(&tsih);
            put32(&mut bhs, 24, self.cmd_sn);
            put32(&mut bhs, 28, self.exp_stat_sn);
            let mut pdu = bhs.to_vec();
            pdu.extend_from_slice(text.as_bytes());
            pdu.resize(pdu.len().next_multiple_of(4), 0);
            self.socket.write_all(&pdu)?;
            let (bhs, data) = self.read_pdu()?;
            ensure!(bhs[36] == 0, "refused with status {:#04x}{:02x}", bhs[36], bhs[37]);
            tsih.copy_from_slice(&bhs[14..16]);
            answers.push_str(&String::from_utf8_lossy(&data));
            text.clear();
            if bhs[1] & 0x83 != 0x83 {
                continue;
            }
            let mut immediate = true;
            for (key, value) in answers.split('\0').filter_map(|pair| pair.split_once('=')) {
                match key {
                    "MaxRecvDataSegmentLength" => self.segment = value.parse()?,
                    "FirstBurstLength" => first_burst = value.parse()?,
                    "ImmediateData" => immediate = value == "Yes",
                    "HeaderDigest" | "DataDigest" => ensure!(value == digest, "{key}={value} was chosen"),
                    _ => {}
                }
            }
            self.immediate = if immediate { self.segment.min(first_burst) } else { 0 };
            return Ok(());
        }
        bail!("the target never ends the login");
    }

    /// One PDU; for what is not measured.
    fn read_pdu(&mut self) -> Result<([u8; BHS], Vec<u8>)> {
        let mut bhs = [0; BHS];
        self.socket.read_exact(&mut bhs)?;
        let mut rest = vec![0; body(&bhs, self.digests)];
        self.socket.read_exact(&mut rest)?;
        let from = usize::from(bhs[4]) * 4 + if self.digests { 4 } else { 0 };
        if self.digests {
            ensure!(rest[from - 4..from] == crc32c::crc32c(&bhs).to_le_bytes(), "header digest");
        }
        let data = rest[from..from + segment(&bhs)].to_vec();
        self.note(&bhs);
        Ok((bhs, data))
    }

    /// Takes the sequence numbers of a PDU from the target.
    pub(crate) fn note(&mut self, bhs: &[u8]) {
        let has_status = match bhs[0] & 0x3f {
            op::DATA_IN => bhs[1] & 1 != 0,
            op::R2T => false,
            op::NOP_IN => be32(bhs, 16) != u32::MAX,
            _ => true,
        };
        if has_status {
            self.exp_stat_sn = be32(bhs, 24).wrapping_add(1);
        }
        self.max_cmd_sn = be32(bhs, 32);
    }

    /// Whether the target takes one more command.
    pub(crate) fn window_open(&self) -> bool {
        self.max_cmd_sn.wrapping_sub(self.cmd_sn) as i32 >= 0
    }

    /// The header of a command; digests are the caller's.
    pub(crate) fn command(
        &mut self,
        itt: u32,
        cdb: &[u8; 16],
        flags: u8,
        length: u32,
        data: usize,
    ) -> [u8; BHS] {
        let mut bhs = [0; BHS];
        bhs[0] = op::COMMAND;
        bhs[1] = 0x80 | flags | 1;
        put32(&mut bhs, 4, data as u32);
        bhs[8..10].copy_from_slice(&self.lun);
        put32(&mut bhs, 16, itt);
        put32(&mut bhs, 20, length);
        put32(&mut bhs, 24, self.cmd_sn);
        put32(&mut bhs, 28, self.exp_stat_sn);
        bhs[32..].copy_from_slice(cdb);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        bhs
    }

    /// One command that inputs little; its status and input.
    fn small(&mut self, cdb: &[u8; 16], length: u32) -> Result<(u8, Vec<u8>)> {
        let flags = if length > 0 { 0x40 } else { 0 };
        let bhs = self.command(0, cdb, flags, length, 0);
        self.socket.write_all(&bhs)?;
        if self.digests {
            self.socket.write_all(&crc32c::crc32c(&bhs).to_le_bytes())?;
        }
        let mut input = Vec::new();
        loop {
            let (bhs, data) = self.read_pdu()?;
            match bhs[0] & 0x3f {
                op::DATA_IN => {
                    input.extend(data);
                    if bhs[1] & 1 != 0 {
                        return Ok((bhs[3], input));
                    }
                }
                op::RESPONSE => return Ok((bhs[3], input)),
                op::NOP_IN => {}
                other => bail!("unexpected PDU {other:#04x}"),
            }
        }
    }
}
