//! Scenarios that every datamover passes (feature `test-kit`).
//!
//! They look at the interface only: what goes down at one end, what comes up at the other. A transport supplies a
//! [`PairFactory`]; [`conformance_tests!`](crate::conformance_tests) makes one test of each scenario:
//!
//! ```
//! use datamover::conformance::{PairFactory, Links};
//! use datamover::mem;
//!
//! struct Mem;
//! impl PairFactory for Mem {
//!     fn pair(&self) -> Links {
//!         let (initiator, target, _) = mem::pair(mem::MemConfig::default());
//!         Links { initiator: Box::new(initiator), target: Box::new(target) }
//!     }
//! }
//! datamover::conformance::run(&Mem);
//! ```
//!
//! The two ends are polled in turn by a loop without a runtime, which parks the thread while both wait. A transport
//! that needs a runtime brings one that runs on threads of its own.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "a test kit: a panic is the verdict"
)]

use crate::{
    Budget, BufPool, Cause, ConnKeys, Control, DataCompletion, Datamover, Drive, Event, GetData, LoginLink,
    PutData, Resources, SgList, SgListMut, TaskBuffers, Terminated, Window,
};
use bytes::Bytes;
use iscsi_pdu::{Ahs, Itt, LoginRequest, LoginResponse, Lun, Pdu, ScsiCommand, ScsiResponse, Stage, StatSn};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

mod control;
mod ending;
mod login;
mod transfer;

/// Both ends of a connection in its login phase.
pub struct Links {
    /// The initiator's.
    pub initiator: Box<dyn LoginLink>,
    /// The target's.
    pub target: Box<dyn LoginLink>,
}

/// Makes connections of the transport under test.
pub trait PairFactory {
    /// A new connection.
    fn pair(&self) -> Links;

    /// Keys that every scenario starts from; some change lengths.
    fn keys(&self) -> ConnKeys {
        ConnKeys::default()
    }

    /// What of the interface the transport has, beyond what all have.
    fn features(&self) -> Features {
        Features::default()
    }
}

/// What not every transport has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Features {
    /// Transfers carry the [`Window`].
    pub window: bool,
    /// [`PutData::ack`] is answered at ErrorRecoveryLevel 1.
    pub data_ack: bool,
    /// Status SNACKs travel.
    pub snack: bool,
    /// The transport takes MaxRecvDataSegmentLength down to 512; else the scenarios leave the factory's lengths.
    pub segments: bool,
}

impl Default for Features {
    /// All there is.
    fn default() -> Self {
        Self { window: true, data_ack: true, snack: true, segments: true }
    }
}

impl Features {
    /// What iSER has: none of it (RFC 7145 sections 3.3, 7.3.5, 7.3.6), but acknowledgments.
    #[must_use]
    pub fn iser() -> Self {
        Self { window: false, data_ack: true, snack: false, segments: false }
    }
}

/// One scenario.
pub struct Scenario {
    /// Its name, which says what holds.
    pub name: &'static str,
    run: fn(&dyn PairFactory),
}

macro_rules! scenarios {
    ($($module:ident: $($name:ident),* ;)*) => {
        /// All scenarios.
        pub const SCENARIOS: &[Scenario] =
            &[$($(Scenario { name: stringify!($name), run: $module::$name },)*)*];
    };
}

scenarios! {
    login: login_pdus_both_ways, allocate_is_idempotent, failed_login_deallocates, enable_with_final_response,
        peer_gone_during_login;
    control: control_pdus_keep_order, every_control_pdu, command_with_ahs, unsolicited_data_out, full_hands_back,
        target_calls_at_an_initiator, data_pdus_are_no_control;
    transfer: read_in_pieces, read_in_any_order, no_data, write_immediate, write_at_offsets, bidirectional,
        tiny_segments, large_transfers, many_tasks_at_once, foreign_memory, notify_only_when_asked,
        data_acknowledged, windows_are_stamped, short_read_with_residual;
    ending: abort_in_the_middle, deallocate_unknown_task, terminate_with_open_tasks, peer_loss, nothing_after_the_end,
        tags_are_used_again;
}

/// Runs all scenarios, one after the other.
///
/// # Panics
/// When one does not hold; its name is printed before.
pub fn run(factory: &dyn PairFactory) {
    for scenario in SCENARIOS {
        println!("scenario {}", scenario.name);
        (scenario.run)(factory);
    }
}

