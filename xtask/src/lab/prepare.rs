//! The guest's kernel and initramfs, made from Debian's packages into `target/lab/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::tools::{output, run};
use crate::workspace::root;

/// Where things are.
pub(super) struct Prepared {
    /// Everything below is in here; runs make their directories here too.
    pub(super) dir: PathBuf,
    /// Name of the kernel's release.
    release: String,
}

/// Modules the initramfs loads to reach the host's root filesystem.
const BOOT_MODULES: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

impl Prepared {
    pub(super) fn kernel(&self) -> PathBuf {
        self.tree().join("boot").join(format!("vmlinuz-{}", self.release))
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.dir.join("initramfs.gz")
    }

    /// The tree of modules for every kernel release (there is one).
    pub(super) fn modules(&self) -> PathBuf {
        self.tree().join("lib/modules")
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("kernel")
    }
}

/// Fetches the kernel unless it is there, and builds the initramfs.
pub(super) fn prepare() -> Result<Prepared> {
    need_packages()?;
    let dir = root().join("target/lab");
    fs::create_dir_all(&dir)?;
    let package = kernel_package()?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let prepared = Prepared { dir, release };
    if !prepared.kernel().exists() {
        fetch(&prepared, &package)?;
    }
    build_initramfs(&prepared)?;
    Ok(prepared)
}

fn need_packages() -> Result<()> {
    let list = include_str!("../../lab/packages");
    let missing: Vec<&str> = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|package| {
            let status = output(Command::new("dpkg-query").args(["-Wf", "${db:Status-Status}", package]));
            status.map_or(true, |status| status != "installed")
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the lab needs these Debian packages: apt-get install --no-install-recommends {}",
        missing.join(" ")
    )
}

/// The package of Debian's current kernel.
fn kernel_package() -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let found = text.lines().find_map(|line| {
        let package = line.trim().strip_prefix("Depends: ")?;
        (package.starts_with("linux-image-") && package.ends_with("-amd64")).then(|| package.to_owned())
    });
    found.context("apt knows no linux-image-amd64: apt-get update")
}

/// The package is unpacked here and never installed: the host's /boot stays as it is.
fn fetch(prepared: &Prepared, package: &str) -> Result<()> {
    let work = prepared.dir.join("fetch");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    // The user that apt downloads as may not write here.
    let mut download = Command::new("apt-get");
    download.args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]).current_dir(&work);
    let fetched = run(download.stdout(std::io::stderr()));
    fetched.with_context(|| format!("the lab cannot run: {package} does not come from apt's mirror"))?;
    let deb = fs::read_dir(&work)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "deb"));
    let tree = work.join("tree");
    run(Command::new("dpkg").arg("-x").arg(deb.context("no package came")?).arg(&tree))?;
    if prepared.tree().exists() {
        fs::remove_dir_all(prepared.tree())?;
    }
    fs::rename(tree, prepared.tree())?;
    fs::remove_dir_all(&work)?;
    run(Command::new("depmod").arg("-b").arg(prepared.tree()).arg(&prepared.release))
}

/// Builds the software iWARP module, unless it is there.
pub(super) fn siw(prepared: &Prepared) -> Result<()> {
    if prepared.modules().join(&prepared.release).join("updates/siw.ko").exists() {
        return Ok(());
    }
    let mut build = Command::new(root().join("xtask/lab/build-siw"));
    run(build.arg(prepared.tree()).arg(&prepared.release).stdout(std::io::stderr()))
        .context("the lab cannot run: no siw (software iWARP)")
}

fn build_initramfs(prepared: &Prepared) -> Result<()> {
    let tree = prepared.dir.join("initramfs");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for dir in ["bin", "dev", "proc", "sys", "modules", "host", "scratch", "root"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).context("busybox")?;
    // A copy has the mode of its source.
    fs::copy(root().join("xtask/lab/init"), tree.join("init"))?;
    let mut order = String::new();
    for path in module_files(prepared)? {
        let name = path.file_name().context("module without a name")?;
        fs::copy(&path, tree.join("modules").join(name))?;
        order += &format!("{}\n", name.to_string_lossy());
    }
    fs::write(tree.join("modules/order"), order)?;
    pack(&tree, &prepared.initramfs())
}

/// The boot modules with what they depend on, in loading order.
fn module_files(prepared: &Prepared) -> Result<Vec<PathBuf>> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for module in BOOT_MODULES {
        let mut command = Command::new("modprobe");
        command.arg("-d").arg(prepared.tree()).args(["-S", &prepared.release, "--show-depends", module]);
        for line in output(&mut command)?.lines() {
            let Some(path) = line.strip_prefix("insmod ").and_then(|rest| rest.split_whitespace().next())
            else {
                continue;
            };
            if seen.insert(path.to_owned()) {
                files.push(PathBuf::from(path));
            }
        }
    }
    ensure!(!files.is_empty(), "modprobe lists no module");
    Ok(files)
}

/// A compressed cpio archive of the tree.
fn pack(tree: &Path, archive: &Path) -> Result<()> {
    let script = r#"set -o pipefail; cd "$1"; find . | cpio --quiet -o -H newc | gzip -1 >"$2""#;
    let status = Command::new("bash")
        .args(["-c", script, "pack"])
        .args([tree, archive])
        .stdin(Stdio::null())
        .status()
        .context("bash")?;
    ensure!(status.success(), "the initramfs could not be packed: {status}");
    Ok(())
}
