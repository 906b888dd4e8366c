//! The MPA startup, with what a login in bytes left behind before and after it.

use super::Upgrade;
use crate::quirks::CmHeader;
use ::iwarp::mpa::{self, Established, Initiator, InitiatorEvent, Responder, ResponderEvent};
use bytes::{Buf, Bytes};
use datamover::Role;
use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

/// How an end wants its iWARP connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IwarpConfig {
    /// CRC32C over every FPDU. It is used when either end wants it.
    pub crc: bool,
    /// RDMA Reads of the peer that are served at a time.
    pub ird: u16,
    /// RDMA Reads of this end outstanding at a time.
    pub ord: u16,
    /// How long the startup may take.
    pub timeout: Duration,
    /// Exchange the four bytes of private data that iSER peers of the field expect ([`CmHeader`]).
    pub cm_header: bool,
    /// Randomness from which STags are made; new for every connection.
    pub seed: [u8; 16],
}

impl IwarpConfig {
    /// CRC, 32 Reads each way, ten seconds, no private data.
    #[must_use]
    pub const fn new(seed: [u8; 16]) -> Self {
        Self { crc: true, ird: 32, ord: 32, timeout: Duration::from_secs(10), cm_header: false, seed }
    }

    fn mpa(&self) -> mpa::Config {
        mpa::Config {
            crc: self.crc,
            ird: self.ird,
            ord: self.ord,
            timeout: self.timeout,
            // After a login in bytes the target may be the first to have something to say, and an MPA responder may
            // not speak first (RFC 6581 section 9.2). Where the login is in messages, the initiator's request is first.
            peer_to_peer: !self.cm_header,
            ..mpa::Config::default()
        }
    }

    /// Ours: virtual addresses are not zero-based, Send with Invalidate is understood.
    fn private_data(&self) -> Bytes {
        let header = CmHeader { no_zero_based_va: true, no_send_invalidate: false };
        if self.cm_header { Bytes::copy_from_slice(&header.encode()) } else { Bytes::new() }
    }
}

enum Machine {
    Initiator(Initiator),
    Responder(Responder),
}

/// What the startup results in.
pub(super) struct StartupEnd {
    pub(super) established: Established,
    /// The peer understands Send with Invalidate.
    pub(super) send_invalidate: bool,
    /// Bytes that followed the startup frame.
    pub(super) rest: Vec<u8>,
}

pub(super) struct Startup {
    machine: Machine,
    private_data: Bytes,
    /// Bytes of the login that go out first.
    preamble: Bytes,
    rest: Vec<u8>,
    cm_header: bool,
}

impl Startup {
    pub(super) fn new(role: Role, config: &IwarpConfig, upgrade: Upgrade, now: Instant) -> Option<Self> {
        let private_data = config.private_data();
        let machine = match role {
            Role::Initiator => {
                Machine::Initiator(Initiator::new(config.mpa(), private_data.clone(), now).ok()?)
            }
            Role::Target => Machine::Responder(Responder::new(config.mpa(), now)),
        };
        let mut this = Self {
            machine,
            private_data,
            preamble: upgrade.unsent,
            rest: Vec::new(),
            cm_header: config.cm_header,
        };
        this.received(&upgrade.unread).ok()?;
        Some(this)
    }

    pub(super) fn transmit_slices<'a>(&'a self, iov: &mut [IoSlice<'a>]) -> usize {
        let frame = match &self.machine {
            Machine::Initiator(m) => m.transmit(),
            Machine::Responder(m) => m.transmit(),
        };
        let pieces = [&self.preamble[..], frame].into_iter().filter(|p| !p.is_empty());
        iov.iter_mut().zip(pieces).fold(0, |n, (slot, piece)| {
            *slot = IoSlice::new(piece);
            n + 1
        })
    }

    pub(super) fn transmitted(&mut self, n: usize) {
        let before = n.min(self.preamble.len());
        self.preamble.advance(before);
        let n = n.saturating_sub(before);
        match &mut self.machine {
            Machine::Initiator(m) => m.transmitted(n),
            Machine::Responder(m) => m.transmitted(n),
        }
    }

    pub(super) fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        // What follows the peer's frame is the queue pair's.
        let used = match &mut self.machine {
            Machine::Initiator(m) => m.handle_bytes(bytes),
            Machine::Responder(m) => m.handle_bytes(bytes),
        }
        .map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        self.rest.extend_from_slice(bytes.get(used..).unwrap_or_default());
        if self.rest.len() > 1 << 20 {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// The outcome, once there is one.
    pub(super) fn poll_end(&mut self) -> io::Result<Option<StartupEnd>> {
        let established = match &mut self.machine {
            Machine::Initiator(m) => match m.poll_event() {
                Some(InitiatorEvent::Established(e)) => e,
                Some(_) => return Err(ErrorKind::ConnectionRefused.into()),
                None => return Ok(None),
            },
            Machine::Responder(m) => match m.poll_event() {
                Some(ResponderEvent::Request(_)) => {
                    m.accept(self.private_data.clone())
                        .map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
                    return Ok(None);
                }
                Some(ResponderEvent::Established(e)) => e,
                Some(_) => return Err(ErrorKind::ConnectionRefused.into()),
                None => return Ok(None),
            },
        };
        let send_invalidate =
            !self.cm_header || !CmHeader::decode(&established.private_data).no_send_invalidate;
        let rest = std::mem::take(&mut self.rest);
        Ok(Some(StartupEnd { established, send_invalidate, rest }))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Initiator(m) => m.poll_timeout(),
            Machine::Responder(m) => m.poll_timeout(),
        }
    }

    pub(super) fn is_late(&mut self, now: Instant) -> bool {
        match &mut self.machine {
            Machine::Initiator(m) => m.handle_timeout(now),
            Machine::Responder(m) => m.handle_timeout(now),
        }
        .is_err()
    }
}
