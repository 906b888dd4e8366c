//! Task management functions (SAM-5 clause 7) that concern more than one task.

use super::Nexus;
use crate::mailbox::{Hold, Order};
use crate::unit::LogicalUnit;
use iscsi_pdu::{TaskMgmtFunction, TaskMgmtStatus};
use iscsi_session::device::{Function, TaskPort};
use scsi_cmd::Asc;
use std::sync::Arc;

impl Nexus {
    pub(super) fn function(&mut self, function: Function, port: &mut dyn TaskPort) {
        let bound = self.bound_at(function.lun).and_then(|at| self.units[at].as_ref());
        let unit = bound.map(|b| b.unit.clone());
        let view = bound.map(|b| b.view.clone());
        let needs_unit = matches!(
            function.function,
            TaskMgmtFunction::AbortTaskSet
                | TaskMgmtFunction::ClearTaskSet
                | TaskMgmtFunction::ClearAca
                | TaskMgmtFunction::LogicalUnitReset
                | TaskMgmtFunction::QueryAsynchronousEvent
        );
        if needs_unit && unit.is_none() {
            return port.respond(function.tag, TaskMgmtStatus::LunDoesNotExist, [0; 3]);
        }
        let (status, information) = match function.function {
            // The engine has aborted the tasks; with a task set per nexus both functions end the same ones.
            TaskMgmtFunction::AbortTaskSet | TaskMgmtFunction::ClearTaskSet => {
                (TaskMgmtStatus::FunctionComplete, [0; 3])
            }
            TaskMgmtFunction::LogicalUnitReset => {
                return self.reset(function, unit.into_iter().collect());
            }
            TaskMgmtFunction::TargetWarmReset | TaskMgmtFunction::TargetColdReset => {
                let units = self.target.units().into_values().collect();
                return self.reset(function, units);
            }
            TaskMgmtFunction::ItNexusReset => {
                for bound in self.units.iter().flatten() {
                    bound.unit.nexus_reset(&self.id);
                    bound.view.attentions.establish(Asc::I_T_NEXUS_LOSS_OCCURRED);
                }
                (TaskMgmtStatus::FunctionComplete, [0; 3])
            }
            TaskMgmtFunction::QueryAsynchronousEvent => match view.and_then(|v| v.attentions.peek()) {
                // UADE DEPTH 1, SENSE KEY, ADDITIONAL SENSE CODE and QUALIFIER (SAM-5 clause 7.10).
                Some(asc) => (TaskMgmtStatus::FunctionSucceeded, [0x16, asc.asc(), asc.ascq()]),
                None => (TaskMgmtStatus::FunctionComplete, [0; 3]),
            },
            _ => (TaskMgmtStatus::FunctionNotSupported, [0; 3]),
        };
        port.respond(function.tag, status, information);
    }

    /// Ends the tasks of all nexuses on the units, resets them, and answers when all tasks are over. Tasks that arrive
    /// after that are not concerned, though nexuses follow the order later, this one too.
    // req: 7143-4.2.3.3-1
    fn reset(&mut self, function: Function, units: Vec<Arc<LogicalUnit>>) {
        let hold = Hold::new(&self.mailbox);
        for unit in units {
            let report = unit.state().modes.control.tas;
            let epoch = unit.next_epoch();
            unit.reset();
            for view in unit.views() {
                // The engine has ended the tasks of this nexus that the initiator knows to be concerned. One that it has
                // not is here out of turn, or by another number of the same unit: it is not to vanish.
                let own = Arc::ptr_eq(&view.mailbox, &self.mailbox);
                let (unit, until_done) = (unit.clone(), hold.clone());
                view.mailbox.post(Order::AbortTasks { unit, epoch, report: report || own, until_done });
            }
        }
        self.functions.push((function.tag, hold));
    }
}
