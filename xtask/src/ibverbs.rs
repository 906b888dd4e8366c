//! What the feature `ibverbs` of `iser-rdma` needs to build beyond Rust: the crate `ibverbs-sys` builds rdma-core with
//! cmake, reads its headers with libclang, and links the system's library.

use std::path::Path;
use std::process::Command;

use crate::tools;

/// Why the feature cannot be built here, with what would help; `None` when it can.
pub(crate) fn lacking() -> Option<String> {
    let programs = ["cmake", "pkg-config", "python3", "cc"];
    let headers = ["/usr/include/infiniband/verbs.h", "/usr/include/rdma/rdma_cma.h"];
    let mut missing: Vec<&str> =
        programs.into_iter().filter(|p| !tools::succeeds(Command::new(p).arg("--version"))).collect();
    missing.extend((!has_libclang()).then_some("libclang"));
    missing.extend(headers.into_iter().filter(|path| !Path::new(path).exists()));
    if missing.is_empty() {
        return None;
    }
    let packages = "cmake pkg-config python3-minimal libclang-dev libibverbs-dev librdmacm-dev";
    Some(format!("not here: {}; on Debian: apt-get install {packages}", missing.join(", ")))
}

/// Whether libclang is where bindgen looks for it.
fn has_libclang() -> bool {
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        entries.map(|e| e.path()).collect::<Vec<_>>()
    };
    let starts = |path: &Path, with: &str| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(with))
    };
    let mut dirs: Vec<_> = names(Path::new("/usr/lib"));
    dirs.retain(|path| starts(path, "llvm-"));
    dirs.iter_mut().for_each(|path| path.push("lib"));
    dirs.extend(["/usr/lib".into(), format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH).into()]);
    dirs.extend(std::env::var_os("LIBCLANG_PATH").map(Into::into));
    dirs.iter().any(|dir| names(dir).iter().any(|path| starts(path, "libclang")))
}
