//! What the target sends: numbers first, then the meaning.

use super::task::TaskStage;
use super::{
    Completion, EndCause, Entry, ExchangeFailure, ExchangeTag, InitiatorEvent, InitiatorSession, Status,
    TaskDone, TaskFailure,
};
use crate::action::ConnId;
use crate::csm::ConnEvent;
use crate::device::TaskTag;
use crate::status::split_sense;
use bytes::Bytes;
use datamover::TaskBuffers;
use iscsi_pdu::{
    AsyncEvent, AsyncMessage, BHS_LEN, Itt, LogoutResponse, LogoutStatus, NopIn, NopOut, Opcode, Pdu, Reject,
    RejectReason, ScsiResponse, ScsiStatus, ServiceResponse, StatSn,
};
use std::time::Duration;

impl InitiatorSession {
    pub(super) fn on_pdu(&mut self, id: ConnId, pdu: Pdu<Bytes>, buffers: TaskBuffers) {
        self.heard(id);
        if !self.conn(id).is_some_and(|c| c.open) {
            self.keep_buffers(id, pdu.itt(), buffers);
            return;
        }
        let Some(stat_sn) = pdu.stat_sn().filter(|_| is_of_target(&pdu)) else {
            // req: 7145-7.3.9-2
            self.lose_connection(id, &EndCause::Protocol("a PDU that a target does not send here"));
            return;
        };
        let numbered = !matches!(&pdu, Pdu::NopIn(nop) if nop.itt.is_none());
        match self.take_stat_sn(id, stat_sn, numbered) {
            Arrival::InTurn => {}
            Arrival::Ahead => {
                // A ping of the target wants an answer now.
                if let Pdu::NopIn(nop) = &pdu
                    && !numbered
                {
                    self.on_nop_in(id, nop.clone());
                }
                self.hold_back(id, stat_sn, numbered, pdu, buffers);
                return;
            }
            Arrival::Nonsense => {
                self.keep_buffers(id, pdu.itt(), buffers);
                return;
            }
        }
        self.dispatch(id, pdu, buffers);
        self.release_ahead(id);
    }

    /// What a PDU means, its turn having come.
    pub(super) fn dispatch(&mut self, id: ConnId, pdu: Pdu<Bytes>, buffers: TaskBuffers) {
        if let (Some(exp), Some(max)) = (pdu.exp_cmd_sn(), pdu.max_cmd_sn()) {
            self.window.update(exp, max);
        }
        match pdu {
            Pdu::ScsiResponse(response) => self.on_scsi_response(id, response, buffers),
            Pdu::NopIn(nop) => self.on_nop_in(id, nop),
            Pdu::TaskMgmtResponse(response) => match self.entry_of(id, response.itt) {
                Some(key) if matches!(self.entries.get(key), Some(Entry::Reassign { .. })) => {
                    self.on_reassign_response(key, &response);
                }
                Some(key) => self.on_function_response(key, &response),
                // req: 7143-4.2.3.3-6
                None => self.counters.stale_responses += 1,
            },
            Pdu::TextResponse(response) => self.on_text_response(id, response),
            Pdu::LogoutResponse(response) => self.on_logout_response(id, &response),
            Pdu::AsyncMessage(message) => self.on_async_message(id, message),
            Pdu::Reject(reject) => self.on_reject(id, reject),
            _ => {}
        }
    }

