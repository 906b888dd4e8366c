//! A disk in memory, as far as these tests need one, and logins over the in-memory datamover.
#![allow(dead_code)] // each test file uses its part

use async_trait::async_trait;
use bytes::Bytes;
use datamover::mem::{MemConfig, MemControl, pair};
use datamover::{DataError, IoBuf, LoginLink, Resources, SgListMut, TaskBuffers};
use iscsi_login::auth::{ChapAccount, SecretRequest};
use iscsi_login::{
    AccessDecision, AccessRequest, Denial, Grant, InitiatorAuth, InitiatorLoginConfig, IscsiName, LoginStart,
    Preferences, SessionGoal, TargetAuth, TargetLoginConfig,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, Lun, ScsiStatus, StatSn, TaskMgmtStatus, Tsih};
use iscsi_session::device::{DeviceServer, Function, Outcome, Task, TaskPort, TaskTag};
use iscsi_session::initiator::Command;
use iscsi_session::login::{LoggedIn, LoginPolicy, accept, connect};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

pub(crate) const SIZE: usize = 1 << 20;

/// What the disk has seen.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) disk: Vec<u8>,
    pub(crate) executed: Vec<u8>,
    pub(crate) aborted: usize,
    pub(crate) functions: Vec<Function>,
    pub(crate) cleared: Vec<Lun>,
    pub(crate) nexus_losses: usize,
    /// Commands with this first CDB byte are never answered, until aborted.
    pub(crate) stuck: Option<u8>,
}

/// CDB: 0x28 reads, 0x2a writes, at the offset in bytes 2 to 5, as many bytes as in bytes 6 to 9; 0x00 does nothing.
/// LUN 0 alone exists.
pub(crate) struct Disk {
    pub(crate) journal: Arc<Mutex<Journal>>,
    writes: HashMap<TaskTag, (usize, usize, usize)>,
}

pub(crate) fn disk() -> (Disk, Arc<Mutex<Journal>>) {
    let journal = Arc::new(Mutex::new(Journal { disk: vec![0; SIZE], ..Journal::default() }));
    (Disk { journal: journal.clone(), writes: HashMap::new() }, journal)
}

pub(crate) fn cdb(opcode: u8, offset: u32, len: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&offset.to_be_bytes());
    cdb[6..10].copy_from_slice(&len.to_be_bytes());
    cdb
}

