//! Events of the connection manager.

use super::ffi::{self, CmId};
use super::id::Channel;
use super::object::{Fd, check};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What an event said. The event itself is acknowledged as soon as it is read.
pub(super) struct CmEvent {
    pub(super) kind: libc::c_int,
    pub(super) status: libc::c_int,
    /// The identifier of a connection request.
    pub(super) request: Option<NonNull<CmId>>,
    pub(super) private_data: Vec<u8>,
    /// RDMA Reads that the peer wants to issue (as this end sees it).
    pub(super) responder_resources: u8,
    /// RDMA Reads that the peer can serve.
    pub(super) initiator_depth: u8,
}

// SAFETY: the pointer is that of an identifier that nobody else has; the library allows its use from any thread.
unsafe impl Send for CmEvent {}

/// An event channel on the reactor.
pub(super) struct CmEvents {
    /// Before the channel, whose descriptor it watches.
    fd: AsyncFd<Fd>,
    channel: Arc<Channel>,
}

/// Watches a descriptor that its library object owns.
pub(super) fn watch(fd: libc::c_int) -> io::Result<AsyncFd<Fd>> {
    // SAFETY: every owner of the result drops it before the object that closes the descriptor.
    unsafe { AsyncFd::register_with_interest(Fd(fd), Interest::READABLE) }.map_err(io::Error::from)
}

impl CmEvents {
    pub(super) fn new(channel: Arc<Channel>) -> io::Result<Self> {
        Ok(Self { fd: watch(channel.fd())?, channel })
    }

    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<io::Result<CmEvent>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match take(&self.channel) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    pub(super) async fn next(&self) -> io::Result<CmEvent> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next event, which must be this one.
    pub(super) async fn expect(&self, kind: libc::c_int) -> io::Result<CmEvent> {
        let event = self.next().await?;
        if event.kind == kind {
            return Ok(event);
        }
        Err(match event.kind {
            ffi::EVENT_REJECTED => io::ErrorKind::ConnectionRefused.into(),
            _ if event.status < 0 => io::Error::from_raw_os_error(event.status.saturating_neg()),
            _ => io::ErrorKind::ConnectionAborted.into(),
        })
    }
}

fn take(channel: &Channel) -> io::Result<CmEvent> {
    let mut event = ptr::null_mut();
    // SAFETY: the channel is open and `event` outlives the call.
    check(unsafe { (channel.api().rdma_get_cm_event)(channel.as_ptr(), &mut event) })?;
    // SAFETY: the library returned an event, which is ours until it is acknowledged. Its connected half is valid for
    // the kinds that carry parameters; for the others it is zero.
    unsafe {
        let e = &*event;
        let data = e.conn.private_data.cast::<u8>();
        let carries =
            matches!(e.event, ffi::EVENT_CONNECT_REQUEST | ffi::EVENT_ESTABLISHED | ffi::EVENT_REJECTED);
        let private_data = if carries && !data.is_null() {
            std::slice::from_raw_parts(data, usize::from(e.conn.private_data_len)).to_vec()
        } else {
            Vec::new()
        };
        let copy = CmEvent {
            kind: e.event,
            status: e.status,
            request: if e.event == ffi::EVENT_CONNECT_REQUEST { NonNull::new(e.id) } else { None },
            private_data,
            responder_resources: e.conn.responder_resources,
            initiator_depth: e.conn.initiator_depth,
        };
        (channel.api().rdma_ack_cm_event)(event);
        Ok(copy)
    }
}
