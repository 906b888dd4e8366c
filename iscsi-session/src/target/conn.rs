//! What a target's session knows of one connection.

use super::retain::Retention;
use super::text::TextExchange;
use crate::action::ConnId;
use crate::csm::{ConnMachine, ConnState};
use crate::setup::ConnSetup;
use bytes::Bytes;
use datamover::{BufPool, ConnKeys, Role, Window};
use iscsi_pdu::{Cid, Itt, Lun, Pdu, StatSn, Ttt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Terminated tasks whose unsolicited data may still come: more at a time are forgotten.
const DRAINING: usize = 64;

/// Unexpected PDUs that may wait for an initiator to acknowledge others.
const POSTPONED: usize = 64;

pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) cid: Cid,
    pub(super) keys: ConnKeys,
    pub(super) pool: Arc<dyn BufPool>,
    pub(super) machine: ConnMachine,
    /// Whether calls may be made on it.
    pub(super) open: bool,
    /// Its datamover is gone; what is left is memory for tasks that the device server has not let go of.
    pub(super) gone: bool,
    /// The next StatSN.
    pub(super) stat_sn: StatSn,
    /// StatSNs before this one are acknowledged.
    pub(super) exp_stat_sn: StatSn,
    /// What is not acknowledged, above ErrorRecoveryLevel 0.
    pub(super) kept: Retention,
    /// At level 2: the connection is gone, and its tasks may be reassigned.
    pub(super) suspended: bool,
    pub(super) heard: Instant,
    /// What the datamover stamps on its own PDUs.
    pub(super) window: Option<Window>,
    /// Get_Data calls under way.
    pub(super) gets: usize,
    /// Immediate commands under way, task management apart.
    pub(super) immediates: u32,
    pub(super) ping: Option<Ttt>,
    /// How often that has been in vain.
    pub(super) unanswered: u8,
    /// The next StatSN when it was last pinged.
    pub(super) pinged: StatSn,
    pub(super) next_ttt: u32,
    pub(super) text: Option<TextExchange>,
    /// Ended tasks whose burst of unsolicited data is not complete.
    draining: VecDeque<Itt>,
    /// Event 5 messages that were sent and not acknowledged: their StatSN, the logical unit, and the tasks whose
    /// resources are kept until then.
    pub(super) terminations: Vec<Termination>,
    /// Tasks of those messages that have left the session.
    pub(super) terminated: usize,
    /// StatSNs of unacknowledged PDUs that the initiator does not expect, but for pings, where their number is limited
    /// (RFC 7145 section 8.1.2).
    pub(super) unexpected: VecDeque<StatSn>,
    /// Unexpected PDUs that wait for room.
    pub(super) postponed: VecDeque<Pdu<Bytes>>,
}

pub(super) struct Termination {
    pub(super) stat_sn: StatSn,
    pub(super) lun: Lun,
    pub(super) tasks: Vec<Itt>,
    /// Whether the message has left the session: further tasks then need one of their own. Sealed ones come first.
    pub(super) sealed: bool,
}

impl Conn {
    pub(super) fn new(id: ConnId, setup: ConnSetup, now: Instant) -> Self {
        Self {
            id,
            cid: setup.cid,
            keys: setup.keys,
            pool: setup.pool,
            machine: ConnMachine::logged_in(Role::Target),
            open: true,
            gone: false,
            stat_sn: setup.stat_sn,
            exp_stat_sn: setup.stat_sn,
            kept: Retention::default(),
            suspended: false,
            heard: now,
            window: None,
            gets: 0,
            immediates: 0,
            ping: None,
            unanswered: 0,
            pinged: setup.stat_sn,
            next_ttt: 0,
            text: None,
            draining: VecDeque::new(),
            terminations: Vec::new(),
            terminated: 0,
            unexpected: VecDeque::new(),
            postponed: VecDeque::new(),
        }
    }

    pub(super) fn is_full_feature(&self) -> bool {
        self.machine.state().is_full_feature()
    }

    /// Whether requests of the initiator are taken.
    pub(super) fn takes_requests(&self) -> bool {
        self.open && matches!(self.machine.state(), ConnState::LoggedIn | ConnState::LogoutRequested)
    }

    /// A Target Transfer Tag that this connection has not used lately; never the reserved one.
    pub(super) fn take_ttt(&mut self) -> Ttt {
        let ttt = Ttt(self.next_ttt);
        self.next_ttt = match self.next_ttt.wrapping_add(1) {
            u32::MAX => 0,
            next => next,
        };
        ttt
    }

    /// Whether a StatSN of this connection has been acknowledged.
    pub(super) fn has_acknowledged(&self, stat_sn: StatSn) -> bool {
        stat_sn.precedes(self.exp_stat_sn)
    }

    /// The last StatSN sent, if it is not acknowledged.
    pub(super) fn unacknowledged(&self) -> Option<StatSn> {
        let last = self.stat_sn.prev();
        (!self.has_acknowledged(last)).then_some(last)
    }

    /// Whether one more PDU that the initiator does not expect may be sent. A ping is one until it is answered.
    // req: 7145-8.1.2-1, 7145-8.1.2-2
    pub(super) fn may_send_unexpected(&self) -> bool {
        let outstanding = self.unexpected.len() + usize::from(self.ping.is_some());
        self.unexpected_limit().is_none_or(|limit| outstanding < limit)
    }

    /// Whether those PDUs are counted, and no ping is under way.
    pub(super) fn may_ping_instead(&self) -> bool {
        self.unexpected_limit().is_some() && self.ping.is_none()
    }

    /// One more was sent.
    pub(super) fn count_unexpected(&mut self, stat_sn: StatSn) {
        if self.unexpected_limit().is_some() {
            self.unexpected.push_back(stat_sn);
        }
    }

    /// Keeps one until there is room; more than a few at a time are forgotten.
    pub(super) fn postpone(&mut self, pdu: Pdu<Bytes>) {
        if self.postponed.len() < POSTPONED {
            self.postponed.push_back(pdu);
        }
    }

    fn unexpected_limit(&self) -> Option<usize> {
        let limit = self.keys.peer_max_outstanding_unexpected_pdus.filter(|_| self.keys.rdma_extensions)?;
        (limit > 0).then_some(limit as usize)
    }

    /// The rest of an ended task's unsolicited data is to be dropped.
    pub(super) fn drain(&mut self, itt: Itt) {
        if self.draining.len() >= DRAINING {
            self.draining.pop_front();
        }
        self.draining.push_back(itt);
    }

    /// Whether unsolicited data of this tag is to be dropped; the last PDU of the burst ends that.
    pub(super) fn drains(&mut self, itt: Itt, last: bool) -> bool {
        let Some(index) = self.draining.iter().position(|i| *i == itt) else { return false };
        if last {
            self.draining.remove(index);
        }
        true
    }

    /// A new task has this tag: what is drained is not its data.
    pub(super) fn forget_draining(&mut self, itt: Itt) {
        self.draining.retain(|i| *i != itt);
    }
}