/// Runs one scenario.
///
/// # Panics
/// When it does not hold, or there is none of that name.
pub fn run_one(factory: &dyn PairFactory, name: &str) {
    let scenario = SCENARIOS.iter().find(|s| s.name == name);
    (scenario.unwrap_or_else(|| panic!("no scenario {name}")).run)(factory);
}

/// One `#[test]` of each scenario, in a module `conformance`, for a factory given as an expression.
///
/// ```ignore
/// datamover::conformance_tests!(MyFactory::default());
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($factory:expr) => {
        $crate::conformance_tests!(conformance, $factory);
    };
    ($module:ident, $factory:expr) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_tests! { @each $factory;
                login_pdus_both_ways allocate_is_idempotent failed_login_deallocates enable_with_final_response
                peer_gone_during_login control_pdus_keep_order every_control_pdu command_with_ahs
                unsolicited_data_out full_hands_back target_calls_at_an_initiator data_pdus_are_no_control
                read_in_pieces read_in_any_order no_data write_immediate write_at_offsets bidirectional
                tiny_segments large_transfers many_tasks_at_once foreign_memory notify_only_when_asked
                data_acknowledged windows_are_stamped short_read_with_residual abort_in_the_middle
                deallocate_unknown_task terminate_with_open_tasks peer_loss nothing_after_the_end
                tags_are_used_again
            }
        }
    };
    (@each $factory:expr; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            $crate::conformance::run_one(&$factory, stringify!($name));
        })*

        #[test]
        fn no_scenario_is_left_out() {
            let all: Vec<_> = $crate::conformance::SCENARIOS.iter().map(|s| s.name).collect();
            assert_eq!([$(stringify!($name)),*].as_slice(), all);
        }
    };
}

/// Longer than any scenario takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[expect(clippy::disallowed_methods, reason = "drivers need the time, and waiting an end")]
fn now() -> Instant {
    Instant::now()
}

