//! Requests of the initiator other than SCSI commands, task management and logouts, and what answers a bad PDU.

use super::{EndCause, TargetSession, Timer};
use crate::action::ConnId;
use crate::csm::{ConnEvent, ConnState};
use bytes::{Bytes, BytesMut};
use datamover::InvalidPdu;
use iscsi_pdu::{AsyncEvent, AsyncMessage, BHS_LEN, LogoutReason, NopIn, NopOut, Pdu, Reject, RejectReason};
use std::time::Duration;

/// How often a connection is pinged in vain before it counts as lost, where single PDUs may be.
const PINGS: u8 = 3;

impl TargetSession {
    /// A PDU of the initiator: what it says about our numbers, then what it wants.
    pub(super) fn on_pdu(&mut self, id: ConnId, pdu: Pdu<Bytes>) {
        self.heard(id);
        // The ExpStatSN of a logout is that of the connection it is for (section 11.14.4), which may be gone.
        match &pdu {
            Pdu::LogoutRequest(r) if r.reason != LogoutReason::CloseSession => {
                let closing = self.conns.iter().filter(|c| c.cid == r.cid).map(|c| c.id).max();
                closing.into_iter().for_each(|closing| self.acknowledged(closing, r.exp_stat_sn));
            }
            pdu => {
                if let Some(exp_stat_sn) = pdu.exp_stat_sn() {
                    self.acknowledged(id, exp_stat_sn);
                }
            }
        }
        // req: 7143-11.14-2
        if !self.conn(id).is_some_and(|c| c.takes_requests()) || self.ending.is_some() {
            return;
        }
        // req: 7143-4.3-1, 7143-4.3-2
        let allowed_in_discovery = match &pdu {
            Pdu::TextRequest(_) => true,
            Pdu::LogoutRequest(r) => r.reason == LogoutReason::CloseSession,
            _ => false,
        };
        if self.is_discovery() && !allowed_in_discovery {
            self.reject(id, &pdu, RejectReason::ProtocolError);
            return;
        }
        match pdu {
            Pdu::ScsiCommand(command) => self.on_scsi_command(id, command),
            Pdu::DataOut(data) => self.on_data_out(id, data),
            Pdu::TaskMgmtRequest(_) | Pdu::TextRequest(_) | Pdu::LogoutRequest(_) | Pdu::NopOut(_) => {
                self.on_request(id, pdu);
            }
            Pdu::Snack(snack) if !self.params.rdma_extensions => self.on_snack(id, snack),
            // req: 7145-7.3.11-2, 7145-7.3.11-4, 7145-7.3.9-2, 7145-7.3.9-4, 7143-11.16-7
            _ => self.reject(id, &pdu, RejectReason::ProtocolError),
        }
    }

    fn on_request(&mut self, id: ConnId, pdu: Pdu<Bytes>) {
        match pdu.cmd_sn() {
            Some(cmd_sn) if !pdu.immediate() => {
                // The number of what is rejected must not count as received, so it is not queued.
                // req: 7143-7.3-2
                if matches!(pdu, Pdu::TaskMgmtRequest(_))
                    && self.order.admits(cmd_sn)
                    && self.is_taken(pdu.itt())
                {
                    self.reject(id, &pdu, RejectReason::TaskInProgress);
                } else {
                    self.queue_request(id, cmd_sn, pdu);
                }
            }
            _ => self.serve(id, pdu),
        }
    }

    /// A numbered request whose turn has come. Its connection may have gone meanwhile.
    pub(super) fn on_request_in_turn(&mut self, id: ConnId, pdu: Pdu<Bytes>) {
        let served = self.conn(id).is_some_and(|c| c.takes_requests());
        // The credits of these two are given back with their responses, if they get one.
        if !served || !matches!(pdu, Pdu::TaskMgmtRequest(_) | Pdu::LogoutRequest(_)) {
            self.order.give_credit();
        }
        if served {
            self.serve(id, pdu);
        }
    }

    fn serve(&mut self, id: ConnId, pdu: Pdu<Bytes>) {
        match pdu {
            Pdu::TaskMgmtRequest(request) => self.on_task_management(id, request),
            Pdu::TextRequest(request) => self.on_text(id, request),
            Pdu::LogoutRequest(request) => self.on_logout(id, request),
            Pdu::NopOut(nop) => self.on_nop_out(id, nop),
            _ => {}
        }
    }

