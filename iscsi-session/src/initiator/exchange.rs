//! What the initiator asks for beside commands and task management: text, ping, logout.

use super::negotiation::Declared;
use super::{
    Completion, EndCause, Entry, ExchangeFailure, ExchangeTag, FunctionRefusal, InitiatorSession, Timer,
};
use crate::action::{Action, ConnId, DownCall};
use crate::csm::{ConnEvent, ConnState};
use crate::slab::Key;
use bytes::{Bytes, BytesMut};
use datamover::Window;
use iscsi_pdu::text::chunks;
use iscsi_pdu::{CmdSn, Itt, LogoutReason, LogoutRequest, Lun, NopOut, Pdu, TextRequest, TextResponse, Ttt};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Text Responses of an exchange that may bring nothing: as many as a login may have PDUs. A target that never ends an
/// exchange would occupy its connection for ever, each response being in time.
const SPARE_RESPONSES: usize = 96;
/// Bytes of text that are worth a response.
const SHORT_TEXT: usize = 64;

/// A text exchange, from its first request to the final response.
#[derive(Debug)]
pub(super) struct TextExchange {
    pub(super) conn: ConnId,
    /// Segments of the request that have not been sent, each with its C bit.
    request: VecDeque<(Bytes, bool)>,
    answer: BytesMut,
    /// Text Responses that it has brought.
    responses: usize,
    /// How many it may bring beside those that its text takes.
    spare: usize,
    /// Whether the last request had F set.
    asked_to_finish: bool,
    /// Whether somebody waits for the result; else it answers an Async Message.
    wanted: bool,
    declared: Option<Declared>,
    /// What sending the last request again takes, if it is numbered.
    pub(super) numbered: Option<Numbered>,
}

/// A numbered request other than a command, for the case that it gets lost (RFC 7143 section 7.2.1).
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) cmd_sn: CmdSn,
    /// Pings sent before it was sent last.
    pub(super) turn: u64,
    pub(super) pdu: Pdu<Bytes>,
}

impl InitiatorSession {
    /// Sends text, `key=value` pairs each ended by a NUL byte, and collects the target's answer.
    ///
    /// # Errors
    /// [`FunctionRefusal`] says why nothing was sent: one exchange a connection at a time.
    // req: 7143-11.10-1, 7143-11.10.5-1, 7143-11.10.3-1, 7143-11.10.3-2, 7145-7.3.8-1
    pub fn text(&mut self, now: Instant, text: Bytes) -> Result<ExchangeTag, FunctionRefusal> {
        self.now = now;
        let free = self.conns.iter().filter(|c| c.takes_requests()).map(|c| (c.id, c.text.is_none()));
        let mut refusal = FunctionRefusal::NoConnection;
        for (id, is_free) in free.collect::<Vec<_>>() {
            if is_free {
                return self.begin_text(id, text, true, None).ok_or(FunctionRefusal::Busy);
            }
            refusal = FunctionRefusal::Busy;
        }
        Err(refusal)
    }

    pub(super) fn begin_text(
        &mut self,
        id: ConnId,
        text: Bytes,
        wanted: bool,
        declared: Option<Declared>,
    ) -> Option<ExchangeTag> {
        let segment = self.conn(id)?.keys.max_send_data_segment_length as usize;
        let request: VecDeque<_> = chunks(text, segment.max(512)).collect();
        // Each request but the last is answered with nothing.
        let spare = request.len() + SPARE_RESPONSES;
        let exchange = TextExchange {
            conn: id,
            request,
            answer: BytesMut::new(),
            responses: 0,
            spare,
            asked_to_finish: false,
            wanted,
            declared,
            numbered: None,
        };
        let key = self.entries.insert_with(|_| Entry::Text(exchange))?;
        if let Some(conn) = self.conn_mut(id) {
            conn.text = Some(key);
        }
        self.send_text(key, Ttt::NONE, Lun::default());
        Some(ExchangeTag(key.0))
    }

