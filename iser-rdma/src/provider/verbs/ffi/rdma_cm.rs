//! What of `rdma/rdma_cma.h` is used. No published crate declares it, so it is laid out by hand whoever lays out the
//! verbs (64-bit, rdma-core's stable ABI).

use super::{Context, Qp};
use libc::{c_int, c_void, sockaddr_storage};
use std::mem::{offset_of, size_of};

#[repr(C)]
pub(crate) struct EventChannel {
    pub(crate) fd: c_int,
}

pub(crate) const PS_TCP: c_int = 0x0106;

#[repr(C)]
pub(crate) struct CmId {
    pub(crate) verbs: *mut Context,
    pub(crate) channel: *mut EventChannel,
    _context: *mut c_void,
    pub(crate) qp: *mut Qp,
    pub(crate) src_addr: sockaddr_storage,
    pub(crate) dst_addr: sockaddr_storage,
}

pub(crate) const EVENT_ADDR_RESOLVED: c_int = 0;
pub(crate) const EVENT_ROUTE_RESOLVED: c_int = 2;
pub(crate) const EVENT_CONNECT_REQUEST: c_int = 4;
pub(crate) const EVENT_REJECTED: c_int = 8;
pub(crate) const EVENT_ESTABLISHED: c_int = 9;
pub(crate) const EVENT_DISCONNECTED: c_int = 10;
pub(crate) const EVENT_DEVICE_REMOVAL: c_int = 11;
pub(crate) const EVENT_ADDR_CHANGE: c_int = 14;
pub(crate) const EVENT_TIMEWAIT_EXIT: c_int = 15;

#[repr(C)]
pub(crate) struct ConnParam {
    pub(crate) private_data: *const c_void,
    pub(crate) private_data_len: u8,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) srq: u8,
    pub(crate) qp_num: u32,
}

/// Up to the connected half of its union; the library allocates it.
#[repr(C)]
pub(crate) struct CmEvent {
    pub(crate) id: *mut CmId,
    pub(crate) listen_id: *mut CmId,
    pub(crate) event: c_int,
    pub(crate) status: c_int,
    pub(crate) conn: ConnParam,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(offset_of!(CmId, qp) == 24 && offset_of!(CmId, src_addr) == 32);
    assert!(offset_of!(CmId, dst_addr) == 160);
    assert!(size_of::<ConnParam>() == 24 && offset_of!(ConnParam, qp_num) == 16);
    assert!(offset_of!(CmEvent, status) == 20 && offset_of!(CmEvent, conn) == 24);
};
