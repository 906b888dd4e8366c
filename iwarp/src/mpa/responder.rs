//! The end that answers with the MPA Reply frame.

use super::startup::{Inbox, Outbox};
use super::{
    Config, Enhanced, Established, Frame, FrameKind, MAX_PRIVATE_DATA, NOT_NEGOTIATED, Revision, Role,
    RtrSet, StartupError,
};
use bytes::Bytes;
use std::time::Instant;

/// What the initiator asks for, for the consumer to [accept](Responder::accept) or [reject](Responder::reject).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Revision the initiator speaks.
    pub revision: Revision,
    /// RDMA Reads the initiator can serve at a time, if it says.
    pub peer_ird: Option<u16>,
    /// RDMA Reads the initiator wants to have outstanding, if it says.
    pub peer_ord: Option<u16>,
    /// Whether the initiator will send an RTR indication first.
    pub peer_to_peer: bool,
    /// What the initiator's consumer says.
    pub private_data: Bytes,
}

/// What a responder learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponderEvent {
    /// A request arrived; answer it.
    Request(Request),
    /// The accepting reply has been sent: FPDUs follow in both directions, the initiator's first.
    Established(Established),
    /// The rejecting reply has been sent. The TCP connection is still an ordinary byte stream and may be used or
    /// closed (RFC 5044 section 7.1.2 rule 2).
    Rejected,
}

#[derive(Debug)]
enum State {
    AwaitRequest,
    /// The consumer is to decide.
    Decide(Frame),
    /// The reply is being sent; then this event follows.
    Reply(Option<ResponderEvent>),
}

/// MPA startup, responder.
///
/// Calling order: feed what arrives to [`handle_bytes`](Self::handle_bytes) until [`poll_event`](Self::poll_event)
/// returns the [`Request`]; answer with [`accept`](Self::accept) or [`reject`](Self::reject); send
/// [`transmit`](Self::transmit) (report with [`transmitted`](Self::transmitted)); [`poll_event`](Self::poll_event) then
/// returns the outcome. [`handle_timeout`](Self::handle_timeout) is due at [`poll_timeout`](Self::poll_timeout). Any
/// error means: close the TCP connection.
#[derive(Debug)]
pub struct Responder {
    config: Config,
    state: State,
    inbox: Inbox,
    outbox: Outbox,
    deadline: Option<Instant>,
    event: Option<ResponderEvent>,
}

impl Responder {
    /// Waits for a request from `now` on.
    pub fn new(config: Config, now: Instant) -> Self {
        let deadline = now.checked_add(config.timeout);
        let (inbox, outbox) = (Inbox::default(), Outbox::default());
        Self { config, state: State::AwaitRequest, inbox, outbox, deadline, event: None }
    }

    /// Octets to send.
    pub fn transmit(&self) -> &[u8] {
        self.outbox.unsent()
    }

    /// The first `n` octets of [`transmit`](Self::transmit) have been sent.
    pub fn transmitted(&mut self, n: usize) {
        self.outbox.advance(n);
        if let (State::Reply(next), true) = (&mut self.state, self.outbox.unsent().is_empty()) {
            self.event = self.event.take().or(next.take());
        }
    }

    /// Takes received octets and returns how many it used; the rest, if any, follows the request frame and belongs to
    /// the queue pair (or to the byte stream, after a rejection).
    pub fn handle_bytes(&mut self, data: &[u8]) -> Result<usize, StartupError> {
        if !matches!(self.state, State::AwaitRequest) {
            return Ok(0);
        }
        let (frame, used) = self.inbox.take(data)?;
        if let Some(frame) = frame {
            if frame.kind != FrameKind::Request {
                return Err(StartupError::UnexpectedReply);
            }
            if !matches!(frame.revision, 1 | 2) {
                return Err(StartupError::Revision(frame.revision));
            }
            self.deadline = None;
            self.event = Some(ResponderEvent::Request(Request {
                revision: if frame.revision == 1 { Revision::One } else { Revision::Two },
                peer_ird: frame.enhanced.map(|e| e.ird),
                peer_ord: frame.enhanced.map(|e| e.ord),
                peer_to_peer: frame.enhanced.is_some_and(|e| e.peer_to_peer),
                private_data: frame.private_data.clone(),
            }));
            self.state = State::Decide(frame);
        }
        Ok(used)
    }