    /// The next request of an exchange: more of the text, or an empty one that asks for more of the answer.
    // req: 7143-11.10.4-3, 7143-11.11.4-3
    fn send_text(&mut self, key: Key, ttt: Ttt, lun: Lun) {
        let Some(Entry::Text(exchange)) = self.entries.get_mut(key) else { return };
        let (data, continue_text) = exchange.request.pop_front().unwrap_or_default();
        exchange.asked_to_finish = !continue_text;
        let id = exchange.conn;
        let cmd_sn = self.number_for_request();
        let request = TextRequest {
            immediate: cmd_sn.is_none(),
            final_pdu: !continue_text,
            continue_text,
            lun,
            itt: Itt(key.to_tag()),
            ttt,
            data,
            ..TextRequest::default()
        };
        let pdu = Pdu::from(request);
        self.timers.set(Timer::Text(key), self.now + self.cfg.text_timeout);
        let sent = self.send_request(id, cmd_sn, pdu);
        if let Some(Entry::Text(exchange)) = self.entries.get_mut(key) {
            exchange.numbered = sent;
        }
    }

    /// Sends a request other than a command, with its number if it has one; then, what sending it again takes.
    fn send_request(&mut self, id: ConnId, cmd_sn: Option<CmdSn>, pdu: Pdu<Bytes>) -> Option<Numbered> {
        let Some(cmd_sn) = cmd_sn else {
            self.send_immediate(id, pdu);
            return None;
        };
        self.send_numbered(id, cmd_sn, pdu.clone());
        Some(Numbered { cmd_sn, turn: self.turn, pdu })
    }

    // req: 7143-11.11.1-4, 7143-11.10.4-2
    pub(super) fn on_text_response(&mut self, id: ConnId, response: TextResponse) {
        let key = self.entry_of(id, response.itt);
        let Some((key, Entry::Text(exchange))) = key.and_then(|k| self.entries.get_mut(k).map(|e| (k, e)))
        else {
            self.counters.stale_responses += 1;
            return;
        };
        exchange.responses += 1;
        let length = exchange.answer.len() + response.data.len();
        let fault = if response.final_pdu && !exchange.asked_to_finish {
            Some("a final Text Response to a request that was not (RFC 7143 section 11.11.1)")
        } else if !response.final_pdu && response.ttt.is_none() {
            Some("a Text Response that is not final has no Target Transfer Tag (section 11.11.1)")
        } else if length > self.cfg.text_limit {
            Some("more text than is taken")
        } else if exchange.responses > exchange.spare + length / SHORT_TEXT {
            Some("more Text Responses than their text takes")
        } else {
            None
        };
        if let Some(rule) = fault {
            self.fail_text(key, ExchangeFailure::Protocol(rule));
            return;
        }
        exchange.answer.extend_from_slice(&response.data);
        if response.final_pdu {
            let answer = std::mem::take(&mut exchange.answer).freeze();
            self.finish_text(key, Ok(answer));
        } else {
            self.send_text(key, response.ttt, response.lun);
        }
    }

    fn finish_text(&mut self, key: Key, result: Result<Bytes, ExchangeFailure>) {
        self.timers.cancel(Timer::Text(key));
        let Some(Entry::Text(exchange)) = self.entries.remove(key) else { return };
        if let Some(conn) = self.conn_mut(exchange.conn) {
            conn.text = None;
        }
        match (&result, exchange.declared) {
            (Ok(answer), declared) => self.apply_declarations(exchange.conn, declared, answer),
            (Err(ExchangeFailure::Rejected(_)), Some(declared)) => {
                self.forget_declaration(exchange.conn, declared);
            }
            // Whether the target has heard of it is not known.
            (Err(_), _) => {}
        }
        if exchange.wanted {
            self.completions.push_back(Completion::Text { tag: ExchangeTag(key.0), result });
        }
    }

