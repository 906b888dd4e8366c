//! PDU scripts: what the target sends is written out, what must go to it is typed from the RFC.

mod allegiance;
mod continuation;
mod exchange;
mod function;
mod reassign;
mod recovery;
mod snack;
mod task;

use super::*;
use crate::setup::ConnSetup;
use datamover::{BufPool, Control, IoBuf, Reclaimed, SgListMut, Terminated, Window};
use iscsi_login::TaskReporting;
use iscsi_pdu::*;
use std::sync::Arc;

const FIRST_STAT_SN: u32 = 1000;
/// MaxRecvDataSegmentLength of the target in these tests.
const SEGMENT: u32 = 1024;

struct Heap;

impl BufPool for Heap {
    fn alloc(&self, len: usize) -> Option<SgListMut> {
        Some(IoBuf::zeroed(len).into())
    }

    fn chunk_len(&self) -> usize {
        65_536
    }

    fn outstanding(&self) -> usize {
        0
    }
}

struct Rig {
    s: InitiatorSession,
    now: Instant,
    c: ConnId,
    /// StatSN of the next response, by connection.
    stat_sn: Vec<u32>,
}

impl Rig {
    fn new(tweak: impl FnOnce(&mut SessionParams)) -> Self {
        Self::with_config(InitiatorConfig::default(), tweak)
    }

    #[allow(clippy::disallowed_methods)] // any instant will do
    fn with_config(cfg: InitiatorConfig, tweak: impl FnOnce(&mut SessionParams)) -> Self {
        let mut params = SessionParams::default();
        params.first_burst_length = 4096;
        params.max_burst_length = 8192;
        tweak(&mut params);
        let now = Instant::now();
        let window = InitiatorWindow::new(CmdSn(100), CmdSn(100), CmdSn(107));
        let s = InitiatorSession::with_window(cfg, params, window, now);
        let mut rig = Self { s, now, c: ConnId(0), stat_sn: Vec::new() };
        rig.c = rig.connect();
        rig
    }

    fn connect(&mut self) -> ConnId {
        let n = self.stat_sn.len() as u32 + 1;
        let mut keys = datamover::ConnKeys::default();
        keys.max_send_data_segment_length = SEGMENT;
        keys.rdma_extensions = self.s.params().rdma_extensions;
        self.stat_sn.push(n * FIRST_STAT_SN);
        let stat_sn = StatSn(n * FIRST_STAT_SN);
        let setup = ConnSetup { cid: Cid(n as u16), keys, pool: Arc::new(Heap), stat_sn };
        self.s.add_connection(self.now, setup)
    }

    fn next_stat_sn(&mut self, conn: ConnId) -> StatSn {
        let sn = &mut self.stat_sn[conn.0 as usize];
        *sn += 1;
        StatSn(*sn - 1)
    }

    fn recv_raw(&mut self, conn: ConnId, pdu: impl Into<Pdu>, buffers: TaskBuffers) {
        let control = Control { buffers, ..Control::from(pdu.into()) };
        self.s.handle_event(self.now, conn, Event::Control(control));
    }

    fn scsi_response(&mut self, itt: Itt, response: ScsiResponse) {
        let stat_sn = self.next_stat_sn(self.c);
        let pdu = ScsiResponse { itt, stat_sn, exp_cmd_sn: CmdSn(100), max_cmd_sn: CmdSn(107), ..response };
        self.recv_raw(self.c, pdu, marked());
    }

    fn tmf_response(&mut self, itt: Itt, response: TaskMgmtStatus) {
        let stat_sn = self.next_stat_sn(self.c);
        let pdu = TaskMgmtResponse {
            response,
            itt,
            stat_sn,
            exp_cmd_sn: CmdSn(100),
            max_cmd_sn: CmdSn(107),
            ..TaskMgmtResponse::default()
        };
        self.recv_raw(self.c, pdu, TaskBuffers::none());
    }

