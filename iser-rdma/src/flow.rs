//! Flow control: receive buffers, unexpected PDUs, RDMA Reads (RFC 7145 section 8).
//!
//! A Send without a receive buffer at the other end breaks the connection, and iSER has no credits on the wire. So
//! each end posts what the other may send by the rules it declared, and posts again before it answers.

use crate::{RemoteBuf, WrId};
use datamover::SgListMut;
use iscsi_pdu::Ttt;
use std::collections::VecDeque;

/// Receive buffers: how many should be posted and how many are.
#[derive(Debug, Default)]
pub(crate) struct Receives {
    want: usize,
    posted: usize,
}

impl Receives {
    pub(crate) const fn new(posted: usize) -> Self {
        Self { want: 0, posted }
    }

    pub(crate) const fn set_want(&mut self, want: usize) {
        self.want = want;
    }

    /// Buffers that are missing.
    pub(crate) const fn missing(&self) -> usize {
        self.want.saturating_sub(self.posted)
    }

    pub(crate) const fn posted(&self) -> usize {
        self.posted
    }

    pub(crate) const fn on_posted(&mut self) {
        self.posted = self.posted.saturating_add(1);
    }

    pub(crate) const fn on_received(&mut self) {
        self.posted = self.posted.saturating_sub(1);
    }
}

/// An unexpected PDU, by what retires it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outstanding {
    /// Until an expected number beyond this one is sent.
    Sn(u32),
    /// A ping of the target: until it is answered.
    Ping(Ttt),
}

/// Unexpected PDUs of the peer that are outstanding, against the number that this end declared
/// (MaxOutstandingUnexpectedPDUs, RFC 7145 sections 6.7, 8.1.1.3, 8.1.2).
///
/// From an initiator those are the immediate PDUs; one with CmdSN x is outstanding until the target has answered
/// with an ExpCmdSN beyond x, on any connection of the session. From a target those are Async Message and NOP-In that answers nothing; one with StatSN
/// x is outstanding until the initiator has sent an ExpStatSN beyond x, a ping until it is answered. A Reject may
/// stand for a response and is not counted.
#[derive(Debug, Default)]
pub(crate) struct Unexpected {
    outstanding: VecDeque<Outstanding>,
}

impl Unexpected {
    /// Counts one; `false` when there are more than `limit` now.
    pub(crate) fn arrived(&mut self, pdu: Outstanding, limit: Option<u32>) -> bool {
        let Some(limit) = limit.filter(|n| *n != 0) else { return true };
        self.outstanding.push_back(pdu);
        u32::try_from(self.outstanding.len()).is_ok_and(|n| n <= limit)
    }

    /// All with a number before `expected` are outstanding no more.
    pub(crate) fn retire(&mut self, expected: u32) {
        // RFC 1982: `sn` precedes `expected` when the distance upwards is below 2^31 and not 0.
        let precedes = |sn: u32| expected.wrapping_sub(sn).wrapping_sub(1) < u32::MAX / 2;
        self.outstanding.retain(|pdu| !matches!(pdu, Outstanding::Sn(sn) if precedes(*sn)));
    }

    /// The ping with this tag was answered.
    pub(crate) fn answered(&mut self, ttt: Ttt) {
        self.outstanding.retain(|pdu| *pdu != Outstanding::Ping(ttt));
    }
}

/// An RDMA Read that waits or is to be posted.
#[derive(Debug)]
pub(crate) struct ReadOp {
    pub(crate) id: WrId,
    pub(crate) from: RemoteBuf,
    pub(crate) into: SgListMut,
}

/// RDMA Reads, at most iSER-ORD of them outstanding (RFC 7145 section 8.2).
#[derive(Debug)]
pub(crate) struct Reads {
    ord: u16,
    outstanding: u16,
    waiting: VecDeque<ReadOp>,
}

impl Reads {
    pub(crate) const fn new(ord: u16) -> Self {
        Self { ord, outstanding: 0, waiting: VecDeque::new() }
    }

    /// iSER-ORD.
    pub(crate) const fn ord(&self) -> u16 {
        self.ord
    }

    /// Lowers iSER-ORD to what the initiator serves, or the provider can do.
    // req: 7145-5.1.3-4
    pub(crate) fn limit(&mut self, depth: u16) {
        self.ord = self.ord.min(depth);
    }

    pub(crate) fn push(&mut self, read: ReadOp) {
        self.waiting.push_back(read);
    }

    /// The next that may go out now.
    // req: 7145-7.3.6-7, 7145-8.2-2
    pub(crate) fn next(&mut self) -> Option<ReadOp> {
        if self.outstanding >= self.ord {
            return None;
        }
        let read = self.waiting.pop_front()?;
        self.outstanding = self.outstanding.saturating_add(1);
        Some(read)
    }

    /// The provider did not take it.
    pub(crate) fn put_back(&mut self, read: ReadOp) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.waiting.push_front(read);
    }

    pub(crate) fn on_done(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Takes those out that `pick` names.
    pub(crate) fn take(&mut self, pick: impl Fn(WrId) -> bool) -> Vec<ReadOp> {
        let (out, keep): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|r| pick(r.id));
        self.waiting.extend(keep);
        out
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stag;

    fn read(n: u64) -> ReadOp {
        let from = RemoteBuf { stag: Stag(1), offset: 0 };
        ReadOp { id: WrId(n), from, into: SgListMut::new() }
    }

    #[test]
    fn no_more_reads_than_ord_are_outstanding() {
        // req: 7145-7.3.6-7, 7145-8.2-2
        let mut reads = Reads::new(3);
        (0..10).for_each(|n| reads.push(read(n)));
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(reads.next().unwrap().id.0);
        }
        assert!(reads.next().is_none(), "a fourth");
        while !reads.is_idle() {
            reads.on_done();
            order.extend(reads.next().map(|r| r.id.0));
            assert!(reads.outstanding <= 3);
        }
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn hello_lowers_ord_and_never_raises_it() {
        // req: 7145-5.1.3-4
        let mut reads = Reads::new(8);
        reads.limit(4);
        assert_eq!(reads.ord(), 4);
        reads.limit(16);
        assert_eq!(reads.ord(), 4);
    }

    #[test]
    fn unexpected_pdus_are_retired_by_the_expected_number() {
        let sn = Outstanding::Sn;
        let mut u = Unexpected::default();
        assert!(u.arrived(sn(u32::MAX), Some(2)));
        assert!(u.arrived(sn(0), Some(2)));
        u.retire(u32::MAX);
        assert!(!u.arrived(sn(1), Some(2)), "a third");
        u.retire(1);
        assert_eq!(u.outstanding, [sn(1)]);
        assert!(u.arrived(Outstanding::Ping(Ttt(7)), Some(2)));
        u.answered(Ttt(8));
        u.retire(2);
        assert_eq!(u.outstanding, [Outstanding::Ping(Ttt(7))]);
        u.answered(Ttt(7));
        assert!(u.outstanding.is_empty());
        // 0 declares that there is no limit, and an undeclared key means 0 (RFC 7145 section 6.7).
        assert!((0..1000).all(|n| u.arrived(sn(n), Some(0)) && u.arrived(sn(n), None)));
    }
}
