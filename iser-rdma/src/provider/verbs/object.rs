//! Objects of verbs that destroy themselves, in the right order.

use super::ffi;
use super::id::{Id, device_name};
use super::load::api;
use libc::c_int;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// `errno` of a call that returns -1 or null.
pub(super) fn os_error() -> io::Error {
    io::Error::last_os_error()
}

/// Result of a call that returns 0, or -1 with `errno`, or (data path) the error number itself.
pub(super) fn check(code: c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        n if n > 0 => Err(io::Error::from_raw_os_error(n)),
        _ => Err(os_error()),
    }
}

/// Names of the devices, or why there are none.
pub(super) fn devices() -> Result<Vec<String>, String> {
    let api = api()?;
    let mut count = 0;
    // SAFETY: `count` outlives the call.
    let list = unsafe { (api.rdma_get_devices)(&mut count) };
    if list.is_null() {
        return Err(match os_error().kind() {
            io::ErrorKind::NotFound => "the kernel has no RDMA connection manager (module rdma_ucm)".into(),
            io::ErrorKind::PermissionDenied => "no permission to use /dev/infiniband/rdma_cm".into(),
            _ => format!("no RDMA device ({})", os_error()),
        });
    }
    let mut names = Vec::new();
    for n in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` open contexts, which stay valid while the library is loaded.
        names.push(unsafe { device_name(api, *list.add(n)) });
    }
    // SAFETY: the list came from `rdma_get_devices` and is not used afterwards.
    unsafe { (api.rdma_free_devices)(list) };
    if names.is_empty() { Err("no RDMA device".into()) } else { Ok(names) }
}

/// A file descriptor that somebody else owns, for the reactor.
pub(super) struct Fd(pub(super) RawFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

pub(super) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: plain system calls on a descriptor that is open.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        if flags < 0 || libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) < 0 {
            return Err(os_error());
        }
    }
    Ok(())
}

/// A protection domain: one a connection, so that an STag of another connection means nothing on this one.
pub(super) struct Pd {
    ptr: NonNull<ffi::Pd>,
    /// Keeps the device open.
    id: Arc<Id>,
}

// SAFETY: verbs calls on one protection domain are allowed from any thread.
unsafe impl Send for Pd {}
// SAFETY: as above.
unsafe impl Sync for Pd {}

impl Pd {
    pub(super) fn new(id: Arc<Id>) -> io::Result<Arc<Self>> {
        // SAFETY: the context of a bound identifier is open.
        let ptr = unsafe { (id.api().ibv_alloc_pd)(id.context()) };
        Ok(Arc::new(Self { ptr: NonNull::new(ptr).ok_or_else(os_error)?, id }))
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::Pd {
        self.ptr.as_ptr()
    }

    pub(super) fn id(&self) -> &Arc<Id> {
        &self.id
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: regions and windows hold an `Arc` of the domain; the queue pair was destroyed before.
        unsafe { (self.id.api().ibv_dealloc_pd)(self.ptr.as_ptr()) };
    }
}

/// A memory region. Whoever makes one keeps the memory alive and in place while it exists.
pub(super) struct Mr {
    ptr: NonNull<ffi::Mr>,
    pd: Arc<Pd>,
}

// SAFETY: verbs calls on one region are allowed from any thread.
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

impl Mr {
    /// # Safety
    /// The memory stays allocated until the region is dropped, and is written by nobody else while the device may
    /// write it.
    pub(super) unsafe fn new(pd: Arc<Pd>, addr: *mut u8, len: usize, access: c_int) -> io::Result<Self> {
        // SAFETY: by contract; the domain is open.
        let ptr = unsafe { (pd.id.api().ibv_reg_mr)(pd.as_ptr(), addr.cast(), len, access) };
        Ok(Self { ptr: NonNull::new(ptr).ok_or_else(os_error)?, pd })
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::Mr {
        self.ptr.as_ptr()
    }

    pub(super) fn lkey(&self) -> u32 {
        // SAFETY: the region lives.
        unsafe { self.ptr.as_ref().lkey }
    }

    pub(super) fn rkey(&self) -> u32 {
        // SAFETY: the region lives.
        unsafe { self.ptr.as_ref().rkey }
    }
}

impl Drop for Mr {
    fn drop(&mut self) {
        // SAFETY: windows that were bound to the region have been invalidated, or their queue pair destroyed, before.
        unsafe { (self.pd.id.api().ibv_dereg_mr)(self.ptr.as_ptr()) };
    }
}

/// A type-2 memory window.
pub(super) struct Mw {
    ptr: NonNull<ffi::Mw>,
    pd: Arc<Pd>,
}

// SAFETY: verbs calls on one window are allowed from any thread.
unsafe impl Send for Mw {}

impl Mw {
    pub(super) fn new(pd: Arc<Pd>) -> io::Result<Self> {
        // SAFETY: the context is open; the operation is there or the device has no windows.
        let ptr = unsafe {
            let alloc = (*pd.id.context()).ops.alloc_mw.ok_or(io::ErrorKind::Unsupported)?;
            alloc(pd.as_ptr(), ffi::MW_TYPE_2)
        };
        Ok(Self { ptr: NonNull::new(ptr).ok_or_else(os_error)?, pd })
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::Mw {
        self.ptr.as_ptr()
    }

    pub(super) fn rkey(&self) -> u32 {
        // SAFETY: the window lives.
        unsafe { self.ptr.as_ref().rkey }
    }

    /// Notes the key of the last bind.
    pub(super) fn set_rkey(&mut self, rkey: u32) {
        // SAFETY: the window lives, and nobody else looks at it.
        unsafe { self.ptr.as_mut().rkey = rkey };
    }
}

impl Drop for Mw {
    fn drop(&mut self) {
        // SAFETY: the window lives and is not used afterwards.
        unsafe {
            if let Some(dealloc) = (*self.pd.id.context()).ops.dealloc_mw {
                dealloc(self.ptr.as_ptr());
            }
        }
    }
}

/// A completion queue with its channel.
pub(super) struct Cq {
    ptr: NonNull<ffi::Cq>,
    channel: NonNull<ffi::CompChannel>,
    /// Events taken and not acknowledged.
    unacknowledged: u32,
    id: Arc<Id>,
}

// SAFETY: verbs calls on one queue are allowed from any thread, and `&mut` keeps them one at a time.
unsafe impl Send for Cq {}

impl Cq {
    pub(super) fn new(id: Arc<Id>, len: c_int) -> io::Result<Self> {
        // SAFETY: the context is open. What was made is destroyed when the next step fails.
        unsafe {
            let channel =
                NonNull::new((id.api().ibv_create_comp_channel)(id.context())).ok_or_else(os_error)?;
            let made = set_nonblocking(channel.as_ref().fd).and_then(|()| {
                let cq = (id.api().ibv_create_cq)(id.context(), len, ptr::null_mut(), channel.as_ptr(), 0);
                NonNull::new(cq).ok_or_else(os_error)
            });
            match made {
                Ok(ptr) => Ok(Self { ptr, channel, unacknowledged: 0, id }),
                Err(e) => {
                    (id.api().ibv_destroy_comp_channel)(channel.as_ptr());
                    Err(e)
                }
            }
        }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::Cq {
        self.ptr.as_ptr()
    }

    pub(super) fn fd(&self) -> RawFd {
        // SAFETY: the channel is open.
        unsafe { self.channel.as_ref().fd }
    }

    /// Takes completions; how many.
    pub(super) fn poll(&mut self, out: &mut [ffi::Wc]) -> io::Result<usize> {
        let room = c_int::try_from(out.len()).unwrap_or(c_int::MAX);
        // SAFETY: the queue lives and `out` has room for as many entries.
        let n = unsafe {
            let poll = (*self.ptr.as_ref().context).ops.poll_cq.ok_or(io::ErrorKind::Unsupported)?;
            poll(self.ptr.as_ptr(), room, out.as_mut_ptr())
        };
        usize::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Asks for an event at the next completion.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        // SAFETY: the queue lives.
        check(unsafe {
            let arm = (*self.ptr.as_ref().context).ops.req_notify_cq.ok_or(io::ErrorKind::Unsupported)?;
            arm(self.ptr.as_ptr(), 0)
        })
    }

    /// Takes an event; `WouldBlock` when there is none.
    pub(super) fn take_event(&mut self) -> io::Result<()> {
        let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel is open and the out pointers outlive the call.
        check(unsafe { (self.id.api().ibv_get_cq_event)(self.channel.as_ptr(), &mut cq, &mut context) })?;
        self.unacknowledged += 1;
        if self.unacknowledged >= 64 {
            self.acknowledge();
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        // SAFETY: as many events were taken of this queue.
        unsafe { (self.id.api().ibv_ack_cq_events)(self.ptr.as_ptr(), self.unacknowledged) };
        self.unacknowledged = 0;
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        if self.unacknowledged > 0 {
            self.acknowledge();
        }
        // SAFETY: the queue pair was destroyed before; all events are acknowledged.
        unsafe {
            (self.id.api().ibv_destroy_cq)(self.ptr.as_ptr());
            (self.id.api().ibv_destroy_comp_channel)(self.channel.as_ptr());
        }
    }
}

/// The queue pair of an identifier.
pub(super) struct Qp {
    id: Arc<Id>,
}

impl Qp {
    pub(super) fn new(id: Arc<Id>, pd: &Pd, sent: &Cq, received: &Cq, cap: ffi::QpCap) -> io::Result<Self> {
        let mut attr = ffi::QpInitAttr {
            qp_context: ptr::null_mut(),
            send_cq: sent.as_ptr(),
            recv_cq: received.as_ptr(),
            srq: ptr::null_mut(),
            cap,
            qp_type: ffi::QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: domain and queues are of the identifier's device and outlive the queue pair (see `VerbsRcap`).
        check(unsafe { (id.api().rdma_create_qp)(id.as_ptr(), pd.as_ptr(), &mut attr) })?;
        Ok(Self { id })
    }

    fn as_ptr(&self) -> *mut ffi::Qp {
        // SAFETY: the identifier lives and has a queue pair while `self` does.
        unsafe { (*self.id.as_ptr()).qp }
    }

    /// Posts a chain of work requests: one doorbell.
    ///
    /// # Safety
    /// The requests are linked, their element lists are valid for the call, and the memory that they name stays
    /// allocated (and for Reads unaliased) until they complete or the queue pair is destroyed.
    pub(super) unsafe fn post_send(&mut self, first: &mut ffi::SendWr) -> io::Result<()> {
        let mut bad = ptr::null_mut();
        // SAFETY: by contract.
        check(unsafe {
            let qp = self.as_ptr();
            let post = (*(*qp).context).ops.post_send.ok_or(io::ErrorKind::Unsupported)?;
            post(qp, first, &mut bad)
        })
    }

    /// # Safety
    /// As for [`post_send`](Self::post_send).
    pub(super) unsafe fn post_recv(&mut self, request: &mut ffi::RecvWr) -> io::Result<()> {
        let mut bad = ptr::null_mut();
        // SAFETY: by contract.
        check(unsafe {
            let qp = self.as_ptr();
            let post = (*(*qp).context).ops.post_recv.ok_or(io::ErrorKind::Unsupported)?;
            post(qp, request, &mut bad)
        })
    }

    /// Ends the connection and puts the queue pair into its error state.
    pub(super) fn disconnect(&self) {
        // SAFETY: the identifier lives. Failure means that it was disconnected already.
        unsafe { (self.id.api().rdma_disconnect)(self.id.as_ptr()) };
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        // SAFETY: the identifier has this queue pair. When the call returns the device touches none of its memory.
        unsafe { (self.id.api().rdma_destroy_qp)(self.id.as_ptr()) };
    }
}
