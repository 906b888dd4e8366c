//! Recovery within a connection at the initiator (RFC 7143 sections 7.1.4.2, 7.2.1, 7.8, 7.9): responses that were lost
//! are asked for again, commands and other numbered requests that were lost are sent again.
//!
//! ```text
//!   StatSN ahead ──▶ held back, Status SNACK ──▶ what was missing comes ──▶ all in turn
//!   silence, damage ──▶ NOP-Out ──▶ NOP-In ──┬─▶ its StatSN is ahead: as above
//!                                            └─▶ ExpCmdSN names a command sent before the ping: sent again
//! ```

use super::task::TaskStage;
use super::{EndCause, Entry, InitiatorSession, TaskFunction, Timer};
use crate::action::{Action, ConnId, DownCall};
use crate::device::TaskTag;
use crate::slab::Key;
use bytes::Bytes;
use datamover::TaskBuffers;
use iscsi_pdu::{CmdSn, Itt, Pdu, Snack, SnackType, StatSn, Ttt};

/// PDUs of one connection that may wait for those before them.
const AHEAD: usize = 1024;
/// Requests for the same response, and pings without an answer, before the connection is given up.
pub(super) const ATTEMPTS: u8 = 3;

/// Numbers that the session may use after a request was sent again, before its connection has to carry one.
const FAR: u32 = 1 << 16;

/// Responses that came before others that were sent earlier.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    held: Vec<(StatSn, Pdu<Bytes>, TaskBuffers)>,
    /// All before this one has come, or was asked for.
    asked: Option<StatSn>,
    attempts: u8,
}

impl Ahead {
    fn take(&mut self, stat_sn: StatSn) -> Option<(Pdu<Bytes>, TaskBuffers)> {
        let at = self.held.iter().position(|(sn, ..)| *sn == stat_sn)?;
        let (_, pdu, buffers) = self.held.swap_remove(at);
        Some((pdu, buffers))
    }

    /// Buffers that came with a response to this command which waits.
    pub(super) fn take_buffers(&mut self, itt: Itt) -> Option<TaskBuffers> {
        let (.., buffers) =
            self.held.iter_mut().find(|(_, pdu, buffers)| pdu.itt() == itt && !buffers.is_none())?;
        Some(std::mem::take(buffers))
    }

    /// All that is held, in the order of StatSN.
    pub(super) fn drain(&mut self, expected: StatSn) -> Vec<(Pdu<Bytes>, TaskBuffers)> {
        let mut held = std::mem::take(&mut self.held);
        held.sort_by_key(|(sn, ..)| sn.distance_from(expected));
        held.into_iter().map(|(_, pdu, buffers)| (pdu, buffers)).collect()
    }
}

impl InitiatorSession {
    /// Whether what is lost in a connection is recovered there. On iSER nothing is (RFC 7145 section 10.2.1).
    // req: 7145-3.3-11
    pub(super) fn recovers(&self) -> bool {
        self.params.error_recovery_level > 0 && !self.is_discovery() && !self.params.rdma_extensions
    }

    /// A PDU whose StatSN is ahead of the one expected: others were lost.
    // req: 7143-7.9-3, 7143-7.8-10, 7143-7.8-12, 7143-11.16-1, 7143-7.1.4-2
    pub(super) fn hold_back(
        &mut self,
        id: ConnId,
        stat_sn: StatSn,
        numbered: bool,
        pdu: Pdu<Bytes>,
        buffers: TaskBuffers,
    ) {
        let Some(conn) = self.conn_mut(id) else { return };
        if numbered && !conn.ahead.held.iter().any(|(sn, ..)| *sn == stat_sn) {
            conn.ahead.held.push((stat_sn, pdu, buffers));
        } else {
            // Another PDU has the number: the target is wrong, and its command still has buffers.
            self.keep_buffers(id, pdu.itt(), buffers);
        }
        let Some(conn) = self.conn_mut(id) else { return };
        let expected = conn.exp_stat_sn;
        let ahead = &mut conn.ahead;
        let crowded = ahead.held.len() > AHEAD;
        let from = ahead.asked.filter(|asked| expected.precedes(*asked)).unwrap_or(expected);
        if from.precedes_or_is(stat_sn) {
            ahead.asked = Some(if numbered { stat_sn.next() } else { stat_sn });
        }
        if crowded {
            let rule = "too many responses ahead of a lost one (RFC 7143 section 4.2.2.2)";
            self.lose_connection(id, &EndCause::Protocol(rule));
        } else if from.precedes(stat_sn) {
            self.send_status_snack(id, from, stat_sn);
        }
    }