/// Polls until `done` says so. `turn` polls everything once and says whether something may go on at once.
fn wait(what: &str, mut turn: impl FnMut(&mut Context<'_>) -> (bool, bool)) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let start = now();
    loop {
        let (busy, done) = turn(&mut cx);
        if done {
            return;
        }
        assert!(now().duration_since(start) < PATIENCE, "waited too long: {what}");
        if !busy {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// One turn of one end; whether it wants another at once.
fn drive(end: &mut (impl Drive + ?Sized), cx: &mut Context<'_>) -> bool {
    let now = now();
    if end.poll_timeout().is_some_and(|at| at <= now) {
        end.handle_timeout(now);
    }
    match end.poll_drive(cx, &mut Budget::new(now)) {
        Poll::Ready(Ok(())) => true,
        Poll::Ready(Err(e)) => panic!("poll_drive: {e}"),
        Poll::Pending => false,
    }
}

/// The same keys as the other end has to be told them.
fn mirrored(keys: &ConnKeys) -> ConnKeys {
    let mut other = keys.clone();
    other.max_recv_data_segment_length = keys.max_send_data_segment_length;
    other.max_send_data_segment_length = keys.max_recv_data_segment_length;
    other.max_outstanding_unexpected_pdus = keys.peer_max_outstanding_unexpected_pdus;
    other.peer_max_outstanding_unexpected_pdus = keys.max_outstanding_unexpected_pdus;
    other
}

/// Bytes that tell where they belong.
fn pattern(seed: u32, len: usize) -> Bytes {
    (0..len as u32)
        .map(|n| {
            let mixed = (n ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            (mixed >> 16) as u8
        })
        .collect()
}

impl Links {
    /// The next login PDU at one end.
    fn login_at(&mut self, target: bool) -> Result<Pdu<Bytes>, crate::LinkError> {
        let mut out = None;
        wait("a login PDU", |cx| {
            let busy = drive(&mut *self.initiator, cx) | drive(&mut *self.target, cx);
            let end = if target { &mut self.target } else { &mut self.initiator };
            out = end.poll_login();
            (busy, out.is_some())
        });
        out.expect("the loop ends with one")
    }

    /// The shortest login there is, then full feature phase at both ends. `keys` are the initiator's.
    fn enable(mut self, keys: &ConnKeys, resources: &Resources) -> Ends {
        let request = final_request();
        self.initiator.send_login(request.clone().into());
        assert_eq!(self.login_at(true), Ok(request.into()));
        self.target.notice_key_values(&mirrored(keys));
        self.target.allocate_connection_resources(resources).expect("resources at the target");
        let Self { mut initiator, target } = self;
        let response = final_response();
        let mut target = target.enable_datamover(Some(response.clone()));
        let mut got = None;
        wait("the final login response", |cx| {
            let busy = drive(&mut *initiator, cx) | drive(&mut *target, cx);
            got = initiator.poll_login();
            (busy, got.is_some())
        });
        assert_eq!(got, Some(Ok(response.into())));
        initiator.notice_key_values(keys);
        initiator.allocate_connection_resources(resources).expect("resources at the initiator");
        let initiator = initiator.enable_datamover(None);
        let pools = [initiator.pool().clone(), target.pool().clone()];
        let before = pools.each_ref().map(|p| p.outstanding());
        Ends { i: End::new(initiator), t: End::new(target), pools, before }
    }
}

fn final_request() -> LoginRequest {
    LoginRequest {
        transit: true,
        csg: Stage::LoginOperationalNegotiation,
        nsg: Stage::FullFeaturePhase,
        data: Bytes::from_static(b"HeaderDigest=None\0"),
        ..LoginRequest::default()
    }
}

fn final_response() -> LoginResponse {
    LoginResponse {
        transit: true,
        csg: Stage::LoginOperationalNegotiation,
        nsg: Stage::FullFeaturePhase,
        tsih: iscsi_pdu::Tsih(1),
        data: Bytes::from_static(b"HeaderDigest=None\0"),
        ..LoginResponse::default()
    }
}

/// One end in full feature phase, and what came up at it.
struct End {
    mover: Box<dyn Datamover>,
    events: VecDeque<Event>,
    windows: Vec<Window>,
}

impl End {
    fn new(mover: Box<dyn Datamover>) -> Self {
        Self { mover, events: VecDeque::new(), windows: Vec::new() }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let busy = drive(&mut *self.mover, cx);
        while let Some(event) = self.mover.poll_event() {
            match event {
                Event::Window(window) => self.windows.push(window),
                event => self.events.push_back(event),
            }
        }
        busy
    }

    /// A list of the pool, filled.
    fn filled(&self, data: &[u8]) -> SgListMut {
        let mut list = self.room(data.len());
        assert_eq!(list.copy_from(0, data), data.len());
        list
    }

    /// A list of the pool, of known contents.
    fn room(&self, len: usize) -> SgListMut {
        let mut list = self.mover.pool().alloc(len).expect("memory in the pool");
        assert_eq!(list.len(), len);
        list.slices_mut().for_each(|s| s.fill(0xee));
        list
    }

    fn send(&mut self, control: impl Into<Control>) {
        self.mover.send_control(control.into()).unwrap_or_else(|full| panic!("{full}"));
    }

    fn put(&mut self, itt: u32, offset: usize, data: SgList) {
        self.put_with(itt, offset, data, false, false);
    }

    fn put_with(&mut self, itt: u32, offset: usize, data: SgList, ack: bool, notify: bool) {
        let offset = offset as u32;
        let put = PutData { itt: Itt(itt), lun: Lun::ZERO, offset, data, resume: None, ack, notify };
        self.mover.put_data(put).unwrap_or_else(|full| panic!("{full}"));
    }

    fn get(&mut self, itt: u32, offset: usize, len: usize) {
        let into = self.room(len);
        let get = GetData { itt: Itt(itt), lun: Lun::ZERO, offset: offset as u32, into, resume: None };
        self.mover.get_data(get).unwrap_or_else(|full| panic!("{full}"));
    }
}

/// Both ends in full feature phase.
struct Ends {
    i: End,
    t: End,
    pools: [Arc<dyn BufPool>; 2],
    before: [usize; 2],
}

impl Ends {
    /// A connection with the factory's keys.
    fn new(factory: &dyn PairFactory) -> Self {
        factory.pair().enable(&factory.keys(), &Resources::default())
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        self.i.turn(cx) | self.t.turn(cx)
    }

    /// The next event at one end.
    fn event_at(&mut self, what: &str, target: bool) -> Event {
        let mut out = None;
        wait(what, |cx| {
            let busy = self.turn(cx);
            let end = if target { &mut self.t } else { &mut self.i };
            out = end.events.pop_front();
            (busy, out.is_some())
        });
        out.expect("the loop ends with one")
    }

    fn control_at(&mut self, target: bool) -> Control {
        match self.event_at("a control-type PDU", target) {
            Event::Control(control) => control,
            other => panic!("not a control-type PDU: {other:?}"),
        }
    }

    fn completion(&mut self) -> DataCompletion {
        match self.event_at("a completion", true) {
            Event::DataCompletion(done) => done,
            other => panic!("not a completion: {other:?}"),
        }
    }

    fn end_at(&mut self, target: bool) -> Terminated {
        match self.event_at("the end", target) {
            Event::Terminated(end) => {
                assert!(if target { &self.t } else { &self.i }.mover.is_ended());
                end
            }
            other => panic!("not the end: {other:?}"),
        }
    }

    /// Turns for a while in which nothing must come up.
    fn expect_quiet(&mut self) {
        let start = now();
        wait("quiet", |cx| (self.turn(cx), now().duration_since(start) > Duration::from_millis(30)));
        assert!(
            self.i.events.is_empty() && self.t.events.is_empty(),
            "{:?} {:?}",
            self.i.events,
            self.t.events
        );
    }

    /// Sends a command down at the initiator and takes it up at the target.
    fn command(&mut self, command: &Command) {
        self.i.send(command.control());
        let got = self.control_at(true);
        // The target sees the PDU, not the buffers.
        let mut sent = command.control();
        assert_eq!(got.pdu, sent.pdu);
        assert!(got.buffers.is_none());
        drop(std::mem::take(&mut sent.buffers));
    }

    /// Ends a command; returns its buffers as the initiator gets them back.
    fn respond(&mut self, itt: u32, stat_sn: u32) -> TaskBuffers {
        let response = ScsiResponse { itt: Itt(itt), stat_sn: StatSn(stat_sn), ..ScsiResponse::default() };
        self.respond_with(response)
    }

    fn respond_with(&mut self, response: ScsiResponse) -> TaskBuffers {
        self.t.send(response.clone());
        let Control { pdu, buffers, unsolicited } = self.control_at(false);
        let Pdu::ScsiResponse(got) = pdu else { panic!("not a SCSI Response: {pdu:?}") };
        // ExpDataSN is the transport's.
        assert_eq!(ScsiResponse { exp_data_sn: response.exp_data_sn, ..got }, response);
        assert_eq!(unsolicited, 0);
        buffers
    }

    /// Nothing is under way any more: closes, and looks for leaks.
    fn finish(mut self) {
        self.i.mover.connection_terminate();
        assert_eq!(self.end_at(false).cause, Cause::Local);
        self.end_at(true);
        self.check_leaks();
    }

    fn check_leaks(self) {
        let Self { i, t, pools, before } = self;
        drop((i, t));
        let start = now();
        wait("all memory back in its pool", |_| {
            let back = pools.each_ref().map(|p| p.outstanding()) == before;
            assert!(
                back || now().duration_since(start) < Duration::from_secs(5),
                "memory leaked: {before:?}"
            );
            (false, back)
        });
    }
}

/// A SCSI command with its buffers.
#[derive(Clone, Default)]
struct Command {
    itt: u32,
    /// Output.
    out: Bytes,
    /// Of it, bytes of immediate data.
    immediate: usize,
    /// Of it, bytes that come without being asked for, immediate data included.
    unsolicited: usize,
    /// Room for input.
    room: usize,
    ahs: Vec<Ahs>,
}

impl Command {
    fn read(itt: u32, room: usize) -> Self {
        Self { itt, room, ..Self::default() }
    }

    fn write(itt: u32, out: Bytes) -> Self {
        Self { itt, out, ..Self::default() }
    }

    fn control(&self) -> Control {
        let (read, write) = (self.room > 0, !self.out.is_empty());
        let mut ahs = self.ahs.clone();
        if read && write {
            ahs.push(Ahs::BidirectionalReadLength(self.room as u32));
        }
        let expected = if write { self.out.len() } else { self.room };
        Control {
            pdu: ScsiCommand {
                final_pdu: self.unsolicited == self.immediate,
                read,
                write,
                itt: Itt(self.itt),
                expected_data_transfer_length: expected as u32,
                cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
                ahs,
                data: self.out.slice(..self.immediate),
                ..ScsiCommand::default()
            }
            .into(),
            buffers: TaskBuffers {
                out: write.then(|| self.out.clone().into()),
                r#in: read.then(|| crate::IoBuf::zeroed(self.room).into()),
            },
            unsolicited: self.unsolicited as u32,
        }
    }
}

#[cfg(test)]
mod tests;
