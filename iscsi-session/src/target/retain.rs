//! What a target keeps above ErrorRecoveryLevel 0: numbered PDUs until they are acknowledged, and (at level 2) what a
//! task needs to go on, on another connection (RFC 7143 sections 7.1.3, 7.2.2).
//!
//! ```text
//!                 acknowledged        kept: can be asked for again          next
//!   StatSN ──────────────────────┼──────┬──────┬──────┬──────┬───────┼────▶
//!                            ExpStatSN                            conn.stat_sn
//! ```

use bytes::Bytes;
use datamover::{InputProgress, SgList, SgListMut};
use iscsi_pdu::{CmdSn, DataLen, DataSn, Itt, Lun, Pdu, StatSn};
use std::collections::VecDeque;

/// PDUs that one connection keeps at most. An honest initiator acknowledges with its next request; one that never
/// does loses the oldest, and a SNACK for them is refused.
const KEPT_PDUS: usize = 1024;
/// Bytes of their data segments.
const KEPT_BYTES: usize = 4 << 20;

/// Bytes of the input that went before them, which a reassignment may need. Beyond it the oldest input is given up, not
/// the status: that a command was executed is not forgotten, and of most reads the initiator has all input.
const KEPT_INPUT: usize = 64 << 20;

/// A numbered PDU that was sent.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) stat_sn: StatSn,
    pub(super) pdu: Pdu<Bytes>,
    /// Of a SCSI Response at level 2: the input that went before it.
    pub(super) state: Option<Box<TaskState>>,
    /// The turn in which it was last queued to be sent again.
    pub(super) again: u64,
}

impl Kept {
    /// Whether it is the SCSI Response of this task.
    pub(super) fn answers(&self, itt: Itt) -> bool {
        matches!(&self.pdu, Pdu::ScsiResponse(r) if r.itt == itt)
    }
}

/// The PDUs of one connection that are not acknowledged, by ascending StatSN.
#[derive(Debug, Default)]
pub(super) struct Retention {
    kept: VecDeque<Kept>,
    bytes: usize,
    input: usize,
}

impl Retention {
    pub(super) fn keep(&mut self, kept: Kept) {
        self.bytes += len(&kept);
        self.input += input(&kept);
        self.kept.push_back(kept);
        while self.kept.len() > KEPT_PDUS || (self.bytes > KEPT_BYTES && self.kept.len() > 1) {
            self.drop_first();
        }
        while self.input > KEPT_INPUT && self.give_input_up() {}
    }

    /// Gives up the input of the oldest response that has any, but not that of the last; whether there was one.
    fn give_input_up(&mut self) -> bool {
        let last = self.kept.len().saturating_sub(1);
        let Some(oldest) = self.kept.iter_mut().take(last).find(|k| input(k) > 0) else { return false };
        self.input = self.input.saturating_sub(input(oldest));
        if let Some(state) = &mut oldest.state {
            state.give_input_up();
        }
        true
    }

    fn uncount(&mut self, kept: &Kept) {
        self.bytes = self.bytes.saturating_sub(len(kept));
        self.input = self.input.saturating_sub(input(kept));
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.kept.pop_front() {
            self.uncount(&first);
        }
    }

    /// Whether so many wait that an acknowledgment should be asked for.
    pub(super) fn is_long(&self) -> bool {
        self.kept.len() > KEPT_PDUS / 2 || self.bytes > KEPT_BYTES / 2 || self.input > KEPT_INPUT / 2
    }

    /// The initiator has all before `exp_stat_sn`.
    pub(super) fn acknowledged(&mut self, exp_stat_sn: StatSn) {
        while self.kept.front().is_some_and(|k| k.stat_sn.precedes(exp_stat_sn)) {
            self.drop_first();
        }
    }

    /// The PDUs from `first` up to (not including) `end`, to be sent again in this turn; `None` when one of them is not
    /// here any more, or has a longer data segment than the initiator takes by now. Those that go out again in this turn
    /// anyway are left out: however often they are asked for at a time, what waits is not more than what is kept.
    pub(super) fn run(
        &mut self,
        first: StatSn,
        end: StatSn,
        longest: usize,
        turn: u64,
    ) -> Option<Vec<(StatSn, Pdu<Bytes>)>> {
        let wanted = |k: &Kept| first.precedes_or_is(k.stat_sn) && k.stat_sn.precedes(end);
        let count = self.kept.iter().filter(|k| wanted(k)).count();
        // req: 7143-11.7.1-2
        let fit = self.kept.iter().filter(|k| wanted(k)).all(|k| len(k) <= longest);
        if !fit || count as u64 != u64::from(end.distance_from(first)) {
            return None;
        }
        let due = self.kept.iter_mut().filter(|k| wanted(k) && k.again != turn);
        let send = due.map(|k| {
            k.again = turn;
            (k.stat_sn, k.pdu.clone())
        });
        Some(send.collect())
    }

