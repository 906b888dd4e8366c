//! SNACKs at the target, as far as they concern responses (RFC 7143 section 11.16). Data and R2Ts are sent again below
//! the datamover interface.

use super::TargetSession;
use crate::action::ConnId;
use datamover::InvalidPdu;
use iscsi_pdu::{BHS_LEN, Itt, Pdu, RejectReason, Snack, SnackTag, SnackType, StatSn};

impl TargetSession {
    /// A SNACK that the datamover handed up.
    // req: 7143-11.16-1, 7143-4.2.5.1-5, 7143-7.1.4-2
    pub(super) fn on_snack(&mut self, id: ConnId, snack: Snack) {
        let result = match snack.kind {
            _ if !self.recovers() => Err(RejectReason::ProtocolError),
            SnackType::Status => self.send_status_again(id, &snack),
            SnackType::RData => {
                self.tag_response(id, snack.itt, SnackTag(snack.ttt_or_snack_tag.0));
                Ok(())
            }
            _ => Err(RejectReason::ProtocolError),
        };
        if let Err(reason) = result {
            self.reject(id, &snack.into(), reason);
        }
    }

    /// Status SNACK.
    // req: 7143-11.16-7, 7143-11.16.3-4
    fn send_status_again(&mut self, id: ConnId, snack: &Snack) -> Result<(), RejectReason> {
        let turn = self.turn;
        let Some(conn) = self.conn_mut(id) else { return Ok(()) };
        let (oldest, next) = (conn.exp_stat_sn, conn.stat_sn);
        let (first, end) = match (snack.beg_run, snack.run_length) {
            (0, 0) if oldest == next => return Ok(()),
            (0, 0) => (oldest, next),
            (beg, 0) => (StatSn(beg), next),
            (beg, run) => (StatSn(beg), StatSn(beg).advance(run)),
        };
        let sent = oldest.precedes_or_is(first) && first.precedes(end) && end.precedes_or_is(next);
        if !sent {
            return Err(RejectReason::ProtocolError);
        }
        // They cannot be as they were if the initiator takes less by now.
        let longest = conn.keys.max_send_data_segment_length as usize;
        let run = conn.kept.run(first, end, longest, turn).ok_or(RejectReason::SnackReject)?;
        run.into_iter().for_each(|(stat_sn, pdu)| self.transmit_again(id, stat_sn, pdu));
        Ok(())
    }

    /// R-Data SNACK: the data is on its way again; the last response of the task carries this tag.
    // req: 7143-11.16.3-3, 7143-11.4.4-2, 7143-11.16.3-4
    fn tag_response(&mut self, id: ConnId, itt: Itt, tag: SnackTag) {
        let live = self.by_itt.get(&itt).copied().and_then(|key| self.tasks.get_mut(key));
        if let Some(task) = live.filter(|t| t.conn == id) {
            task.snack_tag = tag;
            return;
        }
        if let Some(held) = self.fences.held(id, itt) {
            if let Pdu::ScsiResponse(response) = &mut held.pdu {
                response.snack_tag = tag;
            }
            return;
        }
        let Some(kept) = self.conn_mut(id).and_then(|c| c.kept.response(itt)) else { return };
        if let Pdu::ScsiResponse(response) = &mut kept.pdu {
            response.snack_tag = tag;
        }
        let (stat_sn, pdu) = (kept.stat_sn, kept.pdu.clone());
        self.transmit_again(id, stat_sn, pdu);
    }

    /// The datamover cannot send data again: the command fails, unless its status was sent.
    // req: 7143-7.8-8
    pub(super) fn on_snack_rejected(&mut self, id: ConnId, invalid: &InvalidPdu) {
        if invalid.reason != RejectReason::SnackReject {
            return;
        }
        let bhs = invalid.header.get(..BHS_LEN).and_then(|h| <&[u8; BHS_LEN]>::try_from(h).ok());
        if let Some(Ok(Pdu::Snack(snack))) = bhs.map(Pdu::decode_header)
            && let Some(task) = self.by_itt.get(&snack.itt).and_then(|key| self.tasks.get_mut(*key))
            && task.conn == id
        {
            task.snack_rejected = true;
        }
    }
}
