//! Full feature phase of the in-memory connection.

use super::{Msg, SharedWire, Wire, lock};
use crate::{
    Budget, BufPool, Cause, ConnKeys, Control, DataCompletion, DataError, Datamover, Drive, Event, Full,
    GetData, PutData, Reclaimed, Resources, Role, SgList, Stats, TaskBuffers, Terminated, TransportInfo,
    Window,
};
use iscsi_pdu::{Itt, Pdu, TaskMgmtFunction};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// One end of an in-memory connection, in full feature phase.
pub struct MemDatamover {
    role: Role,
    /// `None` when the connection has ended for this end.
    wire: Option<SharedWire>,
    pool: Arc<dyn BufPool>,
    keys: ConnKeys,
    /// Control-type PDUs, Puts and Gets that may be under way, each.
    limit: usize,
    events: VecDeque<Event>,
    /// Initiator: buffers of the open tasks.
    tasks: BTreeMap<Itt, TaskBuffers>,
    /// Target: open Get_Data calls.
    gets: BTreeMap<u64, GetData>,
    next_get: u64,
    window: Option<Window>,
    seen: Option<Window>,
    stats: Stats,
}

impl MemDatamover {
    pub(super) fn new(
        role: Role,
        wire: Option<SharedWire>,
        pool: Arc<dyn BufPool>,
        keys: ConnKeys,
        resources: &Resources,
    ) -> Self {
        Self {
            role,
            wire,
            pool,
            keys,
            limit: resources.commands.saturating_add(resources.unexpected) as usize,
            events: VecDeque::new(),
            tasks: BTreeMap::new(),
            gets: BTreeMap::new(),
            next_get: 0,
            window: None,
            seen: None,
            stats: Stats::default(),
        }
    }

    /// What was noticed last, for tests of who notices what.
    #[must_use]
    pub fn noticed(&self) -> &ConnKeys {
        &self.keys
    }

    pub(super) fn break_rule(&mut self, rule: &'static str) {
        if let Some(wire) = &self.wire {
            lock(wire).violations.push(rule);
        }
        self.end(Cause::Protocol(rule));
    }

    // req: 5047-8.7-2, 5047-9.2-1, 5047-9.2-3
    fn end(&mut self, cause: Cause) {
        let Some(wire) = self.wire.take() else { return };
        let mut wire = lock(&wire);
        wire.send(self.role.peer(), Msg::Bye);
        wire.side(self.role).end(cause.clone());
        let mut reclaimed: BTreeMap<Itt, Reclaimed> = std::mem::take(&mut self.tasks)
            .into_iter()
            .map(|(itt, buffers)| (itt, Reclaimed { buffers, ..Reclaimed::default() }))
            .collect();
        for get in std::mem::take(&mut self.gets).into_values() {
            reclaimed.entry(get.itt).or_default().gets.push((get.offset, get.into));
        }
        let reclaimed = reclaimed.into_iter().collect();
        self.events.push_back(Event::Terminated(Terminated { cause, reclaimed }));
    }

    fn learn(&mut self, window: Option<Window>) {
        if window.is_some() && window != self.seen {
            self.seen = window;
            self.events.extend(window.map(Event::Window));
        }
    }

