//! [`MessageLoginLink`]: the login phase in Send messages, on transports that have messages from the start
//! (InfiniBand, RoCE, iWARP by way of rdma_cm; RFC 7145 section 4.1).
//!
//! Every login PDU travels as in full feature phase: iSER header, BHS, text. That is what all peers do.

use crate::core::{Draft, IserDatamover, NoMessage, Parts, message_len, receive_count};
use crate::quirks::Quirks;
use crate::rcap::{self, Completion, Op, Rcap, RcapResources};
use crate::wire::{ControlHeader, ISER_HEADER_LEN, IserHeader};
use bytes::Bytes;
use datamover::{
    AllocError, Budget, Cause, ConnKeys, Datamover, Drive, IoBuf, LinkError, LoginLink, RdmaOffer, Resources,
    Role, TransportInfo,
};
use iscsi_pdu::{BHS_LEN, LoginResponse, Opcode, Pdu, Stage};
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

/// Longest data segment of a login PDU (RFC 7143 section 11.12: MaxRecvDataSegmentLength is 8192 until negotiated).
pub const LOGIN_DATA_LEN: usize = 8192;

/// Longest login message: iSER header, BHS and text.
pub const LOGIN_MESSAGE_LEN: usize = ISER_HEADER_LEN + BHS_LEN + LOGIN_DATA_LEN;

/// Receive buffers of an initiator during login.
const LOGIN_RECEIVES: usize = 4;

/// A connection that logs in over Send messages and becomes an [`IserDatamover`].
///
/// Calling order: as for every [`LoginLink`].
pub struct MessageLoginLink<R> {
    rcap: R,
    role: Role,
    quirks: Quirks,
    keys: ConnKeys,
    granted: Option<Resources>,
    tx: VecDeque<Pdu<Bytes>>,
    rx: VecDeque<IoBuf>,
    end: Option<LinkError>,
    /// The provider has ended and says nothing more.
    closed: Option<Cause>,
    told: bool,
    over: bool,
    posted: usize,
    completions: Vec<Completion>,
}

impl<R: Rcap> MessageLoginLink<R> {
    /// Takes an established connection. `rcap` has at least four messages of [`LOGIN_MESSAGE_LEN`]; one receive
    /// buffer is posted at once at a target, before each request at an initiator.
    #[must_use]
    pub fn new(rcap: R, role: Role, quirks: Quirks) -> Self {
        let mut link = Self {
            rcap,
            role,
            quirks,
            keys: ConnKeys::default(),
            granted: None,
            tx: VecDeque::new(),
            rx: VecDeque::new(),
            end: None,
            closed: None,
            told: false,
            over: false,
            posted: 0,
            completions: Vec::new(),
        };
        if role == Role::Target {
            link.post_receives();
        }
        link
    }

    /// The provider, before the login begins.
    #[cfg(feature = "verbs")]
    pub(crate) fn rcap_mut(&mut self) -> &mut R {
        &mut self.rcap
    }

    /// Posts what may arrive: the next login PDU; once resources are there, all of full feature phase too, so that
    /// the peer may send as soon as the login ends.
    // req: 7145-5.1.3-8
    fn post_receives(&mut self) {
        let (count, len) = match &self.granted {
            Some(r) => {
                (receive_count(&self.keys, r), message_len(self.role, &self.keys, r).max(LOGIN_MESSAGE_LEN))
            }
            // An initiator may hear more than the final response before it has allocated (section 5.1.3).
            None if self.role == Role::Initiator => (LOGIN_RECEIVES, LOGIN_MESSAGE_LEN),
            None => (1, LOGIN_MESSAGE_LEN),
        };
        while self.posted < count {
            let Some(buf) = rcap::message_buf(&self.rcap, len) else { return };
            if self.rcap.post_recv(buf).is_err() {
                return;
            }
            self.posted = self.posted.saturating_add(1);
        }
    }

    fn pump(&mut self) {
        while let Some(pdu) = self.tx.front() {
            let draft = match Draft::new(&self.rcap, pdu) {
                Ok(draft) => draft,
                Err(NoMessage::Full) => return,
                Err(NoMessage::Unfit) => {
                    self.end.get_or_insert(LinkError::Protocol("a login PDU that cannot be encoded"));
                    self.rcap.abort();
                    return;
                }
            };
            let message = draft.finish(IserHeader::Control(ControlHeader::default()));
            if self.rcap.post(Op::Send { message, invalidate: None }).is_err() {
                return;
            }
            self.tx.pop_front();
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received { message, .. } => {
                self.posted = self.posted.saturating_sub(1);
                self.rx.push_back(message);
            }
            Completion::Closed(cause) => {
                self.closed = Some(cause.clone());
                self.end.get_or_insert(match cause {
                    Cause::Transport(kind) => LinkError::Transport(kind),
                    Cause::Protocol(rule) => LinkError::Protocol(rule),
                    _ => LinkError::Closed,
                });
            }
            // Nothing else is posted during login.
            Completion::Done { .. } | Completion::Invalidated { .. } => {}
        }
    }

    fn fail(&mut self, error: LinkError) -> LinkError {
        self.end = Some(error.clone());
        self.told = true;
        self.rx.clear();
        // A target that has begun the login still answers.
        if !matches!(error, LinkError::NotLogin(_)) {
            self.rcap.abort();
        }
        error
    }

