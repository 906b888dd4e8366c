//! Text exchanges in full feature phase at the target (RFC 7143 sections 6.4, 11.10, 11.11): SendTargets and the
//! declaration of a new MaxRecvDataSegmentLength.

use super::{Peer, TargetSession, Timer};
use crate::action::{ConnId, DownCall};
use bytes::Bytes;
use iscsi_login::Key;
use iscsi_login::sendtargets::{SendTargets, TargetRecord};
use iscsi_pdu::text::{TextAssembler, TextLimits, TextWriter, chunks, pairs};
use iscsi_pdu::{Itt, Pdu, RejectReason, TextRequest, TextResponse, Ttt};
use std::collections::VecDeque;

/// Most pairs in one request.
const MAX_PAIRS: usize = 128;

/// What SendTargets answers: the targets that an initiator may know of, and their addresses.
pub trait TargetDirectory: Send + Sync {
    /// The records for a request. `which` is never [`SendTargets::All`] on a normal session. Nothing for a target
    /// that does not exist or that the initiator has no access to.
    fn send_targets(&self, peer: &Peer, which: &SendTargets) -> Vec<TargetRecord>;
}

/// An empty directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTargets;

impl TargetDirectory for NoTargets {
    fn send_targets(&self, _peer: &Peer, _which: &SendTargets) -> Vec<TargetRecord> {
        Vec::new()
    }
}

/// One exchange, from its first request to its final response.
#[derive(Debug)]
pub(super) struct TextExchange {
    pub(super) itt: Itt,
    ttt: Ttt,
    request: TextAssembler,
    /// Segments of the answer that have not been sent, each with its C bit.
    answer: VecDeque<(Bytes, bool)>,
    seen: Vec<Box<str>>,
    /// The initiator's new MaxRecvDataSegmentLength, in force when the exchange is over.
    max_recv_data_segment_length: Option<u32>,
}

impl TargetSession {
    /// A Text Request, immediate or in its turn.
    // req: 7143-11.10.4-5, 7143-11.11.4-5, 7145-7.3.8-1
    pub(super) fn on_text(&mut self, id: ConnId, request: TextRequest) {
        let limit = self.cfg.text_limit;
        if request.itt.is_none() || self.by_itt.contains_key(&request.itt) {
            self.reject(id, &request.into(), RejectReason::TaskInProgress);
            return;
        }
        let Some(conn) = self.conn_mut(id) else { return };
        let mut exchange = if request.ttt.is_none() {
            let ttt = conn.take_ttt();
            TextExchange {
                itt: request.itt,
                ttt,
                request: TextAssembler::new(limit),
                answer: VecDeque::new(),
                seen: Vec::new(),
                max_recv_data_segment_length: None,
            }
        } else {
            match conn.text.take().filter(|t| t.itt == request.itt && t.ttt == request.ttt) {
                Some(exchange) => exchange,
                None => {
                    self.reject(id, &request.into(), RejectReason::InvalidPduField);
                    return;
                }
            }
        };
        match self.answer_text(id, &mut exchange, &request) {
            Ok(response) => self.send_text(id, exchange, response),
            Err(reason) => {
                self.forget_text(id);
                self.reject(id, &request.into(), reason);
            }
        }
    }

    /// The response to one request of an exchange.
    fn answer_text(
        &mut self,
        id: ConnId,
        exchange: &mut TextExchange,
        request: &TextRequest,
    ) -> Result<TextResponse, RejectReason> {
        let mut final_pdu = false;
        let (mut data, mut continue_text) = (Bytes::new(), false);
        if exchange.answer.is_empty() {
            let text = exchange
                .request
                .push(request.data.clone(), request.continue_text)
                .map_err(|_| RejectReason::ProtocolError)?;
            if let Some(text) = text {
                let answer = self.process_text(exchange, &text)?;
                let max = self.conn(id).map_or(0, |c| c.keys.max_send_data_segment_length as usize);
                // req: 7143-11.11.6-1
                exchange.answer = chunks(answer, max.max(512)).collect();
            }
        } else if !request.data.is_empty() {
            // Who is still being answered has nothing to say (section 11.10.2).
            return Err(RejectReason::ProtocolError);
        }
        if let Some((segment, more)) = exchange.answer.pop_front() {
            (data, continue_text) = (segment, more);
        }
        // req: 7143-11.11.1-4
        if exchange.answer.is_empty() && request.final_pdu {
            final_pdu = true;
        }
        Ok(TextResponse {
            final_pdu,
            continue_text,
            itt: exchange.itt,
            // req: 7143-11.10.4-1, 7143-11.11.1-2, 7143-11.11.1-3, 7143-11.11.4-1, 7143-11.11.4-2
            ttt: if final_pdu { Ttt::NONE } else { exchange.ttt },
            data,
            ..TextResponse::default()
        })
    }

