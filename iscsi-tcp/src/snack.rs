//! SNACK below the interface: DataACK, and requests for Data-In and R2T PDUs (RFC 7143 section 11.16).

use crate::core::TcpCore;
use crate::steer::Found;
use datamover::Event;
use iscsi_pdu::{DataIn, DataSn, Itt, Pdu, RejectReason, SegmentLen, ServiceResponse, Snack, SnackType, Ttt};

/// An acknowledgment that a target asked for with the A bit.
pub(crate) struct Ack {
    itt: Itt,
    /// DataSN after the PDU with the A bit.
    next: DataSn,
}

/// Target.
impl TcpCore {
    /// A tag for a Data-In with the A bit; [`Ttt::NONE`] when there is none left, and the bit stays 0.
    pub(crate) fn ask_ack(&mut self, itt: Itt, next: DataSn) -> Ttt {
        let Some(tag) = self.acks.insert(Ack { itt, next }) else { return Ttt::NONE };
        self.numbering.open(itt).acks.push(tag);
        tag
    }

    /// A SNACK that is ours to handle: `false` hands it up (Status and R-Data concern responses).
    // req: 5047-6-5, 5047-9.4-1, 5047-10.2.3-1, 5047-10.2.3-2
    pub(crate) fn receive_snack(&mut self, snack: &Snack) -> bool {
        if self.keys.error_recovery_level == 0 {
            self.invalid(RejectReason::ProtocolError, None);
            return true;
        }
        match snack.kind {
            SnackType::DataAck => match self.acks.find(snack.ttt_or_snack_tag) {
                Found::Live(ack) if ack.next.0 == snack.beg_run => {
                    let (itt, next) = (ack.itt, ack.next);
                    self.acks.remove(snack.ttt_or_snack_tag);
                    if let Some(numbers) = self.numbering.get_mut(itt) {
                        numbers.acks.retain(|t| *t != snack.ttt_or_snack_tag);
                    }
                    self.events.push_back(Event::DataAck { itt, exp_data_sn: Some(next) });
                }
                // Status was acknowledged first, which acknowledges the data.
                Found::Stale => {}
                Found::Live(_) | Found::Unknown => self.invalid(RejectReason::InvalidDataAck, None),
            },
            SnackType::DataR2t => self.invalid(RejectReason::SnackReject, None),
            _ => return false,
        }
        true
    }

    /// Forgets a task; says what its ExpDataSN is.
    // req: 7143-11.4.8-1, 5047-8.9-4
    pub(crate) fn close_numbers(&mut self, itt: Itt, response: ServiceResponse) -> DataSn {
        let Some(numbers) = self.numbering.take(itt) else { return DataSn(0) };
        for tag in &numbers.acks {
            self.acks.remove(*tag);
        }
        let count = numbers.data_ins;
        self.numbering.give_back(numbers);
        if response == ServiceResponse::Completed { DataSn(count) } else { DataSn(0) }
    }
}

/// Initiator.
impl TcpCore {
    /// Answers the A bit.
    // req: 7143-11.7.2-5, 7143-11.16.2-1, 7143-11.16.5-3
    pub(crate) fn acknowledge(&mut self, d: &DataIn<SegmentLen>) {
        self.tx.push_control(Pdu::Snack(Snack {
            kind: SnackType::DataAck,
            lun: d.lun,
            itt: Itt::NONE,
            ttt_or_snack_tag: d.ttt,
            exp_stat_sn: self.window.stat_sn,
            beg_run: d.data_sn.next().0,
            run_length: 0,
        }));
    }
}
