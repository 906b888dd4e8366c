//! Identifiers of the connection manager, and the channels on which their events arrive.

use super::ffi::{self, CmId, ConnParam, Context, DeviceAttr, EventChannel};
use super::load::{Api, api};
use super::object::{check, os_error, set_nonblocking};
use libc::c_int;
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Where connection manager events arrive.
pub(super) struct Channel {
    api: &'static Api,
    ptr: NonNull<EventChannel>,
}

// SAFETY: the library allows calls on one channel from any thread.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let api = api().map_err(|e| io::Error::new(io::ErrorKind::Unsupported, e))?;
        // SAFETY: no preconditions.
        let ptr = unsafe { (api.rdma_create_event_channel)() };
        let channel = Self { api, ptr: NonNull::new(ptr).ok_or_else(os_error)? };
        set_nonblocking(channel.fd())?;
        Ok(Arc::new(channel))
    }

    pub(super) fn fd(&self) -> RawFd {
        // SAFETY: the channel is open.
        unsafe { self.ptr.as_ref().fd }
    }

    pub(super) fn as_ptr(&self) -> *mut EventChannel {
        self.ptr.as_ptr()
    }

    pub(super) fn api(&self) -> &'static Api {
        self.api
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: every identifier on the channel holds an `Arc` of it, so none is left; events are acknowledged as
        // they are read.
        unsafe { (self.api.rdma_destroy_event_channel)(self.ptr.as_ptr()) };
    }
}

/// A connection manager identifier: as a socket is to TCP.
pub(super) struct Id {
    ptr: NonNull<CmId>,
    /// After the identifier.
    channel: Arc<Channel>,
}

// SAFETY: the library locks what threads share; the fields read here do not change after they were set.
unsafe impl Send for Id {}
// SAFETY: as above.
unsafe impl Sync for Id {}

impl Id {
    pub(super) fn new(channel: Arc<Channel>) -> io::Result<Self> {
        let mut ptr = ptr::null_mut();
        // SAFETY: the channel is open and `ptr` outlives the call.
        check(unsafe {
            (channel.api.rdma_create_id)(channel.as_ptr(), &mut ptr, ptr::null_mut(), ffi::PS_TCP)
        })?;
        Ok(Self { ptr: NonNull::new(ptr).ok_or_else(os_error)?, channel })
    }

    /// Takes the identifier of a connection request over, on a channel of its own.
    ///
    /// # Safety
    /// `ptr` came with a connection request whose event has been acknowledged, and belongs to nobody else.
    pub(super) unsafe fn adopt(ptr: NonNull<CmId>, channel: Arc<Channel>) -> io::Result<Self> {
        // SAFETY: by contract the identifier is ours; no event of it is outstanding.
        let migrated = check(unsafe { (channel.api.rdma_migrate_id)(ptr.as_ptr(), channel.as_ptr()) });
        let id = Self { ptr, channel };
        migrated.map(|()| id)
    }

    pub(super) fn as_ptr(&self) -> *mut CmId {
        self.ptr.as_ptr()
    }

