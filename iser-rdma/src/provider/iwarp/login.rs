//! [`StreamLoginLink`]: login PDUs in the byte stream, then iSER over iWARP on the same stream (RFC 7145 section 5.1).

use super::{IwarpConfig, IwarpRcap, Stream};
use crate::core::{IserDatamover, Parts};
use crate::login::{check_depths, rcap_resources};
use crate::quirks::Quirks;
use crate::rcap::Rcap;
use bytes::{Buf, Bytes, BytesMut};
use datamover::{
    AllocError, Budget, Cause, ConnKeys, Datamover, Drive, LinkError, LoginLink, RdmaOffer, Resources, Role,
    TransportInfo, Unread,
};
use iscsi_pdu::{BHS_LEN, Limits, LoginResponse, Opcode, Pdu, Sender, Stage};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll};

/// Received bytes that may lie unread: two of the longest login PDUs.
const READ_AHEAD: usize = 2 * (BHS_LEN + 8192);

/// What a login in bytes leaves behind on its stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Upgrade {
    /// Bytes read beyond the last login PDU.
    pub unread: Bytes,
    /// Bytes of login PDUs still to be sent; at a target the final Login Response is among them.
    pub unsent: Bytes,
}

/// Turns a stream on which a login has ended into an iSER connection: Enable_Datamover for any link that logs in over
/// bytes. `stream` is `None` when it has ended; `resources` are `None` when none were allocated, which is an error.
///
/// The final Login Response in `upgrade.unsent` goes out as bytes, and what the peer sends after it is taken as its
/// MPA Request or Reply: one step, as RFC 7145 section 5.1.2 asks for.
// req: 7145-5.1.2-8, 7145-5.1.2-9, 7145-5.1.2-12
pub fn enable<S: Stream + 'static>(
    stream: Option<S>,
    role: Role,
    config: IwarpConfig,
    upgrade: Upgrade,
    keys: ConnKeys,
    resources: Option<Resources>,
    quirks: Quirks,
) -> Box<dyn Datamover> {
    let mut rcap = IwarpRcap::new(stream, role, config, upgrade);
    let granted = resources.is_none_or(|r| rcap.allocate(&rcap_resources(role, &keys, &r)).is_ok());
    let mut datamover = IserDatamover::start(Parts {
        rcap,
        role,
        keys,
        quirks,
        resources,
        posted: 0,
        backlog: VecDeque::new(),
        closed: None,
    });
    if !granted {
        datamover.fail(Cause::Transport(io::ErrorKind::OutOfMemory));
    }
    Box::new(datamover)
}

/// A connection that logs in as plain iSCSI does and then becomes an [`IserDatamover`] over iWARP.
///
/// Calling order: as for every [`LoginLink`].
pub struct StreamLoginLink<S> {
    stream: Option<S>,
    role: Role,
    info: TransportInfo,
    config: IwarpConfig,
    quirks: Quirks,
    keys: ConnKeys,
    granted: Option<Resources>,
    unread: Unread,
    unsent: BytesMut,
    end: Option<LinkError>,
    /// The login is over, or failed: what follows is not read as login.
    closed: bool,
}

impl<S: Stream> StreamLoginLink<S> {
    /// A connection just made.
    #[must_use]
    pub fn new(stream: S, role: Role, config: IwarpConfig, quirks: Quirks) -> Self {
        let info = TransportInfo {
            name: "iser",
            detail: "iwarp".into(),
            local: stream.local_addr(),
            peer: stream.peer_addr(),
        };
        Self {
            stream: Some(stream),
            role,
            info,
            config,
            quirks,
            keys: ConnKeys::default(),
            granted: None,
            unread: Unread::new(READ_AHEAD),
            unsent: BytesMut::new(),
            end: None,
            closed: false,
        }
    }

    fn fail(&mut self, error: LinkError) -> Option<Result<Pdu<Bytes>, LinkError>> {
        self.closed = true;
        Some(Err(error))
    }

