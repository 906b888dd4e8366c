//! What of `infiniband/verbs.h` is used, laid out by hand (64-bit, rdma-core's stable ABI).
//!
//! Structures that only the libraries make are declared up to the last field that is read.

#[cfg(not(feature = "ibverbs"))]
use super::{Bind, WorkCompletion, WorkRequest};
use libc::{c_char, c_int, c_uint, c_void, size_t};
use std::mem::{offset_of, size_of};

/// `enum ibv_wr_opcode`.
pub(crate) type OpCode = c_int;
/// `enum ibv_wc_status`.
pub(crate) type WcStatus = c_int;

#[repr(C)]
pub(crate) struct Device {
    _ops: [usize; 2],
    _node_type: c_int,
    pub(crate) transport_type: c_int,
    pub(crate) name: [c_char; 64],
}

pub(crate) const TRANSPORT_IWARP: c_int = 1;

#[repr(C)]
pub(crate) struct ContextOps {
    _before_alloc_mw: [usize; 7],
    pub(crate) alloc_mw: Option<unsafe extern "C" fn(*mut Pd, c_int) -> *mut Mw>,
    _bind_mw: usize,
    pub(crate) dealloc_mw: Option<unsafe extern "C" fn(*mut Mw) -> c_int>,
    _create_cq: usize,
    pub(crate) poll_cq: Option<unsafe extern "C" fn(*mut Cq, c_int, *mut Wc) -> c_int>,
    pub(crate) req_notify_cq: Option<unsafe extern "C" fn(*mut Cq, c_int) -> c_int>,
    _before_post_send: [usize; 12],
    pub(crate) post_send: Option<unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> c_int>,
    pub(crate) post_recv: Option<unsafe extern "C" fn(*mut Qp, *mut RecvWr, *mut *mut RecvWr) -> c_int>,
    _after: [usize; 5],
}

#[repr(C)]
pub(crate) struct Context {
    pub(crate) device: *mut Device,
    pub(crate) ops: ContextOps,
}

#[repr(C)]
pub(crate) struct Pd {
    _context: *mut Context,
}

#[repr(C)]
pub(crate) struct Mr {
    _context: *mut Context,
    _pd: *mut Pd,
    _addr: *mut c_void,
    _length: size_t,
    _handle: u32,
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
}

#[repr(C)]
pub(crate) struct Mw {
    _context: *mut Context,
    _pd: *mut Pd,
    pub(crate) rkey: u32,
}

pub(crate) const MW_TYPE_2: c_int = 2;

#[repr(C)]
pub(crate) struct CompChannel {
    _context: *mut Context,
    pub(crate) fd: c_int,
}

#[repr(C)]
pub(crate) struct Cq {
    pub(crate) context: *mut Context,
}

#[repr(C)]
pub(crate) struct Qp {
    pub(crate) context: *mut Context,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Sge {
    pub(crate) addr: u64,
    pub(crate) length: u32,
    pub(crate) lkey: u32,
}

pub(crate) const ACCESS_LOCAL_WRITE: c_int = 1;
pub(crate) const ACCESS_REMOTE_WRITE: c_int = 1 << 1;
pub(crate) const ACCESS_REMOTE_READ: c_int = 1 << 2;
pub(crate) const ACCESS_MW_BIND: c_int = 1 << 4;

pub(crate) const WR_RDMA_WRITE: OpCode = 0;
pub(crate) const WR_SEND: OpCode = 2;
pub(crate) const WR_RDMA_READ: OpCode = 4;
pub(crate) const WR_LOCAL_INV: OpCode = 7;
pub(crate) const WR_BIND_MW: OpCode = 8;
pub(crate) const WR_SEND_WITH_INV: OpCode = 9;

pub(crate) const SEND_SIGNALED: c_uint = 1 << 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct BindMw {
    pub(crate) mw: *mut Mw,
    pub(crate) rkey: u32,
    pub(crate) mr: *mut Mr,
    pub(crate) addr: u64,
    pub(crate) length: u64,
    pub(crate) access: c_uint,
}

/// `struct ibv_send_wr`; of its unions the members that are used.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SendWr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut SendWr,
    pub(crate) sg_list: *mut Sge,
    pub(crate) num_sge: c_int,
    pub(crate) opcode: c_int,
    pub(crate) send_flags: c_uint,
    pub(crate) invalidate_rkey: u32,
    pub(crate) remote_addr: u64,
    pub(crate) rkey: u32,
    pub(crate) _atomic: [u64; 2],
    pub(crate) _xrc: u32,
    pub(crate) bind: BindMw,
}

