//! The two libraries, linked: libibverbs by the crate `ibverbs-sys`, librdmacm, which no crate has, from here.

pub(super) use ibverbs_sys as libibverbs;

pub(super) mod librdmacm {
    use super::super::ffi::{CmEvent, CmId, ConnParam, Context, EventChannel, Pd, QpInitAttr};
    use libc::{c_int, c_void, sockaddr};

    #[link(name = "rdmacm")]
    unsafe extern "C" {
        pub(in super::super) fn rdma_get_devices(num_devices: *mut c_int) -> *mut *mut Context;
        pub(in super::super) fn rdma_free_devices(list: *mut *mut Context);
        pub(in super::super) fn rdma_create_event_channel() -> *mut EventChannel;
        pub(in super::super) fn rdma_destroy_event_channel(channel: *mut EventChannel);
        pub(in super::super) fn rdma_create_id(
            channel: *mut EventChannel,
            id: *mut *mut CmId,
            context: *mut c_void,
            ps: c_int,
        ) -> c_int;
        pub(in super::super) fn rdma_destroy_id(id: *mut CmId) -> c_int;
        pub(in super::super) fn rdma_migrate_id(id: *mut CmId, channel: *mut EventChannel) -> c_int;
        pub(in super::super) fn rdma_bind_addr(id: *mut CmId, addr: *mut sockaddr) -> c_int;
        pub(in super::super) fn rdma_listen(id: *mut CmId, backlog: c_int) -> c_int;
        pub(in super::super) fn rdma_resolve_addr(
            id: *mut CmId,
            src_addr: *mut sockaddr,
            dst_addr: *mut sockaddr,
            timeout_ms: c_int,
        ) -> c_int;
        pub(in super::super) fn rdma_resolve_route(id: *mut CmId, timeout_ms: c_int) -> c_int;
        pub(in super::super) fn rdma_create_qp(
            id: *mut CmId,
            pd: *mut Pd,
            qp_init_attr: *mut QpInitAttr,
        ) -> c_int;
        pub(in super::super) fn rdma_destroy_qp(id: *mut CmId);
        pub(in super::super) fn rdma_connect(id: *mut CmId, conn_param: *mut ConnParam) -> c_int;
        pub(in super::super) fn rdma_accept(id: *mut CmId, conn_param: *mut ConnParam) -> c_int;
        pub(in super::super) fn rdma_reject(
            id: *mut CmId,
            private_data: *const c_void,
            private_data_len: u8,
        ) -> c_int;
        pub(in super::super) fn rdma_disconnect(id: *mut CmId) -> c_int;
        pub(in super::super) fn rdma_get_cm_event(
            channel: *mut EventChannel,
            event: *mut *mut CmEvent,
        ) -> c_int;
        pub(in super::super) fn rdma_ack_cm_event(event: *mut CmEvent) -> c_int;
    }
}