    /// An exchange fails: nothing that it negotiated takes effect.
    // req: 7143-11.10-2
    pub(super) fn fail_text(&mut self, key: Key, failure: ExchangeFailure) {
        self.finish_text(key, Err(failure));
    }

    /// The target asks for a negotiation: an empty text is an answer.
    // req: 7143-11.9.1-8
    pub(super) fn on_negotiation_requested(&mut self, id: ConnId) {
        if self.conn(id).is_some_and(|c| c.text.is_none() && c.takes_requests()) {
            self.begin_text(id, Bytes::new(), false, None);
        }
    }

    /// Pings the target, which returns `data`, or as much of it as fits into one PDU in either direction.
    ///
    /// # Errors
    /// [`FunctionRefusal`] says why nothing was sent.
    // req: 7145-6.2-4, 7145-7.3.13-1
    pub fn ping(&mut self, now: Instant, id: ConnId, data: &Bytes) -> Result<ExchangeTag, FunctionRefusal> {
        self.now = now;
        let conn = self.conn(id).filter(|c| c.takes_requests()).ok_or(FunctionRefusal::NoConnection)?;
        let limit = conn.keys.max_send_data_segment_length.min(conn.keys.max_recv_data_segment_length);
        let data = data.slice(..data.len().min(limit as usize));
        self.send_ping(id, true, data, None).map(|key| ExchangeTag(key.0)).ok_or(FunctionRefusal::Busy)
    }

    pub(super) fn send_ping(
        &mut self,
        id: ConnId,
        wanted: bool,
        data: Bytes,
        recovers: Option<ConnId>,
    ) -> Option<Key> {
        self.turn += 1;
        let turn = self.turn;
        // A numbered one takes what the target may still hold unexpectedly off the count.
        let crowded = self.conn(id).is_some_and(|c| c.open && !c.may_send_unexpected());
        let key = self.entries.insert_with(|_| {
            let cmd_sn = if crowded { self.window.take() } else { None };
            Entry::Ping { conn: id, wanted, turn, recovers, cmd_sn }
        })?;
        let itt = Itt(key.to_tag());
        let nop = NopOut { immediate: true, itt, data, ..NopOut::default() };
        match self.entries.get(key).and_then(Entry::cmd_sn) {
            Some(cmd_sn) => self.send_numbered(id, cmd_sn, NopOut { immediate: false, ..nop }.into()),
            None => self.send_immediate(id, nop.into()),
        }
        Some(key)
    }

    pub(super) fn ping_is_over(&mut self, id: ConnId, key: Key) {
        if let Some(conn) = self.conn_mut(id).filter(|c| c.ping == Some(key)) {
            (conn.ping, conn.unanswered) = (None, 0);
            self.timers.cancel(Timer::Ping(id));
        }
    }

    /// Fills a gap in CmdSN that a Reject left (section 7.3).
    pub(super) fn plug(&mut self, id: ConnId, cmd_sn: CmdSn) {
        let turn = self.turn;
        if let Some(key) = self.entries.insert_with(|_| Entry::Plug { conn: id, cmd_sn, turn }) {
            let nop = NopOut { itt: Itt(key.to_tag()), ..NopOut::default() };
            self.send_numbered(id, cmd_sn, nop.into());
        }
    }

    /// Closes the session in order. Commands under way are ended by the target without a response.
    // req: 7143-4.2.6-1, 7143-11.14-1, 7143-11.14-3
    pub fn logout(&mut self, now: Instant) {
        self.now = now;
        if let Some(id) = self.conns.iter().find(|c| c.takes_requests()).map(|c| c.id) {
            self.send_logout(id, LogoutReason::CloseSession);
            let others: Vec<ConnId> = self.conns.iter().map(|c| c.id).filter(|c| *c != id).collect();
            for other in others {
                if let Some(conn) = self.conn_mut(other) {
                    conn.machine.apply(ConnEvent::LogoutStarted);
                }
            }
        } else if self.awaits_connection() {
            // There is nothing to say it on.
            self.lose_session(&EndCause::SessionRecovery);
        } else {
            self.leaving = true;
        }
        self.progress();
    }

