//! Against scripted servers, whose bytes are typed from the protocol's text.

use super::*;
use crate::block::{Blocking, Extent, OpId, Payload};
use bytes::Bytes;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::task::Waker;
use std::thread::JoinHandle;

const GREETING: &str = "4e42444d41474943 49484156454f5054 0003";
const STRUCTURED: &str = "49484156454f5054 00000008 00000000";
const STRUCTURED_ACK: &str = "0003e889045565a9 00000008 00000001 00000000";
/// The context of the export called `x`.
const META: &str =
    "49484156454f5054 0000000a 0000001c 00000001 78 00000001 0000000f 626173653a616c6c6f636174696f6e";
/// Its number is 7.
const META_ACK: &str = "0003e889045565a9 0000000a 00000004 00000013 00000007 626173653a616c6c6f636174696f6e
     0003e889045565a9 0000000a 00000001 00000000";
const GO: &str = "49484156454f5054 00000007 00000009 00000001 78 0001 0003";
/// 1 MiB; flush, FUA, trim, write zeroes; blocks of 512, 4096 and 64 KiB.
const GO_ACK: &str = "0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 006d
     0003e889045565a9 00000007 00000003 0000000e 0003 00000200 00001000 00010000
     0003e889045565a9 00000007 00000001 00000000";

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The server's end of a connection.
struct Peer(UnixStream);

impl Peer {
    fn send(&mut self, text: &str) {
        self.0.write_all(&hex(text)).unwrap();
    }

    fn expect(&mut self, text: &str) {
        let expected = hex(text);
        let mut seen = vec![0; expected.len()];
        self.0.read_exact(&mut seen).unwrap();
        assert_eq!(seen, expected, "expected {text}");
    }

    /// A request: flags, command, offset and length are expected, the cookie is returned.
    fn request(&mut self, flags: &str, command: &str, offset: u64, len: u32) -> String {
        self.expect("25609513");
        self.expect(flags);
        self.expect(command);
        let mut cookie = [0; 8];
        self.0.read_exact(&mut cookie).unwrap();
        self.expect(&format!("{offset:016x} {len:08x}"));
        format!("{:016x}", u64::from_be_bytes(cookie))
    }

    fn greet(&mut self) {
        self.send(GREETING);
        self.expect("00000003");
        self.expect(STRUCTURED);
        self.send(STRUCTURED_ACK);
        self.expect(META);
        self.send(META_ACK);
        self.expect(GO);
        self.send(GO_ACK);
    }

    fn goodbye(mut self) {
        self.request("0000", "0002", 0, 0);
    }

    fn ok(&mut self, cookie: &str) {
        self.send(&format!("67446698 00000000 {cookie}"));
    }
}

/// A server that does `script` with its connections.
struct Server {
    _dir: tempfile::TempDir,
    address: NbdAddress,
    script: JoinHandle<()>,
}

#[allow(clippy::disallowed_methods, reason = "the peer is another thread")]
fn server(script: impl FnOnce(&mut dyn FnMut() -> Peer) + Send + 'static) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nbd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let script = std::thread::spawn(move || {
        script(&mut || Peer(listener.accept().unwrap().0));
    });
    let address = NbdAddress { server: NbdServer::Unix(path), export: "x".into() };
    Server { _dir: dir, address, script }
}

fn open(server: &Server) -> io::Result<NbdDisk> {
    NbdDisk::open(server.address.clone(), &NbdOptions { patience: Duration::ZERO, ..NbdOptions::default() })
}

fn patient(server: &Server) -> NbdDisk {
    NbdDisk::open(server.address.clone(), &NbdOptions::default()).unwrap()
}

#[test]
fn the_export_describes_the_disk() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.greet();
        peer.goodbye();
    });
    let disk = open(&server).unwrap();
    let geometry = disk.geometry();
    assert_eq!((geometry.block_size, geometry.blocks, geometry.physical_exponent), (512, 2048, 3));
    assert!(geometry.volatile_cache && !geometry.read_only && !geometry.rotational);
    assert_eq!(geometry.unmap, Some(UnmapLimits { granularity: 8, zeroes: true }));
    drop(disk);
    server.script.join().unwrap();
}

