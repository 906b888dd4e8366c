//! The initiator: commands advertise their buffers, responses give them back.

use super::tx::{Draft, NoMessage, TxKind};
use super::{Inbound, IserDatamover, State};
use crate::maps::LocalTask;
use crate::quirks::WriteBase;
use crate::rcap::{Op, Rcap, RemoteBuf, Stag, Tagged};
use crate::wire::{ControlHeader, IserHeader};
use bytes::Bytes;
use datamover::{Cause, Control, Event, Full, IoBuf, Reclaimed, SgList, SgListMut, TaskBuffers};
use iscsi_pdu::{Itt, Pdu, ScsiResponse, TaskMgmtFunction, Ttt};

/// What a request advertises: which task, and from which byte of the output on.
struct Advertised {
    itt: Itt,
    /// First byte of the output behind the Write STag; `None`: no Write STag.
    write_from: Option<usize>,
}

impl<R: Rcap> IserDatamover<R> {
    // req: 7145-3.1.1-1, 7145-5.2.1-1, 7145-7.3.1-1, 7145-7.3.3-1, 7145-7.3.4-4, 7145-7.3.8-2, 7145-7.3.10-1
    // req: 7145-7.3.13-2, 7145-9.5.1-2, 7145-9.5.2-2
    pub(super) fn send_request(&mut self, control: Control) -> Result<(), Full<Control>> {
        match self.state {
            State::Open => {}
            State::Closed => return self.after_the_end(control),
            State::Draining | State::Closing => {
                self.keep(control);
                return Ok(());
            }
        }
        let refused = match &control.pdu {
            // req: 7145-7.3.9-3, 7145-7.3.11-3
            Pdu::LoginRequest(_) | Pdu::Snack(_) => true,
            Pdu::DataOut(p) => p.ttt != Ttt::NONE,
            other => !other.opcode().is_from_initiator(),
        };
        if refused {
            self.fail_protocol("Send_Control with a PDU that does not travel over iSER (RFC 7145 7.3)");
            return Err(Full(control));
        }
        if self.waiting.len().saturating_add(self.controls) >= self.control_limit {
            return Err(Full(control));
        }
        if !self.waiting.is_empty() {
            self.waiting.push_back(control);
        } else if let Err(Full(control)) = self.request(control) {
            self.waiting.push_back(control);
        }
        Ok(())
    }

    /// Requests that found no buffer or no STag before: an iWARP connection has none until the peer has answered.
    pub(super) fn pump_waiting(&mut self) {
        while let Some(control) = self.waiting.pop_front() {
            if let Err(Full(control)) = self.request(control) {
                self.waiting.push_front(control);
                return;
            }
        }
    }

    /// Queues the message of a request; handed back when there is no buffer or no STag now.
    fn request(&mut self, control: Control) -> Result<(), Full<Control>> {
        if self.rcap.advertisable() < 2 {
            return Err(Full(control));
        }
        let draft = match Draft::new(&self.rcap, &control.pdu) {
            Ok(draft) => draft,
            Err(NoMessage::Full) => return Err(Full(control)),
            Err(NoMessage::Unfit) => {
                self.keep(control);
                self.fail_protocol("a PDU that cannot be encoded (RFC 7143 section 11)");
                return Ok(());
            }
        };
        if let Some(exp) = control.pdu.exp_stat_sn() {
            self.unexpected.retire(exp.0);
        }
        if let Pdu::NopOut(p) = &control.pdu {
            self.unexpected.answered(p.ttt);
        }
        if let Pdu::ScsiCommand(_) | Pdu::DataOut(_) = &control.pdu {
            self.stats.data_out += control.pdu.data().map_or(0, Bytes::len) as u64;
            self.stats.bounced_bytes += draft.bounced as u64;
        }
        let header = match self.advertises(&control) {
            Some(what) => self.advertise(&what, control.buffers),
            None => ControlHeader::default(),
        };
        let message = draft.finish(IserHeader::Control(header));
        self.queue(Op::Send { message, invalidate: None }, TxKind::Control);
        Ok(())
    }

