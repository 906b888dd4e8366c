//! What goes out: messages, their queue, and the doorbell.

use super::{HelloState, IserDatamover, Quiet, State};
use crate::rcap::{Op, Rcap, message_buf};
use crate::wire::{Hello, ISER_HEADER_LEN, ISER_VERSION, IserHeader};
use bytes::{BufMut, Bytes};
use datamover::{IoBuf, SgList};
use iscsi_pdu::{BHS_LEN, Itt, Pdu, pad_len};

/// Data up to this length is copied behind the header; longer data is chained.
const COPY_BELOW: usize = 256;

/// A work request that waits for its turn.
pub(super) struct Tx {
    pub(super) op: Op,
    pub(super) kind: TxKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TxKind {
    /// Hello or HelloReply: nothing holds it back.
    Hello,
    /// A control-type PDU.
    Control,
    /// A SCSI Response that waits for the Reads of its task.
    Response(Itt),
    /// An RDMA Write of a task.
    Put(Itt),
    /// The last RDMA Write of a Put_Data that is to be acknowledged, by a Read of no bytes that follows it.
    PutThenRead(Itt, crate::RemoteBuf),
}

impl TxKind {
    fn is_control(self) -> bool {
        matches!(self, Self::Control | Self::Response(_))
    }
}

/// Why there is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoMessage {
    /// No buffer now.
    Full,
    /// The PDU cannot be encoded.
    Unfit,
}

/// A message that lacks nothing but its iSER header, so that nothing can fail once STags have been advertised for it.
pub(crate) struct Draft {
    /// iSER header, BHS, AHSs, short data, padding.
    buf: IoBuf,
    /// Where longer data is chained in: behind the AHSs.
    headers: usize,
    /// Longer data.
    chained: SgList,
    /// Bytes of data that were copied because the provider could not reach them.
    pub(crate) bounced: usize,
}

impl Draft {
    /// One buffer for the headers and short data, longer data by reference where the provider can reach it.
    pub(crate) fn new<R: Rcap + ?Sized>(rcap: &R, pdu: &Pdu<Bytes>) -> Result<Self, NoMessage> {
        let empty = Bytes::new();
        let data = pdu.data().unwrap_or(&empty);
        let padding = pad_len(data.len());
        let mut bhs = [0u8; BHS_LEN];
        pdu.encode_header(&mut bhs).map_err(|_| NoMessage::Unfit)?;
        let headers =
            (ISER_HEADER_LEN + pdu.encoded_len()).saturating_sub(data.len()).saturating_sub(padding);
        let inline = if data.len() <= COPY_BELOW { data.len() } else { 0 };
        let mut buf = message_buf(rcap, headers + inline + padding).ok_or(NoMessage::Full)?;
        let mut out = buf.get_mut(ISER_HEADER_LEN..).unwrap_or_default();
        out.put_slice(&bhs);
        pdu.encode_ahs(&mut out);
        out.put_slice(data.get(..inline).unwrap_or_default());
        out.put_bytes(0, padding);
        let mut draft = Self { buf, headers, chained: SgList::new(), bounced: 0 };
        if inline < data.len() {
            if rcap.is_local(data) {
                draft.chained = data.clone().into();
            } else {
                let mut copy = rcap.messages().alloc(data.len()).ok_or(NoMessage::Full)?;
                draft.bounced = copy.copy_from(0, data);
                draft.chained = copy.freeze();
            }
        }
        Ok(draft)
    }

    /// The message.
    // req: 7145-9.1-1
    pub(crate) fn finish(mut self, header: IserHeader) -> SgList {
        if let Some(to) = self.buf.get_mut(..ISER_HEADER_LEN) {
            to.copy_from_slice(&header.encode());
        }
        let buf = self.buf.freeze();
        if self.chained.is_empty() {
            return buf.into();
        }
        let mut list = SgList::from(buf.slice(..self.headers));
        self.chained.parts().for_each(|p| list.push(p.clone()));
        list.push(buf.slice(self.headers..));
        list
    }
}

impl<R: Rcap> IserDatamover<R> {
    /// Queues a message.
    pub(super) fn queue(&mut self, op: Op, kind: TxKind) {
        if kind.is_control() {
            self.controls += 1;
        }
        self.tx.push_back(Tx { op, kind });
    }

    /// Hands as much over as the provider takes; whether it took something.
    pub(super) fn pump(&mut self) -> bool {
        if matches!(self.state, State::Closing | State::Closed) {
            return false;
        }
        let mut posted = false;
        self.pump_waiting();
        while self.front_may_go() {
            let Some(Tx { op, kind }) = self.tx.pop_front() else { break };
            if let Err(full) = self.rcap.post(op) {
                self.tx.push_front(Tx { op: full.0, kind });
                break;
            }
            posted = true;
            if kind.is_control() {
                self.controls = self.controls.saturating_sub(1);
                self.stats.pdus_out += 1;
            }
            if let TxKind::PutThenRead(itt, buf) = kind {
                self.ack_read(itt, buf);
            }
        }
        if self.state == State::Open {
            posted |= self.pump_reads();
        }
        if self.state == State::Draining && self.tx.is_empty() && self.waiting.is_empty() {
            self.state = State::Closing;
            self.rcap.disconnect();
            return true;
        }
        posted
    }

    fn front_may_go(&mut self) -> bool {
        let Some(front) = self.tx.front() else { return false };
        match front.kind {
            TxKind::Hello => true,
            // req: 7145-5.1.3-1, 7145-5.1.3-3: nothing goes before the Hello messages.
            _ if matches!(self.hello, HelloState::AwaitHello | HelloState::AwaitReply) => false,
            _ if self.quiet != Quiet::Off => false,
            TxKind::Response(itt) => {
                let ready = self.remote.get(itt).is_none_or(|t| t.gets == 0);
                if ready {
                    // req: 7145-7.3.2-9
                    self.remote.remove(itt);
                }
                ready
            }
            _ => true,
        }
    }

    fn pump_reads(&mut self) -> bool {
        let mut posted = false;
        while let Some(read) = self.reads.next() {
            let (id, from) = (read.id, read.from);
            match self.rcap.post(Op::Read { id, from, into: read.into }) {
                Ok(()) => posted = true,
                Err(full) => {
                    if let Op::Read { into, .. } = full.0 {
                        self.reads.put_back(crate::flow::ReadOp { id, from, into });
                    }
                    break;
                }
            }
        }
        posted
    }

    /// Queues a message without a PDU, ahead of all others.
    pub(super) fn queue_hello(&mut self, header: IserHeader) {
        let Some(mut buf) = message_buf(&self.rcap, ISER_HEADER_LEN) else {
            self.fail(datamover::Cause::Transport(std::io::ErrorKind::OutOfMemory));
            return;
        };
        if let Some(to) = buf.get_mut(..ISER_HEADER_LEN) {
            to.copy_from_slice(&header.encode());
        }
        let message = SgList::from(buf.freeze());
        self.tx.push_front(Tx { op: Op::Send { message, invalidate: None }, kind: TxKind::Hello });
    }

    /// The initiator's Hello: iSER-IRD is the provider's IRD.
    // req: 7145-5.1.1-4, 7145-5.1.1-5, 7145-9.3-3, 7145-9.3-4
    pub(super) fn say_hello(&mut self) {
        let ird = self.rcap.caps().ird;
        self.queue_hello(IserHeader::Hello(Hello {
            max_version: ISER_VERSION,
            min_version: ISER_VERSION,
            ird,
        }));
    }
}