#[test]
fn reads_come_in_chunks_and_out_of_order() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.greet();
        let first = peer.request("0000", "0000", 0, 1024);
        let second = peer.request("0000", "0000", 4096, 512);
        // The second in full; of the first a hole and then data, in two chunks with the flag DONE at the end.
        peer.send(&format!("668e33ef 0001 0001 {second} 00000208 0000000000001000"));
        peer.0.write_all(&[2; 512]).unwrap();
        peer.send(&format!("668e33ef 0000 0002 {first} 0000000c 0000000000000200 00000200"));
        peer.send(&format!("668e33ef 0000 0001 {first} 00000208 0000000000000000"));
        peer.0.write_all(&[1; 512]).unwrap();
        peer.send(&format!("668e33ef 0001 0000 {first} 00000000"));
        peer.goodbye();
    });
    let mut disk = open(&server).unwrap();
    for (id, lba, blocks) in [(1, 0, 2), (2, 8, 1)] {
        let into = datamover::IoBuf::from(&vec![9; blocks as usize * 512][..]).into();
        disk.submit(BlockOp { id: OpId(id), action: Action::Read { lba, blocks, into } }).unwrap();
    }
    let mut done = [wait(&mut disk), wait(&mut disk)];
    done.sort_by_key(|d| d.id);
    let data = |at: usize| match &done[at].result {
        Ok(Payload::Data(data)) => data.to_bytes(),
        other => panic!("{other:?}"),
    };
    assert_eq!(data(0), [[1; 512], [0; 512]].concat());
    assert_eq!(data(1), [2; 512][..]);
    drop(disk);
    server.script.join().unwrap();
}

fn wait(disk: &mut NbdDisk) -> BlockDone {
    loop {
        if let Poll::Ready(done) = disk.poll_done(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        std::thread::yield_now();
    }
}

#[test]
fn every_action_has_its_request() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.greet();
        let write = peer.request("0001", "0001", 512, 512);
        peer.expect(&"ab".repeat(512));
        peer.ok(&write);
        let flush = peer.request("0000", "0003", 0, 0);
        peer.ok(&flush);
        let unmap = peer.request("0000", "0006", 4096, 8192);
        peer.ok(&unmap);
        let zero = peer.request("0003", "0006", 0, 512);
        peer.ok(&zero);
        let status = peer.request("0000", "0007", 0, 4096);
        // 1,536 bytes of data, then 2,560 of a hole; the runs of another context are not ours.
        peer.send(&format!("668e33ef 0000 0005 {status} 0000000c 00000001 00001000 00000003"));
        peer.send(&format!(
            "668e33ef 0001 0005 {status} 00000014 00000007 00000600 00000000 00000a00 00000003"
        ));
        peer.goodbye();
    });
    let mut disk = Blocking::new(Box::new(open(&server).unwrap()));
    let data = Bytes::from(vec![0xab; 512]).into();
    disk.run(Action::Write { lba: 1, data, fua: true }).unwrap();
    disk.flush().unwrap();
    disk.run(Action::Unmap { lba: 8, blocks: 16 }).unwrap();
    disk.run(Action::Zero { lba: 0, blocks: 1, unmap: false, fua: true }).unwrap();
    let runs = [Extent { blocks: 3, mapped: true }, Extent { blocks: 5, mapped: false }];
    assert_eq!(disk.status(0, 8).unwrap(), runs);
    drop(disk);
    server.script.join().unwrap();
}

#[test]
fn long_operations_are_cut_at_the_servers_limit() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.greet();
        for (offset, len, byte) in [(0, 65536, "11"), (65536, 512, "11")] {
            let cookie = peer.request("0000", "0001", offset, len);
            peer.expect(&byte.repeat(len as usize));
            peer.ok(&cookie);
        }
        peer.goodbye();
    });
    let mut disk = Blocking::new(Box::new(open(&server).unwrap()));
    disk.write(0, &[0x11; 65536 + 512]).unwrap();
    drop(disk);
    server.script.join().unwrap();
}

#[test]
fn errors_become_block_errors() {
    let expected = [
        ("00000001", BlockError::ReadOnly),
        ("00000005", BlockError::Medium(None)),
        ("0000001c", BlockError::NoSpace),
        ("00000016", BlockError::Device),
        ("0000005f", BlockError::Unsupported),
    ];
    let server = server(move |accept| {
        let mut peer = accept();
        peer.greet();
        for (code, _) in expected {
            let cookie = peer.request("0000", "0001", 0, 512);
            peer.expect(&"00".repeat(512));
            peer.send(&format!("67446698 {code} {cookie}"));
        }
        // A read error with its place, text "bad", byte 1,024.
        let cookie = peer.request("0000", "0000", 0, 2048);
        peer.send(&format!("668e33ef 0001 8002 {cookie} 00000011 00000005 0003 626164 0000000000000400"));
        peer.goodbye();
    });
    let mut disk = Blocking::new(Box::new(open(&server).unwrap()));
    for (_, error) in expected {
        assert_eq!(disk.write(0, &[0; 512]), Err(error));
    }
    assert_eq!(disk.read(0, 4).unwrap_err(), BlockError::Medium(Some(2)));
    drop(disk);
    server.script.join().unwrap();
}

#[test]
fn requests_without_an_answer_are_sent_again() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.greet();
        peer.request("0000", "0001", 0, 512);
        drop(peer);
        let mut peer = accept();
        peer.greet();
        let cookie = peer.request("0000", "0001", 0, 512);
        peer.expect(&"77".repeat(512));
        peer.ok(&cookie);
        peer.goodbye();
    });
    let mut disk = Blocking::new(Box::new(patient(&server)));
    disk.write(0, &[0x77; 512]).unwrap();
    drop(disk);
    server.script.join().unwrap();
}