    /// Checks the StatSN of a PDU.
    // req: 7143-7.9-3, 7143-7.8-10, 7143-7.8-12, 7143-4.2.2.2-2, 7143-4.2.2.2-4
    fn take_stat_sn(&mut self, id: ConnId, stat_sn: StatSn, numbered: bool) -> Arrival {
        let limit = self.cfg.max_stat_sn_distance;
        let recovers = self.recovers();
        let Some(conn) = self.conn_mut(id) else { return Arrival::Nonsense };
        let expected = conn.exp_stat_sn;
        if stat_sn == expected {
            if numbered {
                conn.exp_stat_sn = expected.next();
            }
            return Arrival::InTurn;
        }
        if expected.precedes(stat_sn) {
            if recovers && stat_sn.distance_from(expected) <= limit {
                return Arrival::Ahead;
            }
            let rule = if stat_sn.distance_from(expected) > limit {
                "StatSN is far from the one expected (RFC 7143 section 4.2.2.2)"
            } else {
                "a response was lost: gap in StatSN (RFC 7143 section 7.9)"
            };
            self.lose_connection(id, &EndCause::Protocol(rule));
        } else {
            self.counters.stale_responses += 1;
        }
        Arrival::Nonsense
    }

    /// The request that a response is to, if it was made on this connection.
    // req: 7143-4.2.5.1-1, 7143-4.2.5.3-1
    pub(super) fn entry_of(&self, id: ConnId, itt: Itt) -> Option<crate::slab::Key> {
        let key = self.entries.key_of_tag(itt.0)?;
        self.entries.get(key).filter(|e| e.conn() == id).map(|_| key)
    }

    // req: 7143-11.4.3-1, 7143-11.4.5.1-2, 7143-11.4.3-2, 7144-5.2.1-2, 7143-4.2.3.3-3, 7143-4.2.3.4-4
    fn on_scsi_response(&mut self, id: ConnId, response: ScsiResponse, buffers: TaskBuffers) {
        let key = self.entry_of(id, response.itt);
        let Some((key, Entry::Task(task))) = key.and_then(|k| self.entries.get_mut(k).map(|e| (k, e))) else {
            self.counters.stale_responses += 1;
            return;
        };
        let completed = response.response == ServiceResponse::Completed;
        let good = matches!(response.status, ScsiStatus::Good | ScsiStatus::ConditionMet);
        // req: 7143-7.7-2
        if completed && response.status == ScsiStatus::CheckCondition && response.data.is_empty() {
            let rule = "CHECK CONDITION without sense data (RFC 7143 section 7.7)";
            self.keep_buffers(id, response.itt, buffers);
            self.end_task(key, TaskFailure::ConnectionLost);
            self.lose_session(&EndCause::Protocol(rule));
            return;
        }
        // With the response its buffers come. One that was held back since before the command was sent has none, and is
        // not to this command.
        if buffers.is_none() && (task.read || task.write) && matches!(task.stage, TaskStage::Active) {
            self.counters.stale_responses += 1;
            return;
        }
        let level_2 = self.params.iscsi_protocol_level >= 2;
        let (sense, response_data) = split_sense(&response.data);
        let result = if completed && good && task.input_lost {
            // req: 7143-7.8-9
            Ok(Status::protocol_service_crc())
        } else if completed {
            Ok(Status {
                status: response.status,
                status_qualifier: if level_2 { response.status_qualifier } else { 0 },
                sense,
                response_data,
                residual: response.residual,
                bidirectional_read_residual: response.bidirectional_read_residual,
            })
        } else {
            Err(TaskFailure::ServiceResponse(response.response.0))
        };
        // Whoever stopped the transfer let go of input that was still to come: what is in the buffer is not all of it.
        let cut_off = task.read && completed && response.status == ScsiStatus::Good;
        let stopped = |result| if cut_off { Err(TaskFailure::Aborted) } else { result };
        let (result, buffers) = match std::mem::replace(&mut task.stage, TaskStage::Stopped(None)) {
            TaskStage::Active => (result, buffers),
            TaskStage::Stopped(Some(held)) if !held.is_none() => (stopped(result), held),
            TaskStage::Suspended(held, _) => (result, held),
            // What ended it came before the response.
            TaskStage::Ending(first) if !buffers.is_none() => (first, buffers),
            TaskStage::Stopped(_) if !buffers.is_none() => (result, buffers),
            TaskStage::Returning(_) if !buffers.is_none() => (result, buffers),
            TaskStage::Stopped(Some(none)) => (stopped(result), none),
            // Its buffers are on their way back.
            TaskStage::Ending(first) => {
                task.stage = TaskStage::Ending(first);
                return;
            }
            TaskStage::Returning(_) => {
                task.stage = TaskStage::Ending(result);
                return;
            }
            TaskStage::Stopped(None) => {
                task.stage = TaskStage::Ending(stopped(result));
                return;
            }
        };
        self.conclude(key, TaskDone { tag: TaskTag(key.0), result, buffers });
    }