    /// The SCSI Response of a task; the latest, should its tag have been used again.
    pub(super) fn response(&mut self, itt: Itt) -> Option<&mut Kept> {
        self.kept.iter_mut().rev().find(|k| k.answers(itt))
    }

    /// Takes that response out.
    pub(super) fn take_response(&mut self, itt: Itt) -> Option<Kept> {
        let index = self.kept.iter().rposition(|k| k.answers(itt))?;
        let kept = self.kept.remove(index)?;
        self.uncount(&kept);
        Some(kept)
    }

    /// Drops the SCSI Responses of these tasks.
    pub(super) fn drop_responses(&mut self, mut of: impl FnMut(Itt, &TaskState) -> bool) {
        self.kept.retain(|k| match (&k.pdu, &k.state) {
            (Pdu::ScsiResponse(r), Some(state)) => !of(r.itt, state),
            _ => true,
        });
        self.bytes = self.kept.iter().map(len).sum();
        self.input = self.kept.iter().map(input).sum();
    }

    /// Whether the input of a task is given up that the initiator has not got, by this ExpDataSN.
    pub(super) fn lacks_input(&self, itt: Itt, exp_data_sn: DataSn) -> bool {
        let kept = self.kept.iter().rev().find(|k| k.answers(itt));
        kept.and_then(|k| k.state.as_ref()).is_some_and(|state| state.lacks_input(exp_data_sn))
    }

    pub(super) fn has_response(&self, itt: Itt) -> bool {
        self.kept.iter().any(|k| k.answers(itt))
    }
}

fn len(kept: &Kept) -> usize {
    kept.pdu.data().map_or(0, DataLen::data_len)
}

fn input(kept: &Kept) -> usize {
    kept.state.as_ref().map_or(0, |state| state.input.iter().map(|(_, data)| data.len()).sum())
}

/// What a task of a session with ErrorRecoveryLevel 2 needs to go on, on another connection.
#[derive(Debug, Default)]
pub(crate) struct TaskState {
    pub(super) lun: Lun,
    pub(super) cmd_sn: CmdSn,
    pub(super) immediate: bool,
    /// All input that the device server gave, by ascending offset.
    pub(super) input: Vec<(u32, SgList)>,
    /// Where the input ended, if it is kept no longer.
    pub(super) gone: Option<u32>,
    /// Get_Data calls that are not answered: offset, length, and the buffer once it is back from the datamover.
    pub(super) gets: Vec<(u32, usize, Option<SgListMut>)>,
    /// How far input got on the last connection.
    pub(super) progress: InputProgress,
    /// The number of the first Data-In or R2T on the new connection, until one was sent.
    pub(super) resume: Option<DataSn>,
}

impl TaskState {
    /// Forgets a Get_Data that is answered.
    pub(super) fn answered(&mut self, offset: u32) {
        self.gets.retain(|(at, _, _)| *at != offset);
    }

    fn give_input_up(&mut self) {
        let end = self.input.last().map(|(at, data)| at.saturating_add(data.len() as u32));
        self.gone = self.gone.max(end);
        self.input = Vec::new();
    }

    pub(super) fn had_no_input(&self) -> bool {
        self.input.is_empty() && self.gone.is_none()
    }

    fn lacks_input(&self, exp_data_sn: DataSn) -> bool {
        self.gone.is_some_and(|end| self.resume_at(exp_data_sn).1 < end)
    }

    /// Where input goes on after a reassignment with this ExpDataSN, and the number of the first Data-In there. Values
    /// that acknowledge less than is acknowledged, or more than was sent, change nothing.
    // req: 7143-11.5.6-2, 7143-11.5.6-3, 7143-11.5.6-5
    pub(super) fn resume_at(&self, exp_data_sn: DataSn) -> (DataSn, u32) {
        let InputProgress { next, acknowledged, sent, end } = &self.progress;
        let legal = acknowledged.precedes_or_is(exp_data_sn) && exp_data_sn.precedes_or_is(*next);
        let from = if legal { exp_data_sn } else { *acknowledged };
        let start = sent.iter().find(|(sn, _)| from.precedes_or_is(*sn)).map(|(_, offset)| *offset);
        (from, start.unwrap_or(*end))
    }