    // req: 7143-11.18.1-3, 7143-11.19-1, 7143-11.19-2, 7143-11.19-3, 7143-11.19-4, 7145-7.3.13-1
    fn on_nop_out(&mut self, id: ConnId, nop: NopOut) {
        let Some(conn) = self.conn_mut(id) else { return };
        if !nop.ttt.is_none() && conn.ping == Some(nop.ttt) {
            (conn.ping, conn.unanswered) = (None, 0);
            self.timers.cancel(Timer::Ping(id));
            self.ask_for_what_is_left(id);
            self.send_postponed(id);
        } else if nop.itt.is_none() && nop.ttt.is_none() {
            self.on_termination_acknowledged(id, nop.lun);
        }
        if nop.itt.is_none() {
            return;
        }
        let limit = self.conn(id).map_or(0, |c| c.keys.max_send_data_segment_length as usize);
        let data = nop.data.slice(..nop.data.len().min(limit));
        self.transmit(id, NopIn { itt: nop.itt, data, ..NopIn::default() }.into());
    }

    /// Asks the initiator to log a connection out within `within` (Async Message event 1), after which it is dropped.
    /// In a discovery session, which knows no such message, it is dropped at once.
    // req: 7143-11.9.1-1, 7143-11.9.1-6, 7143-7.4.3-1, 7143-4.2.6-3
    pub fn request_logout(&mut self, now: std::time::Instant, id: ConnId, within: Duration) {
        self.now = now;
        if self.is_discovery() {
            self.lose_connection(id, &EndCause::Shutdown);
        } else if self.conn(id).is_some_and(|c| c.takes_requests()) {
            self.conn_event(id, ConnEvent::LogoutAsked);
            let message = AsyncMessage {
                event: AsyncEvent::LogoutRequest,
                parameter3: u16::try_from(within.as_secs()).unwrap_or(u16::MAX),
                ..AsyncMessage::default()
            };
            self.transmit_unexpected(id, message.into());
            self.timers.set(Timer::LogoutRequested(id), now + within);
        }
        self.progress();
    }

    /// Drops a connection and tells the initiator, on that connection and on another if there is one (event 2).
    // req: 7143-7.1.4.3-6
    pub fn drop_connection(&mut self, now: std::time::Instant, id: ConnId) {
        self.now = now;
        if self.conn(id).is_some_and(|c| c.takes_requests()) {
            self.announce_drop(id, AsyncEvent::ConnectionDrop);
            self.lose_connection(id, &EndCause::Shutdown);
        }
        self.progress();
    }

    /// Asks the initiator to negotiate parameters on a connection within `within` (Async Message event 4).
    pub fn request_negotiation(&mut self, now: std::time::Instant, id: ConnId, within: Duration) {
        self.now = now;
        if self.conn(id).is_some_and(|c| c.takes_requests()) && !self.is_discovery() {
            let message = AsyncMessage {
                event: AsyncEvent::NegotiationRequest,
                parameter3: u16::try_from(within.as_secs()).unwrap_or(u16::MAX),
                ..AsyncMessage::default()
            };
            self.transmit_unexpected(id, message.into());
        }
    }

    /// Tells the initiator that a connection, or all of them, are about to be dropped (events 2 and 3).
    pub(super) fn announce_drop(&mut self, id: ConnId, event: AsyncEvent) {
        if self.is_discovery() {
            return;
        }
        let message = AsyncMessage {
            event,
            parameter1: match event {
                AsyncEvent::ConnectionDrop => self.conn(id).map_or(0, |c| c.cid.0),
                _ => 0,
            },
            parameter2: self.params.default_time2wait,
            parameter3: 0,
            ..AsyncMessage::default()
        };
        self.transmit_unexpected(id, message.into());
    }