    pub(super) fn api(&self) -> &'static Api {
        self.channel.api
    }

    /// The device context; null until the identifier is bound to a device.
    pub(super) fn context(&self) -> *mut Context {
        // SAFETY: the identifier lives.
        unsafe { (*self.as_ptr()).verbs }
    }

    pub(super) fn device_name(&self) -> String {
        if self.context().is_null() {
            return String::new();
        }
        // SAFETY: a bound identifier has an open context.
        unsafe { device_name(self.api(), self.context()) }
    }

    pub(super) fn is_iwarp(&self) -> bool {
        // SAFETY: a bound identifier has an open context with a device.
        !self.context().is_null()
            && unsafe { (*(*self.context()).device).transport_type } == ffi::TRANSPORT_IWARP
    }

    pub(super) fn device_attr(&self) -> io::Result<DeviceAttr> {
        let mut attr = DeviceAttr::default();
        if self.context().is_null() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        // SAFETY: the context is open; `attr` has the size that the library fills.
        check(unsafe { (self.api().ibv_query_device)(self.context(), &mut attr) })?;
        Ok(attr)
    }

    /// Starts to find the device and the address of a peer.
    pub(super) fn resolve(&self, peer: SocketAddr, limit_ms: c_int) -> io::Result<()> {
        let mut addr = to_sockaddr(peer);
        let destination = ptr::from_mut(&mut addr).cast();
        // SAFETY: the identifier lives; the address is complete and outlives the call.
        check(unsafe {
            (self.api().rdma_resolve_addr)(self.as_ptr(), ptr::null_mut(), destination, limit_ms)
        })
    }

    /// Starts to find the route to it.
    pub(super) fn resolve_route(&self, limit_ms: c_int) -> io::Result<()> {
        // SAFETY: the identifier lives.
        check(unsafe { (self.api().rdma_resolve_route)(self.as_ptr(), limit_ms) })
    }

    /// Starts to connect; the identifier has a queue pair.
    pub(super) fn connect(&self, private_data: &[u8; 4], reads_in: u16, reads_out: u16) -> io::Result<()> {
        let mut param = param(private_data, reads_in, reads_out);
        // SAFETY: the identifier lives; parameters and private data outlive the call.
        check(unsafe { (self.api().rdma_connect)(self.as_ptr(), &mut param) })
    }

    /// Accepts the request that the identifier came with; it has a queue pair.
    pub(super) fn accept(&self, private_data: &[u8; 4], reads_in: u16, reads_out: u16) -> io::Result<()> {
        let mut param = param(private_data, reads_in, reads_out);
        // SAFETY: the identifier lives; parameters and private data outlive the call.
        check(unsafe { (self.api().rdma_accept)(self.as_ptr(), &mut param) })
    }

    /// Rejects the request that the identifier came with.
    pub(super) fn reject(&self) {
        // SAFETY: the identifier lives; there is no private data. Failure means that the peer has given up.
        unsafe { (self.api().rdma_reject)(self.as_ptr(), ptr::null(), 0) };
    }

    /// Binds to an address and listens.
    pub(super) fn listen(&self, local: SocketAddr, backlog: c_int) -> io::Result<()> {
        let mut addr = to_sockaddr(local);
        let local = ptr::from_mut(&mut addr).cast();
        // SAFETY: the identifier lives; the address is complete and outlives the call.
        check(unsafe { (self.api().rdma_bind_addr)(self.as_ptr(), local) })?;
        // SAFETY: the identifier lives and is bound.
        check(unsafe { (self.api().rdma_listen)(self.as_ptr(), backlog) })
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier lives; the library has filled or zeroed the address.
        from_sockaddr(unsafe { &(*self.as_ptr()).src_addr })
    }

    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        // SAFETY: as above.
        from_sockaddr(unsafe { &(*self.as_ptr()).dst_addr })
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: the queue pair (`Qp`), regions and protection domain hold an `Arc` of this identifier, so they are
        // gone; events are acknowledged as they are read.
        unsafe { (self.channel.api.rdma_destroy_id)(self.ptr.as_ptr()) };
    }
}

fn param(private_data: &[u8; 4], reads_in: u16, reads_out: u16) -> ConnParam {
    let byte = |n: u16| u8::try_from(n).unwrap_or(u8::MAX);
    ConnParam {
        private_data: private_data.as_ptr().cast(),
        private_data_len: 4,
        responder_resources: byte(reads_in),
        initiator_depth: byte(reads_out),
        flow_control: 1,
        retry_count: 7,
        // For ever: a peer may post its receive buffers late, after its login for instance.
        rnr_retry_count: 7,
        srq: 0,
        qp_num: 0,
    }
}

/// # Safety
/// `context` is an open device context.
pub(super) unsafe fn device_name(api: &Api, context: *mut Context) -> String {
    // SAFETY: by contract; the name is a C string that lives as long as the device.
    unsafe { CStr::from_ptr((api.ibv_get_device_name)((*context).device)).to_string_lossy().into_owned() }
}

/// An address as the C library writes it.
pub(super) fn to_sockaddr(addr: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: all zero is a valid address of no family.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    match addr {
        SocketAddr::V4(a) => {
            let sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is large enough for, and aligned as, every address.
            unsafe { ptr::write(ptr::from_mut(&mut storage).cast(), sin) };
        }
        SocketAddr::V6(a) => {
            let sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: a.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            // SAFETY: as above.
            unsafe { ptr::write(ptr::from_mut(&mut storage).cast(), sin6) };
        }
    }
    storage
}

fn from_sockaddr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is one, and the storage is large enough and aligned.
            let sin = unsafe { ptr::read(ptr::from_ref(storage).cast::<libc::sockaddr_in>()) };
            let ip = Ipv4Addr::from(sin.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(sin.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let sin6 = unsafe { ptr::read(ptr::from_ref(storage).cast::<libc::sockaddr_in6>()) };
            let ip = Ipv6Addr::from(sin6.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(sin6.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_c_library() {
        for text in ["10.9.9.1:3260", "[2001:db8::7]:860", "0.0.0.0:0"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(from_sockaddr(&to_sockaddr(addr)), Some(addr));
        }
    }
}
