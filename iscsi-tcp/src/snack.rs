//! The target above ErrorRecoveryLevel 0: what was sent is kept until it is acknowledged, and sent again when it is
//! asked for (RFC 7143 section 11.16).

use crate::core::TcpCore;
use crate::datain::Put;
use crate::steer::Found;
use crate::task::Numbers;
use crate::tx::{Item, Length};
use datamover::{Event, PutData, SgList};
use iscsi_pdu::{
    DataIn, DataSn, EncodeError, Itt, Lun, Pdu, R2t, RejectReason, ScsiResponse, ServiceResponse, Snack,
    SnackType, Ttt,
};

/// An acknowledgment that was asked for with the A bit.
pub(crate) struct Ack {
    itt: Itt,
    /// DataSN after the PDU with the A bit.
    next: DataSn,
}

/// A PDU as it was sent, but for the numbers that are always current.
#[derive(Clone)]
pub(crate) enum Sent {
    DataIn { sn: DataSn, lun: Lun, offset: u32, final_pdu: bool, ttt: Ttt, data: SgList },
    R2t(R2t),
}

impl Sent {
    fn len(&self) -> usize {
        match self {
            Self::DataIn { data, .. } => data.len(),
            Self::R2t(_) => 0,
        }
    }

    fn sn(&self) -> u32 {
        match self {
            Self::DataIn { sn, .. } => sn.0,
            Self::R2t(r2t) => r2t.r2t_sn.0,
        }
    }
}

/// PDUs to be sent again that may wait at a time; a peer that asks for more gets a Reject.
const AGAIN: usize = 4096;

impl TcpCore {
    /// A tag for a Data-In with the A bit; [`Ttt::NONE`] when there is none left, and the bit stays 0.
    pub(crate) fn ask_ack(&mut self, itt: Itt, next: DataSn) -> Ttt {
        let Some(tag) = self.acks.insert(Ack { itt, next }) else { return Ttt::NONE };
        self.numbering.entry(itt).acks.push(tag);
        tag
    }

    /// A SNACK. `false` hands it up: Status SNACKs concern responses, R-Data SNACKs responses too.
    // req: 5047-6-5
    pub(crate) fn receive_snack(&mut self, snack: &Snack) -> bool {
        let refused = if self.keys.error_recovery_level == 0 {
            Err(RejectReason::ProtocolError)
        } else {
            match snack.kind {
                SnackType::DataAck => self.acknowledged(snack),
                SnackType::DataR2t => self.send_again(snack),
                SnackType::RData => self.resegment(snack.itt),
                _ => return false,
            }
        };
        match refused {
            Ok(()) => snack.kind != SnackType::RData,
            Err(reason) => {
                self.invalid(reason, None);
                true
            }
        }
    }

    /// DataACK: the initiator has all Data-In PDUs before BegRun, the next that it expects: more may have come to it since
    /// the one with the A bit.
    // req: 5047-9.4-1, 5047-10.2.3-1, 5047-10.2.3-2, 7143-11.16.2-2
    fn acknowledged(&mut self, snack: &Snack) -> Result<(), RejectReason> {
        let tag = snack.ttt_or_snack_tag;
        let beg_run = DataSn(snack.beg_run);
        let numbering = &mut self.numbering;
        let mut sent = |itt| numbering.get_mut(itt).is_some_and(|n| beg_run.precedes_or_is(DataSn(n.next)));
        let (itt, next) = match self.acks.find(tag) {
            Found::Live(ack) if ack.next.precedes_or_is(beg_run) && sent(ack.itt) => (ack.itt, beg_run),
            // Status was acknowledged first, which acknowledges the data.
            Found::Stale => return Ok(()),
            Found::Live(_) | Found::Unknown => return Err(RejectReason::InvalidDataAck),
        };
        self.acks.remove(tag);
        if let Some(numbers) = self.numbering.get_mut(itt) {
            numbers.acks.retain(|t| *t != tag);
            numbers.acked = next.0;
            while let Some(sent) = numbers.sent.front().filter(|s| DataSn(s.sn()).precedes(next)) {
                numbers.kept = numbers.kept.saturating_sub(sent.len());
                numbers.sent.pop_front();
            }
        }
        self.events.push_back(Event::DataAck { itt, exp_data_sn: Some(next) });
        Ok(())
    }

    /// Data/R2T SNACK: queues what is asked for.
    // req: 7143-7.8-7, 7143-11.16-7
    fn send_again(&mut self, snack: &Snack) -> Result<(), RejectReason> {
        let numbers = self.numbering.get_mut(snack.itt).ok_or(RejectReason::ProtocolError)?;
        let (beg, run) = (snack.beg_run, snack.run_length);
        let from = if (beg, run) == (0, 0) { numbers.acked } else { beg };
        let to = if run == 0 { numbers.next } else { beg.wrapping_add(run) };
        // Counted from what is acknowledged on.
        let place = |sn: u32| sn.wrapping_sub(numbers.acked);
        if place(from) >= place(to) || place(to) > place(numbers.next) {
            return Err(RejectReason::ProtocolError);
        }
        let wanted = |sent: &&Sent| (place(from)..place(to)).contains(&place(sent.sn()));
        let count = numbers.sent.iter().filter(wanted).count();
        let waiting = self.tx.queue.iter().filter(|item| matches!(item, Item::Again(..))).count();
        if count as u64 != u64::from(to.wrapping_sub(from)) || waiting.saturating_add(count) > AGAIN {
            return Err(RejectReason::SnackReject);
        }
        // It asks for PDUs as they were, and declared since that it does not take them.
        // req: 7143-11.7.1-2
        let longest = self.keys.max_send_data_segment_length as usize;
        let fits = |sent: &Sent| !matches!(sent, Sent::DataIn { data, .. } if data.len() > longest);
        if !numbers.sent.iter().filter(wanted).all(fits) {
            return Err(RejectReason::SnackReject);
        }
        let again = numbers.sent.iter().filter(wanted).map(|sent| Item::Again(snack.itt, sent.clone()));
        self.tx.queue.extend(again);
        Ok(())
    }