    /// A PDU that the datamover could not deliver.
    // req: 7143-7.8-2, 7143-11.2.1.2-3
    pub(super) fn on_invalid(&mut self, id: ConnId, invalid: InvalidPdu) {
        self.heard(id);
        if !self.conn(id).is_some_and(|c| c.takes_requests()) {
            return;
        }
        self.send_reject(id, without_digest(invalid.header.clone()), invalid.reason);
        self.on_snack_rejected(id, &invalid);
        let bhs = invalid.header.get(..BHS_LEN).and_then(|h| <&[u8; BHS_LEN]>::try_from(h).ok());
        if let Some(Ok(Pdu::DataOut(data))) = bhs.map(Pdu::decode_header)
            && data.ttt.is_none()
        {
            self.on_lost_data_out(id, data.itt, data.data_sn, data.final_pdu);
        }
    }

    /// Rejects a PDU. Its CmdSN does not count as received: the caller has not queued it.
    // req: 7143-7.3-2, 7143-7.3-6, 7143-11.17.1-5
    pub(super) fn reject(&mut self, id: ConnId, pdu: &Pdu<Bytes>, reason: RejectReason) {
        let mut header = [0; BHS_LEN];
        // A PDU that was decoded can be encoded.
        if pdu.encode_header(&mut header).is_ok() {
            let mut bytes = BytesMut::from(&header[..]);
            pdu.encode_ahs(&mut bytes);
            self.send_reject(id, bytes.freeze(), reason);
        }
    }

    // req: 7145-7.3.12-1
    fn send_reject(&mut self, id: ConnId, header: Bytes, reason: RejectReason) {
        self.counters.rejects += 1;
        // req: 7145-8.1.2-2
        if self.conn(id).is_some_and(|c| c.may_send_unexpected()) {
            self.transmit_unexpected(id, Reject { reason, data: header, ..Reject::default() }.into());
        }
    }

    pub(super) fn heard(&mut self, id: ConnId) {
        let now = self.now;
        if let Some(conn) = self.conn_mut(id) {
            conn.heard = now;
        }
    }

    /// Time is up for something.
    pub(super) fn on_timer(&mut self, timer: Timer) {
        match timer {
            // req: 7143-7.14-1
            Timer::Idle(id) => {
                let (Some(after), Some(conn)) = (self.cfg.ping_after, self.conn(id)) else { return };
                if !conn.is_full_feature() {
                    return;
                }
                let due = conn.heard + after;
                if due <= self.now {
                    self.ping(id);
                }
                self.timers.set(Timer::Idle(id), if due <= self.now { self.now + after } else { due });
            }
            Timer::Ping(id) => self.on_late_ping(id),
            Timer::Text(id) => self.forget_text(id),
            Timer::LogoutRequested(id) => {
                if self.conn(id).is_some_and(|c| c.machine.state() == ConnState::LogoutRequested) {
                    self.announce_drop(id, AsyncEvent::ConnectionDrop);
                    self.lose_connection(id, &EndCause::Shutdown);
                }
            }
            Timer::Abort => self.on_abort_timeout(),
            Timer::Bursts => self.on_late_bursts(),
            Timer::Retain(conn) => self.on_retain_timeout(conn),
        }
    }

    /// No answer to a ping. Where one PDU may be lost and the connection live, it is sent again; an answer to either counts.
    /// With no ping under way it is time for the next, if a fence waits.
    // req: 7143-7.14-1
    fn on_late_ping(&mut self, id: ConnId) {
        let may_be_lost = self.recovers() && !self.params.rdma_extensions;
        let Some(conn) = self.conn_mut(id) else { return };
        let Some(ttt) = conn.ping else { return self.ask_for_acknowledgment(id) };
        conn.unanswered += 1;
        if may_be_lost && conn.unanswered < PINGS {
            self.transmit(id, NopIn { ttt, ..NopIn::default() }.into());
            let at = self.now + self.cfg.ping_timeout;
            self.timers.set(Timer::Ping(id), at);
        } else {
            self.lose_connection(id, &EndCause::Unresponsive);
        }
    }
}

/// The header of a bad PDU as it goes into a Reject: BHS and AHS, no digest.
// req: 7143-11.17-1
fn without_digest(header: Bytes) -> Bytes {
    let ahs = header.get(4).map_or(0, |words| usize::from(*words) * 4);
    header.slice(..header.len().min(BHS_LEN + ahs))
}
