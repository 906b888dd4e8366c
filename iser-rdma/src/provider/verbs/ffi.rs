//! What of `infiniband/verbs.h` and `rdma/rdma_cma.h` is used, laid out by hand (64-bit, rdma-core's stable ABI).
//!
//! Structures that only the libraries make are declared up to the last field that is read.

use libc::{c_char, c_int, c_uint, c_void, size_t, sockaddr_storage};
use std::mem::{offset_of, size_of};

#[repr(C)]
pub(super) struct Device {
    _ops: [usize; 2],
    _node_type: c_int,
    pub(super) transport_type: c_int,
    pub(super) name: [c_char; 64],
}

pub(super) const TRANSPORT_IWARP: c_int = 1;

#[repr(C)]
pub(super) struct ContextOps {
    _before_alloc_mw: [usize; 7],
    pub(super) alloc_mw: Option<unsafe extern "C" fn(*mut Pd, c_int) -> *mut Mw>,
    _bind_mw: usize,
    pub(super) dealloc_mw: Option<unsafe extern "C" fn(*mut Mw) -> c_int>,
    _create_cq: usize,
    pub(super) poll_cq: Option<unsafe extern "C" fn(*mut Cq, c_int, *mut Wc) -> c_int>,
    pub(super) req_notify_cq: Option<unsafe extern "C" fn(*mut Cq, c_int) -> c_int>,
    _before_post_send: [usize; 12],
    pub(super) post_send: Option<unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> c_int>,
    pub(super) post_recv: Option<unsafe extern "C" fn(*mut Qp, *mut RecvWr, *mut *mut RecvWr) -> c_int>,
    _after: [usize; 5],
}

#[repr(C)]
pub(super) struct Context {
    pub(super) device: *mut Device,
    pub(super) ops: ContextOps,
}

#[repr(C)]
pub(super) struct Pd {
    _context: *mut Context,
}

#[repr(C)]
pub(super) struct Mr {
    _context: *mut Context,
    _pd: *mut Pd,
    _addr: *mut c_void,
    _length: size_t,
    _handle: u32,
    pub(super) lkey: u32,
    pub(super) rkey: u32,
}

#[repr(C)]
pub(super) struct Mw {
    _context: *mut Context,
    _pd: *mut Pd,
    pub(super) rkey: u32,
}

pub(super) const MW_TYPE_2: c_int = 2;

#[repr(C)]
pub(super) struct CompChannel {
    _context: *mut Context,
    pub(super) fd: c_int,
}

#[repr(C)]
pub(super) struct Cq {
    pub(super) context: *mut Context,
}

#[repr(C)]
pub(super) struct Qp {
    pub(super) context: *mut Context,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Sge {
    pub(super) addr: u64,
    pub(super) length: u32,
    pub(super) lkey: u32,
}

pub(super) const ACCESS_LOCAL_WRITE: c_int = 1;
pub(super) const ACCESS_REMOTE_WRITE: c_int = 1 << 1;
pub(super) const ACCESS_REMOTE_READ: c_int = 1 << 2;
pub(super) const ACCESS_MW_BIND: c_int = 1 << 4;

pub(super) const WR_RDMA_WRITE: c_int = 0;
pub(super) const WR_SEND: c_int = 2;
pub(super) const WR_RDMA_READ: c_int = 4;
pub(super) const WR_LOCAL_INV: c_int = 7;
pub(super) const WR_BIND_MW: c_int = 8;
pub(super) const WR_SEND_WITH_INV: c_int = 9;

pub(super) const SEND_SIGNALED: c_uint = 1 << 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct BindMw {
    pub(super) mw: *mut Mw,
    pub(super) rkey: u32,
    pub(super) mr: *mut Mr,
    pub(super) addr: u64,
    pub(super) length: u64,
    pub(super) access: c_uint,
}

/// `struct ibv_send_wr`; of its unions the members that are used.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct SendWr {
    pub(super) wr_id: u64,
    pub(super) next: *mut SendWr,
    pub(super) sg_list: *mut Sge,
    pub(super) num_sge: c_int,
    pub(super) opcode: c_int,
    pub(super) send_flags: c_uint,
    pub(super) invalidate_rkey: u32,
    pub(super) remote_addr: u64,
    pub(super) rkey: u32,
    pub(super) _atomic: [u64; 2],
    pub(super) _xrc: u32,
    pub(super) bind: BindMw,
}

// SAFETY: its pointers mean something only while it is being posted; until then they are plain numbers, or those of
// windows and regions that may be used from any thread.
unsafe impl Send for SendWr {}

