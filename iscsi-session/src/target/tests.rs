//! PDU scripts: what goes in is written out, what must come out is typed from the RFC.

mod command;
mod exchange;
mod fence;
mod function;
mod logout;
mod reassign;
mod reclaim;
mod recovery;
mod snack;
mod termination;
mod text;

use super::*;
use crate::device::{FunctionTag, Outcome, TaskPort};
use crate::setup::ConnSetup;
use bytes::Bytes;
use datamover::{
    Control, DataCompletion, InvalidPdu, IoBuf, Reclaimed, SgList, SgListMut, Terminated, Window,
};
use iscsi_login::TaskReporting;
use iscsi_pdu::*;
use std::time::Duration;

/// MaxRecvDataSegmentLength of the initiator in these tests.
const MRDSL: u32 = 1024;
const FIRST_STAT_SN: StatSn = StatSn(1000);
const FIRST_CMD_SN: CmdSn = CmdSn(100);
const DEPTH: u32 = 8;

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
    s: TargetSession,
    now: Instant,
    c: ConnId,
}

/// Task events without their buffers.
#[derive(Debug, PartialEq, Eq)]
enum Up {
    Execute { itt_opcode: u8, tag: TaskTag },
    WriteData { offset: u32, len: usize, result: Result<(), DataError> },
    Abort(TaskTag),
    Function(TaskMgmtFunction),
    Cleared(Lun),
    NexusLoss,
}

fn lun(n: u16) -> Lun {
    Lun::single_level(n).unwrap()
}

impl Rig {
    fn new(tweak: impl FnOnce(&mut SessionParams)) -> Self {
        Self::with_config(TargetConfig::default(), tweak)
    }

    #[allow(clippy::disallowed_methods)] // any instant will do
    fn with_config(cfg: TargetConfig, tweak: impl FnOnce(&mut SessionParams)) -> Self {
        let mut params = SessionParams::default();
        params.first_burst_length = 4096;
        params.max_burst_length = 8192;
        tweak(&mut params);
        let peer = Peer {
            initiator: IscsiName::new("iqn.2026-01.org.example:host").unwrap(),
            target: (params.session_type == SessionType::Normal)
                .then(|| IscsiName::new("iqn.2026-01.org.example:disk").unwrap()),
        };
        let now = Instant::now();
        let window = TargetWindow::new(FIRST_CMD_SN, DEPTH);
        let s = TargetSession::with_window(cfg, params, peer, window, now);
        let mut rig = Self { s, now, c: ConnId(0) };
        rig.c = rig.connect(1);
        rig
    }

    fn connect(&mut self, cid: u16) -> ConnId {
        let mut keys = datamover::ConnKeys::default();
        keys.max_send_data_segment_length = MRDSL;
        keys.rdma_extensions = self.s.params().rdma_extensions;
        let setup =
            ConnSetup { cid: Cid(cid), keys, pool: Arc::new(Heap), stat_sn: StatSn(u32::from(cid) * 1000) };
        self.s.add_connection(self.now, setup)
    }

    fn recv_on(&mut self, conn: ConnId, pdu: impl Into<Pdu>) {
        let event = Event::Control(Control::from(pdu.into()));
        self.s.handle_event(self.now, conn, event);
    }

    fn recv(&mut self, pdu: impl Into<Pdu>) {
        self.recv_on(self.c, pdu);
    }

    fn ack_on(&mut self, conn: ConnId, exp_stat_sn: u32) {
        let window = Window { stat_sn: StatSn(exp_stat_sn), ..Window::default() };
        self.s.handle_event(self.now, conn, Event::Window(window));
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

    fn ups(&mut self) -> Vec<Up> {
        std::iter::from_fn(|| self.s.poll_task())
            .map(|e| match e {
                TaskEvent::Execute(t) => Up::Execute { itt_opcode: t.cdb[0], tag: t.tag },
                TaskEvent::WriteData { offset, data, result, .. } => {
                    Up::WriteData { offset, len: data.len(), result }
                }
                TaskEvent::Abort(tag) => Up::Abort(tag),
                TaskEvent::TaskManagement(f) => Up::Function(f.function),
                TaskEvent::CommandsCleared(lun) => Up::Cleared(lun),
                TaskEvent::NexusLoss => Up::NexusLoss,
            })
            .collect()
    }

    fn task(&mut self) -> Task {
        match self.s.poll_task() {
            Some(TaskEvent::Execute(task)) => task,
            other => panic!("no Execute: {other:?}"),
        }
    }

    fn tag(&mut self) -> TaskTag {
        self.task().tag
    }

    fn quiet_pdus(&mut self) {
        assert_eq!(self.sent(), [], "nothing is sent");
    }

    fn quiet(&mut self) {
        assert_eq!(self.sent(), [], "nothing is sent");
        assert_eq!(self.ups(), [], "nothing reaches the device server");
    }

    fn after(&mut self, duration: Duration) {
        self.now += duration;
        self.s.handle_timeout(self.now);
    }

    fn events(&mut self) -> Vec<TargetEvent> {
        std::iter::from_fn(|| self.s.poll_event()).collect()
    }

    fn lose(&mut self, conn: ConnId) {
        let event = Event::Terminated(Terminated {
            cause: Cause::Transport(std::io::ErrorKind::ConnectionReset),
            reclaimed: Vec::new(),
        });
        self.s.handle_event(self.now, conn, event);
    }

    /// The datamover has given back what it held of a task.
    fn reclaim(&mut self, conn: ConnId, itt: u32) {
        let event = Event::TaskReclaimed { itt: Itt(itt), reclaimed: Reclaimed::default() };
        self.s.handle_event(self.now, conn, event);
    }

    fn data_completion(&mut self, itt: u32, offset: u32, len: usize) {
        let done =
            DataCompletion { itt: Itt(itt), offset, data: Some(IoBuf::zeroed(len).into()), result: Ok(()) };
        self.s.handle_event(self.now, self.c, Event::DataCompletion(done));
    }
}

/// A command without data; its first CDB byte is its tag.
fn cmd(itt: u32, cmd_sn: u32) -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = itt as u8;
    ScsiCommand {
        final_pdu: true,
        attr: TaskAttr::Simple,
        itt: Itt(itt),
        cmd_sn: CmdSn(cmd_sn),
        exp_stat_sn: FIRST_STAT_SN,
        cdb,
        ..ScsiCommand::default()
    }
}

