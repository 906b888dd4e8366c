//! PDUs that look as if they were meant.

use crate::rng::Rng;
use datamover::Role;
use iscsi_pdu::BHS_LEN;

/// Tags and numbers of a connection, as far as its hostile end has seen or made them up.
pub(super) struct Known {
    role: Role,
    /// The next CmdSN (initiator), StatSN (target) of its own.
    pub(super) next_sn: u32,
    /// The number of the other end that is to be acknowledged next.
    peer_sn: u32,
    itts: Vec<u32>,
    ttts: Vec<u32>,
    /// ITT, LUN and length of what may still want data: of R2Ts, of commands.
    lengths: Vec<u32>,
}

/// Tags that are remembered.
const MEMORY: usize = 12;

const RESERVED: u32 = 0xffff_ffff;

fn word(bhs: &[u8], at: usize) -> u32 {
    bhs.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn remember(tags: &mut Vec<u32>, tag: u32) {
    if tag != RESERVED && !tags.contains(&tag) {
        tags.push(tag);
        if tags.len() > MEMORY {
            tags.remove(0);
        }
    }
}

impl Known {
    pub(super) fn new(role: Role, next_sn: u32, peer_sn: u32) -> Self {
        Self { role, next_sn, peer_sn, itts: Vec::new(), ttts: Vec::new(), lengths: vec![512] }
    }

    /// Takes what a PDU of the other end tells.
    pub(super) fn heard(&mut self, bhs: &[u8]) {
        remember(&mut self.itts, word(bhs, 16));
        let opcode = bhs[0] & 0x3f;
        if self.role == Role::Initiator {
            self.peer_sn = word(bhs, 24).wrapping_add(1);
            if matches!(opcode, 0x20 | 0x24 | 0x25 | 0x31) {
                remember(&mut self.ttts, word(bhs, 20));
            }
            if opcode == 0x31 {
                remember(&mut self.lengths, word(bhs, 44));
            }
        } else {
            self.peer_sn = word(bhs, 24).wrapping_add(1);
            if opcode == 0x01 {
                remember(&mut self.lengths, word(bhs, 20));
            }
        }
    }

    /// A number that is right, nearly right, or not at all.
    fn near(rng: &mut Rng, right: u32) -> u32 {
        match rng.below(16) {
            0 => right.wrapping_add(1),
            1 => right.wrapping_sub(1),
            2 => right.wrapping_add(rng.below(200) as u32),
            3 => rng.next() as u32,
            _ => right,
        }
    }

    fn one_of(rng: &mut Rng, tags: &[u32]) -> u32 {
        match rng.below(8) {
            0 => RESERVED,
            1 => rng.below(8) as u32,
            2 => rng.next() as u32,
            _ if tags.is_empty() => rng.below(8) as u32,
            _ => rng.pick(tags),
        }
    }

    fn length(&self, rng: &mut Rng) -> u32 {
        match rng.below(8) {
            0 => 0,
            1 => 1 + rng.below(4096) as u32,
            2 => rng.next() as u32,
            3 => rng.pick(&[511, 512, 8192, 65_536]),
            _ => rng.pick(&self.lengths),
        }
    }

    /// A small number: of data PDUs, of a run.
    fn small(rng: &mut Rng) -> u32 {
        if rng.one_in(12) { rng.next() as u32 } else { rng.below(3) as u32 }
    }

    /// One PDU.
    pub(super) fn forge(&mut self, rng: &mut Rng) -> Vec<u8> {
        let mut bhs = [0; BHS_LEN];
        if rng.one_in(20) {
            bhs.iter_mut().for_each(|b| *b = rng.next() as u8);
            bhs[4] = 0;
        } else if self.role == Role::Initiator {
            self.request(rng, &mut bhs);
        } else {
            self.response(rng, &mut bhs);
        }
        let data = Self::data(rng, bhs[0] & 0x3f);
        bhs[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        if rng.one_in(300) {
            bhs[5..8].copy_from_slice(&(rng.next() as u32).to_be_bytes()[1..]);
        }
        let mut pdu = bhs.to_vec();
        if rng.one_in(40) {
            let words = 1 + rng.index(6);
            pdu[4] = words as u8;
            // Its length, its type (1 and 2 have a meaning), what is in it.
            let ahs = 4 * words as u16 - 3;
            pdu.extend_from_slice(&ahs.to_be_bytes());
            pdu.push(rng.below(4) as u8);
            pdu.extend((0..ahs).map(|_| rng.next() as u8));
        }
        pdu.extend_from_slice(&data);
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        pdu
    }

    fn data(rng: &mut Rng, opcode: u8) -> Vec<u8> {
        const TEXTS: [&[u8]; 8] = [
            b"SendTargets=All\0",
            b"MaxRecvDataSegmentLength=4096\0",
            b"MaxRecvDataSegmentLength=1\0HeaderDigest=CRC32C\0",
            b"SessionType=Discovery\0InitiatorName=iqn.2026-01.org.example:host0\0",
            b"MaxConnections=0\0ErrorRecoveryLevel=3\0",
            b"X-org.example.key=",
            b"=\0\0\0==",
            b"AuthMethod=CHAP\0CHAP_A=5\0",
        ];
        let text = matches!(opcode, 0x03 | 0x04 | 0x23 | 0x24);
        if text && !rng.one_in(4) {
            return rng.pick(&TEXTS).to_vec();
        }
        let usual = matches!(opcode, 0x01 | 0x05 | 0x25);
        let len = match rng.below(if usual { 8 } else { 24 }) {
            0 | 1 => rng.pick(&[512, 512, 1024]),
            2 => 1 + rng.index(600),
            3 => rng.pick(&[4096, 8192, 9000]),
            _ => 0,
        };
        vec![rng.next() as u8; len]
    }

    fn put(bhs: &mut [u8; BHS_LEN], at: usize, value: u32) {
        bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    fn request(&mut self, rng: &mut Rng, bhs: &mut [u8; BHS_LEN]) {
        let opcode = rng.pick(&[
            0x00, 0x01, 0x01, 0x01, 0x01, 0x02, 0x03, 0x04, 0x05, 0x05, 0x05, 0x06, 0x10, 0x10, 0x1c,
        ]);
        let immediate = rng.one_in(4) && opcode != 0x05;
        bhs[0] = opcode | if immediate { 0x40 } else { 0 };
        bhs[1] = if rng.one_in(6) { rng.next() as u8 } else { 0x80 };
        if rng.one_in(12) {
            bhs[8..16].copy_from_slice(&rng.next().to_be_bytes());
        }
        let old = matches!(opcode, 0x05 | 0x10) || rng.one_in(5);
        let itt = if old { Self::one_of(rng, &self.itts) } else { 0x100 + rng.below(4000) as u32 };
        Self::put(bhs, 16, itt);
        Self::put(bhs, 20, Self::one_of(rng, &self.ttts));
        Self::put(bhs, 24, Self::near(rng, self.next_sn));
        Self::put(bhs, 28, Self::near(rng, self.peer_sn));
        match opcode {
            0x00 if rng.coin() => Self::put(bhs, 20, RESERVED),
            0x01 => {
                remember(&mut self.itts, itt);
                bhs[1] = rng.pick(&[0x80, 0xa0, 0xa0, 0xc0, 0x20, 0xe0]) | rng.below(6) as u8;
                let length = rng.pick(&[0, 512, 512, 4096, 16_384, 65_536]);
                Self::put(bhs, 20, if rng.one_in(30) { rng.next() as u32 } else { length });
                bhs[32] = rng.pick(&[0x28, 0x2a, 0x35, 0x53, 0xff]);
                bhs[40..].iter_mut().for_each(|b| *b = rng.next() as u8);
            }
            0x02 => {
                bhs[1] = 0x80 | rng.pick(&[1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 0x7f]);
                Self::put(bhs, 20, Self::one_of(rng, &self.itts));
                Self::put(bhs, 32, Self::near(rng, self.next_sn.wrapping_sub(1)));
                Self::put(bhs, 36, Self::small(rng));
            }
            0x03 => bhs[1] = rng.pick(&[0x87, 0x81, 0x04, 0x40]),
            0x05 => {
                Self::put(bhs, 24, 0);
                Self::put(bhs, 36, Self::small(rng));
                Self::put(bhs, 40, rng.pick(&[0, 0, 0, 512, 1024, 4096]));
            }
            0x06 => {
                // A logout ends the fun: rarely in earnest.
                bhs[1] = 0x80 | rng.pick(&[1, 2, 2, 2, 3, 0]);
                Self::put(bhs, 20, rng.pick(&[0x1_0000, 0x2_0000, 0x7_0000]));
            }
            0x10 => {
                bhs[1] = 0x80 | rng.below(4) as u8;
                Self::put(bhs, 40, if rng.coin() { Self::small(rng) } else { Self::near(rng, self.peer_sn) });
                Self::put(bhs, 44, Self::small(rng));
            }
            _ => {}
        }
        let takes_number = !immediate && matches!(opcode, 0x00 | 0x01 | 0x02 | 0x04 | 0x06);
        if takes_number && word(bhs, 24) == self.next_sn {
            self.next_sn = self.next_sn.wrapping_add(1);
        }
    }

    fn response(&mut self, rng: &mut Rng, bhs: &mut [u8; BHS_LEN]) {
        let opcode = rng.pick(&[
            0x20, 0x21, 0x21, 0x21, 0x22, 0x23, 0x24, 0x25, 0x25, 0x25, 0x26, 0x31, 0x31, 0x31, 0x32, 0x3f,
            0x30,
        ]);
        bhs[0] = opcode;
        bhs[1] = if rng.one_in(3) { rng.next() as u8 } else { 0x80 };
        bhs[2] = if rng.one_in(6) { rng.next() as u8 } else { 0 };
        bhs[3] = rng.pick(&[0, 0, 0, 0x02, 0x08, 0x40, 0x77]);
        if rng.one_in(12) {
            bhs[8..16].copy_from_slice(&rng.next().to_be_bytes());
        }
        Self::put(bhs, 16, Self::one_of(rng, &self.itts));
        let ttt = if rng.coin() { RESERVED } else { rng.below(6) as u32 };
        Self::put(bhs, 20, ttt);
        let stat_sn = Self::near(rng, self.next_sn);
        Self::put(bhs, 24, stat_sn);
        Self::put(bhs, 28, Self::near(rng, self.peer_sn));
        Self::put(bhs, 32, Self::near(rng, self.peer_sn.wrapping_add(8)));
        match opcode {
            0x21 => {
                Self::put(bhs, 36, Self::small(rng));
                Self::put(bhs, 44, self.length(rng));
            }
            0x25 | 0x31 => {
                Self::put(bhs, 36, Self::small(rng));
                Self::put(bhs, 40, rng.pick(&[0, 0, 0, 512, 1024, 0xffff_fe00]));
                Self::put(bhs, 44, self.length(rng));
            }
            0x26 => Self::put(bhs, 40, rng.next() as u32 & 0x0003_0003),
            // Of the Async Messages, those that end something are rare.
            0x32 => {
                bhs[36] = rng.pick(&[0, 0, 4, 5, 1, 2, 3, 255, 77]);
                Self::put(bhs, 40, rng.next() as u32 & 0x0001_0001);
            }
            0x3f => bhs[2] = 1 + rng.below(13) as u8,
            _ => {}
        }
        let takes_number = !matches!(opcode, 0x25 | 0x31) && word(bhs, 24) == self.next_sn;
        if takes_number {
            self.next_sn = self.next_sn.wrapping_add(1);
        }
    }
}
