//! What an initiator's session knows of one connection.

use super::reassign::Lost;
use super::snack::Ahead;
use crate::action::ConnId;
use crate::csm::{ConnMachine, ConnState};
use crate::setup::ConnSetup;
use crate::slab::Key;
use bytes::Bytes;
use datamover::{ConnKeys, Role};
use iscsi_pdu::{Cid, CmdSn, Pdu, StatSn};
use std::collections::VecDeque;
use std::time::Instant;

pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) cid: Cid,
    pub(super) keys: ConnKeys,
    pub(super) machine: ConnMachine,
    /// Whether calls may be made on it.
    pub(super) open: bool,
    /// Whether it was logged out.
    pub(super) logged_out: bool,
    /// Whether it is to be logged out when its commands are over.
    pub(super) retiring: bool,
    /// Numbers sent on it that the target has not acknowledged, where that has to be known: ascending, each once.
    pub(super) sent: VecDeque<CmdSn>,
    /// The StatSN expected next.
    pub(super) exp_stat_sn: StatSn,
    /// ExpStatSN as the datamover stamps it.
    pub(super) told: Option<StatSn>,
    pub(super) heard: Instant,
    /// Commands under way, and those of them with output.
    pub(super) tasks: usize,
    pub(super) writes: usize,
    /// The keepalive ping under way.
    pub(super) ping: Option<Key>,
    /// The text exchange under way: one at a time.
    pub(super) text: Option<Key>,
    /// Immediate PDUs that the target may still hold unexpectedly (RFC 7145 section 8.1.1), by their CmdSN, each with
    /// the first number at least as great that was sent behind it.
    pub(super) unexpected: VecDeque<(CmdSn, Option<CmdSn>)>,
    /// Immediate PDUs that wait for room.
    pub(super) postponed: VecDeque<Pdu<Bytes>>,
    /// Responses that wait for others before them, above ErrorRecoveryLevel 0.
    pub(super) ahead: Ahead,
    /// Pings in a row that were not answered.
    pub(super) unanswered: u8,
    /// A request was sent again on it, and none since with this number, the session's CmdSN then, or a later one.
    pub(super) retried: Option<CmdSn>,
    /// It is lost, and being recovered.
    pub(super) lost: Option<Box<Lost>>,
}

impl Conn {
    pub(super) fn new(id: ConnId, setup: ConnSetup, now: Instant) -> Self {
        Self {
            id,
            cid: setup.cid,
            keys: setup.keys,
            machine: ConnMachine::logged_in(Role::Initiator),
            open: true,
            logged_out: false,
            retiring: false,
            sent: VecDeque::new(),
            exp_stat_sn: setup.stat_sn,
            told: None,
            heard: now,
            tasks: 0,
            writes: 0,
            ping: None,
            text: None,
            unexpected: VecDeque::new(),
            postponed: VecDeque::new(),
            ahead: Ahead::default(),
            unanswered: 0,
            retried: None,
            lost: None,
        }
    }

    /// Whether new commands may be sent: not after a logout, nor when the target has asked for one.
    // req: 7143-11.9.1-4, 7143-11.14-2
    pub(super) fn takes_commands(&self) -> bool {
        self.open && !self.retiring && self.machine.state() == ConnState::LoggedIn
    }

    /// Whether requests that serve what is under way may be sent.
    pub(super) fn takes_requests(&self) -> bool {
        self.open && matches!(self.machine.state(), ConnState::LoggedIn | ConnState::LogoutRequested)
    }

    /// A number went out on it; those before `exp_cmd_sn` are acknowledged.
    fn keep_number(&mut self, cmd_sn: CmdSn, exp_cmd_sn: CmdSn) {
        while self.sent.front().is_some_and(|sn| sn.precedes(exp_cmd_sn)) {
            self.sent.pop_front();
        }
        // What is sent again may be acknowledged, or here already, or belong before others.
        if cmd_sn.precedes(exp_cmd_sn) {
            return;
        }
        let place = |sn: CmdSn| sn.distance_from(exp_cmd_sn);
        match self.sent.back() {
            Some(last) if place(cmd_sn) <= place(*last) => {
                if let Err(index) = self.sent.binary_search_by_key(&place(cmd_sn), |sn| place(*sn)) {
                    self.sent.insert(index, cmd_sn);
                }
            }
            _ => self.sent.push_back(cmd_sn),
        }
    }

    fn limit(&self) -> Option<usize> {
        self.keys
            .peer_max_outstanding_unexpected_pdus
            .filter(|n| *n > 0 && self.keys.rdma_extensions)
            .map(|n| n as usize)
    }

    /// Whether one more immediate PDU may be sent.
    // req: 7145-8.1.1.3-1, 7145-8.1.1.3-3
    pub(super) fn may_send_unexpected(&self) -> bool {
        self.limit().is_none_or(|limit| self.unexpected.len() < limit)
    }

    /// An immediate PDU was sent.
    pub(super) fn count_unexpected(&mut self, cmd_sn: CmdSn) {
        if self.limit().is_some() {
            self.unexpected.push_back((cmd_sn, None));
        }
    }

    /// A numbered command was sent: once acknowledged, what was sent before it is with the target.
    /// Where numbers are kept, `exp_cmd_sn` is the first that is not acknowledged.
    pub(super) fn count_numbered(&mut self, cmd_sn: CmdSn, exp_cmd_sn: Option<CmdSn>) {
        if let Some(exp_cmd_sn) = exp_cmd_sn {
            self.keep_number(cmd_sn, exp_cmd_sn);
        }
        if self.retried.is_some_and(|since| since.precedes_or_is(cmd_sn)) {
            self.retried = None;
        }
        for (immediate, covered) in self.unexpected.iter_mut().rev() {
            if covered.is_some() {
                break;
            }
            // An old number, sent again, says nothing of later PDUs.
            if immediate.precedes_or_is(cmd_sn) {
                *covered = Some(cmd_sn);
            }
        }
    }

    /// Commands before `exp_cmd_sn` are acknowledged.
    // req: 7145-8.1.1.3-4
    pub(super) fn retire_unexpected(&mut self, exp_cmd_sn: CmdSn) {
        while let Some((_, Some(cmd_sn))) = self.unexpected.front()
            && cmd_sn.precedes(exp_cmd_sn)
        {
            self.unexpected.pop_front();
        }
    }
}