    /// The task goes on: sets the numbers, and says what input is to be sent.
    pub(super) fn resume(&mut self, exp_data_sn: DataSn) -> Vec<(u32, SgList)> {
        let (from, offset) = self.resume_at(exp_data_sn);
        self.input = self.input_from(offset);
        self.resume = Some(from);
        self.progress = InputProgress { next: from, acknowledged: from, sent: Vec::new(), end: offset };
        self.input.clone()
    }

    /// The input from `offset` on.
    pub(super) fn input_from(&self, offset: u32) -> Vec<(u32, SgList)> {
        self.input
            .iter()
            .filter_map(|(at, data)| {
                let skip = offset.saturating_sub(*at) as usize;
                let rest = data.len().checked_sub(skip).filter(|rest| *rest > 0)?;
                Some((at.saturating_add(skip as u32), data.slice(skip, rest)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iscsi_pdu::NopIn;

    fn nop(stat_sn: u32, len: usize) -> Kept {
        let pdu = NopIn { itt: Itt(stat_sn), data: Bytes::from(vec![0; len]), ..NopIn::default() };
        Kept { stat_sn: StatSn(stat_sn), pdu: pdu.into(), state: None, again: 0 }
    }

    #[test]
    fn an_initiator_that_acknowledges_nothing_costs_a_bounded_amount_of_memory() {
        let mut retention = Retention::default();
        (0..5000).for_each(|n| retention.keep(nop(n, 0)));
        assert_eq!(retention.kept.len(), KEPT_PDUS);
        let mut run = |first, end| retention.run(StatSn(first), StatSn(end), 0, 1);
        assert!(run(4999, 5000).is_some());
        assert!(run(10, 11).is_none(), "no longer here");
        (5000..5100).for_each(|n| retention.keep(nop(n, 256 << 10)));
        assert!(retention.bytes <= KEPT_BYTES && retention.is_long());
        retention.acknowledged(StatSn(5100));
        assert_eq!((retention.bytes, retention.kept.len()), (0, 0));
        // Input at level 2: 64 MiB, and an acknowledgment is asked for at the half.
        let data = SgList::from(Bytes::from(vec![7; 1 << 20]));
        let read = |n: u32| {
            let state = TaskState { input: vec![(0, data.clone())], ..TaskState::default() };
            Kept { state: Some(Box::new(state)), ..nop(n, 0) }
        };
        (0..32).for_each(|n| retention.keep(read(n)));
        assert!(!retention.is_long());
        (32..100).for_each(|n| retention.keep(read(n)));
        assert!(retention.is_long() && retention.input == KEPT_INPUT);
        assert_eq!(retention.kept.len(), 100, "the statuses are there");
        retention.acknowledged(StatSn(100));
        assert_eq!((retention.input, retention.kept.len()), (0, 0));
    }

    // 2048 bytes were sent as DataSN 3 (acknowledged to 3), 4 and 5, of 1024 bytes each from offset 3072 on.
    // req: 7143-11.5.6-2, 7143-11.5.6-3, 7143-11.5.6-5
    #[test]
    fn exp_data_sn_says_where_input_goes_on() {
        let data = |len| SgList::from(Bytes::from(vec![7; len]));
        let state = TaskState {
            input: vec![(0, data(4096)), (4096, data(4096))],
            progress: InputProgress {
                next: DataSn(6),
                acknowledged: DataSn(3),
                sent: vec![(DataSn(3), 3072), (DataSn(4), 4096), (DataSn(5), 5120)],
                end: 6144,
            },
            ..TaskState::default()
        };
        for (exp_data_sn, from, offset) in
            [(0, 3, 3072), (3, 3, 3072), (4, 4, 4096), (6, 6, 6144), (2, 3, 3072), (7, 3, 3072)]
        {
            assert_eq!(
                state.resume_at(DataSn(exp_data_sn)),
                (DataSn(from), offset),
                "ExpDataSN {exp_data_sn}"
            );
        }
        let lengths = |offset| -> Vec<(u32, usize)> {
            state.input_from(offset).into_iter().map(|(at, data)| (at, data.len())).collect()
        };
        assert_eq!(lengths(3072), [(3072, 1024), (4096, 4096)]);
        assert_eq!(lengths(6144), [(6144, 2048)]);
        assert_eq!(lengths(8192), []);
        assert_eq!(TaskState::default().resume_at(DataSn(0)), (DataSn(0), 0), "nothing was sent");
    }
}
