//! How PDUs leave the target: their numbers, the fence before them, the windows that the datamovers stamp.

use super::function::is_before;
use super::retain::{Kept, TaskState};
use super::{Stage, TargetSession, TargetTask};
use crate::action::{Action, ConnId, DownCall};
use crate::device::Outcome;
use crate::fence::{Released, Response};
use crate::slab::Key;
use crate::status;
use bytes::Bytes;
use datamover::Window;
use iscsi_login::TaskReporting;
use iscsi_pdu::{
    CmdSn, DataSn, Lun, NopIn, Pdu, Residual, ScsiResponse, ScsiStatus, ServiceResponse, StatSn,
};
use std::time::Duration;

/// Time between the answer to a ping that acknowledges nothing and the next ping, if a fence waits.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl TargetSession {
    /// Sends a response (or holds it back), after which its task is unknown here.
    pub(super) fn send_response(&mut self, response: Response) {
        if let Some(response) = self.fences.hold(response) {
            self.send_unfenced(response);
        }
    }

    /// As `send_response`, with no fence up for this response.
    // req: 7143-4.2.2.3.2-1, 7143-4.2.2.3.3-1
    fn send_unfenced(&mut self, response: Response) {
        let several = self.conns.iter().filter(|c| c.is_full_feature()).count() > 1;
        if !(response.fenced && several) {
            self.transmit_response(response);
            return;
        }
        let waits_for: Vec<(ConnId, StatSn)> = self
            .conns
            .iter()
            .filter(|c| c.open)
            .filter_map(|c| c.unacknowledged().map(|sn| (c.id, sn)))
            .collect();
        if waits_for.is_empty() {
            self.transmit_fenced(response);
        } else {
            let conns: Vec<ConnId> = waits_for.iter().map(|(id, _)| *id).collect();
            self.fences.raise(response, waits_for);
            conns.into_iter().for_each(|id| self.ping(id));
        }
    }

    fn transmit_fenced(&mut self, response: Response) {
        let (conn, lun) = (response.conn, response.lun);
        if let Some(stat_sn) = self.transmit_response(response) {
            self.fences.raise_sent(lun, conn, stat_sn);
            self.ping(conn);
        }
    }

    /// Sends it. With the response of a function that ended tasks, those are over whose responses are lost: they are no
    /// longer there for a reassignment.
    fn transmit_response(&mut self, response: Response) -> Option<StatSn> {
        let Response { conn, lun, pdu, numbered, ends, state, .. } = response;
        if numbered {
            self.order.give_credit();
        }
        let stat_sn = self.transmit_with(conn, pdu, state)?;
        if let Some(position) = ends {
            let covers = |of: Lun| lun.is_none_or(|lun| lun == of);
            self.drop_stranded_responses(|_, task| {
                covers(task.lun) && is_before(task.cmd_sn, task.immediate, position)
            });
        }
        Some(stat_sn)
    }

    /// Lets go what fences need not hold any more.
    pub(super) fn advance_fences(&mut self) {
        while !self.fences.is_empty() {
            let conns = &self.conns;
            let acknowledged = |id: ConnId, sn: StatSn| {
                conns.iter().find(|c| c.id == id).is_none_or(|c| !c.open || c.has_acknowledged(sn))
            };
            let Some(Released { fenced_first, mut responses }) = self.fences.advance(acknowledged) else {
                break;
            };
            if fenced_first && let Some(first) = responses.pop_front() {
                self.transmit_fenced(first);
            }
            responses.into_iter().for_each(|r| self.send_response(r));
        }
    }

    /// Whether responses of this kind are fenced in this session (section 4.2.2.3.4).
    // req: 7143-13.23-1
    pub(super) fn fences_apply(&self) -> bool {
        self.params.task_reporting != TaskReporting::Rfc3720
    }

    /// Numbers a PDU and queues it. Returns its StatSN; `None` when the connection takes nothing any more.
    // req: 7143-4.2.2.2-4, 7143-4.2.2.1-13, 7143-4.2.2.1-16
    pub(super) fn transmit(&mut self, id: ConnId, pdu: Pdu<Bytes>) -> Option<StatSn> {
        self.transmit_with(id, pdu, None)
    }

    /// As `transmit`, of a response with what its task needs to go on elsewhere. Responses of a connection that is
    /// gone wait for that.
    pub(super) fn transmit_with(
        &mut self,
        id: ConnId,
        mut pdu: Pdu<Bytes>,
        state: Option<Box<TaskState>>,
    ) -> Option<StatSn> {
        let (exp, max) = self.window();
        let retains = self.recovers() || self.reassigns();
        let conn = self.conns.iter_mut().find(|c| c.id == id && (c.open || c.suspended))?;
        if !conn.open && !matches!(pdu, Pdu::ScsiResponse(_)) {
            return None;
        }
        let stat_sn = conn.stat_sn;
        if number(&mut pdu, stat_sn, exp, max) {
            conn.stat_sn = stat_sn.next();
            if retains {
                // req: 7143-7.8-10
                conn.kept.keep(Kept { stat_sn, pdu: pdu.clone(), state, again: 0 });
            }
        }
        let (open, long) = (conn.open, retains && conn.kept.is_long() && conn.ping.is_none());
        if open {
            self.told_max_cmd_sn = max;
            self.actions.push_back(Action { conn: id, call: DownCall::SendControl(pdu.into()) });
            if long {
                self.ping(id);
            }
        }
        open.then_some(stat_sn)
    }

    /// Sends a numbered PDU again, as it was but for the numbers of now.
    // req: 7143-11.16-2, 7143-11.16-3
    pub(super) fn transmit_again(&mut self, id: ConnId, stat_sn: StatSn, mut pdu: Pdu<Bytes>) {
        let (exp, max) = self.window();
        number(&mut pdu, stat_sn, exp, max);
        self.told_max_cmd_sn = max;
        self.call(id, DownCall::SendControl(pdu.into()));
    }

    /// Sends a PDU that the initiator does not expect, now or when there is room for it.
    pub(super) fn transmit_unexpected(&mut self, id: ConnId, pdu: Pdu<Bytes>) -> Option<StatSn> {
        let conn = self.conn_mut(id)?;
        if !conn.may_send_unexpected() {
            conn.postpone(pdu);
            return None;
        }
        let sent = self.transmit(id, pdu)?;
        if let Some(conn) = self.conn_mut(id) {
            conn.count_unexpected(sent);
        }
        Some(sent)
    }

    /// The initiator has all StatSNs of the connection before this one.
    pub(super) fn acknowledged(&mut self, id: ConnId, exp_stat_sn: StatSn) {
        let Some(conn) = self.conn_mut(id) else { return };
        // Only what was sent can be acknowledged.
        if !(conn.exp_stat_sn.precedes(exp_stat_sn) && exp_stat_sn.precedes_or_is(conn.stat_sn)) {
            return;
        }
        conn.exp_stat_sn = exp_stat_sn;
        conn.kept.acknowledged(exp_stat_sn);
        let crowded = !conn.may_send_unexpected();
        // req: 7145-8.1.2-4
        while conn.unexpected.front().is_some_and(|sn| sn.precedes(exp_stat_sn)) {
            conn.unexpected.pop_front();
        }
        // There was no room for a ping before.
        if crowded {
            self.ask_for_acknowledgment(id);
        }
        self.send_postponed(id);
    }

    /// Sends what waited for room.
    pub(super) fn send_postponed(&mut self, id: ConnId) {
        while let Some(conn) = self.conn_mut(id)
            && conn.may_send_unexpected()
            && let Some(pdu) = conn.postponed.pop_front()
        {
            self.transmit_unexpected(id, pdu);
        }
    }

    /// Pings a connection, unless a ping is under way.
    // req: 7143-4.2.2.3.3-2, 7143-11.19-5, 7143-11.19-6, 7143-11.19-7, 7143-11.19.3-1
    pub(super) fn ping(&mut self, id: ConnId) {
        let discovery = self.is_discovery();
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.ping.is_some() || !conn.open || discovery || !conn.may_send_unexpected() {
            return;
        }
        let ttt = conn.take_ttt();
        conn.ping = Some(ttt);
        conn.pinged = conn.stat_sn;
        self.transmit(id, NopIn { ttt, lun: Lun::ZERO, ..NopIn::default() }.into());
        let at = self.now + self.cfg.ping_timeout;
        self.timers.set(super::Timer::Ping(id), at);
    }

    /// Pings a connection of which a fence waits for an acknowledgment.
    pub(super) fn ask_for_acknowledgment(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && self.fences.awaited(id).any(|sn| !conn.has_acknowledged(sn))
        {
            self.ping(id);
        }
    }

    /// A ping is answered, and a fence may wait for more. What was sent after the ping the answer cannot acknowledge:
    /// that is asked for at once. What was sent before it, and is not acknowledged, was lost: its recovery takes a while.
    // req: 7143-4.2.2.3.3-2
    pub(super) fn ask_for_what_is_left(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        let (mut waits, mut new) = (false, false);
        for stat_sn in self.fences.awaited(id).filter(|sn| !conn.has_acknowledged(*sn)) {
            (waits, new) = (true, new || conn.pinged.precedes_or_is(stat_sn));
        }
        if new {
            self.ping(id);
        } else if waits {
            self.timers.set(super::Timer::Ping(id), self.now + ASK_AGAIN);
        }
    }

    /// Ends a task with a response.
    pub(super) fn finish(&mut self, key: Key, outcome: Outcome) {
        let Some(task) = self.tasks.get(key) else { return };
        let (conn, lun) = (task.conn, task.lun);
        let exp_data_sn = DataSn(0);
        let (residual, bidirectional) = if task.read && task.write {
            (
                status::residual(outcome.write_length, task.write_length),
                status::residual(outcome.read_length, task.read_length),
            )
        } else if task.write {
            (one_way(outcome.write_length, task.write_length, outcome.read_length), Residual::None)
        } else {
            (one_way(outcome.read_length, task.read_length, outcome.write_length), Residual::None)
        };
        let (itt, snack_tag) = (task.itt, task.snack_tag);
        // req: 7143-11.4.7-1, 7143-11.4.7-2, 7143-4.6.1.2-1, 7144-5.2.2-1, 7144-5.2.2-2
        let sense = match (outcome.status, outcome.sense.is_empty()) {
            (ScsiStatus::CheckCondition, true) => status::aborted_command([0, 0]),
            // RFC 7144 section 5.2: sense data with other statuses is for protocol level 2.
            (ScsiStatus::CheckCondition, _) => outcome.sense,
            _ if self.params.iscsi_protocol_level >= 2 => outcome.sense,
            _ => Bytes::new(),
        };
        // req: 7143-4.2.2.3.4-1
        let fenced = self.fences_apply()
            && (outcome.fence
                || outcome.status == ScsiStatus::AcaActive
                || status::is_unit_attention(&sense));
        // req: 7144-5.2.1-1
        let status_qualifier =
            if self.params.iscsi_protocol_level >= 2 { outcome.status_qualifier } else { 0 };
        let Some(task) = self.tasks.get_mut(key) else { return };
        let (state, numbered) = (task.state.take(), !task.immediate);
        let plain = !fenced && self.fences.is_empty();
        if plain {
            self.retire(key);
        } else {
            self.forget(key);
        }
        self.counters.responses += 1;
        let response = ScsiResponse {
            response: ServiceResponse::Completed,
            status: outcome.status,
            status_qualifier,
            itt,
            // req: 7143-11.4.4-2
            snack_tag,
            exp_data_sn,
            residual,
            bidirectional_read_residual: bidirectional,
            data: status::sense_segment(&sense),
            ..ScsiResponse::default()
        };
        if plain {
            self.transmit_with(conn, response.into(), state);
            return;
        }
        self.send_response(Response {
            conn,
            lun: Some(lun),
            pdu: response.into(),
            fenced,
            numbered,
            ends: None,
            state,
        });
    }

    /// A task is over. Its credit goes back before its response is numbered.
    pub(super) fn retire(&mut self, key: Key) {
        let Some(immediate) = self.unlist(key) else { return };
        self.tasks.discard(key);
        if !immediate {
            self.order.give_credit();
        }
    }

    /// Takes a task out of the books, but for the table that it lies in; whether it is immediate.
    fn unlist(&mut self, key: Key) -> Option<bool> {
        let task = self.tasks.get(key)?;
        let (itt, id, gets, immediate) = (task.itt, task.conn, task.gets as usize, task.immediate);
        if task.stage == Stage::Orphaned {
            self.orphans = self.orphans.saturating_sub(1);
        }
        self.by_itt.remove(&itt);
        if let Some(conn) = self.conn_mut(id) {
            conn.gets = conn.gets.saturating_sub(gets);
            if immediate {
                conn.immediates = conn.immediates.saturating_sub(1);
            }
        }
        for function in &mut self.functions {
            function.task_is_over(key);
        }
        Some(immediate)
    }

    /// Takes a task out of all tables.
    pub(super) fn forget(&mut self, key: Key) -> Option<TargetTask> {
        self.unlist(key)?;
        self.tasks.remove(key)
    }

    /// Tells the datamovers the numbers to stamp, and the initiator of a window that has opened. Where immediate PDUs are
    /// counted, what goes out on one connection acknowledges them on all.
    // req: 7143-11.4.11-1, 7143-11.19.1-1, 7143-11.8.3-1, 7145-8.1.1.3-4
    pub(super) fn refresh_windows(&mut self) {
        let several = self.params.rdma_extensions && self.conns.len() > 1;
        for index in 0..self.conns.len() {
            if let Some(conn) = self.conns.get(index)
                && (conn.gets > 0 || (several && conn.keys.max_outstanding_unexpected_pdus.is_some()))
            {
                self.set_window(conn.id);
            }
        }
        let (exp, max) = self.window();
        let was_closed = self.told_max_cmd_sn.precedes(exp);
        if was_closed
            && self.told_max_cmd_sn.precedes(max)
            && let Some(id) =
                self.conns.iter().find(|c| c.takes_requests() && c.may_send_unexpected()).map(|c| c.id)
            && !self.is_discovery()
        {
            // Where these are counted, a NOP-In that asks for no answer stays outstanding until a response is acknowledged.
            if self.conn(id).is_some_and(|c| c.may_ping_instead()) {
                self.ping(id);
            } else {
                self.transmit_unexpected(id, NopIn::default().into());
            }
        }
    }

    /// Tells a datamover the numbers to stamp, if they have changed.
    pub(super) fn set_window(&mut self, id: ConnId) {
        let call = self.stale_window(id);
        self.actions.extend(call);
    }

    /// The call that tells a datamover the numbers to stamp, if they have changed.
    pub(super) fn stale_window(&mut self, id: ConnId) -> Option<Action> {
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let conn = self.conns.iter_mut().find(|c| c.id == id && c.open)?;
        let window = Window { stat_sn: conn.stat_sn, exp_cmd_sn, max_cmd_sn };
        (conn.window != Some(window)).then(|| {
            conn.window = Some(window);
            Action { conn: id, call: DownCall::SetWindow(window) }
        })
    }
}

/// The residual of a command with one direction, or none. What the device moved the other way found no room at all.
fn one_way(presented: u64, expected: u32, other_way: u64) -> Residual {
    if other_way > 0 { status::residual(other_way, 0) } else { status::residual(presented, expected) }
}

/// Fills the numbers in; `true` when the PDU takes up its StatSN.
// req: 7143-11.19.2-1, 7143-11.9-1, 7143-11.17-1
fn number(pdu: &mut Pdu<Bytes>, sn: StatSn, exp: CmdSn, max: CmdSn) -> bool {
    macro_rules! fill {
        ($p:ident) => {{
            ($p.stat_sn, $p.exp_cmd_sn, $p.max_cmd_sn) = (sn, exp, max);
            true
        }};
    }
    match pdu {
        Pdu::NopIn(p) => {
            fill!(p);
            !p.itt.is_none()
        }
        Pdu::ScsiResponse(p) => fill!(p),
        Pdu::TaskMgmtResponse(p) => fill!(p),
        Pdu::TextResponse(p) => fill!(p),
        Pdu::LogoutResponse(p) => fill!(p),
        Pdu::AsyncMessage(p) => fill!(p),
        Pdu::Reject(p) => fill!(p),
        _ => false,
    }
}