    // req: 7143-11.18-1, 7143-11.18-2, 7143-11.18-3
    fn on_nop_in(&mut self, id: ConnId, nop: NopIn) {
        if !nop.ttt.is_none() {
            let answer =
                NopOut { immediate: true, lun: nop.lun, itt: Itt::NONE, ttt: nop.ttt, ..NopOut::default() };
            self.send_immediate(id, answer.into());
        }
        let Some(key) = self.entry_of(id, nop.itt) else { return };
        match self.entries.get(key) {
            Some(Entry::Ping { wanted, turn, recovers, .. }) => {
                let (wanted, turn, recovers) = (*wanted, *turn, *recovers);
                self.entries.remove(key);
                self.ping_is_over(id, key);
                if wanted {
                    let tag = ExchangeTag(key.0);
                    self.completions.push_back(Completion::Ping { tag, result: Ok(nop.data) });
                }
                if let Some(lost) = recovers {
                    self.on_reinstatement_probed(lost, id);
                }
                self.retry_after_ping(id, turn);
            }
            Some(Entry::Plug { .. }) => {
                self.entries.remove(key);
            }
            _ => {}
        }
    }

    // req: 7143-11.14-6, 7143-11.15-1, 7143-11.15.3-1
    fn on_logout_response(&mut self, id: ConnId, response: &LogoutResponse) {
        let Some(key) = self.entry_of(id, response.itt) else { return };
        let (session, recovers) = match self.entries.get(key) {
            Some(Entry::Logout { session, recovers, .. }) => (*session, *recovers),
            Some(Entry::Cleanup { lost, .. }) => {
                let lost = *lost;
                self.entries.remove(key);
                self.on_cleanup_response(lost, response.response);
                return;
            }
            _ => return,
        };
        self.entries.remove(key);
        if let Some(lost) = recovers {
            self.on_recovery_logout(lost, id, response);
            return;
        }
        if response.response == LogoutStatus::Success {
            let closing: Vec<ConnId> = if session {
                self.close_with_lost();
                self.conns.iter().map(|c| c.id).collect()
            } else {
                vec![id]
            };
            for conn in closing {
                let event = if conn == id { ConnEvent::LogoutSucceeded } else { ConnEvent::SessionClosed };
                self.close_connection(conn, event, EndCause::LoggedOut);
            }
            if !session && let Some(conn) = self.conn_mut(id) {
                let sent = std::mem::take(&mut conn.sent).into();
                self.plug_missing(sent);
            }
            if !self.conns.iter().any(|c| c.machine.state().is_full_feature()) {
                self.close_with_lost();
            }
        } else {
            if matches!(response.response, LogoutStatus::RecoveryNotSupported | LogoutStatus::CleanupFailed) {
                self.time2wait = response.time2wait;
            }
            self.logout_failed(id, session);
        }
    }

    /// The session is over at the target, and with it what connections that were lost before left there.
    fn close_with_lost(&mut self) {
        self.closed = true;
        self.give_lost_up();
        self.give_up_recoveries();
    }