    /// Accepts the request: the reply frame is ready to be sent.
    pub fn accept(&mut self, private_data: Bytes) -> Result<(), StartupError> {
        let request = self.decided(&private_data)?;
        let (mut ird, mut ord) = (self.config.ird, self.config.ord);
        let enhanced = request.enhanced.map(|asked| {
            // One indication is enough, and it must be one that costs no receive buffer. A Write is always possible; a
            // Read needs a place in the inbound queue.
            let read = asked.rtr.read && !asked.rtr.write && ird > 0;
            let rtr = RtrSet { send: false, write: !read, read };
            let answer =
                |depth: u16, asked: u16| if asked == NOT_NEGOTIATED { NOT_NEGOTIATED } else { depth };
            if asked.ord != NOT_NEGOTIATED {
                ird = ird.min(asked.ord.max(u16::from(asked.peer_to_peer && read)));
            }
            if asked.ird != NOT_NEGOTIATED {
                ord = ord.min(asked.ird);
            }
            let (ird, ord) = (answer(ird, asked.ord), answer(ord, asked.ird));
            Enhanced { peer_to_peer: asked.peer_to_peer, rtr, ird, ord }
        });
        let established = Established {
            role: Role::Responder,
            crc: self.config.crc || request.crc,
            tx_markers: request.markers,
            rx_markers: self.config.markers,
            revision: if request.revision == 1 { Revision::One } else { Revision::Two },
            ird,
            ord,
            peer_ird: request.enhanced.map(|e| e.ird),
            peer_ord: request.enhanced.map(|e| e.ord),
            rtr: None,
            fault: None,
            private_data: request.private_data.clone(),
        };
        // A peer may look at this end's C alone, so C says what will be done.
        self.reply(
            &request,
            enhanced,
            established.crc,
            private_data,
            ResponderEvent::Established(established),
        );
        Ok(())
    }

    /// Rejects the request: the reply frame is ready to be sent. `required` are the IRD and ORD this end would need,
    /// for an initiator that speaks revision 2 (RFC 6581 section 9.1).
    pub fn reject(&mut self, private_data: Bytes, required: Option<(u16, u16)>) -> Result<(), StartupError> {
        let request = self.decided(&private_data)?;
        let (ird, ord) = required.unwrap_or((self.config.ird, self.config.ord));
        let enhanced = request.enhanced.map(|asked| Enhanced {
            peer_to_peer: asked.peer_to_peer,
            rtr: RtrSet { send: false, write: true, read: ird > 0 },
            ird: ird.min(NOT_NEGOTIATED - 1),
            ord: ord.min(NOT_NEGOTIATED - 1),
        });
        self.reply(&request, enhanced, self.config.crc, private_data, ResponderEvent::Rejected);
        Ok(())
    }

    /// The peer closed its half of the connection.
    pub fn handle_eof(&mut self) -> Result<(), StartupError> {
        match &self.state {
            State::Reply(None) => Ok(()),
            _ => Err(StartupError::Closed),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), StartupError> {
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            return Err(StartupError::Timeout);
        }
        Ok(())
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<ResponderEvent> {
        self.event.take()
    }

    fn decided(&mut self, private_data: &Bytes) -> Result<Frame, StartupError> {
        let State::Decide(request) = &self.state else { return Err(StartupError::State) };
        let room = if request.enhanced.is_some() { MAX_PRIVATE_DATA - 4 } else { MAX_PRIVATE_DATA };
        if private_data.len() > room {
            return Err(StartupError::PrivateDataTooLong(private_data.len()));
        }
        Ok(request.clone())
    }

    fn reply(
        &mut self,
        request: &Frame,
        enhanced: Option<Enhanced>,
        crc: bool,
        private_data: Bytes,
        next: ResponderEvent,
    ) {
        self.outbox.set(&Frame {
            kind: FrameKind::Reply,
            markers: self.config.markers,
            crc,
            reject: next == ResponderEvent::Rejected,
            revision: request.revision,
            enhanced,
            private_data,
        });
        // The consumer has seen the request; an event it did not fetch is out of date.
        self.event = None;
        self.state = State::Reply(Some(next));
    }
}