    /// Closes one connection in order; the session too, if it is the last. Its commands are ended by the target
    /// without a response.
    pub fn logout_connection(&mut self, now: Instant, id: ConnId) {
        self.now = now;
        if self.conn(id).is_some_and(|c| c.takes_requests()) {
            let last = self.conns.iter().filter(|c| c.machine.state().is_full_feature()).count() == 1;
            self.send_logout(
                id,
                if last { LogoutReason::CloseSession } else { LogoutReason::CloseConnection },
            );
        }
        self.progress();
    }

    fn send_logout(&mut self, id: ConnId, reason: LogoutReason) {
        let session = reason == LogoutReason::CloseSession;
        let entry = Entry::Logout { conn: id, session, recovers: None, numbered: None };
        let Some(key) = self.entries.insert_with(|_| entry) else { return };
        let cid = self.conn(id).map_or_else(Default::default, |c| c.cid);
        // It does not wait for what may have got lost before it.
        let all_there = self.window.exp_cmd_sn() == self.window.cmd_sn();
        let cmd_sn = if all_there { self.number_for_request() } else { None };
        let request = LogoutRequest {
            immediate: cmd_sn.is_none(),
            reason,
            itt: Itt(key.to_tag()),
            cid: if session { Default::default() } else { cid },
            ..LogoutRequest::default()
        };
        let sent = self.send_request(id, cmd_sn, request.into());
        if sent.is_some() {
            self.timers.set(Timer::RepeatLogout(id), self.now + self.cfg.probe_after);
        }
        if let Some(Entry::Logout { numbered, .. }) = self.entries.get_mut(key) {
            *numbered = sent;
        }
        self.conn_event(id, ConnEvent::LogoutStarted);
        self.timers.cancel(Timer::LogoutDue(id));
        self.timers.set(Timer::Logout(id), self.now + self.cfg.logout_timeout);
    }

    /// Connections on which a logout of the session is under way.
    pub(super) fn session_logouts(&self) -> impl Iterator<Item = ConnId> {
        self.entries.iter().filter_map(|(_, e)| match e {
            Entry::Logout { conn, session: true, .. } => Some(*conn),
            _ => None,
        })
    }

    /// A logout was refused, or not answered in time.
    pub(super) fn logout_failed(&mut self, id: ConnId, session: bool) {
        self.conn_event(id, ConnEvent::LogoutFailed);
        if session {
            // Nothing may be sent on the others either, and nobody wants them any more.
            self.lose_session(&EndCause::LogoutFailed);
        } else {
            self.lose_connection(id, &EndCause::LogoutFailed);
        }
    }

    /// Logs connections out whose target asked for it, when their commands are over.
    // req: 7143-11.9.1-3
    pub(super) fn log_out_when_due(&mut self) {
        let idle = self.conns.iter().find(|c| {
            let leaves = c.retiring && c.machine.state() == ConnState::LoggedIn;
            let asked = c.machine.state() == ConnState::LogoutRequested;
            c.open && (leaves || asked) && c.tasks == 0 && c.text.is_none()
        });
        if let Some(id) = idle.map(|c| c.id) {
            self.log_out_now(id);
        }
    }

    fn log_out_now(&mut self, id: ConnId) {
        let last = self.conns.iter().filter(|c| c.machine.state().is_full_feature()).count() == 1;
        self.send_logout(id, if last { LogoutReason::CloseSession } else { LogoutReason::CloseConnection });
    }