    fn decode(&self, message: &IoBuf) -> Result<Pdu<Bytes>, LinkError> {
        let (header, rest) = IserHeader::decode(message).map_err(|e| LinkError::Protocol(e.rule()))?;
        if !matches!(header, IserHeader::Control(_)) {
            return Err(LinkError::Protocol("Hello during login (RFC 7145 section 5.1.3)"));
        }
        let Some(bhs) = rest.first_chunk::<BHS_LEN>() else {
            return Err(LinkError::Protocol("login message shorter than a BHS (RFC 7145 section 9.1)"));
        };
        let pdu = Pdu::decode_header(bhs).map_err(LinkError::Format)?;
        let login = match self.role {
            Role::Target => Opcode::LoginRequest,
            Role::Initiator => Opcode::LoginResponse,
        };
        if pdu.opcode() != login {
            return Err(LinkError::NotLogin(pdu.opcode()));
        }
        let len = pdu.segment_len();
        let (at, end) = (BHS_LEN, BHS_LEN.saturating_add(len.data_len()));
        if len.data_len() > LOGIN_DATA_LEN {
            return Err(LinkError::Protocol(
                "a login PDU longer than 8192 bytes of text (RFC 7143 section 13.12)",
            ));
        }
        let Some(data) = rest.get(at..end).filter(|_| rest.len().saturating_sub(end) <= 3) else {
            return Err(LinkError::Protocol(
                "login message of another length than its PDU (RFC 7145 section 9.1)",
            ));
        };
        pdu.with_data(&[], Bytes::copy_from_slice(data)).map_err(LinkError::Format)
    }
}

impl<R: Rcap> Drive for MessageLoginLink<R> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, turn: &mut Budget) -> Poll<io::Result<()>> {
        loop {
            self.pump();
            let mut done = std::mem::take(&mut self.completions);
            self.rcap.poll(cx, turn, &mut done);
            let idle = done.is_empty();
            for completion in done.drain(..) {
                self.complete(completion);
            }
            self.completions = done;
            if idle {
                return Poll::Pending;
            }
            if turn.pdus == 0 || turn.bytes == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.rcap.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.rcap.handle_timeout(now);
    }
}

impl<R: Rcap + 'static> LoginLink for MessageLoginLink<R> {
    fn role(&self) -> Role {
        self.role
    }

    fn transport(&self) -> TransportInfo {
        self.rcap.transport()
    }

    fn rdma_offer(&self) -> RdmaOffer {
        RdmaOffer::Always
    }

    fn send_login(&mut self, pdu: Pdu<Bytes>) {
        // A buffer for the answer is there before the question leaves.
        self.post_receives();
        self.tx.push_back(pdu);
    }

    fn poll_login(&mut self) -> Option<Result<Pdu<Bytes>, LinkError>> {
        if self.over {
            // The final response came: what follows is the datamover's.
            return None;
        }
        let Some(message) = self.rx.pop_front() else {
            let end = self.end.clone().filter(|_| !self.told)?;
            self.told = true;
            return Some(Err(end));
        };
        match self.decode(&message) {
            Ok(pdu) => {
                if let Pdu::LoginResponse(r) = &pdu {
                    self.over = r.transit && r.nsg == Stage::FullFeaturePhase && r.status_class == 0;
                }
                Some(Ok(pdu))
            }
            Err(error) => Some(Err(self.fail(error))),
        }
    }

    fn is_flushed(&self) -> bool {
        self.end.is_some() || (self.tx.is_empty() && self.rcap.is_flushed())
    }

    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.keys = keys.clone();
    }

    // req: 7145-3.1.4-1, 7145-5.1.1-7, 7145-5.1.2-6, 7145-10.1.3.1-1, 7145-10.1.3.1-3
    fn allocate_connection_resources(&mut self, want: &Resources) -> Result<(), AllocError> {
        if self.granted.is_some() {
            return Ok(());
        }
        check_depths(self.rcap.caps().ird, self.role)?;
        self.rcap.allocate(&rcap_resources(self.role, &self.keys, want))?;
        self.granted = Some(*want);
        self.post_receives();
        Ok(())
    }

    // req: 7145-3.1.5-1
    fn deallocate_connection_resources(&mut self) {
        if self.granted.take().is_some() {
            self.rcap.deallocate();
        }
    }

    // req: 7145-3.1.6-1, 7145-5.1.2-8
    fn enable_datamover(
        mut self: Box<Self>,
        final_response: Option<LoginResponse<Bytes>>,
    ) -> Box<dyn Datamover> {
        self.post_receives();
        self.tx.extend(final_response.map(Pdu::from));
        self.pump();
        let unsent = !self.tx.is_empty();
        let mut datamover = IserDatamover::start(Parts {
            rcap: self.rcap,
            role: self.role,
            keys: self.keys,
            quirks: self.quirks,
            resources: self.granted,
            posted: self.posted,
            backlog: self.rx,
            closed: self.closed,
        });
        if unsent {
            datamover.fail(Cause::Transport(io::ErrorKind::OutOfMemory));
        }
        Box::new(datamover)
    }
}

/// What a datamover of this shape needs of its provider.
pub(crate) fn rcap_resources(role: Role, keys: &ConnKeys, want: &Resources) -> RcapResources {
    let receives = receive_count(keys, want);
    RcapResources {
        receives,
        // As many messages to be sent, and as many whose data somebody still holds.
        messages: receives.saturating_mul(2),
        message_len: message_len(role, keys, want).max(LOGIN_MESSAGE_LEN),
        pool_bytes: want.pool_bytes,
    }
}

/// RDMA Reads carry the solicited data of writes: without any, only unsolicited data could be written.
// req: 7145-5.1.1-2
pub(crate) fn check_depths(ird: u16, role: Role) -> Result<(), AllocError> {
    match role {
        Role::Initiator if ird == 0 => {
            Err(AllocError { what: "IRD is 0, but R2Ts may be used (RFC 7145 section 5.1.1)" })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
