//! The two libraries: loaded once and never unloaded, or linked (feature `ibverbs`).

use super::ffi::{
    CmEvent, CmId, CompChannel, ConnParam, Context, Cq, Device, DeviceAttr, EventChannel, Mr, Pd, QpInitAttr,
};
#[cfg(feature = "ibverbs")]
use super::link::{libibverbs, librdmacm};
use libc::{c_char, c_int, c_uint, c_void, size_t, sockaddr};
#[cfg(not(feature = "ibverbs"))]
use search::{open, symbol};
use std::sync::OnceLock;

macro_rules! api {
    ($($lib:ident { $(fn $name:ident($($arg:ty),*) $(-> $ret:ty)?;)* })*) => {
        /// Entry points of libibverbs and librdmacm.
        pub(super) struct Api {
            $($(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*)*
        }

        #[cfg(not(feature = "ibverbs"))]
        fn load() -> Result<Api, String> {
            $(let $lib = open(stringify!($lib))?;)*
            Ok(Api {
                $($($name: {
                    let symbol = symbol($lib, stringify!($name))?;
                    // SAFETY: the symbol of this name has this signature in every release with this soname.
                    unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>(symbol)
                    }
                },)*)*
            })
        }

        #[cfg(feature = "ibverbs")]
        #[allow(clippy::unnecessary_wraps, reason = "loading can fail")]
        fn load() -> Result<Api, String> {
            Ok(Api { $($($name: $lib::$name,)*)* })
        }
    };
}

api! {
    libibverbs {
        fn ibv_get_device_name(*mut Device) -> *const c_char;
        fn ibv_query_device(*mut Context, *mut DeviceAttr) -> c_int;
        fn ibv_alloc_pd(*mut Context) -> *mut Pd;
        fn ibv_dealloc_pd(*mut Pd) -> c_int;
        fn ibv_reg_mr(*mut Pd, *mut c_void, size_t, c_int) -> *mut Mr;
        fn ibv_dereg_mr(*mut Mr) -> c_int;
        fn ibv_create_comp_channel(*mut Context) -> *mut CompChannel;
        fn ibv_destroy_comp_channel(*mut CompChannel) -> c_int;
        fn ibv_create_cq(*mut Context, c_int, *mut c_void, *mut CompChannel, c_int) -> *mut Cq;
        fn ibv_destroy_cq(*mut Cq) -> c_int;
        fn ibv_get_cq_event(*mut CompChannel, *mut *mut Cq, *mut *mut c_void) -> c_int;
        fn ibv_ack_cq_events(*mut Cq, c_uint);
    }
    librdmacm {
        fn rdma_get_devices(*mut c_int) -> *mut *mut Context;
        fn rdma_free_devices(*mut *mut Context);
        fn rdma_create_event_channel() -> *mut EventChannel;
        fn rdma_destroy_event_channel(*mut EventChannel);
        fn rdma_create_id(*mut EventChannel, *mut *mut CmId, *mut c_void, c_int) -> c_int;
        fn rdma_destroy_id(*mut CmId) -> c_int;
        fn rdma_migrate_id(*mut CmId, *mut EventChannel) -> c_int;
        fn rdma_bind_addr(*mut CmId, *mut sockaddr) -> c_int;
        fn rdma_listen(*mut CmId, c_int) -> c_int;
        fn rdma_resolve_addr(*mut CmId, *mut sockaddr, *mut sockaddr, c_int) -> c_int;
        fn rdma_resolve_route(*mut CmId, c_int) -> c_int;
        fn rdma_create_qp(*mut CmId, *mut Pd, *mut QpInitAttr) -> c_int;
        fn rdma_destroy_qp(*mut CmId);
        fn rdma_connect(*mut CmId, *mut ConnParam) -> c_int;
        fn rdma_accept(*mut CmId, *mut ConnParam) -> c_int;
        fn rdma_reject(*mut CmId, *const c_void, u8) -> c_int;
        fn rdma_disconnect(*mut CmId) -> c_int;
        fn rdma_get_cm_event(*mut EventChannel, *mut *mut CmEvent) -> c_int;
        fn rdma_ack_cm_event(*mut CmEvent) -> c_int;
    }
}

/// The libraries, or in one line why they cannot be used.
pub(super) fn api() -> Result<&'static Api, String> {
    static API: OnceLock<Result<Api, String>> = OnceLock::new();
    API.get_or_init(|| {
        if cfg!(target_pointer_width = "64") { load() } else { Err("not on 32-bit systems".into()) }
    })
    .as_ref()
    .map_err(Clone::clone)
}

/// The libraries and their symbols at run time.
#[cfg(not(feature = "ibverbs"))]
mod search {
    use libc::c_void;
    use std::ffi::{CStr, CString};

    #[derive(Clone, Copy)]
    pub(super) struct Library(*mut c_void);

    fn last_error() -> String {
        // SAFETY: `dlerror` returns null or a C string that lives until the next call in this thread.
        let text = unsafe {
            let text = libc::dlerror();
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
        };
        text.unwrap_or_else(|| "unknown error".into())
    }

    pub(super) fn open(name: &str) -> Result<Library, String> {
        let file = CString::new(format!("{name}.so.1")).map_err(|_| "bad library name")?;
        // SAFETY: the file name is a C string. The libraries' constructors only set up tables of their own. Symbols are
        // global because device providers that libibverbs loads resolve against it.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            Err(format!("{name} is not installed ({})", last_error()))
        } else {
            Ok(Library(handle))
        }
    }

    pub(super) fn symbol(library: Library, name: &str) -> Result<*mut c_void, String> {
        let c_name = CString::new(name).map_err(|_| "bad symbol name")?;
        // SAFETY: the handle came from `dlopen` and is never closed; the name is a C string.
        let symbol = unsafe { libc::dlsym(library.0, c_name.as_ptr()) };
        if symbol.is_null() { Err(format!("this machine's RDMA libraries lack {name}")) } else { Ok(symbol) }
    }
}
