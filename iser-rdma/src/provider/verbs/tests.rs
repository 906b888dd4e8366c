use std::io::Write;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

/// What is laid out by hand, also where the feature `ibverbs` takes the crate's types.
mod ffi {
    pub(super) use super::super::ffi::by_hand::*;
    pub(super) use super::super::ffi::{
        CmEvent, CmId, ConnParam, EVENT_ADDR_CHANGE, EVENT_ADDR_RESOLVED, EVENT_CONNECT_REQUEST,
        EVENT_DEVICE_REMOVAL, EVENT_DISCONNECTED, EVENT_ESTABLISHED, EVENT_REJECTED, EVENT_ROUTE_RESOLVED,
        EVENT_TIMEWAIT_EXIT, EventChannel, PS_TCP,
    };
}

/// Size of a structure, or offset of a field, as the C compiler sees it, and as `ffi/` declares it.
fn layout() -> Vec<(&'static str, usize)> {
    macro_rules! list {
        ($($c:literal: $t:ident { $($cf:literal => $f:ident),* };)*) => {
            vec![$($((concat!("offsetof(", $c, ", ", $cf, ")"), offset_of!(ffi::$t, $f)),)*)*]
        };
    }
    let mut all = list! {
        "struct ibv_device": Device { "transport_type" => transport_type, "name" => name };
        "struct ibv_context_ops": ContextOps {
            "alloc_mw" => alloc_mw, "dealloc_mw" => dealloc_mw, "poll_cq" => poll_cq,
            "req_notify_cq" => req_notify_cq, "post_send" => post_send, "post_recv" => post_recv
        };
        "struct ibv_context": Context { "device" => device, "ops" => ops };
        "struct ibv_mr": Mr { "lkey" => lkey, "rkey" => rkey };
        "struct ibv_mw": Mw { "rkey" => rkey };
        "struct ibv_comp_channel": CompChannel { "fd" => fd };
        "struct ibv_cq": Cq { "context" => context };
        "struct ibv_qp": Qp { "context" => context };
        "struct ibv_sge": Sge { "addr" => addr, "length" => length, "lkey" => lkey };
        "struct ibv_send_wr": SendWr {
            "wr_id" => wr_id, "next" => next, "sg_list" => sg_list, "num_sge" => num_sge, "opcode" => opcode,
            "send_flags" => send_flags, "invalidate_rkey" => invalidate_rkey, "wr.rdma.remote_addr" => remote_addr,
            "wr.rdma.rkey" => rkey, "bind_mw" => bind
        };
        "struct ibv_recv_wr": RecvWr { "wr_id" => wr_id, "next" => next, "sg_list" => sg_list, "num_sge" => num_sge };
        "struct ibv_wc": Wc {
            "wr_id" => wr_id, "status" => status, "opcode" => opcode, "vendor_err" => vendor_err,
            "byte_len" => byte_len, "invalidated_rkey" => invalidated_rkey, "wc_flags" => wc_flags
        };
        "struct ibv_qp_init_attr": QpInitAttr {
            "send_cq" => send_cq, "recv_cq" => recv_cq, "srq" => srq, "cap" => cap, "qp_type" => qp_type,
            "sq_sig_all" => sq_sig_all
        };
        "struct ibv_device_attr": DeviceAttr {
            "max_qp_wr" => max_qp_wr, "device_cap_flags" => device_cap_flags, "max_sge" => max_sge,
            "max_sge_rd" => max_sge_rd, "max_cqe" => max_cqe, "max_qp_rd_atom" => max_qp_rd_atom,
            "max_qp_init_rd_atom" => max_qp_init_rd_atom, "max_mw" => max_mw
        };
        "struct rdma_event_channel": EventChannel { "fd" => fd };
        "struct rdma_cm_id": CmId {
            "verbs" => verbs, "channel" => channel, "qp" => qp, "route.addr.src_storage" => src_addr,
            "route.addr.dst_storage" => dst_addr
        };
        "struct rdma_conn_param": ConnParam {
            "private_data" => private_data, "private_data_len" => private_data_len,
            "responder_resources" => responder_resources, "initiator_depth" => initiator_depth,
            "flow_control" => flow_control, "retry_count" => retry_count, "rnr_retry_count" => rnr_retry_count,
            "srq" => srq, "qp_num" => qp_num
        };
        "struct rdma_cm_event": CmEvent {
            "id" => id, "listen_id" => listen_id, "event" => event, "status" => status, "param.conn" => conn
        };
    };
    all.extend([
        // Structures that are made here, or of which arrays are passed, must have the right size too.
        ("sizeof(struct ibv_sge)", size_of::<ffi::Sge>()),
        ("sizeof(struct ibv_send_wr)", size_of::<ffi::SendWr>()),
        ("sizeof(struct ibv_recv_wr)", size_of::<ffi::RecvWr>()),
        ("sizeof(struct ibv_wc)", size_of::<ffi::Wc>()),
        ("sizeof(struct ibv_qp_cap)", size_of::<ffi::QpCap>()),
        ("sizeof(struct ibv_qp_init_attr)", size_of::<ffi::QpInitAttr>()),
        ("sizeof(struct ibv_device_attr)", size_of::<ffi::DeviceAttr>()),
        ("sizeof(struct rdma_conn_param)", size_of::<ffi::ConnParam>()),
        ("sizeof(struct ibv_mw_bind_info) + 16", size_of::<ffi::BindMw>()),
    ]);
    let number = |n: i64| usize::try_from(n).unwrap();
    all.extend([
        ("RDMA_PS_TCP", number(ffi::PS_TCP.into())),
        ("IBV_QPT_RC", number(ffi::QPT_RC.into())),
        ("IBV_MW_TYPE_2", number(ffi::MW_TYPE_2.into())),
        ("IBV_WR_RDMA_WRITE", number(ffi::WR_RDMA_WRITE.into())),
        ("IBV_WR_SEND", number(ffi::WR_SEND.into())),
        ("IBV_WR_RDMA_READ", number(ffi::WR_RDMA_READ.into())),
        ("IBV_WR_LOCAL_INV", number(ffi::WR_LOCAL_INV.into())),
        ("IBV_WR_BIND_MW", number(ffi::WR_BIND_MW.into())),
        ("IBV_WR_SEND_WITH_INV", number(ffi::WR_SEND_WITH_INV.into())),
        ("IBV_SEND_SIGNALED", number(ffi::SEND_SIGNALED.into())),
        ("IBV_WC_SUCCESS", number(ffi::WC_SUCCESS.into())),
        ("IBV_WC_WR_FLUSH_ERR", number(ffi::WC_WR_FLUSH_ERR.into())),
        ("IBV_WC_REM_ACCESS_ERR", number(ffi::WC_REM_ACCESS_ERR.into())),
        ("IBV_WC_WITH_INV", number(ffi::WC_WITH_INV.into())),
        ("IBV_ACCESS_LOCAL_WRITE", number(ffi::ACCESS_LOCAL_WRITE.into())),
        ("IBV_ACCESS_REMOTE_WRITE", number(ffi::ACCESS_REMOTE_WRITE.into())),
        ("IBV_ACCESS_REMOTE_READ", number(ffi::ACCESS_REMOTE_READ.into())),
        ("IBV_ACCESS_MW_BIND", number(ffi::ACCESS_MW_BIND.into())),
        ("IBV_DEVICE_MEM_MGT_EXTENSIONS", number(ffi::CAP_MEM_MGT_EXTENSIONS.into())),
        ("IBV_DEVICE_MEM_WINDOW_TYPE_2A", number(ffi::CAP_MEM_WINDOW_TYPE_2A.into())),
        ("IBV_DEVICE_MEM_WINDOW_TYPE_2B", number(ffi::CAP_MEM_WINDOW_TYPE_2B.into())),
        ("IBV_TRANSPORT_IWARP", number(ffi::TRANSPORT_IWARP.into())),
        ("RDMA_CM_EVENT_ADDR_RESOLVED", number(ffi::EVENT_ADDR_RESOLVED.into())),
        ("RDMA_CM_EVENT_ROUTE_RESOLVED", number(ffi::EVENT_ROUTE_RESOLVED.into())),
        ("RDMA_CM_EVENT_CONNECT_REQUEST", number(ffi::EVENT_CONNECT_REQUEST.into())),
        ("RDMA_CM_EVENT_REJECTED", number(ffi::EVENT_REJECTED.into())),
        ("RDMA_CM_EVENT_ESTABLISHED", number(ffi::EVENT_ESTABLISHED.into())),
        ("RDMA_CM_EVENT_DISCONNECTED", number(ffi::EVENT_DISCONNECTED.into())),
        ("RDMA_CM_EVENT_DEVICE_REMOVAL", number(ffi::EVENT_DEVICE_REMOVAL.into())),
        ("RDMA_CM_EVENT_ADDR_CHANGE", number(ffi::EVENT_ADDR_CHANGE.into())),
        ("RDMA_CM_EVENT_TIMEWAIT_EXIT", number(ffi::EVENT_TIMEWAIT_EXIT.into())),
    ]);
    all
}