    /// Asks for the responses from `from` up to (not including) `end`.
    // req: 7143-11.16.4-1, 7143-11.16.5-4, 7143-4.2.5.1-5
    fn send_status_snack(&mut self, id: ConnId, from: StatSn, end: StatSn) {
        let timeout = self.cfg.snack_timeout;
        let Some(conn) = self.conn(id).filter(|c| c.open) else { return };
        let snack = Snack {
            kind: SnackType::Status,
            itt: Itt::NONE,
            ttt_or_snack_tag: Ttt::NONE,
            exp_stat_sn: conn.exp_stat_sn,
            beg_run: from.0,
            run_length: end.distance_from(from),
            ..Snack::default()
        };
        self.actions
            .push_back(Action { conn: id, call: DownCall::SendControl(Pdu::<Bytes>::from(snack).into()) });
        self.timers.set(Timer::Snack(id), self.now + timeout);
    }

    /// What has come in turn lets what waited for it follow.
    pub(super) fn release_ahead(&mut self, id: ConnId) {
        if self.params.error_recovery_level == 0 {
            return;
        }
        while let Some(conn) = self.conn_mut(id).filter(|c| c.open) {
            let expected = conn.exp_stat_sn;
            let Some((pdu, buffers)) = conn.ahead.take(expected) else {
                if conn.ahead.asked.is_some_and(|asked| asked.precedes_or_is(expected)) {
                    (conn.ahead.asked, conn.ahead.attempts) = (None, 0);
                    self.timers.cancel(Timer::Snack(id));
                }
                return;
            };
            conn.exp_stat_sn = expected.next();
            self.dispatch(id, pdu, buffers);
        }
    }

    /// The answer to a SNACK is late.
    pub(super) fn on_late_snack(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let expected = conn.exp_stat_sn;
        let Some(asked) = conn.ahead.asked.filter(|asked| expected.precedes(*asked)) else { return };
        conn.ahead.attempts += 1;
        if conn.ahead.attempts >= ATTEMPTS {
            let rule = "a Status SNACK was not answered in time (RFC 7143 section 7.8)";
            self.lose_connection(id, &EndCause::Protocol(rule));
            return;
        }
        let place = |sn: &StatSn| sn.distance_from(expected);
        let end = conn.ahead.held.iter().map(|(sn, ..)| *sn).min_by_key(place).unwrap_or(asked);
        self.send_status_snack(id, expected, end);
    }

    /// Some input of a command is lost for good: its datamover may not ask for it, or was refused it. A good status does
    /// not count any more. It may be among what comes up right now.
    // req: 7143-7.8-6, 7143-7.8-9
    pub(super) fn on_input_lost(&mut self, id: ConnId, itt: Itt) {
        let Some(key) = self.entry_of(id, itt) else { return };
        if let Some(Entry::Task(task)) = self.entries.get_mut(key)
            && !task.input_lost
        {
            task.input_lost = true;
            self.timers.set(Timer::InputLost(key), self.now);
        }
    }

    /// It was not: the target is still at the command, which is aborted. Unless it is being so already, or goes on on
    /// another connection, or its connection takes no more requests, and brings the status or ends.
    // req: 7143-7.8-6
    pub(super) fn abort_for_lost_input(&mut self, key: Key) {
        let Some(Entry::Task(task)) = self.entries.get(key) else { return };
        if task.input_lost && matches!(task.stage, TaskStage::Active) && !self.is_being_ended(key) {
            let _ = self.request_function(self.now, TaskFunction::AbortTask(TaskTag(key.0)), false);
        }
    }

    /// Something was damaged: a ping shows what is missing.
    pub(super) fn probe(&mut self, id: ConnId) {
        if self.recovers() && self.conn(id).is_some_and(|c| c.takes_requests() && c.ping.is_none()) {
            self.send_keepalive(id);
        }
    }

