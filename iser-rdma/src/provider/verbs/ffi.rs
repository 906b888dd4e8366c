//! Types of libibverbs and librdmacm: what of `infiniband/verbs.h` and `rdma/rdma_cma.h` is used.
//!
//! ```text
//!   default             by_hand.rs   laid out here; the libraries are loaded at run time
//!   feature `ibverbs`   by_crate.rs  those of the crate ibverbs-sys; the libraries are linked
//!   both                rdma_cm.rs   the connection manager, which no crate has
//! ```
//! Both halves have the same names. What they lay out differently, unions and private fields, is behind two traits.

#[cfg(feature = "ibverbs")]
mod by_crate;
#[cfg(any(test, not(feature = "ibverbs")))]
#[cfg_attr(feature = "ibverbs", allow(dead_code, reason = "tests compare it with the crate's"))]
pub(super) mod by_hand;
mod rdma_cm;

#[cfg(feature = "ibverbs")]
pub(super) use by_crate::*;
#[cfg(not(feature = "ibverbs"))]
pub(super) use by_hand::*;
pub(super) use rdma_cm::*;

use libc::c_uint;

/// `struct ibv_send_wr`, of whose unions only the members that are used can be set.
pub(super) trait WorkRequest: Sized {
    /// All zero but for the opcode.
    fn new(opcode: OpCode) -> Self;
    /// Where an RDMA Read or Write goes.
    fn set_remote(&mut self, addr: u64, rkey: u32);
    /// The key that a Send with Invalidate or a local invalidation makes invalid.
    fn set_invalidate(&mut self, rkey: u32);
    /// What a bind gives access to, under which key.
    fn set_bind(&mut self, mw: *mut Mw, rkey: u32, to: Bind);
}

/// Memory for a window.
pub(super) struct Bind {
    pub(super) mr: *mut Mr,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) access: c_uint,
}

/// `struct ibv_wc`.
pub(super) trait WorkCompletion: Sized {
    /// An entry to be filled.
    fn empty() -> Self;
    fn id(&self) -> u64;
    fn status(&self) -> WcStatus;
    /// Bytes of the message.
    fn byte_len(&self) -> u32;
    /// Bits `WC_…`.
    fn flags(&self) -> c_uint;
    /// The key that the peer invalidated, if the flags say so.
    fn invalidated_rkey(&self) -> u32;
}
