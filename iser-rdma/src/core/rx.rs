//! What comes in: one message, one PDU.

use super::{HelloState, IserDatamover, Quiet};
use crate::flow::Outstanding;
use crate::rcap::{Rcap, Stag};
use crate::wire::{ControlHeader, Hello, HelloReply, ISER_HEADER_LEN, ISER_VERSION, IserHeader};
use bytes::Bytes;
use datamover::{Cause, Event, InvalidPdu, IoBuf, Role};
use iscsi_pdu::{BHS_LEN, DecodeError, Itt, Pdu, SegmentLen, Ttt};

/// Data up to this length is copied out, so that its receive buffer can be posted again at once.
const COPY_BELOW: usize = 256;

/// Padding that a peer may send behind the data segment; many send none.
const MAX_PADDING: usize = 3;

impl<R: Rcap> IserDatamover<R> {
    /// A message arrived. Its kind of Send makes no difference.
    // req: 7145-1.5.2-1, 7145-1.5.2-6
    pub(super) fn receive(&mut self, message: IoBuf, invalidated: Option<Stag>) {
        self.stats.pdus_in += 1;
        match IserHeader::decode(&message).map(|(header, _)| header) {
            Err(e) => self.fail_protocol(e.rule()),
            Ok(IserHeader::Control(header)) => self.control(header, message, invalidated),
            Ok(IserHeader::Hello(hello)) => {
                self.hello(hello);
                self.repost(message);
            }
            Ok(IserHeader::HelloReply(reply)) => {
                self.hello_reply(reply);
                self.repost(message);
            }
        }
    }

    // req: 7145-5.1.2-10, 7145-5.1.2-11, 7145-5.1.3-3, 7145-5.1.3-4, 7145-5.1.3-9, 7145-10.1.3.2-1
    // req: 7145-10.1.3.4-3
    fn hello(&mut self, hello: Hello) {
        if !matches!(self.hello, HelloState::AwaitHello | HelloState::Optional) {
            return self.fail_protocol("Hello where none was agreed on (RFC 7145 5.1.3)");
        }
        self.hello = HelloState::Done;
        self.quiet = Quiet::Off;
        let overlap = hello.min_version <= ISER_VERSION && ISER_VERSION <= hello.max_version;
        let reject = !overlap || (hello.ird > 0 && self.reads.ord() == 0);
        self.reads.limit(hello.ird);
        self.queue_hello(IserHeader::HelloReply(HelloReply {
            reject,
            max_version: ISER_VERSION,
            cur_version: ISER_VERSION,
            ord: self.reads.ord(),
        }));
        if reject {
            self.cause.get_or_insert(Cause::Protocol("Hello not acceptable (RFC 7145 10.1.3.2)"));
            self.state = super::State::Draining;
        }
    }

    // req: 7145-10.1.3.4-2
    fn hello_reply(&mut self, reply: HelloReply) {
        if self.hello != HelloState::AwaitReply {
            return self.fail_protocol("HelloReply without Hello (RFC 7145 5.1.3)");
        }
        if reply.reject {
            return self.fail_protocol("the target rejected Hello (RFC 7145 10.1.3.2)");
        }
        if reply.cur_version != ISER_VERSION {
            return self.fail_protocol("the target chose a version that was not offered (RFC 7145 9.4)");
        }
        self.hello = HelloState::Done;
    }

    fn control(&mut self, header: ControlHeader, message: IoBuf, invalidated: Option<Stag>) {
        match self.hello {
            // req: 7145-10.1.3.4-1, 7145-10.1.3.4-2
            HelloState::AwaitHello | HelloState::AwaitReply => {
                return self.fail_protocol("the first iSER message is not Hello (RFC 7145 10.1.3.4)");
            }
            HelloState::Optional => self.hello = HelloState::Done,
            HelloState::Done => {}
        }
        self.quiet = Quiet::Off;
        let Some(bhs) = message.get(ISER_HEADER_LEN..).and_then(|m| m.first_chunk::<BHS_LEN>()) else {
            return self.fail_protocol("iSER message shorter than a BHS (RFC 7145 9.1)");
        };
        let pdu = match Pdu::decode_header(bhs) {
            Ok(pdu) => pdu,
            Err(error) => return self.invalid(error, &message),
        };
        if pdu.opcode().is_from_initiator() != (self.role == Role::Target) {
            return self.fail_protocol("a PDU of the other direction (RFC 7143 11.2.1.2)");
        }
        let len = pdu.segment_len();
        if let Some(rule) = self.wrong_length(len, message.len()) {
            return self.fail_protocol(rule);
        }
        let data_at = (ISER_HEADER_LEN + BHS_LEN).saturating_add(len.ahs_len());
        let data_end = data_at.saturating_add(len.data_len());
        let ahs = ISER_HEADER_LEN + BHS_LEN..data_at;
        let pdu = if len.data_len() <= COPY_BELOW {
            let data = Bytes::copy_from_slice(message.get(data_at..data_end).unwrap_or_default());
            let pdu = pdu.with_data(message.get(ahs).unwrap_or_default(), data);
            if let Err(error) = pdu {
                return self.invalid(error, &message);
            }
            self.repost(message);
            pdu
        } else {
            let frame = message.freeze();
            pdu.with_data(frame.get(ahs).unwrap_or_default(), frame.slice(data_at..data_end))
        };
        match pdu {
            Ok(pdu) => self.deliver(header, pdu, invalidated),
            // A data segment that long is a command's; its AHSs were wrong.
            Err(error) => self.fail(Cause::Format(error)),
        }
    }