    /// What arrived. `Err` names the rule that the peer broke.
    fn handle(&mut self, wire: &mut Wire, msg: Msg) -> Result<(), &'static str> {
        self.stats.pdus_in = self.stats.pdus_in.saturating_add(1);
        match msg {
            Msg::Login(_) => return Err("a login PDU in full feature phase"),
            Msg::Control { pdu, unsolicited } => self.deliver(pdu, unsolicited),
            Msg::Put { itt, offset, data, ack, window } => {
                self.learn(window);
                self.place(itt, offset, &data)?;
                if ack {
                    wire.send(self.role.peer(), Msg::Ack { itt });
                }
            }
            Msg::Get { id, itt, offset, len, window } => {
                self.learn(window);
                let result = match wire.get_fault() {
                    Some(error) => Err(error),
                    None => self.fetch(itt, offset, len),
                };
                if let Ok(data) = &result {
                    self.stats.data_out = self.stats.data_out.saturating_add(data.len() as u64);
                }
                let window = self.window.filter(|_| wire.window);
                wire.send(self.role.peer(), Msg::Data { id, result, window });
            }
            Msg::Data { id, result, window } => {
                self.learn(window);
                if let Some(get) = self.gets.remove(&id) {
                    self.complete(get, result);
                }
            }
            // req: 5047-9.4-1
            Msg::Ack { itt } => self.events.push_back(Event::DataAck { itt, exp_data_sn: None }),
            Msg::Invalid(invalid) => self.events.push_back(Event::Invalid(invalid)),
            Msg::Bye => {}
        }
        Ok(())
    }

    /// Control_Notify.
    // req: 5047-6-4, 5047-9.1-1, 5047-10.4.1-1, 5047-10.4.2.1-1
    fn deliver(&mut self, pdu: Pdu<bytes::Bytes>, unsolicited: u32) {
        match &pdu {
            Pdu::ScsiCommand(c) => {
                self.stats.data_in = self.stats.data_in.saturating_add(c.data.len() as u64)
            }
            Pdu::DataOut(d) => self.stats.data_in = self.stats.data_in.saturating_add(d.data.len() as u64),
            _ => {}
        }
        // req: 5047-7.2-1, 5047-8.9-4
        let buffers = match &pdu {
            Pdu::ScsiResponse(r) => self.tasks.remove(&r.itt).unwrap_or_default(),
            _ => TaskBuffers::none(),
        };
        self.events.push_back(Event::Control(Control { pdu, buffers, unsolicited }));
    }

    // req: 5047-6-7, 5047-8.2-4, 5047-10.4.2.2-1
    fn place(&mut self, itt: Itt, offset: u32, data: &SgList) -> Result<(), &'static str> {
        // Data of a task that is over is nobody's.
        let Some(task) = self.tasks.get_mut(&itt) else { return Ok(()) };
        let Some(buffer) = task.r#in.as_mut() else { return Err("input for a task without input buffer") };
        let end = u64::from(offset).saturating_add(data.len() as u64);
        if end > buffer.len() as u64 {
            return Err("input beyond the task's buffer");
        }
        let mut at = offset as usize;
        for part in data.parts() {
            at = at.saturating_add(buffer.copy_from(at, part));
        }
        self.stats.data_in = self.stats.data_in.saturating_add(data.len() as u64);
        Ok(())
    }

    // req: 5047-8.3-4, 5047-10.4.2.3-1
    fn fetch(&self, itt: Itt, offset: u32, len: usize) -> Result<SgList, DataError> {
        let task = self.tasks.get(&itt).ok_or(DataError::Cancelled)?;
        let out = task.out.as_ref().ok_or(DataError::Access)?;
        let end = u64::from(offset).saturating_add(len as u64);
        if end > out.len() as u64 { Err(DataError::Access) } else { Ok(out.slice(offset as usize, len)) }
    }

    // req: 5047-9.3-1, 5047-9.3-2, 5047-9.3-4
    fn complete(&mut self, mut get: GetData, result: Result<SgList, DataError>) {
        let result = result.map(|data| {
            let mut at = 0usize;
            for part in data.parts() {
                at = at.saturating_add(get.into.copy_from(at, part));
            }
            self.stats.data_in = self.stats.data_in.saturating_add(at as u64);
        });
        self.events.push_back(Event::DataCompletion(DataCompletion {
            itt: get.itt,
            offset: get.offset,
            data: Some(get.into),
            result,
        }));
    }

    /// The task's open Get_Data calls, taken out.
    fn take_gets(&mut self, itt: Itt) -> Vec<GetData> {
        let ids: Vec<u64> = self.gets.iter().filter(|(_, g)| g.itt == itt).map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| self.gets.remove(id)).collect()
    }
}

impl Drive for MemDatamover {
    fn poll_drive(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<io::Result<()>> {
        loop {
            let Some(shared) = self.wire.clone() else { return Poll::Pending };
            let mut wire = lock(&shared);
            let side = wire.side(self.role);
            side.waker = Some(cx.waker().clone());
            if let Some(cause) = side.ended.clone() {
                drop(wire);
                self.end(cause);
                continue;
            }
            if budget.pdus == 0 && !side.inbox.is_empty() && !side.held {
                return Poll::Ready(Ok(()));
            }
            let Some(msg) = side.next() else { return Poll::Pending };
            budget.pdus = budget.pdus.saturating_sub(1);
            let end = match msg {
                Msg::Bye => Some(Cause::PeerClosed),
                msg => self.handle(&mut wire, msg).err().map(Cause::Protocol),
            };
            drop(wire);
            if let Some(cause) = end {
                self.end(cause);
            }
        }
    }
}

impl Datamover for MemDatamover {
    fn role(&self) -> Role {
        self.role
    }

    fn transport(&self) -> TransportInfo {
        TransportInfo { name: "mem", detail: String::new(), local: None, peer: None }
    }