    fn send_text(&mut self, id: ConnId, exchange: TextExchange, response: TextResponse) {
        let over = response.final_pdu;
        let length = exchange.max_recv_data_segment_length.filter(|_| over);
        self.transmit(id, Pdu::from(response));
        if over {
            self.forget_text(id);
        } else if let Some(conn) = self.conn_mut(id) {
            conn.text = Some(exchange);
            let at = self.now + self.cfg.text_timeout;
            self.timers.set(Timer::Text(id), at);
        }
        if let Some(length) = length
            && let Some(conn) = self.conn_mut(id)
        {
            conn.keys.max_send_data_segment_length = length;
            let keys = Box::new(conn.keys.clone());
            self.call(id, DownCall::NoticeKeyValues(keys));
        }
    }

    /// Answers all pairs of a whole text.
    // req: 7143-C-3, 7143-C-5
    fn process_text(&self, exchange: &mut TextExchange, text: &[u8]) -> Result<Bytes, RejectReason> {
        let limits = TextLimits { bytes: text.len(), pairs: MAX_PAIRS, ..TextLimits::default() };
        let mut answer = TextWriter::new(self.cfg.text_answer_limit);
        for pair in pairs(text, limits) {
            let (name, value) = pair.map_err(|_| RejectReason::ProtocolError)?;
            if exchange.seen.iter().any(|k| **k == *name) || exchange.seen.len() >= MAX_PAIRS {
                return Err(RejectReason::ProtocolError);
            }
            exchange.seen.push(name.into());
            match Key::from_name(name) {
                Some(Key::SendTargets) => self.send_targets(value, &mut answer)?,
                Some(Key::MaxRecvDataSegmentLength) if !self.params.rdma_extensions => {
                    let length = value.parse().ok().filter(|n| (512..=0x00ff_ffff).contains(n));
                    exchange.max_recv_data_segment_length = Some(length.ok_or(RejectReason::ProtocolError)?);
                }
                Some(Key::InitiatorAlias) => {}
                // Keys of the login phase, and keys that only a target sends.
                Some(_) => return Err(RejectReason::ProtocolError),
                None => {
                    answer.pair(name, "NotUnderstood");
                }
            }
        }
        answer.finish().map_err(|_| RejectReason::LongOperationReject)
    }

    fn send_targets(&self, value: &str, answer: &mut TextWriter) -> Result<(), RejectReason> {
        let which = SendTargets::parse(value).map_err(|_| RejectReason::ProtocolError)?;
        let out_of_place = match which {
            SendTargets::All => !self.is_discovery(),
            SendTargets::Session => self.peer.target.is_none(),
            SendTargets::Target(_) => false,
        };
        if out_of_place {
            answer.pair("SendTargets", "Reject");
            return Ok(());
        }
        for record in self.cfg.directory.send_targets(&self.peer, &which) {
            answer.pair("TargetName", record.name.as_str());
            for address in &record.addresses {
                answer.pair("TargetAddress", &address.to_string());
            }
        }
        Ok(())
    }

    /// Forgets a connection's exchange: it is over, or stalled for too long.
    pub(super) fn forget_text(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id) {
            conn.text = None;
        }
        self.timers.cancel(Timer::Text(id));
    }

    /// An ABORT TASK of an exchange.
    pub(super) fn abort_text(&mut self, itt: Itt) -> bool {
        let Some(id) =
            self.conns.iter().find(|c| c.text.as_ref().is_some_and(|t| t.itt == itt)).map(|c| c.id)
        else {
            return false;
        };
        self.forget_text(id);
        true
    }
}