    /// Which rule the lengths of a message break.
    // req: 7145-10.1.3.4-4
    fn wrong_length(&self, len: SegmentLen, message: usize) -> Option<&'static str> {
        let whole = (ISER_HEADER_LEN + BHS_LEN).saturating_add(len.ahs_len()).saturating_add(len.data_len());
        let ahs_limit = self.keys.max_ahs_length.filter(|n| *n != 0).map_or(usize::MAX, |n| n as usize + 3);
        if message < whole {
            Some("iSER message shorter than its PDU (RFC 7145 9.1)")
        } else if message.saturating_sub(whole) > MAX_PADDING {
            Some("iSER message longer than its PDU (RFC 7145 9.1)")
        } else if len.ahs_len() > ahs_limit {
            Some("AHS beyond MaxAHSLength (RFC 7145 6.8)")
        } else {
            None
        }
    }

    /// A PDU that does not decode. Messages keep the PDUs apart, so the connection can go on where RFC 7143 lets it.
    fn invalid(&mut self, error: DecodeError, message: &IoBuf) {
        match error.reject() {
            Some(reason) if !error.fatal() => {
                let header =
                    message.get(ISER_HEADER_LEN..).and_then(|m| m.get(..BHS_LEN)).unwrap_or_default();
                let header = Bytes::copy_from_slice(header);
                self.event(Event::Invalid(InvalidPdu { header, reason, error: Some(error) }));
            }
            _ => self.fail(Cause::Format(error)),
        }
    }

    /// A PDU, whole. Every control-type PDU goes up.
    // req: 7145-3.2-1, 7145-3.2.1-1, 7145-5.2.1-2, 7145-5.2.2-1, 7145-7.2-1, 7145-9.5.1-4, 7145-9.5.1-6, 7145-9.5.2-4
    fn deliver(&mut self, header: ControlHeader, pdu: Pdu<Bytes>, invalidated: Option<Stag>) {
        if invalidated.is_some() && !matches!(pdu, Pdu::ScsiResponse(_)) {
            return self.fail_protocol("only a SCSI Response may invalidate an STag (RFC 7145 7.3.2)");
        }
        if !self.count_unexpected(&pdu) {
            return self.fail_protocol("more unexpected PDUs than were declared (RFC 7145 6.7, 8.1)");
        }
        if let Pdu::ScsiCommand(_) | Pdu::DataOut(_) = pdu {
            self.stats.data_in += pdu.data().map_or(0, Bytes::len) as u64;
        }
        match pdu {
            Pdu::ScsiResponse(response) => return self.response(header, response, invalidated),
            // req: 7145-7.3.5-10 of the target's side: Data-In and R2T do not exist on an iSER connection.
            Pdu::DataIn(_) | Pdu::R2t(_) | Pdu::LoginResponse(_) => {
                return self.fail_protocol("a PDU that does not travel over iSER (RFC 7145 7.3.5, 7.3.6)");
            }
            Pdu::DataOut(ref p) if p.ttt != Ttt::NONE => {
                return self.fail_protocol("solicited Data-Out over iSER (RFC 7145 7.3.4)");
            }
            Pdu::DataOut(ref p) => self.unsolicited(p),
            Pdu::ScsiCommand(ref p) if !self.command(header, p) => return,
            Pdu::TaskMgmtRequest(ref p) if !self.reassigned(header, p) => return,
            _ => {}
        }
        self.event(Event::Control(pdu.into()));
    }

    /// Counts a PDU that flow control does not expect; `false` when the peer has sent too many.
    fn count_unexpected(&mut self, pdu: &Pdu<Bytes>) -> bool {
        let limit = self.keys.max_outstanding_unexpected_pdus;
        match pdu {
            Pdu::AsyncMessage(p) => self.unexpected.arrived(Outstanding::Sn(p.stat_sn.0), limit),
            Pdu::NopIn(p) if p.itt == Itt::NONE && p.ttt != Ttt::NONE => {
                self.unexpected.arrived(Outstanding::Ping(p.ttt), limit)
            }
            Pdu::NopIn(p) if p.itt == Itt::NONE => {
                self.unexpected.arrived(Outstanding::Sn(p.stat_sn.0), limit)
            }
            _ if self.role == Role::Target && pdu.immediate() => match pdu.cmd_sn() {
                Some(sn) => self.unexpected.arrived(Outstanding::Sn(sn.0), limit),
                None => true,
            },
            _ => true,
        }
    }
}