    // req: 5047-6-3, 5047-8.1-1, 5047-8.1-3
    fn send_control(&mut self, control: Control) -> Result<(), Full<Control>> {
        let Some(shared) = self.wire.clone() else { return Err(Full(control)) };
        if let Err(rule) = control.check(self.role) {
            self.break_rule(rule);
            return Err(Full(control));
        }
        let mut wire = lock(&shared);
        if wire.side(self.role.peer()).controls >= self.limit {
            return Err(Full(control));
        }
        let Control { pdu, buffers, unsolicited } = control;
        self.stats.pdus_out = self.stats.pdus_out.saturating_add(1);
        match &pdu {
            Pdu::ScsiCommand(c) => {
                self.stats.data_out = self.stats.data_out.saturating_add(c.data.len() as u64);
                // A command that is sent again comes without its buffers, which are here.
                if !(buffers.is_none() && self.tasks.contains_key(&c.itt)) {
                    self.tasks.insert(c.itt, buffers);
                }
            }
            Pdu::TaskMgmtRequest(t) if t.function == TaskMgmtFunction::TaskReassign => {
                self.tasks.insert(t.referenced_task_tag, buffers);
            }
            Pdu::DataOut(d) => self.stats.data_out = self.stats.data_out.saturating_add(d.data.len() as u64),
            // A response ends the task, and with it what was still being fetched.
            Pdu::ScsiResponse(r) => {
                for get in self.take_gets(r.itt) {
                    self.complete(get, Err(DataError::Cancelled));
                }
            }
            _ => {}
        }
        wire.send(self.role.peer(), Msg::Control { pdu, unsolicited });
        Ok(())
    }

    // req: 5047-8.2-1, 5047-8.2-3
    fn put_data(&mut self, put: PutData) -> Result<(), Full<PutData>> {
        let Some(shared) = self.wire.clone() else { return Err(Full(put)) };
        if self.role != Role::Target {
            self.break_rule("Put_Data is a target's (RFC 5047 section 8.2)");
            return Err(Full(put));
        }
        let mut wire = lock(&shared);
        if wire.side(self.role.peer()).puts >= self.limit {
            return Err(Full(put));
        }
        let PutData { itt, offset, data, ack, notify, .. } = put;
        self.stats.pdus_out = self.stats.pdus_out.saturating_add(1);
        self.stats.data_out = self.stats.data_out.saturating_add(data.len() as u64);
        let window = self.window.filter(|_| wire.window);
        wire.send(self.role.peer(), Msg::Put { itt, offset, data, ack, window });
        // req: 5047-9.3-2, 5047-9.3-3
        if notify {
            let done = DataCompletion { itt, offset, data: None, result: Ok(()) };
            self.events.push_back(Event::DataCompletion(done));
        }
        Ok(())
    }

    // req: 5047-8.3-1, 5047-8.3-3
    fn get_data(&mut self, get: GetData) -> Result<(), Full<GetData>> {
        let Some(shared) = self.wire.clone() else { return Err(Full(get)) };
        if self.role != Role::Target {
            self.break_rule("Get_Data is a target's (RFC 5047 section 8.3)");
            return Err(Full(get));
        }
        if self.gets.len() >= self.limit {
            return Err(Full(get));
        }
        let mut wire = lock(&shared);
        self.stats.pdus_out = self.stats.pdus_out.saturating_add(1);
        let id = self.next_get;
        self.next_get = self.next_get.wrapping_add(1);
        let window = self.window.filter(|_| wire.window);
        let msg = Msg::Get { id, itt: get.itt, offset: get.offset, len: get.into.len(), window };
        self.gets.insert(id, get);
        wire.send(self.role.peer(), msg);
        Ok(())
    }

    // req: 5047-8.9-1
    // req: 5047-8.9-2, 5047-8.9-3
    fn deallocate_task_resources(&mut self, itt: Itt) {
        if self.wire.is_none() {
            return;
        }
        let buffers = self.tasks.remove(&itt).unwrap_or_default();
        let gets = self.take_gets(itt).into_iter().map(|g| (g.offset, g.into)).collect();
        self.events.push_back(Event::TaskReclaimed {
            itt,
            reclaimed: Reclaimed { buffers, gets, ..Reclaimed::default() },
        });
    }

    // req: 5047-7.3-1, 5047-8.7-1
    fn connection_terminate(&mut self) {
        self.end(Cause::Local);
    }

    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.keys = keys.clone();
    }

    fn set_window(&mut self, window: Window) {
        self.window = Some(window);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn is_ended(&self) -> bool {
        self.wire.is_none()
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        &self.pool
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

impl Drop for MemDatamover {
    fn drop(&mut self) {
        self.end(Cause::Local);
    }
}