    /// The answer to a ping: the command that the target expects was lost if it was sent on this connection before the
    /// ping.
    // req: 7143-7.2.1-1, 7143-7.2.1-4, 7143-4.2.2.1-20
    pub(super) fn retry_after_ping(&mut self, id: ConnId, turn: u64) {
        // It may have been held back, and looked at when its connection was lost.
        if !self.recovers() || !self.conn(id).is_some_and(|c| c.open) {
            return;
        }
        let missing = self.window.exp_cmd_sn();
        if !missing.precedes(self.window.cmd_sn()) {
            return;
        }
        let holds = |e: &&Entry| e.cmd_sn() == Some(missing);
        let found = self.entries.iter().find(|(_, e)| holds(e)).map(|(key, e)| (key, e.conn(), e.turn()));
        match found {
            Some((key, conn, sent)) if conn == id && sent < turn => self.send_again(key),
            Some(_) => {}
            // Whatever had the number is over.
            None => self.plug(id, missing),
        }
    }

    /// Sends a numbered request again, as it was. A command that is to end, and whose data transfer is stopped for that,
    /// leaves its number to a NOP-Out: it must not be executed any more, nor could its data be sent.
    // req: 7143-7.2.1-3, 7143-4.2.3.4-3
    pub(super) fn send_again(&mut self, key: Key) {
        let turn = self.turn;
        match self.entries.get_mut(key) {
            Some(Entry::Task(task)) => {
                task.turn = turn;
                match (&task.stage, task.conn, task.cmd_sn) {
                    (TaskStage::Active, ..) => self.transmit_command(key, TaskBuffers::none()),
                    (_, conn, cmd_sn) => {
                        self.plug(conn, cmd_sn);
                        self.note_retry(conn);
                    }
                }
            }
            Some(Entry::Plug { conn, cmd_sn, .. }) => {
                let (conn, cmd_sn) = (*conn, *cmd_sn);
                self.entries.remove(key);
                self.plug(conn, cmd_sn);
                self.note_retry(conn);
            }
            Some(Entry::Text(text)) => {
                let conn = text.conn;
                if let Some(numbered) = &mut text.numbered {
                    numbered.turn = turn;
                    let (cmd_sn, pdu) = (numbered.cmd_sn, numbered.pdu.clone());
                    self.send_numbered(conn, cmd_sn, pdu);
                    self.note_retry(conn);
                }
            }
            Some(Entry::Logout { conn, numbered: Some(numbered), .. }) => {
                let (conn, cmd_sn, pdu) = (*conn, numbered.cmd_sn, numbered.pdu.clone());
                self.send_numbered(conn, cmd_sn, pdu);
            }
            _ => {}
        }
    }

    /// A request that has just been sent on this connection was sent before.
    pub(super) fn note_retry(&mut self, id: ConnId) {
        let cmd_sn = self.window.cmd_sn();
        if let Some(conn) = self.conn_mut(id) {
            conn.retried = Some(cmd_sn);
        }
    }

    /// An old instance of a request that was sent again must not come into the window once the numbers have wrapped: a
    /// later one has to be acknowledged on its connection before. Commands see to that by themselves, unless all of
    /// them go elsewhere; then a NOP-Out does. The target executes nothing behind it before it has come, and fewer than
    /// 2^16 requests are under way, so that CmdSN cannot go far beyond it.
    // req: 7143-4.2.2.1-15, 7143-10.4-1
    pub(super) fn follow_retries(&mut self) {
        let next = self.window.cmd_sn();
        let far = |c: &super::conn::Conn| c.retried.is_some_and(|sn| next.distance_from(sn) >= FAR);
        let due = self.conns.iter().find(|c| far(c) && c.takes_requests()).map(|c| c.id);
        if let Some(id) = due
            && let Some(cmd_sn) = self.window.take()
        {
            self.plug(id, cmd_sn);
        }
    }

    /// Takes a number for a request other than a command where a lost one is to be sent again, and the window is open.
    /// `None`: it goes as an immediate one.
    pub(super) fn number_for_request(&mut self) -> Option<CmdSn> {
        if self.recovers() { self.window.take() } else { None }
    }

    /// No Logout Response yet: the request may have got lost. A duplicate is ignored (section 4.2.2.1). There are no pings
    /// that tell, since nothing new may follow a logout.
    // req: 7143-7.2.1-1
    pub(super) fn repeat_logout(&mut self, id: ConnId) {
        let logout = |e: &Entry| matches!(e, Entry::Logout { conn, numbered: Some(_), .. } if *conn == id);
        let found = self.entries.iter().find(|(_, e)| logout(e)).map(|(key, _)| key);
        if let Some(key) = found {
            self.send_again(key);
            self.timers.set(Timer::RepeatLogout(id), self.now + self.cfg.probe_after);
        }
    }
}
