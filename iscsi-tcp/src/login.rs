//! [`TcpLoginLink`]: a byte stream in its login phase. No digests yet, and no PDU but login PDUs.

use crate::core::{Handover, TcpCore};
use crate::drive::TcpDatamover;
use crate::stream::Stream;
use bytes::{Buf, Bytes, BytesMut};
use datamover::{
    AllocError, Budget, BufPool, Cause, ConnKeys, Datamover, Drive, LinkError, LoginLink, RdmaOffer,
    Resources, Role, TransportInfo, Unread,
};
use iscsi_pdu::{BHS_LEN, Limits, LoginResponse, Opcode, Pdu, Sender, Stage};
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Received bytes that may lie unread: two of the longest login PDUs.
const READ_AHEAD: usize = 2 * (BHS_LEN + 8192);

/// A connection in its login phase.
pub struct TcpLoginLink<S> {
    /// `None` when it ended.
    stream: Option<S>,
    role: Role,
    info: TransportInfo,
    pool: Arc<dyn BufPool>,
    keys: ConnKeys,
    resources: Option<Resources>,
    unread: Unread,
    unsent: BytesMut,
    /// How the stream ended, told after the PDUs that came before.
    end: Option<LinkError>,
    /// Nothing more is to be read as login: it is over, or it failed.
    closed: bool,
    syscalls: u64,
}

/// What [`TcpLoginLink::into_parts`] takes apart.
pub struct LoginParts<S> {
    /// The stream; `None` when it has ended.
    pub stream: Option<S>,
    /// Bytes read beyond the last login PDU.
    pub unread: Bytes,
    /// Bytes of login PDUs still to be sent.
    pub unsent: Bytes,
    /// What was noticed last.
    pub keys: ConnKeys,
    /// What was allocated.
    pub resources: Option<Resources>,
    /// The pool that the link was given.
    pub pool: Arc<dyn BufPool>,
}

impl<S: Stream> TcpLoginLink<S> {
    /// A connection just made, whose memory comes from `pool`.
    pub fn new(stream: S, role: Role, pool: Arc<dyn BufPool>) -> Self {
        let info = TransportInfo {
            name: "tcp",
            detail: String::new(),
            local: stream.local_addr(),
            peer: stream.peer_addr(),
        };
        Self {
            stream: Some(stream),
            role,
            info,
            pool,
            keys: ConnKeys::default(),
            resources: None,
            unread: Unread::new(READ_AHEAD),
            unsent: BytesMut::new(),
            end: None,
            closed: false,
            syscalls: 0,
        }
    }

    /// Gives everything away, for a login that ends in another protocol on the same stream: iSER over iWARP
    /// (RFC 7145 section 5.1).
    pub fn into_parts(self) -> LoginParts<S> {
        LoginParts {
            stream: self.stream,
            unread: self.unread.into_bytes(),
            unsent: self.unsent.freeze(),
            keys: self.keys,
            resources: self.resources,
            pool: self.pool,
        }
    }

    fn fail(&mut self, error: LinkError) -> Option<Result<Pdu<Bytes>, LinkError>> {
        self.closed = true;
        Some(Err(error))
    }

    /// Sends what waits. `false` when the stream takes no more now.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.unsent.is_empty() {
            let Some(stream) = &mut self.stream else { return true };
            match stream.poll_write(cx, &[IoSlice::new(&self.unsent)]) {
                Poll::Pending => return false,
                Poll::Ready(Ok(n)) if n > 0 => self.unsent.advance(n.min(self.unsent.len())),
                Poll::Ready(Ok(_)) => self.lost(LinkError::Closed),
                Poll::Ready(Err(e)) => self.lost(LinkError::Transport(e.kind())),
            }
            self.syscalls = self.syscalls.saturating_add(1);
        }
        true
    }

    fn lost(&mut self, end: LinkError) {
        self.stream = None;
        self.end.get_or_insert(end);
    }
}

impl<S: Stream> Drive for TcpLoginLink<S> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &mut Budget) -> Poll<io::Result<()>> {
        self.flush(cx);
        // What follows the login is the datamover's to read, into its own buffers.
        while !self.closed && !self.unread.is_full() {
            let Some(stream) = &mut self.stream else { break };
            let read = stream.poll_read(cx, &mut [IoSliceMut::new(self.unread.room())]);
            if let Poll::Ready(Ok(n)) = &read {
                self.unread.filled(*n);
            }
            self.syscalls = self.syscalls.saturating_add(1);
            match read {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.lost(LinkError::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => self.lost(LinkError::Transport(e.kind())),
            }
        }
        Poll::Pending
    }
}