impl SendWr {
    pub(super) const EMPTY: Self = Self {
        wr_id: 0,
        next: std::ptr::null_mut(),
        sg_list: std::ptr::null_mut(),
        num_sge: 0,
        opcode: 0,
        send_flags: 0,
        invalidate_rkey: 0,
        remote_addr: 0,
        rkey: 0,
        _atomic: [0; 2],
        _xrc: 0,
        bind: BindMw {
            mw: std::ptr::null_mut(),
            rkey: 0,
            mr: std::ptr::null_mut(),
            addr: 0,
            length: 0,
            access: 0,
        },
    };
}

#[repr(C)]
pub(super) struct RecvWr {
    pub(super) wr_id: u64,
    pub(super) next: *mut RecvWr,
    pub(super) sg_list: *mut Sge,
    pub(super) num_sge: c_int,
}

pub(super) const WC_SUCCESS: c_int = 0;
pub(super) const WC_WR_FLUSH_ERR: c_int = 5;
pub(super) const WC_REM_ACCESS_ERR: c_int = 10;
pub(super) const WC_WITH_INV: c_uint = 1 << 3;
/// The kernel's value of the same flag, which rxe hands through.
pub(super) const WC_WITH_INV_KERNEL: c_uint = 1 << 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Wc {
    pub(super) wr_id: u64,
    pub(super) status: c_int,
    pub(super) opcode: c_int,
    pub(super) vendor_err: u32,
    pub(super) byte_len: u32,
    pub(super) invalidated_rkey: u32,
    _qp_num: u32,
    _src_qp: u32,
    pub(super) wc_flags: c_uint,
    _pkey_index: u16,
    _slid: u16,
    _sl: u8,
    _dlid_path_bits: u8,
}