    /// Time is up for something.
    pub(super) fn on_timer(&mut self, timer: Timer) {
        match timer {
            // req: 7143-7.14-1
            Timer::Idle(id) => {
                let (Some(every), Some(conn)) = (self.idle_after(), self.conn(id)) else { return };
                if !conn.takes_requests() {
                    return;
                }
                let busy = self.recovers() && (conn.tasks > 0 || conn.text.is_some());
                let after = if busy { every } else { self.cfg.ping_after.unwrap_or(every) };
                let pinging = conn.ping.is_some() || (!busy && self.cfg.ping_after.is_none());
                let due = conn.heard + after;
                if due <= self.now && !pinging {
                    self.send_keepalive(id);
                }
                let at = if due <= self.now { self.now + every } else { due.min(self.now + every) };
                self.timers.set(Timer::Idle(id), at);
            }
            Timer::Ping(id) => self.on_late_ping(id),
            Timer::Text(key) => self.fail_text(key, ExchangeFailure::TimedOut),
            Timer::LogoutDue(id) => {
                if self.conn(id).is_some_and(|c| {
                    c.retiring && c.takes_requests() || c.machine.state() == ConnState::LogoutRequested
                }) {
                    self.log_out_now(id);
                }
            }
            Timer::RepeatLogout(id) => self.repeat_logout(id),
            Timer::Cleanup(_) => self.lose_session(&EndCause::LogoutFailed),
            Timer::Snack(id) => self.on_late_snack(id),
            Timer::Recover(id) => self.on_recovery_due(id),
            Timer::Retain(id) => self.on_retain_timeout(id),
            // req: 7143-7.11-2
            Timer::Function(key) => {
                if let Some(Entry::Function(running)) = self.entries.get(key) {
                    let conn = running.conn;
                    self.lose_connection(conn, &EndCause::Unresponsive);
                }
            }
            Timer::InputLost(key) => self.abort_for_lost_input(key),
            Timer::Reassign(key) => self.on_late_reassign(key),
            Timer::Logout(id) => {
                let session = self.session_logouts().any(|on| on == id);
                self.logout_failed(id, session);
            }
        }
    }

    /// How often a connection is looked at; `None` never.
    pub(super) fn idle_after(&self) -> Option<Duration> {
        let probe = self.recovers().then_some(self.cfg.probe_after);
        match (self.cfg.ping_after.filter(|_| !self.is_discovery()), probe) {
            (Some(ping), Some(probe)) => Some(ping.min(probe)),
            (ping, probe) => ping.or(probe),
        }
    }

    /// A ping that nobody waits for.
    pub(super) fn send_keepalive(&mut self, id: ConnId) {
        let key = self.send_ping(id, false, Bytes::new(), None);
        if let Some(conn) = self.conn_mut(id) {
            conn.ping = key;
        }
        self.timers.set(Timer::Ping(id), self.now + self.cfg.ping_timeout);
    }

    /// No answer to a ping. Where one PDU may be lost and the connection live, another is sent.
    // req: 7143-7.14-1
    fn on_late_ping(&mut self, id: ConnId) {
        let recovers = self.recovers();
        let Some(conn) = self.conn_mut(id) else { return };
        conn.unanswered += 1;
        if recovers && conn.unanswered < super::snack::ATTEMPTS {
            if let Some(key) = conn.ping.take() {
                self.entries.remove(key);
            }
            self.send_keepalive(id);
        } else {
            self.lose_connection(id, &EndCause::Unresponsive);
        }
    }

    /// Tells the datamovers what to acknowledge in the Data-Out PDUs they make.
    pub(super) fn refresh_windows(&mut self) {
        let (exp_cmd_sn, max_cmd_sn) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        // SNACKs carry the number too.
        let recovers = self.recovers();
        for conn in &mut self.conns {
            if conn.open && (conn.writes > 0 || recovers) && conn.told != Some(conn.exp_stat_sn) {
                conn.told = Some(conn.exp_stat_sn);
                let window = Window { stat_sn: conn.exp_stat_sn, exp_cmd_sn, max_cmd_sn };
                self.actions.push_back(Action { conn: conn.id, call: DownCall::SetWindow(window) });
            }
        }
    }
}
