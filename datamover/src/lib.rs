#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod buf;
#[cfg(any(test, feature = "test-kit"))]
pub mod conformance;
mod event;
pub mod mem;
mod pool;
mod primitive;
mod stats;
mod traits;
mod unread;

pub use buf::{BufPool, IoBuf, Recycle, SgList, SgListMut};
pub use event::{Cause, DataCompletion, DataError, Event, InputProgress, InvalidPdu, Reclaimed, Terminated};
pub use pool::{PoolConfig, Slab, SlabObserver, SlabPool};
pub use primitive::{
    AllocError, ConnKeys, Control, Full, GetData, PutData, Resources, Role, TaskBuffers, Window,
};
pub use stats::Stats;
pub use traits::{
    Acceptor, Budget, Datamover, Drive, Fabric, LinkError, LoginLink, RdmaOffer, TransportInfo,
};
pub use unread::Unread;