impl Wc {
    pub(super) const EMPTY: Self = Self {
        wr_id: 0,
        status: 0,
        opcode: 0,
        vendor_err: 0,
        byte_len: 0,
        invalidated_rkey: 0,
        _qp_num: 0,
        _src_qp: 0,
        wc_flags: 0,
        _pkey_index: 0,
        _slid: 0,
        _sl: 0,
        _dlid_path_bits: 0,
    };
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct QpCap {
    pub(super) max_send_wr: u32,
    pub(super) max_recv_wr: u32,
    pub(super) max_send_sge: u32,
    pub(super) max_recv_sge: u32,
    pub(super) max_inline_data: u32,
}

pub(super) const QPT_RC: c_int = 2;

#[repr(C)]
pub(super) struct QpInitAttr {
    pub(super) qp_context: *mut c_void,
    pub(super) send_cq: *mut Cq,
    pub(super) recv_cq: *mut Cq,
    pub(super) srq: *mut c_void,
    pub(super) cap: QpCap,
    pub(super) qp_type: c_int,
    pub(super) sq_sig_all: c_int,
}

pub(super) const CAP_MEM_MGT_EXTENSIONS: c_uint = 1 << 21;
pub(super) const CAP_MEM_WINDOW_TYPE_2A: c_uint = 1 << 23;
pub(super) const CAP_MEM_WINDOW_TYPE_2B: c_uint = 1 << 24;

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct DeviceAttr {
    _fw_ver: [c_char; 64],
    _guids: [u64; 2],
    _max_mr_size: u64,
    _page_size_cap: u64,
    _vendor: [u32; 3],
    _max_qp: c_int,
    pub(super) max_qp_wr: c_int,
    pub(super) device_cap_flags: c_uint,
    pub(super) max_sge: c_int,
    pub(super) max_sge_rd: c_int,
    _max_cq: c_int,
    pub(super) max_cqe: c_int,
    _max_mr: c_int,
    _max_pd: c_int,
    pub(super) max_qp_rd_atom: c_int,
    _max_ee_rd_atom: c_int,
    _max_res_rd_atom: c_int,
    pub(super) max_qp_init_rd_atom: c_int,
    _ee: [c_int; 4],
    pub(super) max_mw: c_int,
    _rest: [c_int; 11],
    _pkeys: u16,
    _ack_delay: u8,
    _port_count: u8,
    _tail: u32,
}

impl DeviceAttr {
    /// All zero, for the library to fill.
    pub(super) const EMPTY: Self = Self {
        _fw_ver: [0; 64],
        _guids: [0; 2],
        _max_mr_size: 0,
        _page_size_cap: 0,
        _vendor: [0; 3],
        _max_qp: 0,
        max_qp_wr: 0,
        device_cap_flags: 0,
        max_sge: 0,
        max_sge_rd: 0,
        _max_cq: 0,
        max_cqe: 0,
        _max_mr: 0,
        _max_pd: 0,
        max_qp_rd_atom: 0,
        _max_ee_rd_atom: 0,
        _max_res_rd_atom: 0,
        max_qp_init_rd_atom: 0,
        _ee: [0; 4],
        max_mw: 0,
        _rest: [0; 11],
        _pkeys: 0,
        _ack_delay: 0,
        _port_count: 0,
        _tail: 0,
    };
}

#[repr(C)]
pub(super) struct EventChannel {
    pub(super) fd: c_int,
}

pub(super) const PS_TCP: c_int = 0x0106;

#[repr(C)]
pub(super) struct CmId {
    pub(super) verbs: *mut Context,
    pub(super) channel: *mut EventChannel,
    _context: *mut c_void,
    pub(super) qp: *mut Qp,
    pub(super) src_addr: sockaddr_storage,
    pub(super) dst_addr: sockaddr_storage,
}

pub(super) const EVENT_ADDR_RESOLVED: c_int = 0;
pub(super) const EVENT_ROUTE_RESOLVED: c_int = 2;
pub(super) const EVENT_CONNECT_REQUEST: c_int = 4;
pub(super) const EVENT_REJECTED: c_int = 8;
pub(super) const EVENT_ESTABLISHED: c_int = 9;
pub(super) const EVENT_DISCONNECTED: c_int = 10;
pub(super) const EVENT_DEVICE_REMOVAL: c_int = 11;
pub(super) const EVENT_ADDR_CHANGE: c_int = 14;
pub(super) const EVENT_TIMEWAIT_EXIT: c_int = 15;

#[repr(C)]
pub(super) struct ConnParam {
    pub(super) private_data: *const c_void,
    pub(super) private_data_len: u8,
    pub(super) responder_resources: u8,
    pub(super) initiator_depth: u8,
    pub(super) flow_control: u8,
    pub(super) retry_count: u8,
    pub(super) rnr_retry_count: u8,
    pub(super) srq: u8,
    pub(super) qp_num: u32,
}

/// Up to the connected half of its union; the library allocates it.
#[repr(C)]
pub(super) struct CmEvent {
    pub(super) id: *mut CmId,
    pub(super) listen_id: *mut CmId,
    pub(super) event: c_int,
    pub(super) status: c_int,
    pub(super) conn: ConnParam,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(offset_of!(Device, transport_type) == 20 && offset_of!(Device, name) == 24);
    assert!(size_of::<ContextOps>() == 256 && offset_of!(Context, ops) == 8);
    assert!(offset_of!(ContextOps, alloc_mw) == 56 && offset_of!(ContextOps, dealloc_mw) == 72);
    assert!(offset_of!(ContextOps, poll_cq) == 88 && offset_of!(ContextOps, req_notify_cq) == 96);
    assert!(offset_of!(ContextOps, post_send) == 200 && offset_of!(ContextOps, post_recv) == 208);
    assert!(size_of::<Mr>() == 48 && offset_of!(Mr, lkey) == 36 && offset_of!(Mr, rkey) == 40);
    assert!(offset_of!(Mw, rkey) == 16);
    assert!(offset_of!(CompChannel, fd) == 8);
    assert!(size_of::<Sge>() == 16 && size_of::<RecvWr>() == 32);
    assert!(size_of::<SendWr>() == 128);
    assert!(offset_of!(SendWr, opcode) == 28 && offset_of!(SendWr, send_flags) == 32);
    assert!(offset_of!(SendWr, invalidate_rkey) == 36 && offset_of!(SendWr, remote_addr) == 40);
    assert!(offset_of!(SendWr, rkey) == 48 && offset_of!(SendWr, bind) == 80);
    assert!(offset_of!(BindMw, rkey) == 8 && offset_of!(BindMw, mr) == 16 && size_of::<BindMw>() == 48);
    assert!(size_of::<Wc>() == 48 && offset_of!(Wc, byte_len) == 20);
    assert!(offset_of!(Wc, invalidated_rkey) == 24 && offset_of!(Wc, wc_flags) == 36);
    assert!(size_of::<QpInitAttr>() == 64 && offset_of!(QpInitAttr, qp_type) == 52);
    assert!(size_of::<DeviceAttr>() == 232 && offset_of!(DeviceAttr, max_qp_wr) == 112);
    assert!(offset_of!(DeviceAttr, max_cqe) == 132 && offset_of!(DeviceAttr, max_qp_rd_atom) == 144);
    assert!(offset_of!(DeviceAttr, max_qp_init_rd_atom) == 156 && offset_of!(DeviceAttr, max_mw) == 176);
    assert!(offset_of!(CmId, qp) == 24 && offset_of!(CmId, src_addr) == 32);
    assert!(offset_of!(CmId, dst_addr) == 160);
    assert!(size_of::<ConnParam>() == 24 && offset_of!(ConnParam, qp_num) == 16);
    assert!(offset_of!(CmEvent, status) == 20 && offset_of!(CmEvent, conn) == 24);
};
