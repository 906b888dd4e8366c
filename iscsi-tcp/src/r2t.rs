//! Output data: asked for with R2Ts and received at a target, sent at an initiator (RFC 7143 sections 11.7, 11.8).

use crate::core::TcpCore;
use crate::recover::Arrival;
use crate::rx::To;
use crate::snack::Sent;
use crate::steer::{Found, Slab};
use crate::tx::{Item, Length};
use datamover::{Cause, DataCompletion, DataError, Event, Full, GetData, SgListMut, Window};
use iscsi_pdu::{DataOut, DataSn, EncodeError, Itt, Lun, Pdu, R2t, R2tSn, RejectReason, SegmentLen, Ttt};
use std::ops::Range;
use std::time::Instant;

/// A target's open Get_Data calls and the R2Ts they have become.
pub(crate) struct Fetcher {
    gets: Slab<Get>,
    bursts: Slab<Burst>,
    /// No transfer is overdue before this; it may be too early, never too late.
    deadline: Option<Instant>,
}

/// A Get_Data on its way.
pub(crate) struct Get {
    pub(crate) itt: Itt,
    lun: Lun,
    pub(crate) offset: u32,
    pub(crate) into: SgListMut,
    /// Bytes that R2Ts were made for.
    asked: usize,
    /// Bytes of finished bursts.
    arrived: usize,
    /// R2Ts not yet answered in full.
    bursts: u32,
    failed: Option<DataError>,
    deadline: Option<Instant>,
}

impl Get {
    // req: 7143-11.8.3-1
    fn r2t(&self, ttt: Ttt, start: usize, len: usize, window: Window) -> R2t {
        R2t {
            lun: self.lun,
            itt: self.itt,
            ttt,
            stat_sn: window.stat_sn,
            exp_cmd_sn: window.exp_cmd_sn,
            max_cmd_sn: window.max_cmd_sn,
            // Given when the PDU is made, in one count with Data-In.
            r2t_sn: R2tSn(0),
            buffer_offset: self.offset.saturating_add(u32::try_from(start).unwrap_or(u32::MAX)),
            desired_data_transfer_length: u32::try_from(len).unwrap_or(u32::MAX),
        }
    }
}

/// One R2T and its answer.
#[derive(Default)]
struct Burst {
    get: Ttt,
    itt: Itt,
    /// Where it starts in the Get's buffer.
    start: usize,
    len: usize,
    got: usize,
    next_sn: u32,
    failed: Option<DataError>,
    /// Failed in a way that asking again does not cure.
    broken: bool,
    /// How often it was asked for again.
    again: u8,
    /// With DataPDUInOrder=No: what has come, apart and ascending.
    pieces: Vec<Range<usize>>,
}

/// Separate pieces of a burst that are remembered.
const PIECES: usize = 1024;

impl Burst {
    /// Counts a piece that came in any order. Bytes that come twice would stand for others that never came, and what
    /// lies in the buffer there is nobody's business.
    fn take_piece(&mut self, piece: Range<usize>) -> bool {
        let at = self.pieces.partition_point(|p| p.end <= piece.start);
        if self.pieces.get(at).is_some_and(|next| next.start < piece.end) {
            return false;
        }
        let joins_next = self.pieces.get(at).is_some_and(|next| next.start == piece.end);
        let before = at.checked_sub(1).filter(|i| self.pieces.get(*i).is_some_and(|p| p.end == piece.start));
        match (before, joins_next) {
            (Some(before), _) => {
                let end = if joins_next { self.pieces.remove(at).end } else { piece.end };
                if let Some(before) = self.pieces.get_mut(before) {
                    before.end = end;
                }
            }
            (None, true) => {
                if let Some(next) = self.pieces.get_mut(at) {
                    next.start = piece.start;
                }
            }
            (None, false) if self.pieces.len() < PIECES => self.pieces.insert(at, piece),
            (None, false) => return false,
        }
        true
    }
}

/// Recovery R2Ts for one burst; then the transfer fails.
const AGAIN: u8 = 3;

impl Fetcher {
    pub(crate) fn new() -> Self {
        Self { gets: Slab::new(), bursts: Slab::new(), deadline: None }
    }

    pub(crate) fn open(&self) -> usize {
        self.gets.len()
    }

    pub(crate) fn get(&self, tag: Ttt) -> Option<&Get> {
        self.gets.get(tag)
    }

