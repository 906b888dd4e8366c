//! Commands of an initiator: submitted, and checked when they come back.

use super::disturb::PING;
use super::{Host, Op, PATIENCE, Up};
use crate::disk::{cdb, number};
use crate::log::Log;
use crate::plan::{CommandPlan, Op as Kind, Trouble};
use crate::rng::Rng;
use crate::shadow::{BLOCK, Effect, fill};
use bytes::Bytes;
use datamover::{IoBuf, SgList, SgListMut, TaskBuffers};
use iscsi_pdu::{Lun, ScsiStatus, TaskAttr};
use iscsi_session::initiator::{Command, Completion, Refusal, TaskDone, TaskFunction};
use std::time::Instant;

/// What the target's texts begin with: it has no targets to tell of and does not know the key, or declares a length.
const ANSWERS: [&[u8]; 2] = [b"X-org.example.sim=NotUnderstood\0", b"MaxRecvDataSegmentLength="];

impl Host {
    /// Keeps commands under way, and closes the session after the last.
    pub(super) fn submit(&mut self, now: Instant, up: &mut Up, log: &mut Log) -> bool {
        let mut busy = false;
        while up.ops.len() < self.plan.queue_depth && !up.logging_out {
            let Some(plan) = self.commands().get(self.next).copied() else { break };
            if !self.shadow.take(plan.at, plan.blocks) {
                return busy;
            }
            match up.engine.submit(now, self.command(&plan)) {
                Ok(tag) => {
                    self.next += 1;
                    self.tally.commands += 1;
                    log.mix(0x5b << 32 ^ u64::from(plan.index));
                    let deadline = now + PATIENCE;
                    let epoch = self.shadow.epoch();
                    up.ops.insert(tag, Op { plan, deadline, aborting: false, epoch });
                    if plan.trouble == Trouble::Abort {
                        up.abort(now, tag);
                    }
                    busy = true;
                }
                Err(refused) => {
                    self.shadow.release(plan.at, plan.blocks);
                    if !matches!(refused.why, Refusal::WindowClosed | Refusal::NoConnection) {
                        self.faults.push(format!("a command was refused: {:?}", refused.why));
                    }
                    return busy;
                }
            }
        }
        let idle = up.ops.is_empty() && up.functions == 0 && up.exchanges == 0 && up.logins.is_empty();
        if self.is_through() && idle && !up.logging_out {
            up.logging_out = true;
            up.engine.logout(now);
            busy = true;
        }
        busy
    }

    fn command(&self, plan: &CommandPlan) -> Command {
        let number = number(self.number, plan.index);
        let lba = self.shadow.lba(plan.at);
        let len = plan.blocks as usize * BLOCK;
        let mut rng = Rng::new(plan.dice);
        let mut buffers = TaskBuffers::none();
        if plan.op.writes() {
            let mut data = vec![0; len];
            for (n, block) in data.chunks_mut(BLOCK).enumerate() {
                fill(lba + n as u32, number, block);
            }
            // In two parts, cut anywhere.
            let cut = rng.index(len + 1);
            let data = Bytes::from(data);
            let parts: SgList = [data.slice(..cut), data.slice(cut..)].into_iter().collect();
            buffers.out = Some(parts.into());
        }
        if plan.op.reads() {
            let pooled = rng.coin().then(|| self.pool.alloc(len)).flatten();
            let mut room = pooled.unwrap_or_else(|| SgListMut::from(IoBuf::zeroed(len)));
            room.slices_mut().for_each(|s| s.fill(0xee));
            buffers.r#in = Some(room.into());
        }
        Command {
            lun: Lun::ZERO,
            attr: TaskAttr::Simple,
            cdb: cdb(plan.op, lba, plan.blocks, number),
            buffers,
            ..Command::default()
        }
    }

    pub(super) fn complete(&mut self, up: &mut Up, completion: Completion, log: &mut Log) {
        match completion {
            Completion::Task(done) => self.task_done(up, done, log),
            Completion::Function(done) => {
                log.tell(self, &format_args!("{:?}: {:?}", done.function, done.result));
                // At ErrorRecoveryLevel 2 a command outlives the connection that its abort was lost with.
                if let (TaskFunction::AbortTask(tag), Err(_)) = (done.function, &done.result)
                    && let Some(op) = up.ops.get_mut(&tag)
                {
                    op.aborting = false;
                }
                match up.functions.checked_sub(1) {
                    Some(left) => up.functions = left,
                    None => self.faults.push("a function completed twice".into()),
                }
            }
            Completion::Ping { result, .. } => {
                if !self.deceived && result.is_ok_and(|data| data != PING) {
                    self.faults.push("a ping came back with other data".into());
                }
                self.exchange_done(up);
            }
            Completion::Text { result, .. } => {
                let answer = result.as_deref().unwrap_or_default();
                let known = answer.is_empty() || ANSWERS.iter().any(|a| answer.starts_with(a));
                if !self.deceived && !known {
                    self.faults.push(format!("an answer that nobody asked for: {answer:02x?}"));
                }
                self.exchange_done(up);
            }
        }
    }

    fn exchange_done(&mut self, up: &mut Up) {
        match up.exchanges.checked_sub(1) {
            Some(left) => up.exchanges = left,
            None => self.faults.push("an exchange completed twice".into()),
        }
    }

    fn task_done(&mut self, up: &mut Up, done: TaskDone, log: &mut Log) {
        let Some(op) = up.ops.remove(&done.tag) else {
            self.faults.push(format!("{:?} completed twice, or was never submitted", done.tag));
            return;
        };
        let plan = op.plan;
        let number = number(self.number, plan.index);
        // A hostile target has no disk: whatever it says, nothing was done.
        let said_good = matches!(&done.result, Ok(status) if status.status == ScsiStatus::Good);
        let good = said_good && !self.deceived;
        log.mix(0xd0 << 32 ^ u64::from(plan.index) << 1 ^ u64::from(good));
        if good {
            self.tally.good += 1;
            self.certain.push(number);
        } else {
            log.tell(self, &format_args!("command {number:#x} ({:?}): {:?}", plan.op, done.result));
            self.tally.failed += 1;
        }
        let effect = match (good, op.epoch == self.shadow.epoch()) {
            (false, _) => Effect::Possible,
            (true, true) => Effect::Certain,
            (true, false) => Effect::Cached,
        };
        let len = plan.blocks as usize * BLOCK;
        let (out, input) = (done.buffers.out.as_ref().map(|list| list.len()), done.buffers.r#in);
        let back = out == plan.op.writes().then_some(len)
            && input.as_ref().map(|list| list.len()) == plan.op.reads().then_some(len);
        if !back {
            self.faults.push(format!("command {number:#x} came back without its buffers"));
        }
        if let (Some(input), true, true) = (input, good, back)
            && let Err(what) = self.shadow.read(plan.at, &input.freeze().to_bytes(), effect)
        {
            self.faults.push(format!("command {number:#x}: {what}"));
        }
        match plan.op {
            _ if self.deceived => self.shadow.release(plan.at, plan.blocks),
            Kind::Read => self.shadow.release(plan.at, plan.blocks),
            Kind::Sync => self.shadow.synchronized(plan.at, plan.blocks, effect),
            Kind::Write | Kind::WriteThrough | Kind::Swap => {
                let through = plan.op == Kind::WriteThrough;
                self.shadow.written(plan.at, plan.blocks, number, through, effect);
            }
        }
    }
}