fn read(itt: u32, cmd_sn: u32, len: u32) -> ScsiCommand {
    ScsiCommand { read: true, expected_data_transfer_length: len, ..cmd(itt, cmd_sn) }
}

fn write(itt: u32, cmd_sn: u32, len: u32, immediate_data: usize) -> ScsiCommand {
    ScsiCommand {
        write: true,
        expected_data_transfer_length: len,
        data: Bytes::from(vec![7; immediate_data]),
        ..cmd(itt, cmd_sn)
    }
}

fn data_out(itt: u32, data_sn: u32, offset: u32, len: usize, last: bool) -> DataOut {
    DataOut {
        final_pdu: last,
        itt: Itt(itt),
        data_sn: DataSn(data_sn),
        buffer_offset: offset,
        data: Bytes::from(vec![8; len]),
        exp_stat_sn: FIRST_STAT_SN,
        ..DataOut::default()
    }
}

fn tmf(itt: u32, cmd_sn: u32, function: TaskMgmtFunction) -> TaskMgmtRequest {
    TaskMgmtRequest {
        immediate: true,
        function,
        itt: Itt(itt),
        cmd_sn: CmdSn(cmd_sn),
        exp_stat_sn: FIRST_STAT_SN,
        ..TaskMgmtRequest::default()
    }
}

fn abort_task(itt: u32, cmd_sn: u32, referenced: u32, ref_cmd_sn: u32) -> TaskMgmtRequest {
    TaskMgmtRequest {
        referenced_task_tag: Itt(referenced),
        ref_cmd_sn: CmdSn(ref_cmd_sn),
        ..tmf(itt, cmd_sn, TaskMgmtFunction::AbortTask)
    }
}

fn scsi_response(pdu: &Pdu) -> &ScsiResponse {
    match pdu {
        Pdu::ScsiResponse(r) => r,
        other => panic!("no SCSI Response: {other:?}"),
    }
}

fn tmf_response(pdu: &Pdu) -> (u32, TaskMgmtStatus) {
    match pdu {
        Pdu::TaskMgmtResponse(r) => (r.itt.0, r.response),
        other => panic!("no Task Management Function Response: {other:?}"),
    }
}

fn reject_reason(pdu: &Pdu) -> RejectReason {
    match pdu {
        Pdu::Reject(r) => r.reason,
        other => panic!("no Reject: {other:?}"),
    }
}

/// Sense key, ASC, ASCQ of a CHECK CONDITION.
fn sense(pdu: &Pdu) -> [u8; 3] {
    let r = scsi_response(pdu);
    assert_eq!(r.status, ScsiStatus::CheckCondition);
    assert_eq!(u16::from_be_bytes([r.data[0], r.data[1]]) as usize, r.data.len() - 2, "SenseLength");
    [r.data[4], r.data[14], r.data[15]]
}

fn logout(itt: u32, reason: u8, cid: u16) -> LogoutRequest {
    LogoutRequest {
        immediate: true,
        reason: LogoutReason(reason),
        itt: Itt(itt),
        cid: Cid(cid),
        cmd_sn: CmdSn(100),
        exp_stat_sn: FIRST_STAT_SN,
    }
}

fn logout_status(pdu: &Pdu) -> u8 {
    match pdu {
        Pdu::LogoutResponse(r) => r.response.0,
        other => panic!("{other:?}"),
    }
}

/// What is called, in words.
fn kinds(actions: &[Action]) -> Vec<(ConnId, &'static str)> {
    actions
        .iter()
        .map(|a| {
            let what = match &a.call {
                DownCall::SendControl(c) => match &c.pdu {
                    Pdu::LogoutResponse(_) => "logout response",
                    Pdu::AsyncMessage(_) => "async message",
                    _ => "pdu",
                },
                DownCall::ConnectionTerminate => "terminate",
                _ => "other",
            };
            (a.conn, what)
        })
        .collect()
}