    pub(crate) fn get_mut(&mut self, tag: Ttt) -> Option<&mut Get> {
        self.gets.get_mut(tag)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.bursts.len() == 0 { None } else { self.deadline }
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Get> + use<'_> {
        drop(self.bursts.drain());
        self.gets.drain()
    }
}

/// Target.
impl TcpCore {
    pub(crate) fn queue_get(&mut self, get: GetData) -> Result<(), Full<GetData>> {
        let GetData { itt, lun, offset, into, resume } = get;
        let len = into.len();
        let get =
            Get { itt, lun, offset, into, asked: 0, arrived: 0, bursts: 0, failed: None, deadline: None };
        let end = u64::from(offset).saturating_add(len as u64);
        if len == 0 || end > u64::from(u32::MAX) {
            self.complete_get(get, if len == 0 { Ok(()) } else { Err(DataError::Access) });
            return Ok(());
        }
        let Some(tag) = self.fetcher.gets.insert(get) else {
            // 65,535 are open, which `limit` does not allow.
            return Ok(());
        };
        let numbers = self.open_numbers(itt);
        if let Some(sn) = resume {
            numbers.resume(sn);
        }
        numbers.asks = true;
        numbers.gets.push(tag);
        self.pump(itt);
        Ok(())
    }

    /// R2Ts that a task may have outstanding: what was agreed, and not more than leaves tags for as many tasks as there
    /// can be. With small bursts a few long transfers would else take all tags, and the others wait until these are over.
    fn outstanding_r2ts(&self) -> u32 {
        let share = (Slab::<Burst>::TAGS / self.limit.max(1)).max(1);
        u32::from(self.keys.max_outstanding_r2t.max(1)).min(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// Makes R2Ts for a task, as many as may be outstanding.
    // req: 5047-10.3.6-1, 7143-11.8-12, 7143-11.8-13, 7143-11.8.4-1, 7143-11.8.4-2
    fn pump(&mut self, itt: Itt) {
        let limit = self.outstanding_r2ts();
        let Some(numbers) = self.numbering.get_mut(itt) else { return };
        let longest = (self.keys.max_burst_length as usize).max(1);
        let deadline = self.now.and_then(|now| now.checked_add(self.keys.data_timeout));
        if self.fetcher.bursts.len() == 0 {
            self.fetcher.deadline = None;
        }
        for tag in &numbers.gets {
            let Some(get) = self.fetcher.gets.get_mut(*tag) else { continue };
            while numbers.outstanding < limit && get.asked < get.into.len() && get.failed.is_none() {
                let len = get.into.len().saturating_sub(get.asked).min(longest);
                let burst = Burst { get: *tag, itt, start: get.asked, len, ..Burst::default() };
                let Some(r2t) =
                    self.fetcher.bursts.insert(burst).map(|ttt| get.r2t(ttt, get.asked, len, self.window))
                else {
                    // All tags are taken, which `limit` does not allow.
                    return;
                };
                self.tx.queue.push_back(Item::R2t(r2t));
                numbers.outstanding = numbers.outstanding.saturating_add(1);
                get.bursts = get.bursts.saturating_add(1);
                get.asked = get.asked.saturating_add(len);
                // It runs from the first R2T on: a Get may have to wait for others of its task.
                get.deadline = deadline;
                self.fetcher.deadline = [self.fetcher.deadline, deadline].into_iter().flatten().min();
            }
        }
    }

    /// Asks for a whole burst again, in the place of the R2T that was answered badly or not at all.
    // req: 7143-11.8-11
    fn ask_again(&mut self, burst: &Burst) -> bool {
        if self.keys.error_recovery_level == 0 || burst.broken || burst.again >= AGAIN {
            return false;
        }
        let Some(get) = self.fetcher.gets.get_mut(burst.get).filter(|g| g.failed.is_none()) else {
            return false;
        };
        let Burst { get: tag, itt, start, len, again, .. } = *burst;
        let fresh = Burst { get: tag, itt, start, len, again: again.saturating_add(1), ..Burst::default() };
        let Some(ttt) = self.fetcher.bursts.insert(fresh) else { return false };
        get.deadline = self.now.and_then(|now| now.checked_add(self.keys.data_timeout));
        let r2t = get.r2t(ttt, start, len, self.window);
        self.tx.queue.push_back(Item::R2t(r2t));
        true
    }

    // req: 7143-4.2.2.4-1
    pub(crate) fn make_r2t(&mut self, mut r2t: R2t) -> Result<(), EncodeError> {
        let numbers = self.numbering.entry(r2t.itt);
        r2t.r2t_sn = R2tSn(numbers.next);
        numbers.next = numbers.next.wrapping_add(1);
        if self.keys.error_recovery_level > 0 {
            numbers.sent.push_back(Sent::R2t(r2t.clone()));
        }
        self.make(&Pdu::<Length>::R2t(r2t), 0, std::iter::empty())
    }

    /// Where the data of a solicited Data-Out goes. Everything is checked before the first byte is placed.
    // req: 5047-9.3-4, 7143-7.9-2, 7143-11.7.6-1, 7143-11.7.6-2, 7143-11.8-7, 7143-4.2.5.3-2
    pub(crate) fn begin_data_out(&mut self, d: &DataOut<SegmentLen>) -> To {
        self.learn(Window { stat_sn: d.exp_stat_sn, ..self.seen });
        let burst = match self.fetcher.bursts.find(d.ttt) {
            Found::Live(burst) if burst.itt == d.itt => burst,
            Found::Stale => return To::Skip,
            Found::Live(_) | Found::Unknown => {
                self.invalid(RejectReason::ProtocolError, None);
                return To::Skip;
            }
        };
        let len = d.data.data_len();
        let Some(get) = self.fetcher.gets.get(burst.get) else { return To::Skip };
        let base = u64::from(get.offset).saturating_add(burst.start as u64);
        // In 64 bits: offset and length are the peer's.
        let at = u64::from(d.buffer_offset)
            .checked_sub(base)
            .filter(|at| at.checked_add(len as u64).is_some_and(|end| end <= burst.len as u64));
        let got = burst.got.saturating_add(len);
        // Where something is missing already, it is no wonder that there are fewer bytes.
        let early = d.final_pdu && got < burst.len && burst.failed.is_none();
        let mut order = d.data_sn.0 == burst.next_sn;
        if let Some(at) = at.and_then(|at| usize::try_from(at).ok()).filter(|_| len > 0) {
            order &= match self.keys.data_pdu_in_order {
                true => at == burst.got,
                false => burst.take_piece(at..at.saturating_add(len)),
            };
        }
        burst.next_sn = d.data_sn.0.wrapping_add(1);
        // The R2T named the LUN of the command.
        let broken = at.is_none() || got > burst.len || (early && order) || d.lun != get.lun;
        burst.broken |= broken;
        if broken || !order {
            burst.failed.get_or_insert(DataError::Sequence);
        }
        if burst.failed.is_some() {
            if broken {
                self.invalid(RejectReason::ProtocolError, None);
            }
            if d.final_pdu {
                self.close_burst(d.ttt);
            }
            return To::Skip;
        }
        let at = burst.start.saturating_add(at.and_then(|at| usize::try_from(at).ok()).unwrap_or_default());
        To::Get { get: burst.get, at }
    }

    /// A solicited Data-Out that has been placed; `intact` says whether its digest matched.
    // req: 7143-7.8-2, 7143-7.8-3, 7143-7.8-4
    pub(crate) fn finish_data_out(&mut self, d: &DataOut<SegmentLen>, intact: bool) {
        if !intact {
            self.invalid(RejectReason::DataDigestError, None);
        }
        let Some(burst) = self.fetcher.bursts.get_mut(d.ttt) else { return };
        if intact {
            burst.got = burst.got.saturating_add(d.data.data_len());
            self.stats.data_in = self.stats.data_in.saturating_add(u64::from(d.data.data));
        } else {
            burst.failed.get_or_insert(DataError::Digest);
        }
        if let Some(get) = self.fetcher.gets.get_mut(burst.get) {
            get.deadline = self.now.and_then(|now| now.checked_add(self.keys.data_timeout));
        }
        if d.final_pdu {
            self.close_burst(d.ttt);
        }
    }

    /// The F bit came: the burst is over.
    fn close_burst(&mut self, ttt: Ttt) {
        let Some(burst) = self.fetcher.bursts.remove(ttt) else { return };
        if burst.failed.is_some() && self.ask_again(&burst) {
            return;
        }
        if let Some(numbers) = self.numbering.get_mut(burst.itt) {
            numbers.outstanding = numbers.outstanding.saturating_sub(1);
        }
        if let Some(get) = self.fetcher.gets.get_mut(burst.get) {
            get.bursts = get.bursts.saturating_sub(1);
            if get.bursts == 0 {
                get.deadline = None;
            }
            match burst.failed {
                Some(error) => get.failed = get.failed.or(Some(error)),
                None => get.arrived = get.arrived.saturating_add(burst.len),
            }
            let over = match get.failed {
                Some(error) if get.bursts == 0 => Some(Err(error)),
                None if get.arrived == get.into.len() => Some(Ok(())),
                _ => None,
            };
            if let Some(result) = over
                && let Some(get) = self.forget_get(burst.get)
            {
                self.complete_get(get, result);
            }
        }
        self.pump(burst.itt);
    }

    /// Takes a Get out of all tables but that of its bursts.
    fn forget_get(&mut self, tag: Ttt) -> Option<Get> {
        let get = self.fetcher.gets.remove(tag)?;
        if let Some(numbers) = self.numbering.get_mut(get.itt) {
            numbers.gets.retain(|t| *t != tag);
        }
        Some(get)
    }

    // req: 5047-9.3-1, 5047-9.3-2
    pub(crate) fn complete_get(&mut self, get: Get, result: Result<(), DataError>) {
        self.events.push_back(Event::DataCompletion(DataCompletion {
            itt: get.itt,
            offset: get.offset,
            data: Some(get.into),
            result,
        }));
    }

    /// Takes the open Gets of a task out, and their bursts: late data finds nothing.
    pub(crate) fn take_gets(&mut self, itt: Itt) -> Vec<Get> {
        let Some(numbers) = self.numbering.get_mut(itt).filter(|n| !n.gets.is_empty()) else {
            return Vec::new();
        };
        let tags = std::mem::take(&mut numbers.gets);
        numbers.outstanding = 0;
        let gets = tags.iter().filter_map(|tag| self.take_get(*tag)).collect();
        self.tx.queue.retain(|item| !matches!(item, Item::R2t(r2t) if r2t.itt == itt));
        gets
    }

    fn take_get(&mut self, tag: Ttt) -> Option<Get> {
        let bursts: Vec<Ttt> =
            self.fetcher.bursts.iter().filter(|(_, b)| b.get == tag).map(|(ttt, _)| ttt).collect();
        for ttt in bursts {
            self.fetcher.bursts.remove(ttt);
        }
        self.rx.skip_get(tag);
        self.fetcher.gets.remove(tag)
    }

    /// Asks again for what is missing of an overdue Get (a sequence reception time-out, RFC 7143 section 7.1.4.1);
    /// whether that can help.
    fn ask_overdue(&mut self, tag: Ttt) -> bool {
        let late: Vec<Ttt> =
            self.fetcher.bursts.iter().filter(|(_, b)| b.get == tag).map(|(ttt, _)| ttt).collect();
        let hopeless = |ttt: &Ttt| self.fetcher.bursts.get(*ttt).is_none_or(|b| b.broken || b.again >= AGAIN);
        if late.is_empty() || late.iter().any(hopeless) {
            return false;
        }
        self.rx.skip_get(tag);
        let mut asked = true;
        for ttt in late {
            if let Some(burst) = self.fetcher.bursts.remove(ttt) {
                asked &= self.ask_again(&burst);
            }
        }
        asked
    }

    /// Gives up transfers that are overdue.
    pub(crate) fn expire_gets(&mut self, now: Instant) {
        let overdue: Vec<Ttt> = self
            .fetcher
            .gets
            .iter()
            .filter(|(_, g)| g.deadline.is_some_and(|d| d <= now))
            .map(|(t, _)| t)
            .collect();
        for tag in overdue {
            if self.keys.error_recovery_level > 0 && self.ask_overdue(tag) {
                continue;
            }
            // The initiator still has the R2T: no other may take its place, so the task gets nothing more.
            // req: 7143-13.17-1
            let Some(itt) = self.fetcher.get(tag).map(|get| get.itt) else { continue };
            let Some(numbers) = self.numbering.get_mut(itt) else { continue };
            numbers.outstanding = 0;
            for tag in std::mem::take(&mut numbers.gets) {
                if let Some(get) = self.take_get(tag) {
                    self.complete_get(get, Err(DataError::TimedOut));
                }
            }
        }
        self.fetcher.deadline = self.fetcher.gets.iter().filter_map(|(_, g)| g.deadline).min();
    }
}

/// The answer to an R2T, on its way.
pub(crate) struct Job {
    itt: Itt,
    serial: u64,
    ttt: Ttt,
    lun: Lun,
    next: u32,
    end: u32,
    data_sn: u32,
}

/// Initiator.
impl TcpCore {
    /// An R2T has arrived: its answer is queued.
    // req: 5047-8.3-4, 5047-10.4.2.3-1, 7143-4.2.5.2-7, 7143-7.9-1, 7143-11.8-10
    pub(crate) fn receive_r2t(&mut self, r: &R2t) -> Result<(), Cause> {
        self.learn(Window { stat_sn: r.stat_sn, exp_cmd_sn: r.exp_cmd_sn, max_cmd_sn: r.max_cmd_sn });
        // A task that was given up is not written any more.
        let Some(task) = self.tasks.get_mut(r.itt) else { return Ok(()) };
        let len = r.desired_data_transfer_length;
        let end = u64::from(r.buffer_offset).saturating_add(u64::from(len));
        let out = task.buffers.out.as_ref().map_or(0, |out| out.len() as u64);
        let recovers = self.keys.error_recovery_level > 0;
        let order = if recovers { task.holes.arrival(r.r2t_sn.0) } else { Arrival::InTurn };
        // req: 7143-7.9-5
        if order == Arrival::Again {
            return Ok(());
        }
        // A recovery R2T may come while the one whose answer got lost is still counted.
        let limit = u32::from(self.keys.max_outstanding_r2t.max(1)).saturating_mul(1 + u32::from(recovers));
        let rule = if r.ttt.is_none() {
            "an R2T with the reserved Target Transfer Tag (RFC 7143 section 11.8.5)"
        } else if !recovers && task.received.is_some() && !task.is_next(r.r2t_sn.0, task.r2ts) {
            "an R2T is missing: R2TSN out of order (RFC 7143 section 7.9)"
        } else if len == 0 || len > self.keys.max_burst_length {
            "an R2T for no data or for more than MaxBurstLength (RFC 7143 section 11.8.4)"
        } else if end > out {
            "an R2T beyond the task's buffer (RFC 7143 section 11.7.6)"
        } else if task.outstanding >= limit {
            "more R2Ts than MaxOutstandingR2T (RFC 7143 section 13.17)"
        } else {
            task.r2ts = task.r2ts.wrapping_add(1);
            task.outstanding = task.outstanding.saturating_add(1);
            let end = u32::try_from(end).unwrap_or(u32::MAX);
            let (itt, ttt, lun) = (r.itt, r.ttt, r.lun);
            let job = Job { itt, serial: task.serial, ttt, lun, next: r.buffer_offset, end, data_sn: 0 };
            self.tx.jobs.push_back(job);
            if recovers {
                self.note(itt, r.r2t_sn.0, true);
                self.release();
            }
            return Ok(());
        };
        Err(Cause::Protocol(rule))
    }

    /// Makes the next Data-Out of an answer.
    // req: 7143-4.2.2.4-1, 7143-11.7.1-2, 7143-11.7.4-3, 7143-11.7.7-2
    // req: 7143-11.8-3, 7143-11.8-4, 7143-11.8-5, 7143-11.8-6, 7143-11.8-8, 7143-11.8-9
    pub(crate) fn make_data_out(&mut self, mut job: Job) -> Result<(), EncodeError> {
        let Some(task) = self.tasks.get_mut(job.itt).filter(|t| t.serial == job.serial) else {
            return Ok(());
        };
        let left = job.end.saturating_sub(job.next);
        let mut len = left.min(self.keys.max_send_data_segment_length.clamp(4, 0x00ff_ffff));
        let last = len == left;
        if last {
            task.outstanding = task.outstanding.saturating_sub(1);
        } else {
            len &= !3;
        }
        let pdu = Pdu::DataOut(DataOut {
            final_pdu: last,
            lun: job.lun,
            itt: job.itt,
            ttt: job.ttt,
            exp_stat_sn: self.window.stat_sn,
            data_sn: DataSn(job.data_sn),
            buffer_offset: job.next,
            data: Length(len as usize),
        });
        // A clone of the list's handle would cost more than looking the task up again.
        let out = task.buffers.out.take().unwrap_or_default();
        let made = self.make(&pdu, len as usize, out.pieces(job.next as usize, len as usize));
        if let Some(task) = self.tasks.get_mut(job.itt) {
            task.buffers.out = Some(out);
        }
        self.stats.data_out = self.stats.data_out.saturating_add(u64::from(len));
        job.next = job.next.saturating_add(len);
        job.data_sn = job.data_sn.wrapping_add(1);
        if !last {
            self.tx.jobs.push_front(job);
        }
        made
    }
}
