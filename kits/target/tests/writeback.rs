//! Errors of writeback from a real kernel: a loop device whose file lies in a file system that is too small for it. Writes
//! end in the page cache and fail on their way from there. Needs the right to make one (root, loop devices).

#![cfg(target_os = "linux")]

use bytes::Bytes;
use iscsi_target::block::{Action, BlockDevice, BlockError, Blocking, FileDisk, FileOptions, IoEngine};
use std::process::Command;

struct Loop(String);

impl Loop {
    /// 64 MiB on a tmpfs of 2 MiB, which is mounted where nobody else sees it and lives as long as the device.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let script = "mount -t tmpfs -o size=2m none \"$0\" && truncate -s 64M \"$0/disk\" && losetup -f --show \"$0/disk\"";
        let out = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(dir.path()).output().ok()?;
        let name = String::from_utf8(out.stdout).ok()?.trim().to_owned();
        (out.status.success() && name.starts_with("/dev/loop")).then_some(Self(name))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

fn durable(lba: u64) -> Action {
    Action::Write { lba, data: Bytes::from(vec![1; 4096]).into(), fua: true }
}

/// Whoever asks first, nobody else is told that all is well.
fn everybody_hears(engine: IoEngine, first: impl Fn(&mut Blocking) -> Result<(), BlockError>) {
    let Some(device) = Loop::new() else {
        eprintln!("SKIPPED: no loop device can be made here");
        return;
    };
    let options = FileOptions { block_size: Some(4096), engine, ..FileOptions::default() };
    let template = FileDisk::open(&device.0, &options).unwrap();
    let mut writer = Blocking::new(template.handle().unwrap());
    let mut other = Blocking::new(template.handle().unwrap());
    other.run(durable(0)).unwrap();
    for n in 0..16 {
        writer.write(1024 + n * 256, &vec![7; 1 << 20]).unwrap();
    }
    // The kernel writes back when it likes; now it has, and nobody has asked how it went.
    let _ = Command::new("blockdev").args(["--flushbufs", &device.0]).status();
    assert_eq!(first(&mut other), Err(BlockError::Medium(None)), "{engine:?}");
    assert_eq!(writer.flush(), Err(BlockError::WritesLost), "{engine:?}: who wrote what is lost");
    assert_eq!(other.flush(), Err(BlockError::WritesLost), "{engine:?}");
    let mut later = Blocking::new(template.handle().unwrap());
    assert_eq!(later.write(0, &[0; 4096]), Err(BlockError::WritesLost), "{engine:?}: who comes later");
}

#[test]
fn the_error_of_an_older_page_is_not_taken_for_ones_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    for engine in [IoEngine::Threads, IoEngine::Auto] {
        everybody_hears(engine, Blocking::flush);
        everybody_hears(engine, |disk| disk.run(durable(0)).map(drop));
    }
}
