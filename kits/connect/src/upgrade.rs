//! [`UpgradeLink`]: one TCP connection that ends its login as plain iSCSI or as iSER over iWARP.
//!
//! ```text
//!   TCP ── login PDUs ── RDMAExtensions=No  ── iscsi-tcp
//!                     └─ RDMAExtensions=Yes ── final response │ MPA ── iser-rdma over software iWARP
//! ```

use crate::bridge::Bridge;
use bytes::Bytes;
use datamover::{
    AllocError, Budget, ConnKeys, Datamover, Drive, LinkError, LoginLink, RdmaOffer, Resources, Role,
    TransportInfo,
};
use iscsi_pdu::{LoginResponse, Pdu};
use iscsi_tcp::{Stream, TcpLoginLink};
use iser_rdma::Quirks;
use iser_rdma::provider::iwarp::{IwarpConfig, Upgrade, enable};
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

/// A TCP connection in its login phase that can become either.
///
/// Calling order: as for every [`LoginLink`].
pub struct UpgradeLink<S> {
    inner: TcpLoginLink<S>,
    offer: RdmaOffer,
    config: IwarpConfig,
    quirks: Quirks,
    rdma: bool,
}

impl<S: Stream> UpgradeLink<S> {
    /// A connection just made. `config` brings a seed of its own for each connection. With `iser_only` a login that
    /// ends in plain iSCSI fails, except a discovery session, which is always plain.
    #[must_use]
    pub fn new(inner: TcpLoginLink<S>, iser_only: bool, config: IwarpConfig, quirks: Quirks) -> Self {
        let offer = if iser_only { RdmaOffer::Always } else { RdmaOffer::Negotiable };
        Self { inner, offer, config, quirks, rdma: false }
    }
}

impl<S: Stream> Drive for UpgradeLink<S> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<io::Result<()>> {
        self.inner.poll_drive(cx, budget)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }
}

impl<S: Stream + 'static> LoginLink for UpgradeLink<S> {
    fn role(&self) -> Role {
        self.inner.role()
    }

    fn transport(&self) -> TransportInfo {
        self.inner.transport()
    }

    fn rdma_offer(&self) -> RdmaOffer {
        self.offer
    }

    fn send_login(&mut self, pdu: Pdu<Bytes>) {
        self.inner.send_login(pdu);
    }

    fn poll_login(&mut self) -> Option<Result<Pdu<Bytes>, LinkError>> {
        self.inner.poll_login()
    }

    fn is_flushed(&self) -> bool {
        self.inner.is_flushed()
    }

    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.rdma = keys.rdma_extensions;
        self.inner.notice_key_values(keys);
    }

    fn allocate_connection_resources(&mut self, want: &Resources) -> Result<(), AllocError> {
        if self.rdma && self.role() == Role::Initiator && self.config.ird == 0 {
            return Err(AllocError { what: "IRD is 0, but R2Ts may be used (RFC 7145 section 5.1.1)" });
        }
        self.inner.allocate_connection_resources(want)
    }

    fn deallocate_connection_resources(&mut self) {
        self.inner.deallocate_connection_resources();
    }

    fn enable_datamover(self: Box<Self>, final_response: Option<LoginResponse<Bytes>>) -> Box<dyn Datamover> {
        let Self { mut inner, config, quirks, rdma, .. } = *self;
        if !rdma {
            return Box::new(inner).enable_datamover(final_response);
        }
        if let Some(response) = final_response {
            inner.send_login(response.into());
        }
        let role = inner.role();
        let parts = inner.into_parts();
        let upgrade = Upgrade { unread: parts.unread, unsent: parts.unsent };
        enable(parts.stream.map(Bridge), role, config, upgrade, parts.keys, parts.resources, quirks)
    }
}

/// Bytes that an MPA startup begins with, which no login PDU does: the first octet of its key.
pub(crate) const MPA_FIRST: u8 = b'M';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_mpa_from_a_login() {
        // RFC 5044 section 7.1: the key of a request frame. RFC 7143 section 11.12: opcode 0x03, I bit set or not.
        assert_eq!(b"MPA ID Req Frame"[0], MPA_FIRST);
        assert!(![0x03, 0x43].contains(&MPA_FIRST));
    }
}
