//! What iSCSIProtocolLevel 2 brings to commands (RFC 7144 section 5): priorities and status qualifiers, against a target
//! and an initiator that are typed byte by byte.

mod common;

use async_trait::async_trait;
use common::wire::*;
use common::{IQN, options, ram, serve, url};
use datamover::{SgList, SgListMut};
use iscsi_initiator::{DataDirection, Disk, Error, ScsiCommand};
use iscsi_pdu::{Lun, ScsiStatus};
use iscsi_target::block::{AsyncAdapter, AsyncBlockDevice, BlockError, Geometry};
use iscsi_target::{LogicalUnit, UnitConfig};
use scsi_cmd::cdb::TestUnitReady;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// BUSY.
const BUSY: u8 = 0x08;

/// A disk that takes nothing for the next two and a half seconds, as it says.
struct Overloaded;

impl Overloaded {
    fn says() -> io::Error {
        io::Error::other(BlockError::Busy(Duration::from_millis(2401)))
    }
}

#[async_trait]
impl AsyncBlockDevice for Overloaded {
    fn geometry(&self) -> Geometry {
        Geometry::new(512, 2048)
    }

    async fn read(&self, _: u64, _: SgListMut) -> io::Result<SgList> {
        Err(Self::says())
    }

    async fn write(&self, _: u64, _: SgList) -> io::Result<()> {
        Err(Self::says())
    }
}

// RFC 7144 section 5.2.1; SAM-5 clause 5.3.2: tenths of a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_disk_says_when_to_come_again() {
    let server = serve(vec![ram(1)]).await;
    let unit = LogicalUnit::new(UnitConfig::new("busy"), Box::new(AsyncAdapter::new(Overloaded)));
    server.device(IQN).unwrap().add_unit(1, unit).unwrap();
    let (portal, keys) = (server.local_addrs()[0], "InitialR2T=Yes\0ImmediateData=No\0");
    for (isid, level, qualifier) in [(1, "", 0), (2, "iSCSIProtocolLevel=2\0", 25)] {
        let place = Place { isid, tsih: 0, cid: 0, cmd_sn: 1 };
        let (mut wire, _) = Wire::logged_in(portal, place, &names(&format!("{keys}{level}")));
        let on_it = |mut bhs: [u8; 48]| {
            bhs[9] = 1;
            bhs
        };
        wire.send(on_it(ready(1, 1)), &[]);
        assert_eq!(wire.answer().asc().0, 0x29);
        wire.send(on_it(read_block(2, 2, 0)), &[]);
        let read = wire.answer();
        wire.send(on_it(write_block(3, 3, 0)), &[]);
        let r2t = wire.answer();
        let mut data_out = [0; 48];
        (data_out[0], data_out[1], data_out[9]) = (0x05, 0x80, 1);
        data_out[16..24].copy_from_slice(&r2t.bhs[16..24]);
        wire.send(data_out, &[7; 512]);
        let write = wire.answer();
        for (answer, itt) in [(read, 2), (write, 3)] {
            assert_eq!((answer.opcode(), answer.bhs[2], answer.bhs[3], answer.itt()), (0x21, 0, BUSY, itt));
            assert_eq!(answer.word(8) >> 16, qualifier, "{level}");
        }
    }
    server.shutdown().await;
}

/// A target of which everything is typed here. It answers commands as they come and notes when that was and with which
/// priority; some answers are BUSY.
struct Typed {
    stream: TcpStream,
    stat_sn: u32,
    cmd_sn: u32,
}