    /// Whether the request is one that advertises, and what.
    // req: 7145-7.3.1-5, 7145-7.3.3-2, 7145-8.3.1-1
    fn advertises(&mut self, control: &Control) -> Option<Advertised> {
        match &control.pdu {
            Pdu::ScsiCommand(p) => {
                let solicited = p.write && p.expected_data_transfer_length > control.unsolicited;
                let from = match self.quirks.write_base(&self.keys) {
                    WriteBase::Solicited => control.unsolicited as usize,
                    WriteBase::Whole => 0,
                };
                Some(Advertised { itt: p.itt, write_from: solicited.then_some(from) })
            }
            // All of the output is solicited now.
            Pdu::TaskMgmtRequest(p) if p.function == TaskMgmtFunction::TaskReassign => {
                // req: 7145-7.3.3-3
                self.release_local(p.referenced_task_tag);
                Some(Advertised { itt: p.referenced_task_tag, write_from: Some(0) })
            }
            _ => None,
        }
    }

    /// Allocates STags for the buffers and sets the Local Mapping up.
    // req: 7145-7.3.1-5, 7145-7.3.1-6, 7145-7.3.1-7, 7145-7.3.1-9, 7145-7.3.1-10, 7145-7.3.1-11
    // req: 7145-7.3.3-4, 7145-7.3.3-5, 7145-7.3.3-6, 7145-7.3.3-7, 7145-9.5.1-3, 7145-9.5.2-3
    fn advertise(&mut self, what: &Advertised, buffers: TaskBuffers) -> ControlHeader {
        let mut task = LocalTask::default();
        let mut header = ControlHeader::default();
        if let Some(mut input) = buffers.r#in.filter(|list| !list.is_empty()) {
            let list = std::mem::take(&mut *input);
            task.in_box = Some(input);
            let input = self.reachable_sink(list, &mut task);
            header.read = self.tag(Tagged::Sink(input));
            task.read = header.read.map(|b| b.stag);
        }
        if let Some(out) = buffers.out {
            if let Some(from) = what.write_from.filter(|from| *from < out.len()) {
                let source = out.slice(from, out.len());
                self.stats.data_out += source.len() as u64;
                let source = self.reachable_source(source);
                header.write = self.tag(Tagged::Source(source));
                task.write = header.write.map(|b| b.stag);
            }
            task.out = Some(out);
        }
        if let Some(old) = self.local.insert(what.itt, task) {
            // The session used the tag of a task that it had not ended: give that one back.
            self.event_after(old, Event::TaskReclaimed { itt: what.itt, reclaimed: Reclaimed::default() });
        }
        header
    }

    fn tag(&mut self, memory: Tagged) -> Option<RemoteBuf> {
        match self.rcap.advertise(memory) {
            Ok(buf) => Some(buf),
            Err(_) => {
                self.fail(Cause::Transport(std::io::ErrorKind::OutOfMemory));
                None
            }
        }
    }

    /// The list, or other memory in one piece when the provider cannot give so many parts one STag.
    fn reachable_sink(&mut self, list: SgListMut, task: &mut LocalTask) -> SgListMut {
        if self.reachable(list.parts().map(|p| &**p)) {
            return list;
        }
        let bounce = self.one_piece(list.len());
        task.bounced_in = Some(list);
        bounce.into()
    }

    fn reachable_source(&mut self, list: SgList) -> SgList {
        if self.reachable(list.parts().map(|p| &**p)) {
            return list;
        }
        let mut bounce = self.one_piece(list.len());
        self.stats.bounced_bytes += list.copy_to(0, &mut bounce) as u64;
        bounce.freeze().into()
    }

    /// Whether memory in these parts can have one STag.
    fn reachable<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let caps = self.rcap.caps();
        let fits = |(n, part): (usize, &[u8])| {
            n < caps.max_tagged_parts && (!caps.tags_local_only || self.rcap.is_local(part))
        };
        parts.enumerate().all(fits)
    }

    fn one_piece(&self, len: usize) -> IoBuf {
        let pool = self.rcap.pool();
        let pooled = if len <= pool.chunk_len() { pool.alloc(len) } else { None };
        let mut parts = pooled.into_iter().flat_map(SgListMut::into_parts);
        match (parts.next(), parts.next()) {
            (Some(one), None) => one,
            _ => IoBuf::zeroed(len),
        }
    }

    /// A SCSI Response: its STags must be invalid before anybody hears of it.
    // req: 7145-1.5.1-1, 7145-1.5.1-2, 7145-7.3.2-10, 7145-7.3.2-11, 7145-7.3.2-12, 7145-7.3.2-13, 7145-7.3.2-14
    // req: 7145-9.5.1-9, 7145-9.5.2-7
    pub(super) fn response(
        &mut self,
        header: ControlHeader,
        response: ScsiResponse<Bytes>,
        invalidated: Option<Stag>,
    ) {
        let named = [invalidated, header.read.map(|b| b.stag), header.write.map(|b| b.stag)];
        let itt = response.itt;
        let known = self.local.get(itt);
        if named.into_iter().flatten().any(|stag| known.is_none_or(|task| !task.has(stag))) {
            return self.fail_protocol("a response invalidates an STag of another task (RFC 7145 7.3.2)");
        }
        if self.waiting.iter().any(|c| matches!(&c.pdu, Pdu::ScsiCommand(p) if p.itt == itt)) {
            // Its buffers are still to be advertised: they must not go out with a command that is over.
            return self.fail_protocol("a response to a command that was not sent (RFC 7143 section 11.4)");
        }
        let event = Event::Control(response.into());
        match self.local.remove(itt) {
            Some(task) => self.event_after(task, event),
            None => self.event(event),
        }
    }

    // req: 7145-3.1.9-1, 7145-8.3.2-2, 7145-8.3.2-3, 7145-1.5.1-2
    pub(super) fn deallocate_local(&mut self, itt: Itt) {
        let waits = |c: &Control| matches!(&c.pdu, Pdu::ScsiCommand(p) if p.itt == itt);
        if let Some(control) = self.waiting.iter_mut().find(|c| waits(c)) {
            // The command still goes out, as its CmdSN must, but advertises nothing.
            let buffers = std::mem::take(&mut control.buffers);
            let reclaimed = Reclaimed { buffers, ..Reclaimed::default() };
            return self.event(Event::TaskReclaimed { itt, reclaimed });
        }
        if !self.release_local(itt) {
            self.event(Event::TaskReclaimed { itt, reclaimed: Reclaimed::default() });
        }
    }

    /// Invalidates the STags of a task and tells of its buffers; `false` for an unknown task.
    fn release_local(&mut self, itt: Itt) -> bool {
        let Some(task) = self.local.remove(itt) else { return false };
        self.event_after(task, Event::TaskReclaimed { itt, reclaimed: Reclaimed::default() });
        true
    }

    /// The connection is ending: the buffers go back with its end.
    pub(super) fn keep(&mut self, control: Control) {
        if control.buffers.is_none() {
            return;
        }
        let itt = match &control.pdu {
            Pdu::TaskMgmtRequest(p) => p.referenced_task_tag,
            other => other.itt(),
        };
        let TaskBuffers { out, r#in } = control.buffers;
        let bounced_in = r#in.map(|list| *list);
        let task = LocalTask { out, bounced_in, ..LocalTask::default() };
        if let Some(old) = self.local.insert(itt, task) {
            // As in `advertise`: the tag of a task that has not ended.
            self.event_after(old, Event::TaskReclaimed { itt, reclaimed: Reclaimed::default() });
        }
    }

    /// The connection has ended: the buffers go into its last event while that is still here.
    fn after_the_end(&mut self, control: Control) -> Result<(), Full<Control>> {
        let Some(Inbound::Ready(Event::Terminated(end))) = self.inbound.back_mut() else {
            return Err(Full(control));
        };
        if !control.buffers.is_none() {
            let reclaimed = Reclaimed { buffers: control.buffers, ..Reclaimed::default() };
            end.reclaimed.push((control.pdu.itt(), reclaimed));
        }
        Ok(())
    }
}
