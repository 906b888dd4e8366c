//! Negotiation in full feature phase (RFC 7143 section 6.4): what a text exchange changes on its connection.

use super::{ExchangeTag, FunctionRefusal, InitiatorSession};
use crate::action::{ConnId, DownCall};
use bytes::Bytes;
use iscsi_login::Key;
use iscsi_pdu::text::{TextLimits, pairs};
use std::time::Instant;

/// What MaxRecvDataSegmentLength may be (section 13.12).
const LENGTHS: std::ops::RangeInclusive<u32> = 512..=0x00ff_ffff;

/// A MaxRecvDataSegmentLength that an exchange declares, in bytes, and the one that it takes the place of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared {
    length: u32,
    before: u32,
}

impl InitiatorSession {
    /// Declares another MaxRecvDataSegmentLength for a connection, 512 to 2^24 - 1 bytes; brought to the nearest of
    /// these. It holds when the exchange has completed well; if it times out, the target may use this one or the one
    /// before. On iSER-assisted sessions, where the key means nothing, nothing is sent.
    ///
    /// # Errors
    /// [`FunctionRefusal`] says why nothing was sent.
    pub fn declare_max_recv_data_segment_length(
        &mut self,
        now: Instant,
        id: ConnId,
        length: u32,
    ) -> Result<ExchangeTag, FunctionRefusal> {
        self.now = now;
        if self.params.rdma_extensions {
            return Err(FunctionRefusal::NotAtThisLevel);
        }
        let length = length.clamp(*LENGTHS.start(), *LENGTHS.end());
        let conn = self.conn(id).filter(|c| c.takes_requests()).ok_or(FunctionRefusal::NoConnection)?;
        if conn.text.is_some() {
            return Err(FunctionRefusal::Busy);
        }
        let before = conn.keys.max_recv_data_segment_length;
        let text = format!("{}={length}\0", Key::MaxRecvDataSegmentLength.name());
        let declared = Declared { length, before };
        let tag =
            self.begin_text(id, Bytes::from(text), true, Some(declared)).ok_or(FunctionRefusal::Busy)?;
        // The target may use a greater length right behind its response, before anybody here has read that; and data that
        // it has cut by the old one and that is asked for from now on may have to be cut anew.
        // req: 7143-11.16.3-1
        self.notice_another(id, length);
        Ok(tag)
    }

    /// An exchange has completed: what this end declared holds, and so does what the target's text declares.
    pub(super) fn apply_declarations(&mut self, id: ConnId, declared: Option<Declared>, answer: &[u8]) {
        if self.params.rdma_extensions {
            return;
        }
        let limits = TextLimits { bytes: answer.len(), ..TextLimits::default() };
        let theirs = pairs(answer, limits)
            .map_while(Result::ok)
            .find(|(name, _)| *name == Key::MaxRecvDataSegmentLength.name())
            .and_then(|(_, value)| value.parse().ok())
            .filter(|n| LENGTHS.contains(n));
        if declared.is_some() || theirs.is_some() {
            self.notice(id, declared.map(|d| d.length), theirs);
        }
    }

    /// The target has refused an exchange that declared another length: the one before holds.
    pub(super) fn forget_declaration(&mut self, id: ConnId, declared: Declared) {
        self.notice_another(id, declared.before);
    }

    /// A length that is not settled. The same again would be taken for settled.
    fn notice_another(&mut self, id: ConnId, length: u32) {
        if self.conn(id).is_some_and(|c| c.keys.max_recv_data_segment_length != length) {
            self.notice(id, Some(length), None);
        }
    }

    fn notice(&mut self, id: ConnId, recv: Option<u32>, send: Option<u32>) {
        let Some(conn) = self.conn_mut(id) else { return };
        let keys = &mut conn.keys;
        keys.max_recv_data_segment_length = recv.unwrap_or(keys.max_recv_data_segment_length);
        keys.max_send_data_segment_length = send.unwrap_or(keys.max_send_data_segment_length);
        let keys = keys.clone();
        self.call(id, DownCall::NoticeKeyValues(Box::new(keys)));
    }
}