    fn async_message(&mut self, event: u8, lun: Lun, parameters: [u16; 3]) {
        let [parameter1, parameter2, parameter3] = parameters;
        let stat_sn = self.next_stat_sn(self.c);
        let pdu = AsyncMessage {
            lun,
            stat_sn,
            exp_cmd_sn: self.s.window.cmd_sn(),
            max_cmd_sn: CmdSn(107),
            event: AsyncEvent(event),
            parameter1,
            parameter2,
            parameter3,
            ..AsyncMessage::default()
        };
        self.recv_raw(self.c, pdu, TaskBuffers::none());
    }

    fn reject(&mut self, reason: u8, pdu: &Pdu) {
        let mut header = [0; BHS_LEN];
        pdu.encode_header(&mut header).unwrap();
        let stat_sn = self.next_stat_sn(self.c);
        let reject = Reject {
            reason: RejectReason(reason),
            stat_sn,
            exp_cmd_sn: CmdSn(100),
            max_cmd_sn: CmdSn(107),
            data: Bytes::copy_from_slice(&header),
            ..Reject::default()
        };
        self.recv_raw(self.c, reject, TaskBuffers::none());
    }

    fn reclaim(&mut self, itt: Itt) {
        let reclaimed = Reclaimed { buffers: marked(), ..Reclaimed::default() };
        self.s.handle_event(self.now, self.c, Event::TaskReclaimed { itt, reclaimed });
    }

    fn lose(&mut self, conn: ConnId, open: &[Itt]) {
        let reclaimed =
            open.iter().map(|itt| (*itt, Reclaimed { buffers: marked(), ..Reclaimed::default() })).collect();
        let cause = Cause::Transport(std::io::ErrorKind::ConnectionReset);
        self.s.handle_event(self.now, conn, Event::Terminated(Terminated { cause, reclaimed }));
    }

    fn after(&mut self, duration: Duration) {
        self.now += duration;
        self.s.handle_timeout(self.now);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.s.poll_action()).collect()
    }

    /// PDUs sent, with their connections; other calls are left out.
    fn sent_on(&mut self) -> Vec<(ConnId, Pdu)> {
        self.actions()
            .into_iter()
            .filter_map(|a| match a.call {
                DownCall::SendControl(c) => Some((a.conn, c.pdu)),
                _ => None,
            })
            .collect()
    }

    fn sent(&mut self) -> Vec<Pdu> {
        self.sent_on().into_iter().map(|(_, pdu)| pdu).collect()
    }

    fn one(&mut self) -> Pdu {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn done(&mut self) -> Vec<Completion> {
        std::iter::from_fn(|| self.s.poll_completion()).collect()
    }

    fn one_done(&mut self) -> TaskDone {
        let mut done = self.done();
        assert_eq!(done.len(), 1, "{done:?}");
        match done.remove(0) {
            Completion::Task(done) => done,
            other => panic!("{other:?}"),
        }
    }

    fn events(&mut self) -> Vec<InitiatorEvent> {
        std::iter::from_fn(|| self.s.poll_event()).collect()
    }

    /// Submits a command and takes its PDU.
    fn submit(&mut self, command: Command) -> (TaskTag, ScsiCommand) {
        let tag = self.s.submit(self.now, command).unwrap();
        let mut sent = self.sent();
        match sent.remove(0) {
            Pdu::ScsiCommand(c) => (tag, c),
            other => panic!("{other:?}"),
        }
    }
}

/// Buffers that can be told from none.
fn marked() -> TaskBuffers {
    TaskBuffers { out: Some(Bytes::from_static(b"mark").into()), r#in: None }
}

fn is_marked(buffers: &TaskBuffers) -> bool {
    buffers.out.as_ref().is_some_and(|b| b.len() == 4)
}

fn lun(n: u16) -> Lun {
    Lun::single_level(n).unwrap()
}

fn plain() -> Command {
    Command { attr: TaskAttr::Simple, ..Command::default() }
}

fn read(len: usize) -> Command {
    let buffers = TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(len).into()) };
    Command { buffers, ..plain() }
}

fn write(len: usize) -> Command {
    let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
    Command { buffers: TaskBuffers { out: Some(Bytes::from(data).into()), r#in: None }, ..plain() }
}

fn good() -> ScsiResponse {
    ScsiResponse { status: ScsiStatus::Good, ..ScsiResponse::default() }
}
