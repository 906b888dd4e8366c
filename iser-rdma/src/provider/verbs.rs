//! iSER through RDMA devices of the kernel: libibverbs and librdmacm, loaded at run time.
//!
//! ```text
//!   VerbsFabric ─ rdma_cm ─▶ VerbsRcap ── post: one chain, one doorbell ──▶ queue pair ─▶ device
//!                               ▲ completion channel (reactor) ◀─ completion queue ◀──────┘
//! ```
//! A build needs no headers and no libraries; a machine without them, or without a device, is told in one line by
//! [`probe`]. Structure layouts are declared in `ffi/` with assertions of size and offset, and a test compares them
//! with the C compiler's where the headers are installed.
//!
//! The feature `ibverbs` builds the same provider on the types of the crate `ibverbs-sys`, and links the libraries.
//!
//! # Safety of the whole
//!
//! The clauses that verbs put on their callers are discharged here once:
//! - memory of a work request is owned by the provider until its completion, or until the queue pair is destroyed;
//! - memory behind an STag is owned by the provider until the STag is invalid: by a completed local invalidation of a
//!   type-2 memory window, by the peer's Send with Invalidate, or by deregistration of a region made for this one use;
//! - objects are destroyed in the order that verbs ask for, which ownership (`Arc`) encodes.

#![allow(unsafe_code)] // the one place; each block says why it is sound

mod cm;
mod completions;
mod fabric;
mod ffi;
mod id;
#[cfg(feature = "ibverbs")]
mod link;
mod load;
mod memory;
mod object;
mod queue;
mod send;
mod tags;

pub use fabric::{VerbsConfig, VerbsFabric};
pub use queue::VerbsRcap;

/// The RDMA devices of this machine by name, or in one line why there are none.
///
/// # Errors
/// The reason, for a log: a library that is missing, a kernel without RDMA, no device, no permission.
pub fn probe() -> Result<Vec<String>, String> {
    object::devices()
}

#[cfg(test)]
mod tests;
