//! The initiator above ErrorRecoveryLevel 0: Data-In and R2T PDUs that are missing are asked for again, and nothing
//! that comes after them goes up before they have come (RFC 7143 sections 7.8, 7.9, 11.16).

use crate::core::TcpCore;
use crate::task::Task;
use datamover::{Cause, Control, DataCompletion, DataError, Event};
use iscsi_pdu::{Itt, Pdu, Reject, ScsiResponse, ServiceResponse, Snack, SnackTag, SnackType, Ttt};
use std::time::Instant;

/// Which numbers of a task have not come: those from `next` on, and the holes before.
pub(crate) struct Holes {
    next: u32,
    /// First number and count.
    runs: Vec<(u32, u32)>,
}

/// What a number means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The next one.
    InTurn,
    /// Others before it are missing.
    Ahead,
    /// It was missing.
    Fills,
    /// It has come before.
    Again,
}

impl Holes {
    pub(crate) fn new(next: u32) -> Self {
        Self { next, runs: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    fn is_torn(&self) -> bool {
        self.runs.len() > RUNS
    }

    /// The first number that has not come, none before `from` being missing.
    pub(crate) fn first_missing(&self, from: u32) -> u32 {
        let place = |sn: &u32| sn.wrapping_sub(from);
        self.runs.iter().map(|(first, _)| *first).min_by_key(place).unwrap_or(self.next)
    }

    /// Whether nothing has been counted since [`new`](Self::new) with this number.
    pub(crate) fn is_untouched(&self, next: u32) -> bool {
        self.next == next && self.runs.is_empty()
    }

    pub(crate) fn arrival(&self, sn: u32) -> Arrival {
        match sn.wrapping_sub(self.next) {
            0 => Arrival::InTurn,
            ahead if ahead < 1 << 31 => Arrival::Ahead,
            _ if self.runs.iter().any(|(first, count)| sn.wrapping_sub(*first) < *count) => Arrival::Fills,
            _ => Arrival::Again,
        }
    }

    /// Counts a PDU, which came or was lost; the run to ask for, if there is a new one.
    fn note(&mut self, sn: u32, came: bool) -> Option<(u32, u32)> {
        let lost = u32::from(!came);
        match self.arrival(sn) {
            Arrival::InTurn | Arrival::Ahead => {
                let run = (self.next, sn.wrapping_sub(self.next).saturating_add(lost));
                self.next = sn.wrapping_add(1);
                if run.1 == 0 {
                    return None;
                }
                self.runs.push(run);
                Some(run)
            }
            Arrival::Fills if came => {
                self.fill(sn);
                None
            }
            Arrival::Fills => Some((sn, 1)),
            Arrival::Again => None,
        }
    }

    fn fill(&mut self, sn: u32) {
        let Some(at) = self.runs.iter().position(|(first, count)| sn.wrapping_sub(*first) < *count) else {
            return;
        };
        let (first, count) = self.runs.swap_remove(at);
        let before = sn.wrapping_sub(first);
        let after = count.saturating_sub(before).saturating_sub(1);
        self.runs.extend(
            [(first, before), (sn.wrapping_add(1), after)].into_iter().filter(|(_, count)| *count > 0),
        );
    }
}

/// Runs that may be missing of a task, and SNACKs that may wait to be sent: no network loses so much, and a target that
/// makes more of them would have us keep it all.
const RUNS: usize = 1024;
const SNACKS: usize = 4096;
/// PDUs that may wait for missing data beside the responses of all commands.
const BEHIND: usize = 1024;

/// What waits for missing data.
pub(crate) enum Held {
    /// The response of a task, or of one whose data is missing.
    Response(ScsiResponse),
    /// What came after it: its StatSN must not be seen first.
    Behind(Control),
}

impl TcpCore {
    /// Counts a Data-In or R2T of a task, which came or was lost, and asks for what is missing.
    // req: 7143-7.8-6, 7143-7.9-1
    pub(crate) fn note(&mut self, itt: Itt, sn: u32, came: bool) {
        let Some(task) = self.tasks.get_mut(itt).filter(|t| t.failed.is_none()) else { return };
        let awaited = !task.holes.is_empty() || task.snack_tag != SnackTag::default();
        let run = task.holes.note(sn, came);
        if run.is_some() && (task.holes.is_torn() || self.tx.controls() > SNACKS) {
            self.fail(Cause::Protocol(
                "more Data-In PDUs are missing than are asked for (RFC 7143 section 7.9)",
            ));
            return;
        }
        match run {
            Some(run) => self.request(itt, run),
            None if awaited => self.wait_on(),
            None => {}
        }
    }

    /// Asks for a run of Data-In or R2T PDUs; for all data anew when the target has to cut it otherwise now.
    ///
    /// R2Ts are not cut, and an R-Data SNACK does not ask for them: those of a command without input are asked for as
    /// ever.
    // req: 7143-11.16.4-2, 7143-11.16.5-1, 7143-11.16.5-4, 7143-11.16.2-4, 7143-11.16.3-1, 7143-11.16.6-1
    // req: 7143-11.16.7-1
    fn request(&mut self, itt: Itt, (beg_run, run_length): (u32, u32)) {
        let Some(task) = self.tasks.get_mut(itt) else { return };
        let length = self.keys.max_recv_data_segment_length;
        // A Data SNACK must not ask for what the ExpDataSN of a reassignment acknowledged, though it comes again.
        // req: 7143-7.2.2-4
        let anew = task.segment_length != length || beg_run < task.floor;
        let recut = anew && task.buffers.r#in.is_some();
        // What begins the data that is sent anew could not be told from what was asked for before.
        let ambiguous = beg_run != task.acked && task.holes.arrival(task.acked) == Arrival::Fills;
        if recut && (task.bidirectional || ambiguous) {
            return self.give_up(itt);
        }
        let mut snack = Snack {
            kind: SnackType::DataR2t,
            itt,
            ttt_or_snack_tag: Ttt::NONE,
            exp_stat_sn: self.window.stat_sn,
            beg_run,
            run_length,
            ..Snack::default()
        };
        if recut {
            // Unique for the task; never 0, and 0xffffffff after 2^32 of them only.
            task.snack_tag = SnackTag(task.snack_tag.0.saturating_add(1));
            task.segment_length = length;
            task.holes = Holes::new(task.acked);
            (task.data_ins, task.received, task.ack) = (task.acked, task.acked_bytes, None);
            task.stale = true;
            let tag = Ttt(task.snack_tag.0);
            snack =
                Snack { kind: SnackType::RData, ttt_or_snack_tag: tag, beg_run: 0, run_length: 0, ..snack };
        }
        self.tx.push_control(Pdu::Snack(snack));
        self.wait_on();
    }

    /// Input is missing after MaxRecvDataSegmentLength has changed, which a Data SNACK may not ask for any more, and an
    /// R-Data SNACK does not help. Of a bidirectional command: Data-In PDUs that are sent anew are numbered from what was
    /// acknowledged on, one by one, which in the one count that they share with R2Ts (section 4.2.2.4) are the numbers of
    /// R2Ts too, and whether it is an R2T that is missing, which would not be sent again, nobody knows. So nothing is
    /// asked for, and the session ends the task with an error, which section 7.8 allows instead.
    // req: 7143-11.16.3-1, 7143-7.8-6
    fn give_up(&mut self, itt: Itt) {
        let Some(task) = self.tasks.get_mut(itt) else { return };
        (task.failed, task.told) = (Some(DataError::Digest), true);
        self.tell_failure(itt, DataError::Digest);
    }

    /// Input of a task is lost for good.
    pub(crate) fn tell_failure(&mut self, itt: Itt, error: DataError) {
        let done = DataCompletion { itt, offset: 0, data: None, result: Err(error) };
        self.events.push_back(Event::DataCompletion(done));
    }

    fn wait_on(&mut self) {
        self.patience = self.now.and_then(|now| now.checked_add(self.keys.data_timeout));
    }

    /// A response has come. It goes up when all data has: before that its StatSN is not acknowledged.
    // req: 7143-11.16.1-1, 7143-7.9-1, 7143-7.9-4, 7143-11.7.2-8
    pub(crate) fn receive_response(&mut self, r: ScsiResponse) -> Result<(), Cause> {
        if self.keys.error_recovery_level == 0 {
            return self.finish_response(r);
        }
        // One that does not answer the last R-Data SNACK counts what was discarded.
        if r.response == ServiceResponse::Completed
            && let Some(task) =
                self.tasks.get_mut(r.itt).filter(|t| t.failed.is_none() && t.snack_tag == r.snack_tag)
        {
            task.stale = false;
            // Data-In PDUs that have come or are known to be missing. Of a bidirectional command the R2Ts are in the
            // same numbering; targets that follow RFC 3720 have them in ExpDataSN too.
            let count = r.exp_data_sn.0;
            let known = match task.bidirectional {
                true if count == task.data_ins.wrapping_add(task.r2ts) => count,
                true => task.data_ins,
                false => task.holes.next,
            };
            let behind = count.wrapping_sub(known);
            if task.holes.is_empty() && behind > 0 && behind < 1 << 31 {
                let last = task.holes.next.wrapping_add(behind).wrapping_sub(1);
                self.note(r.itt, last, false);
            }
        }
        // A response to an R-Data SNACK comes in the place of one that came before: they are one status.
        let same = |held: &&mut Held| matches!(held, Held::Response(old) if old.itt == r.itt);
        match self.held.iter_mut().find(same) {
            Some(held) => *held = Held::Response(r),
            None => self.hold(Held::Response(r)),
        }
        self.release();
        if !self.held.is_empty() && self.patience.is_none() {
            self.wait_on();
        }
        Ok(())
    }

    /// Control_Notify in its turn.
    pub(crate) fn deliver(&mut self, control: Control) {
        if self.held.is_empty() {
            self.events.push_back(Event::Control(control));
        } else {
            self.hold(Held::Behind(control));
        }
    }

    fn hold(&mut self, held: Held) {
        self.held.push_back(held);
        if self.held.len() > self.limit.saturating_add(BEHIND) {
            self.fail(Cause::Protocol("too much came while data was missing (RFC 7143 section 7.9)"));
        }
    }

    /// Lets go up what has waited for data that is there now, or that will not come.
    pub(crate) fn release(&mut self) {
        while let Some(front) = self.held.pop_front() {
            match front {
                Held::Behind(control) => self.events.push_back(Event::Control(control)),
                Held::Response(r) => {
                    // req: 7143-11.16.3-3, 7143-11.16.5-2, 7143-11.4.4-1
                    let waits = |t: &mut Task| !t.holes.is_empty() || t.snack_tag != r.snack_tag;
                    if self.tasks.get_mut(r.itt).is_some_and(|t| t.failed.is_none() && waits(t)) {
                        self.held.push_front(Held::Response(r));
                        return;
                    }
                    if let Err(cause) = self.finish_response(r) {
                        self.fail(cause);
                    }
                }
            }
        }
    }

    /// The target will not send data again, whatever reason it gives ("Protocol Error" from one that has never heard of
    /// R-Data SNACKs): the task fails when its status comes.
    // req: 7143-7.8-9
    pub(crate) fn snack_rejected(&mut self, reject: &Reject) {
        if self.keys.error_recovery_level == 0 {
            return;
        }
        let Some(Ok(Pdu::Snack(snack))) = reject.data.first_chunk().map(Pdu::decode_header) else { return };
        let Some(task) = self.tasks.get_mut(snack.itt) else { return };
        let lost = match snack.kind {
            SnackType::DataR2t => !task.holes.is_empty(),
            SnackType::RData => task.snack_tag.0 == snack.ttt_or_snack_tag.0,
            _ => false,
        };
        if lost {
            task.failed = Some(DataError::Digest);
        }
    }

    /// The answers to SNACKs are overdue: what is left is to recover the connection.
    pub(crate) fn expire_holes(&mut self, now: Instant) {
        if self.patience.is_some_and(|at| at <= now) {
            self.patience = None;
            // What is held waits for data, or for the response to an R-Data SNACK.
            if self.tasks.await_data() || !self.held.is_empty() {
                self.fail(Cause::Protocol("a SNACK was not answered in time (RFC 7143 section 7.1.4)"));
            }
        }
    }

    /// Answers the A bit, once nothing before it is missing. From a target that sets it faster than the answers leave,
    /// one is as good as many.
    // req: 7143-11.7.2-5, 7143-11.7.2-7, 7143-11.16.2-1, 7143-11.16.2-2, 7143-11.16.5-3, 7143-11.16.2-3
    pub(crate) fn acknowledge(&mut self, itt: Itt) {
        if self.tx.controls() > SNACKS {
            return;
        }
        let complete = |t: &&mut Task| t.holes.is_empty() && t.failed.is_none();
        let Some(task) = self.tasks.get_mut(itt).filter(complete) else { return };
        let Some((lun, ttt, next)) = task.ack.take() else { return };
        task.acked = next.0;
        // Behind a hole that was filled more than what is acknowledged has come.
        task.acked_bytes = task.received.filter(|_| task.holes.is_untouched(next.0));
        self.tx.push_control(Pdu::Snack(Snack {
            kind: SnackType::DataAck,
            lun,
            itt: Itt::NONE,
            ttt_or_snack_tag: ttt,
            exp_stat_sn: self.window.stat_sn,
            beg_run: next.0,
            run_length: 0,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_open_and_close() {
        let mut h = Holes::new(u32::MAX - 1);
        assert_eq!(h.note(u32::MAX - 1, true), None);
        assert_eq!(h.arrival(3), Arrival::Ahead);
        // Numbers wrap around.
        assert_eq!(h.note(3, true), Some((u32::MAX, 4)));
        assert_eq!(h.arrival(3), Arrival::Again);
        assert_eq!(h.arrival(u32::MAX - 1), Arrival::Again);
        assert_eq!(h.note(1, true), None);
        assert_eq!(
            (h.arrival(1), h.arrival(2), h.arrival(0)),
            (Arrival::Again, Arrival::Fills, Arrival::Fills)
        );
        assert_eq!(h.note(2, false), Some((2, 1)), "lost again");
        for sn in [2, u32::MAX, 0] {
            assert!(!h.is_empty());
            assert_eq!(h.note(sn, true), None);
        }
        assert!(h.is_empty());
        assert_eq!(h.note(4, false), Some((4, 1)));
        assert_eq!(h.note(7, false), Some((5, 3)));
        assert_eq!(h.note(8, true), None);
        assert!(!h.is_empty());
    }
}