    /// R-Data SNACK: sends all data that is not acknowledged again, cut by the lengths of now. The response with the
    /// SNACK Tag is the session's.
    // req: 7143-11.16.3-2
    fn resegment(&mut self, itt: Itt) -> Result<(), RejectReason> {
        let numbers = self.numbering.get_mut(itt).ok_or(RejectReason::ProtocolError)?;
        let queued = self.tx.queue.iter().any(|item| matches!(item, Item::Put(put) if put.itt() == itt));
        if numbers.sent.is_empty() && queued {
            // All of it is on its way: asked for a second time, for one.
            return Ok(());
        }
        // In the count of a bidirectional command R2Ts would be in the way.
        let Some(Sent::DataIn { offset, .. }) = numbers.sent.front().filter(|_| !numbers.asks) else {
            return Err(RejectReason::SnackReject);
        };
        // The old numbers are void from now on: should the connection end before the first of the new ones is given, a
        // reassigned task has to go on from here.
        (numbers.end, numbers.kept) = (*offset, 0);
        numbers.resume(DataSn(numbers.acked));
        let mut puts: Vec<PutData> = Vec::new();
        for sent in numbers.sent.drain(..) {
            let Sent::DataIn { lun, offset, data, .. } = sent else { continue };
            match puts.last_mut() {
                Some(put)
                    if u64::from(put.offset).saturating_add(put.data.len() as u64) == u64::from(offset) =>
                {
                    data.parts().for_each(|part| put.data.push(part.clone()));
                }
                _ => puts.push(PutData { itt, lun, offset, data, resume: None, ack: false, notify: false }),
            }
        }
        // What was asked for by its old number would be taken for something else behind what is sent anew.
        self.tx.queue.retain(|item| !matches!(item, Item::Again(of, _) if *of == itt));
        // Before what has not been sent at all.
        let at = self.tx.queue.iter().position(|item| matches!(item, Item::Put(put) if put.itt() == itt));
        let at = at.unwrap_or(self.tx.queue.len());
        for (n, put) in puts.into_iter().enumerate() {
            self.tx.insert_put(at.saturating_add(n), Put::new(put));
        }
        Ok(())
    }

    /// Sends a PDU again.
    // req: 7143-11.16-2, 7143-11.16-3, 7143-11.16-4, 7143-11.16-5, 7143-11.16-6
    pub(crate) fn make_again(&mut self, itt: Itt, sent: Sent) -> Result<(), EncodeError> {
        let (exp_cmd_sn, max_cmd_sn) = (self.window.exp_cmd_sn, self.window.max_cmd_sn);
        match sent {
            Sent::DataIn { sn, lun, offset, final_pdu, ttt, data } => {
                let len = data.len();
                let pdu = Pdu::DataIn(DataIn {
                    final_pdu,
                    acknowledge: !ttt.is_none(),
                    lun,
                    itt,
                    ttt,
                    exp_cmd_sn,
                    max_cmd_sn,
                    data_sn: sn,
                    buffer_offset: offset,
                    data: Length(len),
                    ..DataIn::default()
                });
                self.make(&pdu, len, data.pieces(0, len))
            }
            Sent::R2t(r2t) => {
                let r2t = R2t { stat_sn: self.window.stat_sn, exp_cmd_sn, max_cmd_sn, ..r2t };
                self.make(&Pdu::<Length>::R2t(r2t), 0, std::iter::empty())
            }
        }
    }

    /// The numbers of a task that moves data from now on. A tag whose task has had its response names another.
    pub(crate) fn open_numbers(&mut self, itt: Itt) -> &mut Numbers {
        if self.numbering.get_mut(itt).is_some_and(|n| n.closed.is_some()) {
            self.forget_numbers(itt);
        }
        self.numbering.entry(itt)
    }

    /// A response has its place in the stream: the task is over, or will be when the response is acknowledged. Says
    /// what its ExpDataSN is. One that was asked for again is made out once more; it says nothing about a later task
    /// with the same tag.
    // req: 7143-11.4.8-1, 5047-8.9-4, 7143-11.16-3
    pub(crate) fn close_numbers(&mut self, r: &ScsiResponse) -> DataSn {
        let recovers = self.keys.error_recovery_level > 0;
        let again = recovers && self.last_status.is_some_and(|last| r.stat_sn.precedes_or_is(last));
        if recovers && !again {
            self.last_status = Some(r.stat_sn);
        }
        // A reassigned task of which no data was left has no numbers here.
        let given = if self.keys.error_recovery_level >= 2 { r.exp_data_sn } else { DataSn(0) };
        let Some(numbers) = self.numbering.get_mut(r.itt) else { return given };
        let count = numbers.data_ins;
        if again {
            if numbers.closed != Some(r.stat_sn) {
                return given;
            }
        } else if recovers {
            self.numbering.close(r.itt, r.stat_sn);
            while let Some(itt) = self.numbering.in_excess() {
                self.forget_numbers(itt);
            }
        } else {
            self.forget_numbers(r.itt);
        }
        if r.response == ServiceResponse::Completed { DataSn(count) } else { DataSn(0) }
    }

    pub(crate) fn forget_numbers(&mut self, itt: Itt) {
        if let Some(numbers) = self.numbering.get_mut(itt) {
            for tag in &numbers.acks {
                self.acks.remove(*tag);
            }
            self.numbering.forget(itt);
        }
    }
}