    fn lost(&mut self, end: LinkError) {
        self.stream = None;
        self.end.get_or_insert(end);
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        while let Some(stream) = self.stream.as_mut().filter(|_| !self.unsent.is_empty()) {
            match stream.poll_write(cx, &[IoSlice::new(&self.unsent)]) {
                Poll::Pending => return,
                Poll::Ready(Ok(n)) if n > 0 => self.unsent.advance(n.min(self.unsent.len())),
                Poll::Ready(Ok(_)) => self.lost(LinkError::Closed),
                Poll::Ready(Err(e)) => self.lost(LinkError::Transport(e.kind())),
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) {
        while !self.closed && !self.unread.is_full() {
            let Some(stream) = &mut self.stream else { return };
            let read = stream.poll_read(cx, &mut [IoSliceMut::new(self.unread.room())]);
            if let Poll::Ready(Ok(n)) = &read {
                self.unread.filled(*n);
            }
            match read {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => self.lost(LinkError::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => self.lost(LinkError::Transport(e.kind())),
            }
        }
    }

    /// The next PDU of what was read, `None` while bytes are missing.
    fn next_pdu(&mut self) -> Result<Option<Pdu<Bytes>>, LinkError> {
        let Some(bhs) = self.unread.first_chunk::<BHS_LEN>() else { return Ok(None) };
        let (sender, login) = match self.role {
            Role::Target => (Sender::Initiator, Opcode::LoginRequest),
            Role::Initiator => (Sender::Target, Opcode::LoginResponse),
        };
        let [first, ..] = *bhs;
        let found = Opcode(first & 0x3f);
        if found != login {
            return Err(LinkError::NotLogin(found));
        }
        Limits::from(sender)
            .check(bhs)
            .map_err(|_| LinkError::Protocol("a login PDU of more than 8192 bytes of data"))?;
        let header = Pdu::decode_header(bhs).map_err(LinkError::Format)?;
        let len = header.segment_len();
        let total = BHS_LEN.saturating_add(len.padded_data_len());
        if self.unread.len() < total {
            return Ok(None);
        }
        let mut data = self.unread.split_to(total);
        data.advance(BHS_LEN);
        data.truncate(len.data_len());
        header.with_data(&[], data).map(Some).map_err(LinkError::Format)
    }
}

impl<S: Stream> Drive for StreamLoginLink<S> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &mut Budget) -> Poll<io::Result<()>> {
        self.write(cx);
        self.read(cx);
        Poll::Pending
    }
}

impl<S: Stream + 'static> LoginLink for StreamLoginLink<S> {
    fn role(&self) -> Role {
        self.role
    }

    fn transport(&self) -> TransportInfo {
        self.info.clone()
    }

    fn rdma_offer(&self) -> RdmaOffer {
        RdmaOffer::Always
    }

    fn send_login(&mut self, pdu: Pdu<Bytes>) {
        if pdu.encode(&mut self.unsent).is_err() {
            self.end = Some(LinkError::Protocol("a login PDU that cannot be encoded"));
        }
    }

    fn poll_login(&mut self) -> Option<Result<Pdu<Bytes>, LinkError>> {
        if self.closed {
            return None;
        }
        match self.next_pdu() {
            Ok(Some(pdu)) => {
                // What follows belongs to MPA.
                if let Pdu::LoginResponse(r) = &pdu {
                    self.closed = r.transit && r.nsg == Stage::FullFeaturePhase && r.status_class == 0;
                }
                Some(Ok(pdu))
            }
            Ok(None) => self.end.clone().and_then(|end| self.fail(end)),
            Err(error) => self.fail(error),
        }
    }

    fn is_flushed(&self) -> bool {
        self.unsent.is_empty() || self.stream.is_none()
    }

    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.keys = keys.clone();
    }

    // req: 7145-3.1.4-1, 7145-10.1.3.1-1, 7145-10.1.3.1-3
    fn allocate_connection_resources(&mut self, want: &Resources) -> Result<(), AllocError> {
        check_depths(self.config.ird, self.role)?;
        self.granted.get_or_insert(*want);
        Ok(())
    }

    fn deallocate_connection_resources(&mut self) {
        self.granted = None;
    }

    fn enable_datamover(
        mut self: Box<Self>,
        final_response: Option<LoginResponse<Bytes>>,
    ) -> Box<dyn Datamover> {
        if let Some(response) = final_response {
            self.send_login(response.into());
        }
        let resources = self.granted.filter(|_| self.keys.rdma_extensions);
        let upgrade = Upgrade { unread: self.unread.into_bytes(), unsent: self.unsent.freeze() };
        enable(self.stream, self.role, self.config, upgrade, self.keys, resources, self.quirks)
    }
}
