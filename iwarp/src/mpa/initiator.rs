//! The end that sends the MPA Request frame.

use super::startup::{Inbox, Outbox};
use super::{
    Config, Enhanced, Established, Frame, FrameKind, MAX_PRIVATE_DATA, NOT_NEGOTIATED, Revision, Role, Rtr,
    RtrSet, StartupError,
};
use crate::TerminateCode;
use bytes::Bytes;
use std::time::Instant;

/// What an initiator learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitiatorEvent {
    /// The responder accepted: FPDUs follow in both directions. Build the
    /// [`QueuePair`](crate::QueuePair) from it, even when it carries a fault.
    Established(Established),
    /// The responder's consumer rejected the connection. The TCP connection is still an ordinary byte stream and may
    /// be used or closed (RFC 5044 section 7.1.2 rule 3).
    Rejected {
        /// What the responder's consumer says.
        private_data: Bytes,
        /// IRD and ORD the responder would need, if it says.
        depths: Option<(u16, u16)>,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    AwaitReply,
    Done,
}

/// MPA startup, initiator.
///
/// Calling order: send [`transmit`](Self::transmit) (report with [`transmitted`](Self::transmitted)), feed what
/// arrives to [`handle_bytes`](Self::handle_bytes), call [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) says so, until [`poll_event`](Self::poll_event) returns something. Any error
/// means: close the TCP connection.
#[derive(Debug)]
pub struct Initiator {
    config: Config,
    state: State,
    inbox: Inbox,
    outbox: Outbox,
    deadline: Option<Instant>,
    event: Option<InitiatorEvent>,
}

impl Initiator {
    /// Starts: the request frame is ready to be sent.
    pub fn new(config: Config, private_data: Bytes, now: Instant) -> Result<Self, StartupError> {
        let announced =
            |depth: u16| if config.negotiate_depths { depth.min(NOT_NEGOTIATED - 1) } else { NOT_NEGOTIATED };
        let enhanced = (config.revision == Revision::Two).then(|| Enhanced {
            peer_to_peer: config.peer_to_peer,
            rtr: RtrSet { send: true, write: true, read: config.ord > 0 },
            ird: announced(config.ird),
            ord: announced(config.ord),
        });
        let room = if enhanced.is_some() { MAX_PRIVATE_DATA - 4 } else { MAX_PRIVATE_DATA };
        if private_data.len() > room {
            return Err(StartupError::PrivateDataTooLong(private_data.len()));
        }
        let mut outbox = Outbox::default();
        outbox.set(&Frame {
            kind: FrameKind::Request,
            markers: config.markers,
            crc: config.crc,
            reject: false,
            revision: if enhanced.is_some() { 2 } else { 1 },
            enhanced,
            private_data,
        });
        let deadline = now.checked_add(config.timeout);
        let (inbox, state) = (Inbox::default(), State::AwaitReply);
        Ok(Self { config, state, inbox, outbox, deadline, event: None })
    }

    /// Octets to send.
    pub fn transmit(&self) -> &[u8] {
        self.outbox.unsent()
    }

    /// The first `n` octets of [`transmit`](Self::transmit) have been sent.
    pub fn transmitted(&mut self, n: usize) {
        self.outbox.advance(n);
    }

    /// Takes received octets and returns how many it used; the rest, if any, follows the reply frame and belongs to
    /// the queue pair (or to the byte stream, after a rejection).
    pub fn handle_bytes(&mut self, data: &[u8]) -> Result<usize, StartupError> {
        if self.state != State::AwaitReply {
            return Ok(0);
        }
        let (frame, used) = self.inbox.take(data).inspect_err(|_| self.finish())?;
        if let Some(frame) = frame {
            self.finish();
            self.event = Some(self.judge(frame)?);
        }
        Ok(used)
    }

    /// The peer closed its half of the connection.
    pub fn handle_eof(&mut self) -> Result<(), StartupError> {
        match self.state {
            State::AwaitReply => {
                self.finish();
                Err(StartupError::Closed)
            }
            State::Done => Ok(()),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), StartupError> {
        if self.deadline.is_some_and(|at| at <= now) {
            self.finish();
            return Err(StartupError::Timeout);
        }
        Ok(())
    }

    /// The outcome, once.
    pub fn poll_event(&mut self) -> Option<InitiatorEvent> {
        self.event.take()
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.deadline = None;
    }

    fn judge(&self, reply: Frame) -> Result<InitiatorEvent, StartupError> {
        if reply.kind != FrameKind::Reply {
            return Err(StartupError::BothInitiators);
        }
        if !matches!(reply.revision, 1 | 2) {
            return Err(StartupError::Revision(reply.revision));
        }
        let depths = reply.enhanced.map(|e| (e.ird, e.ord));
        if reply.reject {
            return Ok(InitiatorEvent::Rejected { private_data: reply.private_data, depths });
        }
        let config = &self.config;
        let mut out = Established {
            role: Role::Initiator,
            crc: config.crc || reply.crc,
            tx_markers: reply.markers,
            rx_markers: config.markers,
            revision: config.revision,
            ird: config.ird,
            ord: config.ord,
            peer_ird: depths.map(|d| d.0),
            peer_ord: depths.map(|d| d.1),
            rtr: None,
            fault: None,
            private_data: reply.private_data,
        };
        match (config.revision, reply.enhanced) {
            (Revision::One, _) => {}
            (Revision::Two, None) => return Err(StartupError::NotEnhanced),
            (Revision::Two, Some(answer)) => self.settle(answer, &mut out),
        }
        Ok(InitiatorEvent::Established(out))
    }

    /// Applies the responder's depths and picks an RTR indication (RFC 6581 sections 9.1 and 9.2).
    fn settle(&self, answer: Enhanced, out: &mut Established) {
        if answer.ird != NOT_NEGOTIATED {
            out.ord = out.ord.min(answer.ird);
        }
        if answer.ord != NOT_NEGOTIATED && answer.ord > out.ird {
            out.fault = Some(TerminateCode::MPA_INSUFFICIENT_IRD);
        }
        if self.config.peer_to_peer {
            out.rtr = match answer.rtr {
                _ if !answer.peer_to_peer => None,
                RtrSet { write: true, .. } => Some(Rtr::Write),
                RtrSet { read: true, .. } if out.ord > 0 => Some(Rtr::Read),
                RtrSet { send: true, .. } => Some(Rtr::Send),
                _ => None,
            };
            if out.rtr.is_none() {
                out.fault = out.fault.or(Some(TerminateCode::MPA_NO_MATCHING_RTR));
            }
        }
    }
}