/// What the constant assertions in `ffi/` say, said by the C compiler: wherever the headers are installed.
#[test]
fn layouts_are_those_of_the_headers() {
    if !std::path::Path::new("/usr/include/rdma/rdma_cma.h").exists() {
        println!("headers of libibverbs and librdmacm are not installed: only the constant assertions hold");
        return;
    }
    let mut source = String::from("#include <stddef.h>\n#include <rdma/rdma_cma.h>\n");
    for (expression, value) in layout() {
        source.push_str(&format!(
            "_Static_assert(({expression}) == {value}, \"{expression} is not {value}\");\n"
        ));
    }
    let mut cc = Command::new("cc")
        .args(["-x", "c", "-fsyntax-only", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a C compiler where there are C headers");
    cc.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = cc.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The layouts declared by hand are those that bindgen finds in the headers that come with the crate.
#[cfg(feature = "ibverbs")]
#[test]
fn layouts_are_those_of_the_crate() {
    use ibverbs_sys as sys;
    macro_rules! same {
        ($($t:ident = $s:ident { $($f:ident $(= $sf:ident)?),* })*) => {
            $(
                $(assert_eq!(
                    offset_of!(ffi::$t, $f),
                    same!(@offset $s $f $($sf)?),
                    concat!(stringify!($s), ".", stringify!($f))
                );)*
            )*
        };
        (@offset $s:ident $f:ident) => { offset_of!(sys::$s, $f) };
        (@offset $s:ident $f:ident $sf:ident) => { offset_of!(sys::$s, $sf) };
    }
    same! {
        Device = ibv_device { transport_type, name }
        ContextOps = ibv_context_ops { alloc_mw, dealloc_mw, poll_cq, req_notify_cq, post_send, post_recv }
        Context = ibv_context { device, ops }
        Mr = ibv_mr { lkey, rkey }
        Mw = ibv_mw { rkey }
        CompChannel = ibv_comp_channel { fd }
        Cq = ibv_cq { context }
        Qp = ibv_qp { context }
        Sge = ibv_sge { addr, length, lkey }
        SendWr = ibv_send_wr {
            wr_id, next, sg_list, num_sge, opcode, send_flags, invalidate_rkey = __bindgen_anon_1, remote_addr = wr,
            bind = __bindgen_anon_2
        }
        RecvWr = ibv_recv_wr { wr_id, next, sg_list, num_sge }
        Wc = ibv_wc { invalidated_rkey = imm_data, wc_flags }
        QpCap = ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data }
        QpInitAttr = ibv_qp_init_attr { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all }
        DeviceAttr = ibv_device_attr {
            max_qp_wr, device_cap_flags, max_sge, max_sge_rd, max_cqe, max_qp_rd_atom, max_qp_init_rd_atom, max_mw
        }
    }
    assert_eq!(size_of::<ffi::SendWr>(), size_of::<sys::ibv_send_wr>());
    assert_eq!(size_of::<ffi::RecvWr>(), size_of::<sys::ibv_recv_wr>());
    assert_eq!(size_of::<ffi::Wc>(), size_of::<sys::ibv_wc>());
    assert_eq!(size_of::<ffi::QpInitAttr>(), size_of::<sys::ibv_qp_init_attr>());
    assert_eq!(size_of::<ffi::DeviceAttr>(), size_of::<sys::ibv_device_attr>());
}

/// Devices, or a reason of one line.
#[test]
fn why_there_is_no_device_is_one_line() {
    match super::probe() {
        Ok(devices) => assert!(!devices.is_empty()),
        Err(reason) => {
            assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
            println!("{reason}");
        }
    }
}