impl<S: Stream + 'static> LoginLink for TcpLoginLink<S> {
    fn role(&self) -> Role {
        self.role
    }

    fn transport(&self) -> TransportInfo {
        self.info.clone()
    }

    fn rdma_offer(&self) -> RdmaOffer {
        RdmaOffer::Never
    }

    fn send_login(&mut self, pdu: Pdu<Bytes>) {
        if pdu.encode(&mut self.unsent).is_err() {
            self.end = Some(LinkError::Protocol("a login PDU from above that cannot be encoded"));
        }
    }

    // req: 7143-13.1-2
    fn poll_login(&mut self) -> Option<Result<Pdu<Bytes>, LinkError>> {
        if self.closed {
            return None;
        }
        if let Some(bhs) = self.unread.first_chunk::<BHS_LEN>() {
            let (sender, opcode) = match self.role {
                Role::Target => (Sender::Initiator, Opcode::LoginRequest),
                Role::Initiator => (Sender::Target, Opcode::LoginResponse),
            };
            let [first, ..] = *bhs;
            let found = Opcode(first & 0x3f);
            if found != opcode {
                return self.fail(LinkError::NotLogin(found));
            }
            let Ok(_) = Limits::from(sender).check(bhs) else {
                return self.fail(LinkError::Protocol("a login PDU of more than 8192 bytes of data"));
            };
            let header = match Pdu::decode_header(bhs) {
                Ok(header) => header,
                Err(error) => return self.fail(LinkError::Format(error)),
            };
            let len = header.segment_len();
            let total = BHS_LEN.saturating_add(len.padded_data_len());
            if self.unread.len() >= total {
                let mut pdu = self.unread.split_to(total);
                pdu.advance(BHS_LEN);
                pdu.truncate(len.data_len());
                let pdu = match header.with_data(&[], pdu) {
                    Ok(pdu) => pdu,
                    Err(error) => return self.fail(LinkError::Format(error)),
                };
                // What follows belongs to full feature phase.
                if let Pdu::LoginResponse(r) = &pdu {
                    self.closed = r.transit && r.nsg == Stage::FullFeaturePhase && r.status_class == 0;
                }
                return Some(Ok(pdu));
            }
        }
        self.end.clone().and_then(|end| self.fail(end))
    }

    fn is_flushed(&self) -> bool {
        self.unsent.is_empty() || self.stream.is_none()
    }

    // req: 5047-8.8-1
    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.keys = keys.clone();
    }

    // req: 5047-8.4-1, 5047-8.4-4, 5047-8.4-5
    fn allocate_connection_resources(&mut self, want: &Resources) -> Result<(), AllocError> {
        self.resources.get_or_insert(*want);
        Ok(())
    }

    // req: 5047-8.5-1
    fn deallocate_connection_resources(&mut self) {
        self.resources = None;
    }

    // req: 5047-7.1-1, 5047-8.6-1, 5047-8.6-2, 5047-8.6-3, 7143-13.1-2
    fn enable_datamover(
        mut self: Box<Self>,
        final_response: Option<LoginResponse<Bytes>>,
    ) -> Box<dyn Datamover> {
        let rule = match (self.role, &final_response, &self.resources) {
            (_, _, None) => Some("Enable_Datamover without allocated resources (RFC 5047 section 8.6)"),
            (Role::Target, None, _) => Some("Enable_Datamover at a target takes the final Login Response"),
            (Role::Initiator, Some(_), _) => Some("a final Login Response is a target's"),
            _ => None,
        };
        if let Some(response) = final_response {
            self.send_login(response.into());
        }
        let (role, info, syscalls, end) = (self.role, self.info.clone(), self.syscalls, self.end.clone());
        let parts = self.into_parts();
        let handover = Handover { unread: parts.unread, unsent: parts.unsent };
        let resources = parts.resources.unwrap_or_default();
        let mut core = TcpCore::new(role, parts.keys, &resources, parts.pool, handover);
        core.stats_mut().syscalls = syscalls;
        match (rule, end) {
            (Some(rule), _) => core.fail(Cause::Protocol(rule)),
            (None, Some(LinkError::Transport(kind))) => core.disconnected(Some(kind)),
            (None, Some(LinkError::Protocol(rule))) => core.fail(Cause::Protocol(rule)),
            (None, Some(_)) => core.disconnected(None),
            (None, None) => {}
        }
        Box::new(TcpDatamover::new(parts.stream, core, info))
    }
}
