//! A whole target without sockets: driver, session engine, device server, RAM disk and TCP core, on a byte stream
//! in memory. What the other end sends is made and looked at by hand, so that nothing of ours stands on both sides.

use async_trait::async_trait;
use datamover::{LoginLink as _, Resources, Role, SlabPool};
use iscsi_login::auth::{ChapAccount, SecretRequest, TargetAuth};
use iscsi_login::{AccessDecision, AccessRequest, Denial, Grant, TargetLoginConfig};
use iscsi_pdu::Tsih;
use iscsi_session::driver::{TargetControl, serve_session};
use iscsi_session::login::{LoginPolicy, accept};
use iscsi_session::target::{SessionEnd, TargetConfig, TargetSession};
use iscsi_target::block::RamDisk;
use iscsi_target::{InitiatorPort, LogicalUnit, TargetDevice, TargetPort, UnitConfig};
use iscsi_tcp::{Stream, TcpLoginLink};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::runtime::Runtime;

const NAME: &str = "iqn.2026-01.org.example:whole";
const BHS: usize = 48;
const BLOCK: usize = 512;

/// Both directions; the vectors keep their memory.
#[derive(Default)]
struct Wire {
    to_target: Vec<u8>,
    read: usize,
    from_target: Vec<u8>,
    calls: u64,
}

struct End(Arc<Mutex<Wire>>);

impl Stream for End {
    fn poll_read(&mut self, _: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.lock().unwrap();
        let mut n = 0;
        for slice in slices {
            let rest = &wire.to_target[wire.read..];
            let len = slice.len().min(rest.len());
            slice[..len].copy_from_slice(&rest[..len]);
            wire.read += len;
            n += len;
        }
        if n == 0 {
            return Poll::Pending;
        }
        wire.calls += 1;
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.lock().unwrap();
        wire.calls += 1;
        let before = wire.from_target.len();
        slices.iter().for_each(|s| wire.from_target.extend_from_slice(s));
        Poll::Ready(Ok(wire.from_target.len() - before))
    }

    fn shutdown(&mut self) {}

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }
}

struct Anyone;

#[async_trait]
impl LoginPolicy for Anyone {
    async fn access(&self, _: &AccessRequest) -> AccessDecision {
        AccessDecision::Grant(Box::new(Grant {
            portal_group_tag: Some(1),
            alias: None,
            auth: TargetAuth::None,
            preferences: None,
            session: None,
        }))
    }

    async fn account(&self, _: &SecretRequest) -> Option<ChapAccount> {
        None
    }

    fn tsih(&self, _: &AccessRequest) -> Result<Tsih, Denial> {
        Ok(Tsih(1))
    }

    fn release(&self, _: &AccessRequest, _: Tsih) {}
}

/// What a round does with the blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// READ(16).
    Read,
    /// WRITE(16) with all data in the command.
    WriteImmediate,
    /// WRITE(16), the data asked for by R2T.
    WriteSolicited,
}

/// The initiator's hand, and the target's future to poll.
pub struct Whole {
    wire: Arc<Mutex<Wire>>,
    serving: Pin<Box<dyn Future<Output = SessionEnd> + Send>>,
    // Dropped after what uses them.
    _control: TargetControl,
    runtime: Runtime,
    digests: bool,
    cmd_sn: u32,
    exp_stat_sn: u32,
    request: Vec<u8>,
    received: Vec<u8>,
    payload: Vec<u8>,
}

