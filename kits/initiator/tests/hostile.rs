//! Hostile peers of a running target: each gets the answer of the RFC or a closed connection, and a session beside it
//! goes on reading and writing. Requests and expected answers are typed byte by byte from RFC 7143 section 11.

mod common;

use common::{attach, options, pattern, ram, serve};
use iscsi_initiator::Disk;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A raw connection. Reads end after a while, so that an answer that does not come is told from a closed connection.
struct Wire(TcpStream);

/// A PDU as it came: 48 bytes of header, then data.
type Answer = (Vec<u8>, Vec<u8>);

impl Wire {
    fn new(portal: SocketAddr) -> Self {
        let stream = TcpStream::connect(portal).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// Sends a header with the data's length filled in, and the data with its padding.
    fn send(&mut self, mut bhs: [u8; 48], data: &[u8]) {
        bhs[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        let mut bytes = bhs.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        // The target may have closed the connection already: the answer tells.
        let _ = self.0.write_all(&bytes);
    }

    fn receive(&mut self) -> Option<Answer> {
        let mut bhs = vec![0; 48];
        match self.0.read_exact(&mut bhs) {
            Ok(()) => (),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(e) => panic!("neither an answer nor an end: {e}"),
        }
        let length = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.0.read_exact(&mut data).unwrap();
        data.truncate(length);
        Some((bhs, data))
    }

    fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }

    /// A session of its own: CSG 1, NSG 3, T; CmdSN 1; the answer must be a success in full feature phase.
    fn logged_in(portal: SocketAddr, isid: u8) -> Self {
        let mut wire = Self::new(portal);
        wire.send(login(isid), &names());
        let (bhs, _) = wire.receive().unwrap();
        assert_eq!(bhs[0], 0x23);
        assert_eq!(bhs[1], 0x87, "T, CSG 1, NSG 3");
        assert_eq!(&bhs[36..38], &[0, 0], "status 0000");
        wire
    }
}

/// Login Request, section 11.12: I, opcode 03h; T, CSG 1, NSG 3; a random ISID; ITT 1; CID 0; CmdSN 1.
fn login(isid: u8) -> [u8; 48] {
    let mut bhs = [0; 48];
    bhs[0] = 0x43;
    bhs[1] = 0x87;
    bhs[8] = 0x80;
    bhs[13] = isid;
    bhs[19] = 1;
    bhs[27] = 1;
    bhs
}

fn names() -> Vec<u8> {
    let text = format!(
        "InitiatorName=iqn.2026-01.org.example:hostile\0TargetName={}\0SessionType=Normal\0",
        common::IQN
    );
    text.into_bytes()
}

/// SCSI Command, section 11.3: F and the given direction, SIMPLE; LUN; ITT; EDTL; CmdSN; CDB.
fn command(direction: u8, lun: u8, itt: u8, length: u32, cmd_sn: u32, cdb: &[u8]) -> [u8; 48] {
    let mut bhs = [0; 48];
    bhs[0] = 0x01;
    bhs[1] = 0x80 | direction | 1;
    bhs[9] = lun;
    bhs[19] = itt;
    bhs[20..24].copy_from_slice(&length.to_be_bytes());
    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    bhs[28..32].copy_from_slice(&1u32.to_be_bytes());
    bhs[32..32 + cdb.len()].copy_from_slice(cdb);
    bhs
}

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
/// TEST UNIT READY.
const READY: [u8; 6] = [0; 6];

/// Status and sense key, ASC, ASCQ of a SCSI Response (section 11.4): sense data in fixed format after its length.
fn sense(answer: &Answer) -> (u8, [u8; 3]) {
    let (bhs, data) = answer;
    assert_eq!((bhs[0], bhs[2]), (0x21, 0), "SCSI Response, command completed at target");
    assert_eq!(data[2] & 0x7f, 0x70, "fixed format, current");
    (bhs[3], [data[4] & 0x0f, data[14], data[15]])
}

/// Runs a hostile peer on a thread of its own while `disk` writes and reads; then `disk` must still be there.
async fn beside(disk: &Disk, hostile: impl FnOnce() + Send + 'static) {
    let hostile = tokio::task::spawn_blocking(hostile);
    let mut round = 0;
    while !hostile.is_finished() || round == 0 {
        round += 1;
        let lba = round * 8 % 1024;
        disk.write(lba, pattern(lba, 4096, round).into()).await.unwrap();
        assert!(disk.read(lba, 8).await.unwrap().to_bytes() == pattern(lba, 4096, round));
    }
    hostile.await.unwrap();
}

// req: 7143-4.2.4-5, 7143-6.3-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_login() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let disk = attach(portal, &options()).await;
    beside(&disk, move || {
        // A web browser.
        let mut wire = Wire::new(portal);
        let _ = wire.0.write_all(b"GET / HTTP/1.1\r\nHost: storage.example\r\nAccept: */*\r\n\r\n");
        assert!(wire.is_closed());
        // A port scanner: connects and goes.
        drop(Wire::new(portal));
        // A NOP-Out in the place of a login.
        let mut wire = Wire::new(portal);
        let mut bhs = [0; 48];
        bhs[1] = 0x80;
        bhs[16..24].copy_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        wire.send(bhs, &[]);
        assert!(wire.is_closed());
        // A login that announces 16 MiB.
        let mut wire = Wire::new(portal);
        let mut bhs = login(1);
        bhs[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
        let _ = wire.0.write_all(&bhs);
        assert!(wire.is_closed());
        // Text without its terminator: initiator error.
        let mut wire = Wire::new(portal);
        let mut text = names();
        text.pop();
        wire.send(login(1), &text);
        let (bhs, _) = wire.receive().unwrap();
        assert_eq!((bhs[0], &bhs[36..38]), (0x23, &[2, 0][..]));
        assert!(wire.is_closed());
        // No InitiatorName: missing parameter.
        let mut wire = Wire::new(portal);
        wire.send(login(1), b"SessionType=Discovery\0");
        let (bhs, _) = wire.receive().unwrap();
        assert_eq!((bhs[0], &bhs[36..38]), (0x23, &[2, 7][..]));
        assert!(wire.is_closed());
        // A target that is not here: not found.
        let mut wire = Wire::new(portal);
        let text = b"InitiatorName=iqn.2026-01.org.example:hostile\0TargetName=iqn.2026-01.org.example:no\0";
        wire.send(login(1), text);
        let (bhs, _) = wire.receive().unwrap();
        assert_eq!((bhs[0], &bhs[36..38]), (0x23, &[2, 3][..]));
        assert!(wire.is_closed());
    })
    .await;
    disk.close().await.unwrap();
    server.shutdown().await;
}

// req: 7143-4.2.2.1-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_full_feature_phase() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let disk = attach(portal, &options()).await;
    beside(&disk, move || {
        let mut wire = Wire::logged_in(portal, 1);
        // The nexus is new: POWER ON, RESET, OR BUS DEVICE RESET OCCURRED, once.
        wire.send(command(0, 0, 2, 0, 1, &READY), &[]);
        let answer = wire.receive().unwrap();
        assert_eq!(sense(&answer).0, 0x02);
        assert_eq!(sense(&answer).1[..2], [6, 0x29]);
        // Unknown opcode 1Ch: Reject, "command not supported", with the header.
        let mut bhs = command(0, 0, 3, 0, 2, &READY);
        bhs[0] = 0x1c;
        wire.send(bhs, &[]);
        let (reject, data) = wire.receive().unwrap();
        assert_eq!((reject[0], reject[2]), (0x3f, 0x05));
        assert_eq!(data[..48], bhs);
        // CmdSN far beyond MaxCmdSN: ignored; the command after it is answered.
        wire.send(command(0, 0, 4, 0, 0x4000_0000, &READY), &[]);
        wire.send(command(0, 0, 5, 0, 2, &READY), &[]);
        let (bhs, _) = wire.receive().unwrap();
        assert_eq!((bhs[0], bhs[3], bhs[19]), (0x21, 0x00, 5), "GOOD for ITT 5, nothing for ITT 4");
        // A LUN that is not there: ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED.
        wire.send(command(0, 9, 6, 0, 3, &READY), &[]);
        assert_eq!(sense(&wire.receive().unwrap()), (0x02, [5, 0x25, 0]));
        // READ(10) beyond the end: LOGICAL BLOCK ADDRESS OUT OF RANGE.
        wire.send(command(READ, 0, 7, 512, 4, &[0x28, 0, 0, 0, 8, 0, 0, 0, 1, 0]), &[]);
        assert_eq!(sense(&wire.receive().unwrap()), (0x02, [5, 0x21, 0]));
        // The same with a length that wraps: 32 MiB from the last block on.
        wire.send(command(READ, 0, 8, 512, 5, &[0x28, 0, 0, 0, 7, 0xff, 0, 0xff, 0xff, 0]), &[]);
        assert_eq!(sense(&wire.receive().unwrap()), (0x02, [5, 0x21, 0]));
        // An unknown command: INVALID COMMAND OPERATION CODE.
        wire.send(command(0, 0, 9, 0, 6, &[0xc0, 0, 0, 0, 0, 0]), &[]);
        assert_eq!(sense(&wire.receive().unwrap()), (0x02, [5, 0x20, 0]));
        // Data-Out for a transfer that nobody asked for is dropped or rejected, and the session goes on.
        let mut bhs = [0; 48];
        bhs[0] = 0x05;
        bhs[1] = 0x80;
        bhs[19] = 0x77;
        bhs[20..24].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        wire.send(bhs, &[0x55; 512]);
        let mut ping = [0; 48];
        ping[0] = 0x40;
        ping[1] = 0x80;
        ping[16..24].copy_from_slice(&[0, 0, 0, 0x10, 0xff, 0xff, 0xff, 0xff]);
        ping[24..28].copy_from_slice(&7u32.to_be_bytes());
        wire.send(ping, b"still there?");
        let mut answer = wire.receive().unwrap();
        if answer.0[0] == 0x3f {
            answer = wire.receive().unwrap();
        }
        assert_eq!((answer.0[0], answer.0[19]), (0x20, 0x10), "NOP-In");
        assert_eq!(answer.1, b"still there?");
    })
    .await;
    beside(&disk, move || {
        // More data in one PDU than the target takes (MaxRecvDataSegmentLength, 256 KiB here): closed.
        let mut wire = Wire::logged_in(portal, 2);
        wire.send(command(WRITE, 0, 2, 1 << 20, 1, &[0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0]), &vec![0; 1 << 20]);
        assert!(wire.is_closed());
        // A Login Request in full feature phase: closed, or rejected as a protocol error.
        let mut wire = Wire::logged_in(portal, 3);
        wire.send(login(3), &names());
        match wire.receive() {
            None => (),
            Some((bhs, _)) => assert_eq!((bhs[0], bhs[2]), (0x3f, 0x04)),
        }
    })
    .await;
    disk.close().await.unwrap();
    server.shutdown().await;
}
