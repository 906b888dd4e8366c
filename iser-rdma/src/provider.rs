//! Providers: RDMA-capable protocols that [`IserDatamover`](crate::IserDatamover) runs on.

pub mod mem;
