//! Providers: RDMA-capable protocols that [`IserDatamover`](crate::IserDatamover) runs on.

pub mod mem;

#[cfg(feature = "iwarp")]
pub mod iwarp;
mod pools;
#[cfg(all(feature = "verbs", target_os = "linux"))]
pub mod verbs;