#[test]
fn confirmed_writes_that_may_be_gone_are_never_confirmed_again() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.greet();
        let cookie = peer.request("0000", "0001", 0, 512);
        peer.expect(&"77".repeat(512));
        peer.ok(&cookie);
        peer.request("0000", "0003", 0, 0);
        // The server breaks down with the write in its cache.
        drop(peer);
        let mut peer = accept();
        peer.greet();
        let cookie = peer.request("0000", "0000", 0, 512);
        peer.send(&format!("668e33ef 0001 0001 {cookie} 00000208 0000000000000000"));
        peer.0.write_all(&[0; 512]).unwrap();
        peer.goodbye();
    });
    let mut disk = Blocking::new(Box::new(patient(&server)));
    disk.write(0, &[0x77; 512]).unwrap();
    assert_eq!(disk.flush(), Err(BlockError::WritesLost));
    assert_eq!(disk.write(0, &[0x77; 512]), Err(BlockError::WritesLost));
    assert_eq!(disk.flush(), Err(BlockError::WritesLost), "a second flush does not make it good");
    // What is there can still be read.
    assert_eq!(disk.read(0, 1).unwrap().to_bytes(), [0; 512][..]);
    drop(disk);
    server.script.join().unwrap();
}

#[test]
fn a_failed_flush_is_never_made_good_by_another() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.greet();
        let cookie = peer.request("0000", "0003", 0, 0);
        peer.send(&format!("67446698 00000005 {cookie}"));
        peer.goodbye();
    });
    let mut disk = Blocking::new(Box::new(open(&server).unwrap()));
    assert_eq!(disk.flush(), Err(BlockError::Medium(None)));
    assert_eq!(disk.flush(), Err(BlockError::WritesLost));
    drop(disk);
    server.script.join().unwrap();
}

#[test]
fn a_lying_server_touches_nothing() {
    for lie in [
        // Bytes before those asked for, and after; another request; a chunk that no read has; no reply at all.
        "668e33ef 0001 0001 COOKIE 00000208 0000000000000000",
        "668e33ef 0001 0001 COOKIE 00000209 0000000000000200",
        "668e33ef 0001 0002 COOKIE 0000000c ffffffffffffff00 00000200",
        "668e33ef 0001 0001 0000000000000063 00000208 0000000000000200",
        "668e33ef 0001 0005 COOKIE 0000000c 00000007 00000200 00000000",
        "668e33ef 0000 8001 COOKIE ffffffff",
        "67446698 00000000 COOKIE",
        "12345678",
    ] {
        let server = server(move |accept| {
            let mut peer = accept();
            peer.greet();
            let cookie = peer.request("0000", "0000", 512, 512);
            peer.send(&lie.replace("COOKIE", &cookie));
            // The connection is ended, or reset with what was not read of the lie.
            assert!(!matches!(peer.0.read(&mut [0]), Ok(1)), "{lie}");
        });
        let mut disk = Blocking::new(Box::new(open(&server).unwrap()));
        // The listener is gone with the script.
        assert_eq!(disk.read(1, 1).unwrap_err(), BlockError::Gone, "{lie}");
        server.script.join().unwrap();
    }
}

#[test]
fn refusals_say_why() {
    let refused = |kind: &'static str| {
        let server = server(move |accept| {
            let mut peer = accept();
            peer.send(GREETING);
            peer.expect("00000003");
            peer.expect(STRUCTURED);
            peer.send("0003e889045565a9 00000008 80000001 00000000");
            peer.expect(GO);
            peer.send(&format!("0003e889045565a9 00000007 {kind} 00000000"));
        });
        let error = open(&server).err().unwrap();
        server.script.join().unwrap();
        error
    };
    let unknown = refused("80000006");
    assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
    assert!(unknown.to_string().contains("'x'"), "{unknown}");
    assert!(refused("80000005").to_string().contains("TLS"));
    let server = server(|accept| accept().send("5353482d322e302d"));
    let error = open(&server).err().unwrap();
    assert!(error.to_string().contains("no NBD server"), "{error}");
    server.script.join().unwrap();
}

#[test]
fn a_server_from_before_go() {
    let server = server(|accept| {
        let mut peer = accept();
        peer.send("4e42444d41474943 49484156454f5054 0001");
        peer.expect("00000001");
        peer.expect(STRUCTURED);
        peer.send("0003e889045565a9 00000008 80000001 00000000");
        peer.expect(GO);
        peer.send("0003e889045565a9 00000007 80000001 00000000");
        peer.expect("49484156454f5054 00000001 00000001 78");
        peer.send("0000000000100000 0003");
        peer.send(&"00".repeat(124));
        peer.goodbye();
    });
    let disk = open(&server).unwrap();
    assert_eq!((disk.geometry().blocks, disk.geometry().read_only), (2048, true));
    assert!(!disk.geometry().volatile_cache);
    drop(disk);
    server.script.join().unwrap();
}
