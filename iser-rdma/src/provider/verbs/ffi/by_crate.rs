//! The verbs of the crate `ibverbs-sys`, under the names that this provider has for them.
//!
//! The safe crate above it, `ibverbs`, keeps its pointers to itself, so that nothing can be added to it from outside.

use super::{Bind, WorkCompletion, WorkRequest};
use ibverbs_sys as sys;
use libc::{c_int, c_uint};

pub(crate) use ibverbs_sys::{
    ibv_comp_channel as CompChannel, ibv_context as Context, ibv_cq as Cq, ibv_device as Device,
    ibv_device_attr as DeviceAttr, ibv_mr as Mr, ibv_mw as Mw, ibv_pd as Pd, ibv_qp as Qp,
    ibv_qp_cap as QpCap, ibv_qp_init_attr as QpInitAttr, ibv_recv_wr as RecvWr, ibv_send_wr as SendWr,
    ibv_sge as Sge, ibv_wc as Wc,
};

pub(crate) type OpCode = sys::ibv_wr_opcode::Type;
pub(crate) type WcStatus = sys::ibv_wc_status::Type;

pub(crate) const TRANSPORT_IWARP: sys::ibv_transport_type = sys::IBV_TRANSPORT_IWARP;
pub(crate) const MW_TYPE_2: sys::ibv_mw_type = sys::IBV_MW_TYPE_2;
pub(crate) const QPT_RC: sys::ibv_qp_type::Type = sys::ibv_qp_type::IBV_QPT_RC;

pub(crate) const ACCESS_LOCAL_WRITE: c_int = sys::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0 as c_int;
pub(crate) const ACCESS_REMOTE_WRITE: c_int = sys::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0 as c_int;
pub(crate) const ACCESS_REMOTE_READ: c_int = sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0 as c_int;
pub(crate) const ACCESS_MW_BIND: c_int = sys::ibv_access_flags::IBV_ACCESS_MW_BIND.0 as c_int;

pub(crate) const WR_RDMA_WRITE: OpCode = sys::ibv_wr_opcode::IBV_WR_RDMA_WRITE;
pub(crate) const WR_SEND: OpCode = sys::ibv_wr_opcode::IBV_WR_SEND;
pub(crate) const WR_RDMA_READ: OpCode = sys::ibv_wr_opcode::IBV_WR_RDMA_READ;
pub(crate) const WR_LOCAL_INV: OpCode = sys::ibv_wr_opcode::IBV_WR_LOCAL_INV;
pub(crate) const WR_BIND_MW: OpCode = sys::ibv_wr_opcode::IBV_WR_BIND_MW;
pub(crate) const WR_SEND_WITH_INV: OpCode = sys::ibv_wr_opcode::IBV_WR_SEND_WITH_INV;
pub(crate) const SEND_SIGNALED: c_uint = sys::ibv_send_flags::IBV_SEND_SIGNALED.0;

pub(crate) const WC_SUCCESS: WcStatus = sys::ibv_wc_status::IBV_WC_SUCCESS;
pub(crate) const WC_WR_FLUSH_ERR: WcStatus = sys::ibv_wc_status::IBV_WC_WR_FLUSH_ERR;
pub(crate) const WC_REM_ACCESS_ERR: WcStatus = sys::ibv_wc_status::IBV_WC_REM_ACCESS_ERR;
pub(crate) const WC_WITH_INV: c_uint = sys::ibv_wc_flags::IBV_WC_WITH_INV.0;

pub(crate) const CAP_MEM_MGT_EXTENSIONS: c_uint = sys::IBV_DEVICE_MEM_MGT_EXTENSIONS;
pub(crate) const CAP_MEM_WINDOW_TYPE_2A: c_uint = sys::IBV_DEVICE_MEM_WINDOW_TYPE_2A;
pub(crate) const CAP_MEM_WINDOW_TYPE_2B: c_uint = sys::IBV_DEVICE_MEM_WINDOW_TYPE_2B;

impl WorkRequest for SendWr {
    fn new(opcode: OpCode) -> Self {
        Self { opcode, ..Self::default() }
    }

    fn set_remote(&mut self, addr: u64, rkey: u32) {
        self.wr.rdma.remote_addr = addr;
        self.wr.rdma.rkey = rkey;
    }

    fn set_invalidate(&mut self, rkey: u32) {
        self.__bindgen_anon_1.invalidate_rkey = rkey;
    }

    fn set_bind(&mut self, mw: *mut Mw, rkey: u32, to: Bind) {
        let bind = &mut self.__bindgen_anon_2;
        bind.bind_mw.mw = mw;
        bind.bind_mw.rkey = rkey;
        bind.bind_mw.bind_info.mr = to.mr;
        bind.bind_mw.bind_info.addr = to.addr;
        bind.bind_mw.bind_info.length = to.len;
        bind.bind_mw.bind_info.mw_access_flags = to.access;
    }
}

impl WorkCompletion for Wc {
    fn empty() -> Self {
        Self::default()
    }

    fn id(&self) -> u64 {
        self.wr_id()
    }

    fn status(&self) -> WcStatus {
        self.error().map_or(WC_SUCCESS, |(status, _)| status)
    }

    fn byte_len(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn flags(&self) -> c_uint {
        self.wc_flags.0
    }

    fn invalidated_rkey(&self) -> u32 {
        self.imm_data
    }
}