#[cfg(not(feature = "ibverbs"))]
impl WorkRequest for SendWr {
    fn new(opcode: OpCode) -> Self {
        Self { opcode, ..Self::EMPTY }
    }

    fn set_remote(&mut self, addr: u64, rkey: u32) {
        (self.remote_addr, self.rkey) = (addr, rkey);
    }

    fn set_invalidate(&mut self, rkey: u32) {
        self.invalidate_rkey = rkey;
    }

    fn set_bind(&mut self, mw: *mut Mw, rkey: u32, to: Bind) {
        self.bind = BindMw { mw, rkey, mr: to.mr, addr: to.addr, length: to.len, access: to.access };
    }
}

impl SendWr {
    const EMPTY: Self = Self {
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
pub(crate) struct RecvWr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut RecvWr,
    pub(crate) sg_list: *mut Sge,
    pub(crate) num_sge: c_int,
}

pub(crate) const WC_SUCCESS: WcStatus = 0;
pub(crate) const WC_WR_FLUSH_ERR: WcStatus = 5;
pub(crate) const WC_REM_ACCESS_ERR: WcStatus = 10;
pub(crate) const WC_WITH_INV: c_uint = 1 << 3;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Wc {
    pub(crate) wr_id: u64,
    pub(crate) status: c_int,
    pub(crate) opcode: c_int,
    pub(crate) vendor_err: u32,
    pub(crate) byte_len: u32,
    pub(crate) invalidated_rkey: u32,
    _qp_num: u32,
    _src_qp: u32,
    pub(crate) wc_flags: c_uint,
    _pkey_index: u16,
    _slid: u16,
    _sl: u8,
    _dlid_path_bits: u8,
}

#[cfg(not(feature = "ibverbs"))]
impl WorkCompletion for Wc {
    fn empty() -> Self {
        Self::EMPTY
    }

    fn id(&self) -> u64 {
        self.wr_id
    }

    fn status(&self) -> WcStatus {
        self.status
    }

    fn byte_len(&self) -> u32 {
        self.byte_len
    }

    fn flags(&self) -> c_uint {
        self.wc_flags
    }

    fn invalidated_rkey(&self) -> u32 {
        self.invalidated_rkey
    }
}

impl Wc {
    const EMPTY: Self = Self {
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
pub(crate) struct QpCap {
    pub(crate) max_send_wr: u32,
    pub(crate) max_recv_wr: u32,
    pub(crate) max_send_sge: u32,
    pub(crate) max_recv_sge: u32,
    pub(crate) max_inline_data: u32,
}

pub(crate) const QPT_RC: c_int = 2;

#[repr(C)]
pub(crate) struct QpInitAttr {
    pub(crate) qp_context: *mut c_void,
    pub(crate) send_cq: *mut Cq,
    pub(crate) recv_cq: *mut Cq,
    pub(crate) srq: *mut c_void,
    pub(crate) cap: QpCap,
    pub(crate) qp_type: c_int,
    pub(crate) sq_sig_all: c_int,
}

pub(crate) const CAP_MEM_MGT_EXTENSIONS: c_uint = 1 << 21;
pub(crate) const CAP_MEM_WINDOW_TYPE_2A: c_uint = 1 << 23;
pub(crate) const CAP_MEM_WINDOW_TYPE_2B: c_uint = 1 << 24;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceAttr {
    _fw_ver: [c_char; 64],
    _guids: [u64; 2],
    _max_mr_size: u64,
    _page_size_cap: u64,
    _vendor: [u32; 3],
    _max_qp: c_int,
    pub(crate) max_qp_wr: c_int,
    pub(crate) device_cap_flags: c_uint,
    pub(crate) max_sge: c_int,
    pub(crate) max_sge_rd: c_int,
    _max_cq: c_int,
    pub(crate) max_cqe: c_int,
    _max_mr: c_int,
    _max_pd: c_int,
    pub(crate) max_qp_rd_atom: c_int,
    _max_ee_rd_atom: c_int,
    _max_res_rd_atom: c_int,
    pub(crate) max_qp_init_rd_atom: c_int,
    _ee: [c_int; 4],
    pub(crate) max_mw: c_int,
    _rest: [c_int; 11],
    _pkeys: u16,
    _ack_delay: u8,
    _port_count: u8,
    _tail: u32,
}

impl Default for DeviceAttr {
    /// All zero, for the library to fill.
    fn default() -> Self {
        Self {
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
        }
    }
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
};
