//! RDMA Reads of tasks that end while they are under way.
//!
//! The initiator invalidates the STags of a task as soon as it hears that the task is over, be it by the answer of an
//! abort or of a logout, and be that on another connection, with which nothing is in step. Until its Reads are back such
//! a task is therefore not over: what waits for its end (a function, a logout) waits for them too.
//!
//! ```text
//!   device server lets go ──▶ Deallocate_Task_Resources ──▶ Reads under way come back ──▶ Task reclaimed: it is over
//!                             (Reads that have not gone out never do)
//! ```

use super::{Stage, TargetSession};
use crate::action::{ConnId, DownCall};
use crate::slab::Key;
use iscsi_pdu::Itt;

impl TargetSession {
    /// Whether a task that the device server is done with must wait for its output, which a datamover still fetches.
    /// Without RDMA the initiator sends it, and has no memory advertised that could be gone.
    // req: 7145-8.3.2-5
    pub(super) fn awaits_reads(&mut self, key: Key) -> bool {
        let Some(task) = self.tasks.get(key).filter(|_| self.params.rdma_extensions) else { return false };
        let (id, itt, reclaiming, reads) = (task.conn, task.itt, task.reclaiming, task.gets > 0);
        // What a connection that is closed had under way ends with it.
        if !(reclaiming || reads) || !self.conn(id).is_some_and(|c| c.open) {
            return false;
        }
        if reclaiming {
            return true;
        }
        let Some(task) = self.tasks.get_mut(key) else { return false };
        task.reclaiming = true;
        task.outcome = None;
        match task.stage {
            // What it may have written is written: the commands after it need not wait for the Reads.
            Stage::Orphaned => {
                task.stage = Stage::Ending;
                self.orphans = self.orphans.saturating_sub(1);
            }
            Stage::Executing => task.stage = Stage::Ending,
            Stage::Waiting | Stage::Ending | Stage::Terminating => {}
        }
        self.call(id, DownCall::DeallocateTaskResources(itt));
        if self.orphans == 0 {
            self.execute_waiting_immediates();
        }
        true
    }

    /// Nothing below touches the buffers of a task any more.
    pub(super) fn on_task_reclaimed(&mut self, id: ConnId, itt: Itt) {
        let Some(key) = self.by_itt.get(&itt).copied() else { return };
        let Some(task) = self.tasks.get_mut(key).filter(|t| t.conn == id && t.reclaiming) else { return };
        task.reclaiming = false;
        let gets = std::mem::take(&mut task.gets) as usize;
        if let Some(conn) = self.conn_mut(id) {
            conn.gets = conn.gets.saturating_sub(gets);
        }
        self.release(key);
    }
}