fn put32(pdu: &mut [u8], at: usize, value: u32) {
    pdu[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn be32(pdu: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(pdu[at..at + 4].try_into().unwrap())
}

impl Whole {
    /// A logged-in session with a RAM disk of 16 MiB as LUN 0, written all over.
    pub fn new(digests: bool) -> Self {
        Self::with_pool(digests, Arc::new(SlabPool::default()))
    }

    /// The same with this memory.
    pub fn with_pool(digests: bool, pool: Arc<SlabPool>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let wire = Arc::new(Mutex::new(Wire::default()));
        let digest = if digests { "CRC32C" } else { "None" };
        let text = format!(
            "InitiatorName=iqn.2026-01.org.example:hand\0SessionType=Normal\0TargetName={NAME}\0\
             HeaderDigest={digest}\0DataDigest={digest}\0MaxRecvDataSegmentLength=262144\0InitialR2T=Yes\0\
             ImmediateData=Yes\0FirstBurstLength=262144\0MaxBurstLength=1048576\0MaxOutstandingR2T=8\0"
        );
        let mut login = vec![0; BHS];
        (login[0], login[1]) = (0x43, 0x87);
        put32(&mut login, 4, text.len() as u32);
        login[8..14].copy_from_slice(&[0x80, 0, 0, 0, 0, 1]);
        put32(&mut login, 24, 1);
        login.extend_from_slice(text.as_bytes());
        login.resize(login.len().next_multiple_of(4), 0);
        wire.lock().unwrap().to_target = login;
        let entered = runtime.enter();
        let mut cx = Context::from_waker(Waker::noop());
        let link = TcpLoginLink::new(End(wire.clone()), Role::Target, pool);
        assert_eq!(link.role(), Role::Target);
        let config = TargetLoginConfig { command_window: 128, ..TargetLoginConfig::default() };
        let mut accepting = Box::pin(accept(Box::new(link), config, Resources::default(), [7; 32], &Anyone));
        let logged_in = loop {
            if let Poll::Ready(done) = accepting.as_mut().poll(&mut cx) {
                break done.unwrap();
            }
        };
        drop(accepting);
        let device = TargetDevice::new(NAME, []);
        let disk = RamDisk::new(BLOCK as u32, (16 << 20) / BLOCK as u64);
        device.add_unit(0, LogicalUnit::new(UnitConfig::new("whole"), Box::new(disk))).unwrap();
        let initiator = InitiatorPort { name: "hand".into(), isid: [0x80, 0, 0, 0, 0, 1] };
        let nexus = device.nexus(initiator, TargetPort { relative_id: 1, portal_group: 1 }, 1);
        let now = tokio::time::Instant::now().into_std();
        let session = TargetSession::new(TargetConfig::default(), &logged_in.negotiated, now);
        let (control, serving) = serve_session(session, logged_in, Box::new(nexus));
        drop(entered);
        let mut whole = Self {
            wire,
            serving: Box::pin(serving),
            _control: control,
            runtime,
            digests: false,
            cmd_sn: 1,
            exp_stat_sn: 0,
            request: Vec::new(),
            received: Vec::new(),
            payload: (0..1 << 20).map(|n| (n / BLOCK * 7 + n % BLOCK) as u8).collect(),
        };
        // The last thing without digests is the Login Response, which comes out with the first poll.
        whole.poll();
        let answer = whole.take();
        assert_eq!(
            (answer[0], answer[1] & 0x83, &answer[36..38]),
            (0x23, 0x83, &[0, 0][..]),
            "{}",
            String::from_utf8_lossy(&answer[BHS..])
        );
        whole.exp_stat_sn = be32(answer, 24) + 1;
        whole.received.clear();
        whole.digests = digests;
        // The unit attention of the power on.
        whole.command(0, &[0; 16], 0, 0, 0..0);
        assert_eq!(whole.answers(1, None), 1, "CHECK CONDITION");
        for lba in (0..16 << 20).step_by(1 << 20).map(|at| at as u64 / BLOCK as u64) {
            whole.io(Kind::WriteSolicited, &[lba], 1 << 20);
        }
        whole
    }

    fn poll(&mut self) {
        let _entered = self.runtime.enter();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(self.serving.as_mut().poll(&mut cx).is_pending(), "the session has ended");
    }

    /// Takes what has come.
    fn take(&mut self) -> &[u8] {
        let mut wire = self.wire.lock().unwrap();
        self.received.extend_from_slice(&wire.from_target);
        wire.from_target.clear();
        drop(wire);
        &self.received
    }

    /// Reads and writes of the stream so far.
    pub fn calls(&self) -> u64 {
        self.wire.lock().unwrap().calls
    }

    fn command(
        &mut self,
        itt: u32,
        cdb: &[u8; 16],
        flags: u8,
        expected: usize,
        data: std::ops::Range<usize>,
    ) {
        let mut bhs = [0; BHS];
        (bhs[0], bhs[1]) = (0x01, 0x80 | flags | 1);
        put32(&mut bhs, 4, data.len() as u32);
        put32(&mut bhs, 16, itt);
        put32(&mut bhs, 20, expected as u32);
        put32(&mut bhs, 24, self.cmd_sn);
        put32(&mut bhs, 28, self.exp_stat_sn);
        bhs[32..48].copy_from_slice(cdb);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        self.push(&bhs, data);
    }

    fn push(&mut self, bhs: &[u8; BHS], data: std::ops::Range<usize>) {
        self.request.extend_from_slice(bhs);
        if self.digests {
            self.request.extend_from_slice(&crc32c::crc32c(bhs).to_le_bytes());
        }
        if !data.is_empty() {
            self.request.extend_from_slice(&self.payload[data.clone()]);
            if self.digests {
                self.request.extend_from_slice(&crc32c::crc32c(&self.payload[data]).to_le_bytes());
            }
        }
    }

    /// One round of commands, all sent at once, of `size` bytes each.
    pub fn io(&mut self, kind: Kind, lbas: &[u64], size: usize) {
        for (itt, lba) in lbas.iter().enumerate() {
            let mut cdb = [0; 16];
            let (op, flags) = if kind == Kind::Read { (0x88, 0x40) } else { (0x8a, 0x20) };
            cdb[0] = op;
            cdb[2..10].copy_from_slice(&lba.to_be_bytes());
            cdb[10..14].copy_from_slice(&((size / BLOCK) as u32).to_be_bytes());
            let from = (*lba as usize * BLOCK) % (1 << 20);
            let data = if kind == Kind::WriteImmediate { from..from + size } else { from..from };
            self.command(itt as u32, &cdb, flags, size, data);
        }
        assert_eq!(self.answers(lbas.len(), Some((lbas, size))), 0, "all GOOD");
    }

    /// Lets the target work until `count` commands have ended; returns how many of them badly.
    fn answers(&mut self, count: usize, io: Option<(&[u64], usize)>) -> usize {
        let (mut ended, mut bad) = (0, 0);
        let mut idle = 0;
        while ended < count {
            let mut wire = self.wire.lock().unwrap();
            let read = std::mem::take(&mut wire.read);
            wire.to_target.drain(..read);
            wire.to_target.append(&mut self.request);
            drop(wire);
            self.poll();
            self.take();
            let (mut at, received) = (0, std::mem::take(&mut self.received));
            idle = if received.is_empty() { idle + 1 } else { 0 };
            assert!(idle < 1000, "no answer");
            let digest = if self.digests { 4 } else { 0 };
            while received.len() - at >= BHS {
                let bhs: [u8; BHS] = received[at..at + BHS].try_into().unwrap();
                let len = (be32(&bhs, 4) & 0x00ff_ffff) as usize;
                let data = at + BHS + digest;
                let end = data + len.next_multiple_of(4) + if len > 0 { digest } else { 0 };
                if received.len() < end {
                    break;
                }
                let data = &received[data..data + len];
                match (bhs[0], io) {
                    (0x25, Some((lbas, _))) => {
                        let lba = lbas[be32(&bhs, 16) as usize] as usize;
                        let from = (lba * BLOCK + be32(&bhs, 40) as usize) % (1 << 20);
                        assert!(data == &self.payload[from..from + len], "data of LBA {lba}");
                        if self.digests {
                            assert_eq!(received[end - 4..end], crc32c::crc32c(data).to_le_bytes());
                        }
                    }
                    (0x31, Some((lbas, _))) => self.answer(&bhs, lbas[be32(&bhs, 16) as usize]),
                    (0x21, _) => {}
                    other => panic!("unexpected PDU {:#04x}", other.0),
                }
                if bhs[0] == 0x21 || (bhs[0] == 0x25 && bhs[1] & 1 != 0) {
                    self.exp_stat_sn = be32(&bhs, 24).wrapping_add(1);
                    (ended, bad) = (ended + 1, bad + usize::from(bhs[3] != 0));
                }
                at = end;
            }
            self.received = received;
            self.received.drain(..at);
        }
        bad
    }

    /// Sends what an R2T asks for, in segments of 64 KiB.
    fn answer(&mut self, r2t: &[u8; BHS], lba: u64) {
        let (offset, length) = (be32(r2t, 40) as usize, be32(r2t, 44) as usize);
        for (sn, sent) in (0..length).step_by(64 << 10).enumerate() {
            let len = (length - sent).min(64 << 10);
            let mut bhs = [0; BHS];
            bhs[0] = 0x05;
            bhs[1] = if sent + len == length { 0x80 } else { 0 };
            put32(&mut bhs, 4, len as u32);
            bhs[8..24].copy_from_slice(&r2t[8..24]);
            put32(&mut bhs, 28, self.exp_stat_sn);
            put32(&mut bhs, 36, sn as u32);
            put32(&mut bhs, 40, (offset + sent) as u32);
            let from = (lba as usize * BLOCK + offset + sent) % (1 << 20);
            self.push(&bhs, from..from + len);
        }
    }
}