impl Typed {
    async fn receive(&mut self) -> Option<([u8; 48], Vec<u8>)> {
        let mut bhs = [0; 48];
        self.stream.read_exact(&mut bhs).await.ok()?;
        let length = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data).await.ok()?;
        data.truncate(length);
        Some((bhs, data))
    }

    /// Sends an answer, its tag, length and numbers filled in.
    async fn answer(&mut self, to: &[u8; 48], mut bhs: [u8; 48], data: &[u8]) {
        bhs[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        bhs[16..20].copy_from_slice(&to[16..20]);
        for (at, sn) in [(24, self.stat_sn), (28, self.cmd_sn), (32, self.cmd_sn + 31)] {
            bhs[at..at + 4].copy_from_slice(&sn.to_be_bytes());
        }
        self.stat_sn += 1;
        let mut bytes = bhs.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Login Response (section 11.13): what is declared is taken note of, what is offered is agreed to.
    async fn log_in(&mut self, request: &[u8; 48], text: &[u8]) {
        let declared = |key: &str| {
            key.starts_with("Initiator")
                || matches!(key, "SessionType" | "TargetName" | "MaxRecvDataSegmentLength")
        };
        let mut agreed = String::from("TargetPortalGroupTag=1\0");
        for pair in String::from_utf8_lossy(text).split_terminator('\0') {
            let (key, value) = pair.split_once('=').unwrap();
            if !declared(key) {
                agreed += &format!("{key}={}\0", value.split(',').next().unwrap());
            }
        }
        let mut bhs = [0; 48];
        bhs[0] = 0x23;
        bhs[1] = request[1];
        bhs[8..14].copy_from_slice(&request[8..14]);
        bhs[15] = 1;
        self.cmd_sn = u32::from_be_bytes(request[24..28].try_into().unwrap());
        self.answer(request, bhs, agreed.as_bytes()).await;
    }

    /// SCSI Response (section 11.4).
    async fn status(&mut self, command: &[u8; 48], status: u8, qualifier: u16, sense: &[u8]) {
        let mut bhs = [0; 48];
        (bhs[0], bhs[1], bhs[3]) = (0x21, 0x80, status);
        bhs[8..10].copy_from_slice(&qualifier.to_be_bytes());
        let mut data = Vec::new();
        if !sense.is_empty() {
            data.extend_from_slice(&(sense.len() as u16).to_be_bytes());
            data.extend_from_slice(sense);
        }
        self.answer(command, bhs, &data).await;
    }

    /// Data-In with GOOD status (section 11.7), the residual counted.
    async fn input(&mut self, command: &[u8; 48], data: &[u8]) {
        let missing = u32::from_be_bytes(command[20..24].try_into().unwrap()) - data.len() as u32;
        let mut bhs = [0; 48];
        bhs[0] = 0x25;
        bhs[1] = 0x81 | if missing > 0 { 2 } else { 0 };
        bhs[20..24].fill(0xff);
        bhs[44..48].copy_from_slice(&missing.to_be_bytes());
        self.answer(command, bhs, data).await;
    }

    /// Serves a disk of 8 blocks, busy for these qualifiers at the first reads; operation code, PRI and time of commands.
    async fn serve(mut self, mut busy: Vec<u16>) -> Vec<(u8, u8, Instant)> {
        let mut commands = Vec::new();
        while let Some((bhs, data)) = self.receive().await {
            match bhs[0] & 0x3f {
                0x03 => self.log_in(&bhs, &data).await,
                0x01 => {
                    self.cmd_sn += 1;
                    commands.push((bhs[32], bhs[2], Instant::now()));
                    match bhs[32] {
                        0x12 if bhs[33] == 0 => {
                            let mut inquiry = [0x20; 36];
                            inquiry[..5].copy_from_slice(&[0, 0, 6, 2, 31]);
                            self.input(&bhs, &inquiry).await;
                        }
                        // READ CAPACITY (16).
                        0x9e => {
                            let mut capacity = [0; 32];
                            (capacity[7], capacity[10]) = (7, 2);
                            self.input(&bhs, &capacity).await;
                        }
                        0x28 | 0x88 if !busy.is_empty() => {
                            self.status(&bhs, BUSY, busy.remove(0), &[]).await;
                        }
                        0x28 | 0x88 => self.input(&bhs, &[0x77; 512]).await,
                        0x00 => self.status(&bhs, 0, 0, &[]).await,
                        // ILLEGAL REQUEST, INVALID FIELD IN CDB.
                        _ => {
                            let mut sense = [0; 18];
                            (sense[0], sense[2], sense[7], sense[12]) = (0x70, 5, 10, 0x24);
                            self.status(&bhs, 2, 0, &sense).await;
                        }
                    }
                }
                0x06 => {
                    let mut response = [0; 48];
                    (response[0], response[1]) = (0x26, 0x80);
                    self.answer(&bhs, response, &[]).await;
                }
                other => panic!("opcode {other:02x}h"),
            }
        }
        commands
    }
}

/// Lets a disk be attached to a typed target, at this protocol level, and used.
async fn with_disk<F: Future<Output = ()>>(
    level: u8,
    busy: Vec<u16>,
    usage: impl FnOnce(Disk) -> F,
) -> Vec<(u8, u8, Instant)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let portal = listener.local_addr().unwrap();
    let target = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        Typed { stream, stat_sn: 1, cmd_sn: 1 }.serve(busy).await
    });
    let mut options = options();
    options.preferences.iscsi_protocol_level = level;
    usage(Disk::attach(&url(portal, 0), &options).await.unwrap()).await;
    target.await.unwrap()
}

// RFC 7144 section 5.1.1: PRI is in bits 7 to 4 of byte 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_disk_have_its_priority() {
    for (level, priority) in [(1, 0), (2, 0x50)] {
        let commands = with_disk(level, Vec::new(), async |disk| {
            let urgent = disk.clone().with_priority(5);
            assert_eq!(urgent.read(0, 1).await.unwrap().to_bytes(), [0x77; 512][..]);
            disk.read(0, 1).await.unwrap();
            let ready = TestUnitReady::default().into();
            let command = ScsiCommand::new(Lun::ZERO, ready, DataDirection::None).with_priority(5);
            disk.session().execute(command).await.unwrap();
            drop(urgent);
            disk.close().await.unwrap();
        })
        .await;
        let seen: Vec<_> = commands.iter().map(|(_, pri, _)| *pri).collect();
        let (attached, used) = seen.split_at(seen.len() - 3);
        assert!(attached.iter().all(|pri| *pri == 0));
        assert_eq!(used, [priority, 0, priority], "level {level}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_target_is_left_alone_as_long_as_it_asks() {
    // 0.3 seconds, with the scope of the whole target; the longest time that can be asked for is too long to wait.
    let commands = with_disk(2, vec![0x4003, 0x3fef], async |disk| {
        let refused = disk.read(0, 1).await.unwrap_err();
        let Error::Scsi(error) = &refused else { panic!("{refused}") };
        assert_eq!((error.status, error.qualifier.0), (ScsiStatus::Busy, 0x3fef));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1_636_700)));
        disk.read(0, 1).await.unwrap();
        disk.close().await.unwrap();
    })
    .await;
    let reads: Vec<Instant> =
        commands.iter().filter(|(op, ..)| matches!(op, 0x28 | 0x88)).map(|(.., at)| *at).collect();
    assert_eq!(reads.len(), 3);
    assert!(reads[1] - reads[0] >= Duration::from_millis(300));
    // Below level 2 the field means nothing.
    let commands = with_disk(1, vec![0x3fef], async |disk| {
        disk.read(0, 1).await.unwrap();
        disk.close().await.unwrap();
    })
    .await;
    assert!(commands.len() > 2);
}
