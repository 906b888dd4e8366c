//! Tasks that another nexus ended, or a FastAbort on another connection: the initiator is told by an Async Message with
//! event 5 (RFC 7143 sections 4.2.3.4, 4.2.3.5, 11.9), and resources are kept until it has acknowledged that.

use super::conn::Termination;
use super::{EndCause, Stage, TargetSession, TaskEvent};
use crate::action::{ConnId, DownCall};
use crate::device::TaskTag;
use crate::slab::Key;
use iscsi_pdu::{AsyncEvent, AsyncMessage, Itt, Lun};

/// Tasks of earlier messages whose end a connection's initiator may leave unacknowledged, and so their resources kept,
/// when there is something to tell it again: as many as the widest window holds.
const TERMINATED: usize = 0x8000;

impl TargetSession {
    /// Another nexus ended a task, and it gets no response. The initiator of a FastAbort session is told that the
    /// tasks of the logical unit are ended, so they all are.
    // req: 7143-4.2.3.5-1, 7143-4.2.3.5-2, 7143-4.2.3.5-3, 7143-11.9.1-10
    pub(super) fn terminated_elsewhere(&mut self, key: Key) {
        let told = self.is_fast_abort();
        let Some(task) = self.tasks.get_mut(key) else { return };
        let lun = task.lun;
        if !told {
            task.stage = Stage::Ending;
            return self.release(key);
        }
        self.terminate(key);
        self.release(key);
        let others: Vec<Key> = self
            .tasks
            .iter()
            .filter(|(_, t)| t.lun == lun && t.stage == Stage::Executing)
            .map(|(k, _)| k)
            .collect();
        for other in others {
            self.terminate(other);
            if self.tasks.get_mut(other).is_some_and(|t| t.outcome.take().is_some()) {
                self.release(other);
            } else {
                self.upcalls.push_back(TaskEvent::Abort(TaskTag(other.0)));
            }
        }
    }

    /// Notes that an end is to be announced, which holds new commands back from now on.
    fn terminate(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.stage = Stage::Terminating;
        self.terminated.push((task.conn, task.lun, task.itt));
    }

    /// Whether tasks that another nexus ended are not all over and announced: until then no command is executed,
    /// lest it be among those that the initiator takes for ended.
    pub(super) fn terminations_are_due(&self) -> bool {
        !self.terminated.is_empty()
    }

    /// Tells the initiator when all that were ended are over, those included that waited for their turn, and those that
    /// its own functions end: it takes the message for their end as well. Responses that are ready and held back behind a
    /// fence go before it, for the same reason.
    pub(super) fn announce_terminations(&mut self) {
        if self.terminated.is_empty() {
            return;
        }
        let luns: Vec<Lun> = self.terminated.iter().map(|(_, lun, _)| *lun).collect();
        let ends = |t: &super::TargetTask| {
            t.stage == Stage::Terminating || (t.stage == Stage::Ending && luns.contains(&t.lun))
        };
        if self.tasks.iter().any(|(_, t)| ends(t)) || luns.iter().any(|lun| self.fences.hold_any_of(*lun)) {
            return;
        }
        let exp = self.order.window().exp_cmd_sn();
        let waiting: Vec<(Key, ConnId, Lun, Itt)> = self
            .tasks
            .iter()
            .filter(|(_, t)| t.stage == Stage::Waiting && luns.contains(&t.lun))
            .filter(|(_, t)| t.immediate || t.cmd_sn.precedes(exp))
            .map(|(key, t)| (key, t.conn, t.lun, t.itt))
            .collect();
        for (key, id, lun, itt) in waiting {
            self.terminated.push((id, lun, itt));
            self.drop_waiting(key);
        }
        for (id, lun, itt) in std::mem::take(&mut self.terminated) {
            self.stop_fetching(id, itt);
            self.announce_termination(id, lun, itt);
        }
        self.execute_waiting_immediates();
    }

    /// Tells of tasks that a function of this session ended on another connection, once the device server has let go of
    /// all of them that are there: the initiator takes the message for the end of them all, and what still moves data
    /// over RDMA then would find its memory gone.
    // req: 7143-4.2.3.4-12
    pub(super) fn announce_ended(&mut self) {
        if self.unannounced.is_empty() {
            return;
        }
        let ending = |id: ConnId, lun: Lun| {
            let theirs = self.tasks.iter().filter(|(_, t)| t.conn == id && t.lun == lun);
            theirs.map(|(key, _)| key).any(|key| self.functions.iter().any(|f| f.ends(key)))
        };
        let (due, later) = self.unannounced.iter().partition(|(id, lun, _)| !ending(*id, *lun));
        let due: Vec<(ConnId, Lun, Itt)> = due;
        self.unannounced = later;
        for (id, _, itt) in &due {
            self.stop_fetching(*id, *itt);
        }
        due.into_iter().for_each(|(id, lun, itt)| self.announce_termination(id, lun, itt));
    }

    /// On iSER the target fetches the output itself, and the initiator invalidates its STags when it hears that the
    /// task is over: what has not been asked for by then never may be.
    // req: 7145-8.3.2-5
    fn stop_fetching(&mut self, id: ConnId, itt: Itt) {
        if self.params.rdma_extensions {
            self.call(id, DownCall::DeallocateTaskResources(itt));
        }
    }

    /// One Async Message with event 5 for all tasks of a logical unit that end together on a connection.
    // req: 7143-4.2.3.4-11
    fn announce_termination(&mut self, id: ConnId, lun: Lun, itt: Itt) {
        let Some(conn) = self.conn_mut(id).filter(|c| c.open) else { return };
        let mut open = conn.terminations.iter_mut().rev().take_while(|t| !t.sealed);
        if let Some(open) = open.find(|t| t.lun == lun) {
            open.tasks.push(itt);
            return;
        }
        if conn.terminated >= TERMINATED {
            let cause = EndCause::Protocol("the end of too many tasks is not acknowledged");
            return self.lose_connection(id, &cause);
        }
        let message = AsyncMessage { lun, event: AsyncEvent::TasksTerminated, ..AsyncMessage::default() };
        if let Some(stat_sn) = self.transmit(id, message.into())
            && let Some(conn) = self.conn_mut(id)
        {
            conn.count_unexpected(stat_sn);
            conn.terminations.push(Termination { stat_sn, lun, tasks: vec![itt], sealed: false });
        }
    }

    /// Event 5 messages are on their way: tasks that end later need their own.
    pub(super) fn seal_terminations(&mut self) {
        for conn in &mut self.conns {
            for open in conn.terminations.iter_mut().rev().take_while(|t| !t.sealed) {
                open.sealed = true;
                conn.terminated = conn.terminated.saturating_add(open.tasks.len());
            }
        }
    }

    /// A NOP-Out that acknowledges event 5 messages of a logical unit.
    // req: 7143-4.2.3.4-17
    pub(super) fn on_termination_acknowledged(&mut self, id: ConnId, lun: Lun) {
        let Some(conn) = self.conn_mut(id) else { return };
        let exp = conn.exp_stat_sn;
        let mut freed = Vec::new();
        conn.terminations.retain(|t| {
            let done = t.lun == lun && t.stat_sn.precedes(exp);
            if done {
                freed.extend(t.tasks.iter().copied());
            }
            !done
        });
        conn.terminated = conn.terminated.saturating_sub(freed.len());
        freed.into_iter().for_each(|itt| self.call(id, DownCall::DeallocateTaskResources(itt)));
    }
}