    /// Async Messages (section 11.9.1).
    // req: 7143-11.9.1-7, 7143-7.1.4.3-4, 7143-11.9.1-11, 7143-11.9.4-1, 7143-11.9.4-2
    fn on_async_message(&mut self, id: ConnId, message: AsyncMessage) {
        match message.event {
            AsyncEvent::ScsiEvent => {
                let (sense, _) = split_sense(&message.data);
                self.events.push_back(InitiatorEvent::ScsiEvent { lun: message.lun, sense });
            }
            AsyncEvent::LogoutRequest => self.on_logout_requested(id, message.parameter3),
            AsyncEvent::ConnectionDrop => {
                let dropped =
                    self.conns.iter().find(|c| c.cid.0 == message.parameter1 && c.open).map(|c| c.id);
                if let Some(dropped) = dropped {
                    self.time2wait = message.parameter2;
                    self.conn_event(dropped, ConnEvent::Dropped);
                    let (wait, retain) = (message.parameter2, message.parameter3);
                    self.lose_connection_for(dropped, &EndCause::Dropped, wait, retain);
                }
            }
            AsyncEvent::SessionDrop => {
                self.time2wait = message.parameter2;
                self.lose_session(&EndCause::Dropped);
            }
            AsyncEvent::NegotiationRequest => self.on_negotiation_requested(id),
            AsyncEvent::TasksTerminated => self.on_tasks_terminated(id, message),
            event => self.events.push_back(InitiatorEvent::OtherEvent {
                event,
                vendor_code: message.vendor_code,
                data: message.data,
            }),
        }
    }

    /// Event 5: no more data for the tasks of the logical unit, then the acknowledgment. Those that another nexus ended
    /// are over with it. Those that a function of this session ends are over with that function's response: a response
    /// that the target had ready, and held back behind a fence, may still come for them.
    // req: 7143-11.9.1-9, 7143-4.2.3.4-5, 7143-4.2.3.4-6, 7143-4.2.3.5-4, 7143-4.2.3.5-5
    fn on_tasks_terminated(&mut self, id: ConnId, message: AsyncMessage) {
        let lun = message.lun;
        // What had not reached the target is not among what it ended; nor is a task that is on its way to this connection,
        // which the answer to its reassignment, still to come, tells of.
        let exp = message.exp_cmd_sn;
        let mut there =
            self.tasks_where(|t| t.conn == id && t.lun == lun && (t.immediate || t.cmd_sn.precedes(exp)));
        there.retain(|key| !self.is_being_reassigned(*key));
        let acknowledge = NopOut { immediate: true, lun, itt: Itt::NONE, ..NopOut::default() };
        // Where the target fetches the data itself, it stops when it has the acknowledgment.
        let target_fetches = self.params.rdma_extensions;
        if target_fetches {
            self.send_immediate(id, acknowledge.clone().into());
        }
        match self.ended_by_own_functions(id, lun, &there) {
            None => {
                let asked = self.ended_without_response(&there);
                let over = if asked.is_empty() { there } else { asked };
                over.into_iter().for_each(|key| self.end_task(key, TaskFailure::Terminated));
            }
            Some(own) if !target_fetches => own.into_iter().for_each(|key| self.stop_output(key)),
            Some(_) => {}
        }
        if !target_fetches {
            self.send_immediate(id, acknowledge.into());
        }
        self.events.push_back(InitiatorEvent::TasksTerminated(lun));
    }

