//! The suite of block devices on what qemu-nbd serves: raw and qcow2 images, by socket and by TCP.
//!
//! Without qemu-nbd (Debian: `qemu-utils`) there is nothing to test against, and the test says so.

use iscsi_target::block::{Action, Blocking, Extent, NbdAddress, NbdDisk, NbdOptions, testing};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A server that ends with the test.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn qemu_nbd_is_here() -> bool {
    let here = Command::new("qemu-nbd").arg("--version").output().is_ok_and(|o| o.status.success());
    if !here {
        eprintln!("SKIPPED: there is no qemu-nbd (Debian: qemu-utils)");
    }
    here
}

fn image(dir: &Path, format: &str) -> std::path::PathBuf {
    let path = dir.join(format!("disk.{format}"));
    let made = Command::new("qemu-img").args(["create", "-q", "-f", format]).arg(&path).arg("8M").status();
    assert!(made.expect("qemu-img").success());
    path
}

#[allow(clippy::disallowed_methods, reason = "waits for another process")]
fn connect(uri: &str) -> NbdDisk {
    let address: NbdAddress = uri.parse().expect("address");
    let begin = Instant::now();
    loop {
        match NbdDisk::open(address.clone(), &NbdOptions::default()) {
            Ok(disk) => return disk,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{uri}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn passes_the_suite_on_what_qemu_serves() {
    if !qemu_nbd_is_here() {
        return;
    }
    for format in ["raw", "qcow2"] {
        let mut servers = Vec::new();
        testing::check(|| {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("s");
            let qemu = Command::new("qemu-nbd")
                .args(["-x", "disk", "-f", format, "--discard=unmap", "-t", "-e", "8", "-k"])
                .arg(&socket)
                .arg(image(dir.path(), format))
                .spawn();
            servers.push((Qemu(qemu.expect("qemu-nbd")), dir));
            Box::new(connect(&format!("nbd+unix:///disk?socket={}", socket.display())))
        });
    }
}

#[test]
fn reaches_qemu_by_tcp() {
    if !qemu_nbd_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A port that is free now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let qemu = Command::new("qemu-nbd")
        .args(["-x", "disk", "-f", "qcow2", "-t", "-b", "127.0.0.1", "-p", &port.to_string()])
        .arg(image(dir.path(), "qcow2"))
        .spawn();
    let _qemu = Qemu(qemu.expect("qemu-nbd"));
    let disk = connect(&format!("nbd://127.0.0.1:{port}/disk"));
    let mut disk = Blocking::new(Box::new(disk));
    disk.write(17, &[0x5a; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(disk.read(16, 3).unwrap().to_bytes(), [[0; 512], [0x5a; 512], [0; 512]].concat());
}

// What GET LBA STATUS is answered from: the context base:allocation, as qemu-nbd fills it for clusters of 64 KiB.
#[test]
fn says_which_clusters_of_a_qcow2_image_are_allocated() {
    if !qemu_nbd_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let qemu = Command::new("qemu-nbd")
        .args(["-x", "disk", "-f", "qcow2", "--discard=unmap", "-t", "-k"])
        .arg(&socket)
        .arg(image(dir.path(), "qcow2"))
        .spawn();
    let _qemu = Qemu(qemu.expect("qemu-nbd"));
    let disk = connect(&format!("nbd+unix:///disk?socket={}", socket.display()));
    let mut disk = Blocking::new(Box::new(disk));
    let all = 16384;
    let run = |blocks, mapped| Extent { blocks, mapped };
    // The runs of a part are an answer, too: those after them are asked for.
    let status = |disk: &mut Blocking| {
        let (mut runs, mut at) = (Vec::<Extent>::new(), 0);
        while at < all {
            for extent in disk.status(at, all - at).unwrap() {
                at += extent.blocks;
                match runs.last_mut() {
                    Some(last) if last.mapped == extent.mapped => last.blocks += extent.blocks,
                    _ => runs.push(extent),
                }
            }
        }
        runs
    };
    assert_eq!(status(&mut disk), [run(all, false)], "a new image has no cluster");
    disk.write(256, &[1; 256 << 10]).unwrap();
    assert_eq!(status(&mut disk), [run(256, false), run(512, true), run(all - 768, false)]);
    disk.run(Action::Unmap { lba: 384, blocks: 128 }).unwrap();
    assert_eq!(
        status(&mut disk),
        [run(256, false), run(128, true), run(128, false), run(256, true), run(all - 768, false)]
    );
}
