//! Ends of tasks and of connections (RFC 5047 sections 7.3, 8.7, 8.9, 9.2).

use super::{Command, Ends, PairFactory, pattern, wait};
use crate::{Cause, Event, GetData, IoBuf, PutData, Reclaimed};
use bytes::Bytes;
use iscsi_pdu::{Itt, Lun, NopOut, TaskMgmtFunction, TaskMgmtRequest, TaskMgmtResponse};

impl Ends {
    fn reclaimed_at(&mut self, target: bool, itt: u32) -> Reclaimed {
        match self.event_at("buffers of a task", target) {
            Event::TaskReclaimed { itt: tag, reclaimed } if tag == Itt(itt) => reclaimed,
            other => panic!("not the task's buffers: {other:?}"),
        }
    }
}

/// ABORT TASK of a read and of a write, both under way: the target gives them up, then the initiator does.
pub(super) fn abort_in_the_middle(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let data = pattern(1, 300_000);
    ends.command(&Command::read(1, data.len()));
    ends.command(&Command::write(2, data.clone()));
    ends.command(&Command::write(3, data.clone()));
    let list = ends.t.filled(&data[..100_000]).freeze();
    ends.t.put(1, 0, list);
    ends.t.get(2, 0, 100_000);
    ends.t.get(2, 100_000, 100_000);
    ends.t.get(3, 0, 50_000);
    let abort = TaskMgmtRequest {
        immediate: true,
        function: TaskMgmtFunction::AbortTask,
        itt: Itt(9),
        referenced_task_tag: Itt(2),
        ..TaskMgmtRequest::default()
    };
    ends.i.send(abort);
    // Gets may be done before the abort arrives: those are not open any more.
    let mut open = 2usize;
    let mut other = false;
    loop {
        match ends.event_at("the abort", true) {
            Event::Control(c) if c.pdu.itt() == Itt(9) => break,
            Event::DataCompletion(d) if d.itt == Itt(2) => open -= 1,
            Event::DataCompletion(d) if d.itt == Itt(3) => other = true,
            event => panic!("{event:?}"),
        }
    }
    ends.t.mover.deallocate_task_resources(Itt(1));
    ends.t.mover.deallocate_task_resources(Itt(2));
    let (mut reads, mut writes) = (None, None);
    while reads.is_none() || writes.is_none() {
        match ends.event_at("buffers of both tasks", true) {
            Event::TaskReclaimed { itt: Itt(1), reclaimed } => reads = Some(reclaimed),
            Event::TaskReclaimed { itt: Itt(2), reclaimed } => writes = Some(reclaimed),
            Event::DataCompletion(d) if d.itt == Itt(2) => open -= 1,
            Event::DataCompletion(d) if d.itt == Itt(3) => other = true,
            event => panic!("{event:?}"),
        }
    }
    let gets = writes.expect("set above").gets;
    assert_eq!(gets.len(), open);
    assert!(gets.iter().all(|(offset, buffer)| offset % 100_000 == 0 && buffer.len() == 100_000));
    assert!(reads.expect("set above").gets.is_empty());
    drop(gets);
    ends.t.send(TaskMgmtResponse { itt: Itt(9), ..TaskMgmtResponse::default() });
    assert_eq!(ends.control_at(false).pdu.itt(), Itt(9));
    for itt in [1, 2] {
        ends.i.mover.deallocate_task_resources(Itt(itt));
        let Reclaimed { buffers, gets, .. } = ends.reclaimed_at(false, itt);
        assert!(gets.is_empty());
        assert_eq!(buffers.out.map_or(0, |o| o.len()) + buffers.r#in.map_or(0, |i| i.len()), data.len());
    }
    // The third was not concerned.
    if !other {
        let done = ends.completion();
        assert_eq!((done.itt, done.result), (Itt(3), Ok(())));
        assert_eq!(done.data.map(|d| d.freeze().to_bytes()), Some(data.slice(..50_000)));
    }
    ends.respond(3, 3);
    ends.expect_quiet();
    ends.finish();
}

pub(super) fn deallocate_unknown_task(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    for target in [false, true] {
        let end = if target { &mut ends.t } else { &mut ends.i };
        end.mover.deallocate_task_resources(Itt(5));
        let Reclaimed { buffers, gets, .. } = ends.reclaimed_at(target, 5);
        assert!(buffers.is_none() && gets.is_empty());
    }
    ends.finish();
}

/// What was queued before goes out; every buffer comes back, at both ends.
pub(super) fn terminate_with_open_tasks(factory: &dyn PairFactory) {
    for by_target in [false, true] {
        let mut ends = Ends::new(factory);
        let data = pattern(1, 40_000);
        ends.command(&Command::read(1, 500));
        ends.command(&Command::write(2, data.clone()));
        if by_target {
            ends.t.get(2, 0, 40_000);
            ends.t.send(TaskMgmtResponse { itt: Itt(7), ..TaskMgmtResponse::default() });
            ends.t.mover.connection_terminate();
            assert_eq!(ends.control_at(false).pdu.itt(), Itt(7));
        } else {
            ends.i.send(NopOut { itt: Itt(7), ..NopOut::default() });
            ends.i.mover.connection_terminate();
            assert_eq!(ends.control_at(true).pdu.itt(), Itt(7));
        }
        let (i, t) = (ends.end_at(false), ends.end_at(true));
        let (local, remote) = if by_target { (&t, &i) } else { (&i, &t) };
        assert_eq!(local.cause, Cause::Local);
        assert!(matches!(remote.cause, Cause::PeerClosed | Cause::Transport(_)), "{:?}", remote.cause);
        let lens: Vec<_> = i
            .reclaimed
            .iter()
            .map(|(itt, r)| {
                (
                    itt.0,
                    r.buffers.r#in.as_ref().map_or(0, |b| b.len()),
                    r.buffers.out.as_ref().map_or(0, |b| b.len()),
                )
            })
            .collect();
        assert_eq!(lens, [(1, 500, 0), (2, 0, 40_000)]);
        let gets: usize = t.reclaimed.iter().map(|(_, r)| r.gets.len()).sum();
        assert_eq!(gets, usize::from(by_target));
        drop((i, t));
        ends.expect_quiet();
        ends.check_leaks();
    }
}

pub(super) fn peer_loss(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    ends.command(&Command::write(2, pattern(1, 40_000)));
    ends.t.get(2, 0, 40_000);
    let Ends { i, mut t, pools, before } = ends;
    drop(i);
    wait("the end at the target", |cx| {
        let busy = t.turn(cx);
        (busy, matches!(t.events.back(), Some(Event::Terminated(_))))
    });
    let Some(Event::Terminated(end)) = t.events.pop_back() else { unreachable!("just seen") };
    assert!(matches!(end.cause, Cause::PeerClosed | Cause::Transport(_)), "{:?}", end.cause);
    // Unless the data made it, the buffer comes back with the end.
    let gets: usize = end.reclaimed.iter().map(|(_, r)| r.gets.len()).sum();
    assert_eq!(gets + t.events.len(), 1, "{:?}", t.events);
    drop((end, t));
    wait("all memory back", |_| (false, pools.each_ref().map(|p| p.outstanding()) == before));
}

pub(super) fn nothing_after_the_end(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    assert!(!ends.i.mover.is_ended() && !ends.t.mover.is_ended());
    ends.i.mover.connection_terminate();
    ends.end_at(false);
    ends.end_at(true);
    assert!(ends.i.mover.send_control(NopOut::default().into()).is_err());
    let (itt, lun, resume) = (Itt(1), Lun::ZERO, None);
    let data = Bytes::from_static(b"x").into();
    let put = PutData { itt, lun, offset: 0, data, resume, ack: false, notify: true };
    assert!(ends.t.mover.put_data(put).is_err());
    let get = GetData { itt, lun, offset: 0, into: IoBuf::zeroed(5).into(), resume };
    assert_eq!(ends.t.mover.get_data(get).map_err(|full| full.0.into.len()), Err(5), "handed back");
    ends.i.mover.deallocate_task_resources(itt);
    ends.i.mover.connection_terminate();
    ends.t.mover.connection_terminate();
    ends.expect_quiet();
    ends.check_leaks();
}

/// A tag may name another task as soon as the first is over.
pub(super) fn tags_are_used_again(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    for n in 0..20u32 {
        let data = pattern(n, 6_000);
        let command = if n % 2 == 0 { Command::write(1, data.clone()) } else { Command::read(1, data.len()) };
        ends.command(&command);
        if n % 2 == 0 {
            ends.t.get(1, 0, data.len());
            assert_eq!(ends.completion().data.map(|d| d.freeze().to_bytes()), Some(data));
            ends.respond(1, n);
        } else {
            let list = ends.t.filled(&data).freeze();
            ends.t.put(1, 0, list);
            assert_eq!(ends.respond(1, n).r#in.map(|b| b.freeze().to_bytes()), Some(data));
        }
    }
    ends.finish();
}