    /// A Reject (section 11.17): what it rejects is over, unless it is data of a command.
    // req: 7143-7.3-3, 7143-7.12-1
    fn on_reject(&mut self, id: ConnId, reject: Reject) {
        self.counters.rejects += 1;
        let Reject { reason, data: header, .. } = reject;
        let bhs = header.get(..BHS_LEN).and_then(|h| <&[u8; BHS_LEN]>::try_from(h).ok());
        if let Some(Ok(pdu)) = bhs.map(Pdu::decode_header) {
            let gap = pdu.cmd_sn().filter(|_| !pdu.immediate());
            let key = self.entry_of(id, pdu.itt()).filter(|key| {
                matches!(
                    (self.entries.get(*key), pdu.opcode()),
                    (Some(Entry::Task(_)), Opcode::ScsiCommand)
                        | (Some(Entry::Function(_) | Entry::Reassign { .. }), Opcode::TaskMgmtRequest)
                        | (Some(Entry::Text(_)), Opcode::TextRequest)
                        | (Some(Entry::Ping { .. } | Entry::Plug { .. }), Opcode::NopOut)
                        | (Some(Entry::Logout { .. } | Entry::Cleanup { .. }), Opcode::LogoutRequest)
                )
            });
            // A request whose data was damaged is sent again, with its data (section 7.8).
            let again = reason == RejectReason::DataDigestError && self.recovers();
            match key {
                Some(key) if again && self.entries.get(key).is_some_and(Entry::can_be_repeated) => {
                    self.send_again(key);
                    self.events.push_back(InitiatorEvent::Rejected { reason, header });
                    return;
                }
                Some(key) => self.rejected(id, key, reason),
                None => {}
            }
            if let Some(cmd_sn) = gap.filter(|sn| self.window.exp_cmd_sn().precedes_or_is(*sn)) {
                self.plug(id, cmd_sn);
            }
        }
        self.events.push_back(InitiatorEvent::Rejected { reason, header });
    }

    fn rejected(&mut self, id: ConnId, key: crate::slab::Key, reason: RejectReason) {
        match self.entries.get(key) {
            Some(Entry::Task(_)) => self.end_task(key, TaskFailure::Rejected(reason)),
            Some(Entry::Function(_)) => self.fail_function(key, ExchangeFailure::Rejected(reason)),
            Some(Entry::Text(_)) => self.fail_text(key, ExchangeFailure::Rejected(reason)),
            Some(Entry::Ping { wanted, .. }) => {
                let wanted = *wanted;
                self.entries.remove(key);
                self.ping_is_over(id, key);
                if wanted {
                    let result = Err(ExchangeFailure::Rejected(reason));
                    self.completions.push_back(Completion::Ping { tag: ExchangeTag(key.0), result });
                }
            }
            Some(Entry::Cleanup { lost, .. }) => {
                let lost = *lost;
                self.entries.remove(key);
                self.on_cleanup_response(lost, LogoutStatus::CleanupFailed);
            }
            // Its timer tries again.
            Some(Entry::Logout { recovers: Some(_), .. }) => {
                self.entries.remove(key);
            }
            Some(Entry::Logout { session, .. }) => {
                let session = *session;
                self.entries.remove(key);
                self.logout_failed(id, session);
            }
            Some(Entry::Reassign { .. }) => self.on_reassign_rejected(key, reason),
            Some(Entry::Plug { .. }) => {
                self.entries.remove(key);
            }
            None => {}
        }
    }

    /// The target asks for a logout: no new commands, and the logout when what is under way is over, or time is up.
    // req: 7143-11.9.1-2, 7143-11.9.1-4
    fn on_logout_requested(&mut self, id: ConnId, seconds: u16) {
        self.conn_event(id, ConnEvent::LogoutAsked);
        // One second early, so that the request is there in time.
        let within = Duration::from_secs(u64::from(seconds.saturating_sub(1)));
        self.timers.set(super::Timer::LogoutDue(id), self.now + within);
        self.events.push_back(InitiatorEvent::LogoutRequested(id));
    }

    pub(super) fn heard(&mut self, id: ConnId) {
        let now = self.now;
        if let Some(conn) = self.conn_mut(id) {
            conn.heard = now;
        }
    }
}

/// What a StatSN says.
enum Arrival {
    InTurn,
    /// Others before it were lost.
    Ahead,
    /// Not to be looked at.
    Nonsense,
}

/// Whether a target sends this PDU, and the datamover does not consume it.
fn is_of_target(pdu: &Pdu<Bytes>) -> bool {
    matches!(
        pdu,
        Pdu::ScsiResponse(_)
            | Pdu::NopIn(_)
            | Pdu::TaskMgmtResponse(_)
            | Pdu::TextResponse(_)
            | Pdu::LogoutResponse(_)
            | Pdu::AsyncMessage(_)
            | Pdu::Reject(_)
    )
}