pub(crate) fn read(offset: u32, len: u32) -> Command {
    let r#in = Some(IoBuf::zeroed(len as usize).into());
    Command { cdb: cdb(0x28, offset, len), buffers: TaskBuffers { out: None, r#in }, ..Command::default() }
}

pub(crate) fn write(offset: u32, data: Vec<u8>) -> Command {
    let cdb = cdb(0x2a, offset, data.len() as u32);
    let out = Some(Bytes::from(data).into());
    Command { cdb, buffers: TaskBuffers { out, r#in: None }, ..Command::default() }
}

fn field(cdb: &[u8; 16], at: usize) -> usize {
    u32::from_be_bytes(cdb[at..at + 4].try_into().unwrap()) as usize
}

impl DeviceServer for Disk {
    fn execute(&mut self, task: Task, port: &mut dyn TaskPort) {
        let mut journal = self.journal.lock().unwrap();
        journal.executed.push(task.cdb[0]);
        if journal.stuck == Some(task.cdb[0]) {
            return;
        }
        let (offset, len) = (field(&task.cdb, 2), field(&task.cdb, 6));
        if task.lun != Lun::ZERO {
            // ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED.
            let sense = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 0];
            port.complete(task.tag, Outcome::check_condition(Bytes::copy_from_slice(&sense)));
            return;
        }
        match task.cdb[0] {
            0x28 => {
                let data = Bytes::copy_from_slice(&journal.disk[offset..offset + len]);
                port.read_data(task.tag, 0, data.into());
                port.complete(task.tag, Outcome::good().with_read(len as u64));
            }
            0x2a => {
                let have = task.unsolicited.len().min(len);
                task.unsolicited.copy_to(0, &mut journal.disk[offset..offset + have]);
                if have == len {
                    port.complete(task.tag, Outcome::good().with_write(len as u64));
                } else {
                    let into = port.pool(task.tag).alloc(len - have).unwrap();
                    self.writes.insert(task.tag, (offset, have, len));
                    port.want_write(task.tag, have as u32, into);
                }
            }
            _ => port.complete(task.tag, Outcome::good()),
        }
    }

    fn write_data(
        &mut self,
        tag: TaskTag,
        _offset: u32,
        data: SgListMut,
        result: Result<(), DataError>,
        port: &mut dyn TaskPort,
    ) {
        let (offset, have, len) = self.writes.remove(&tag).unwrap();
        match result {
            Ok(()) => {
                let mut journal = self.journal.lock().unwrap();
                data.freeze().copy_to(0, &mut journal.disk[offset + have..offset + len]);
                port.complete(tag, Outcome::good().with_write(len as u64));
            }
            Err(_) => port.complete(tag, Outcome::status(ScsiStatus::TaskAborted)),
        }
    }

    fn abort(&mut self, tag: TaskTag, port: &mut dyn TaskPort) {
        self.writes.remove(&tag);
        self.journal.lock().unwrap().aborted += 1;
        port.discard(tag);
    }

    fn task_management(&mut self, function: Function, port: &mut dyn TaskPort) {
        self.journal.lock().unwrap().functions.push(function);
        let status = if function.lun == Lun::ZERO {
            TaskMgmtStatus::FunctionComplete
        } else {
            TaskMgmtStatus::LunDoesNotExist
        };
        port.respond(function.tag, status, [0; 3]);
    }

    fn commands_cleared(&mut self, lun: Lun) {
        self.journal.lock().unwrap().cleared.push(lun);
    }

    fn nexus_loss(&mut self) {
        self.journal.lock().unwrap().nexus_losses += 1;
    }

    fn poll(&mut self, _cx: &mut Context<'_>, _now: Instant, _port: &mut dyn TaskPort) -> Poll<()> {
        Poll::Pending
    }
}

/// Everybody may have everything.
pub(crate) struct Open;

#[async_trait]
impl LoginPolicy for Open {
    async fn access(&self, request: &AccessRequest) -> AccessDecision {
        AccessDecision::Grant(Box::new(Grant {
            portal_group_tag: request.target_name.as_ref().map(|_| 1),
            alias: None,
            auth: TargetAuth::None,
            preferences: None,
            session: None,
        }))
    }

    async fn account(&self, _request: &SecretRequest) -> Option<ChapAccount> {
        None
    }

    fn tsih(&self, _request: &AccessRequest) -> Result<Tsih, Denial> {
        Ok(Tsih(7))
    }

    fn release(&self, _request: &AccessRequest, _tsih: Tsih) {}
}

pub(crate) fn name(s: &str) -> IscsiName {
    IscsiName::new(s).unwrap()
}

pub(crate) fn goal() -> SessionGoal {
    SessionGoal::Normal(name("iqn.2026-01.org.example:disk"))
}

/// Logs in over the in-memory datamover: initiator's end, target's end, and a hand on the wire.
pub(crate) async fn log_in(goal: SessionGoal, preferences: Preferences) -> (LoggedIn, LoggedIn, MemControl) {
    let (initiator, target, control) = pair(MemConfig::default());
    let (i, t) =
        tokio::join!(connect_over(Box::new(initiator), goal, preferences), accept_over(Box::new(target)));
    (i, t, control)
}

pub(crate) async fn connect_over(
    link: Box<dyn LoginLink>,
    goal: SessionGoal,
    preferences: Preferences,
) -> LoggedIn {
    let mut config =
        InitiatorLoginConfig::new(name("iqn.2026-01.org.example:host"), goal, InitiatorAuth::None);
    config.preferences = preferences;
    let start = LoginStart {
        isid: Isid::random([1, 2, 3], 4),
        cid: Cid(1),
        itt: Itt(0),
        cmd_sn: CmdSn(0xffff_fff0),
        exp_stat_sn: StatSn(0),
        session: None,
    };
    connect(link, config, start, Resources::default(), [1; 32]).await.unwrap()
}

pub(crate) async fn accept_over(link: Box<dyn LoginLink>) -> LoggedIn {
    accept(link, TargetLoginConfig::default(), Resources::default(), [2; 32], &Open).await.unwrap()
}
