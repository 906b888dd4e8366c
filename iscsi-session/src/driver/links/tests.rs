//! Connections whose datamover has as much room as a test gives it.

use super::*;
use datamover::{
    BufPool, ConnKeys, Control, Drive, Full, GetData, IoBuf, PutData, Role, SlabPool, TransportInfo, Window,
};
use iscsi_pdu::{DataOut, Itt, LogoutResponse, Lun, NopIn, NopOut, Pdu, ScsiCommand};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

#[derive(Default)]
struct State {
    /// Control-type PDUs, Puts and Gets that it still takes.
    controls: usize,
    puts: usize,
    gets: usize,
    /// Calls that it took.
    calls: Vec<String>,
    events: VecDeque<Event>,
    ended: bool,
    terminated: bool,
}

impl State {
    /// Takes a call if there is room, as a datamover does whose connection goes on.
    fn take<T>(room: &mut usize, over: bool, call: T) -> Result<(), Full<T>> {
        if over || *room == 0 {
            return Err(Full(call));
        }
        *room -= 1;
        Ok(())
    }
}

#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<State>>,
    pool: Arc<dyn BufPool>,
}

impl Fake {
    fn new() -> Self {
        Self { state: Arc::default(), pool: Arc::new(SlabPool::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// Lets events wait, as a peer brings them about that sends and does not read.
    fn pings(&self, count: u32) {
        let ping = |n| Event::Control(Pdu::from(NopOut { itt: Itt(n), ..NopOut::default() }).into());
        self.state().events.extend((0..count).map(ping));
    }

    fn dies(&self) {
        let mut state = self.state();
        state.ended = true;
        let cause = Cause::Transport(io::ErrorKind::ConnectionReset);
        state.events.push_back(Event::Terminated(Terminated { cause, reclaimed: Vec::new() }));
    }
}

impl Drive for Fake {
    fn poll_drive(&mut self, _: &mut Context<'_>, _: &mut Budget) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl Datamover for Fake {
    fn role(&self) -> Role {
        Role::Target
    }

    fn transport(&self) -> TransportInfo {
        TransportInfo { name: "fake", detail: String::new(), local: None, peer: None }
    }

    fn send_control(&mut self, control: Control) -> Result<(), Full<Control>> {
        let mut state = self.state();
        let over = state.ended || state.terminated;
        let tag = control.pdu.itt().0;
        State::take(&mut state.controls, over, control)?;
        state.calls.push(format!("control {tag}"));
        Ok(())
    }

    fn put_data(&mut self, put: PutData) -> Result<(), Full<PutData>> {
        let mut state = self.state();
        let over = state.ended || state.terminated;
        State::take(&mut state.puts, over, put)?;
        state.calls.push("put".to_owned());
        Ok(())
    }

    fn get_data(&mut self, get: GetData) -> Result<(), Full<GetData>> {
        let mut state = self.state();
        let over = state.ended || state.terminated;
        State::take(&mut state.gets, over, get)?;
        state.calls.push("get".to_owned());
        Ok(())
    }

    fn deallocate_task_resources(&mut self, _: Itt) {}

    fn connection_terminate(&mut self) {
        let mut state = self.state();
        state.terminated = true;
        state.calls.push("terminate".to_owned());
    }

    fn notice_key_values(&mut self, _: &ConnKeys) {}

    fn set_window(&mut self, _: Window) {}

    fn poll_event(&mut self) -> Option<Event> {
        self.state().events.pop_front()
    }

    fn is_ended(&self) -> bool {
        self.state().ended
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        &self.pool
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

const ID: ConnId = ConnId(1);

fn links(window: usize) -> (Links, Fake) {
    let (mut links, fake) = (Links::default(), Fake::new());
    links.add(ID, Box::new(fake.clone()), window);
    (links, fake)
}

impl Links {
    fn calls(&mut self, call: DownCall) {
        self.carry_out(Action { conn: ID, call });
    }

    fn turn(&mut self, now: Instant) -> bool {
        self.handle_timeout(now);
        self.drive(&mut Context::from_waker(Waker::noop()), now)
    }

    /// Events that can be taken.
    fn taken(&mut self) -> usize {
        std::iter::from_fn(|| self.poll_event()).count()
    }
}

fn send(pdu: impl Into<Pdu<bytes::Bytes>>) -> DownCall {
    DownCall::SendControl(pdu.into().into())
}

fn answer(n: u32) -> DownCall {
    send(NopIn { itt: Itt(n), ..NopIn::default() })
}

fn put(itt: u32) -> DownCall {
    let data = bytes::Bytes::from_static(b"data").into();
    let itt = Itt(itt);
    DownCall::PutData(PutData {
        itt,
        lun: Lun::ZERO,
        offset: 0,
        data,
        resume: None,
        ack: false,
        notify: false,
    })
}

fn get(itt: u32) -> DownCall {
    let into = IoBuf::zeroed(5).into();
    DownCall::GetData(GetData { itt: Itt(itt), lun: Lun::ZERO, offset: 0, into, resume: None })
}

fn now() -> Instant {
    crate::driver::now()
}

/// A connection that is lost while its peer takes no answers: the end comes, after what came before it, and brings the
/// buffers of calls that were never made.
#[test]
fn the_end_comes_however_much_is_held() {
    let (mut links, fake) = links(0);
    (0..300).for_each(|n| links.calls(answer(n)));
    links.calls(get(7));
    fake.pings(3);
    assert_eq!(links.taken(), 0, "answers first");
    fake.dies();
    assert!(!links.turn(now()), "there is nothing to do at once");
    for _ in 0..3 {
        assert!(matches!(links.poll_event(), Some((ID, Event::Control(_)))));
    }
    let Some((ID, Event::Terminated(end))) = links.poll_event() else { panic!("no end") };
    assert_eq!(end.cause, Cause::Transport(io::ErrorKind::ConnectionReset));
    let gets: Vec<_> = end.reclaimed.iter().map(|(itt, r)| (itt.0, r.gets.len())).collect();
    assert_eq!(gets, [(7, 1)]);
    assert!(links.is_empty());
}

/// A peer that sends pings and takes no answers, whatever is in front of these: what is kept for it is bounded, and it
/// goes on when the peer takes something.
#[test]
fn answers_that_pile_up_end_the_taking_of_events() {
    for front in [answer(0), put(0), get(0)] {
        let (mut links, fake) = links(0);
        let other = Fake::new();
        links.add(ConnId(2), Box::new(other.clone()), 0);
        links.calls(front);
        fake.pings(10_000);
        let mut answered = 0;
        while let Some((id, _)) = links.poll_event() {
            assert_eq!(id, ID);
            answered += 1;
            links.calls(answer(answered));
        }
        assert!((HELD as u32..HELD as u32 + 2).contains(&answered), "{answered}");
        links.turn(now());
        assert_eq!(links.taken(), 0);
        other.pings(2);
        assert_eq!(links.taken(), 2, "other connections are not concerned");
        // Room for the first calls, then for all.
        let room = |n| {
            let mut state = fake.state();
            (state.controls, state.puts, state.gets) = (n, 1, 1);
        };
        room(10);
        assert!(links.turn(now()), "they are still to be sent");
        assert!(links.poll_event().is_some());
        room(1000);
        links.turn(now());
        let tags: Vec<u32> =
            fake.calls().iter().filter_map(|c| c.strip_prefix("control ")?.parse::<u32>().ok()).collect();
        let first = u32::from(tags[0] != 0);
        assert_eq!(tags, (first..=answered).collect::<Vec<_>>(), "in order");
        assert_eq!(links.links[0].answers, 0);
        assert_eq!(links.taken(), 9999 - answered as usize);
    }
}

/// A peer that keeps to its command window is read whatever is held.
#[test]
fn a_wider_window_gives_more_answers_room() {
    let (mut links, fake) = links(1024);
    links.calls(get(0));
    (0..1024 + HELD as u32).for_each(|n| links.calls(answer(n)));
    fake.pings(1);
    assert_eq!(links.taken(), 1);
    links.calls(answer(9));
    fake.pings(1);
    assert_eq!(links.taken(), 0);
}

/// An initiator's own WRITEs with InitialR2T=No: a Data-Out for each MaxRecvDataSegmentLength of the target. They go out
/// as it takes them; its responses are read meanwhile.
#[test]
fn own_requests_and_their_data_do_not_count() {
    let (mut links, fake) = links(0);
    for task in 0..20 {
        links.calls(send(ScsiCommand { itt: Itt(task), ..ScsiCommand::default() }));
        (0..32).for_each(|_| links.calls(send(DataOut { itt: Itt(task), ..DataOut::default() })));
    }
    (0..300).for_each(|n| links.calls(send(NopOut { itt: Itt(100 + n), ..NopOut::default() })));
    fake.pings(5);
    assert_eq!(links.taken(), 5);
    // But what answers a target's pings does (RFC 7143 section 11.18).
    (0..300).for_each(|_| links.calls(send(NopOut { itt: Itt::NONE, ..NopOut::default() })));
    fake.pings(5);
    assert_eq!(links.taken(), 0);
    assert!(!links.turn(now()));
    // What goes down after the bytes were moved is to be moved, too: nothing else may ever wake this end.
    fake.state().controls = 192;
    assert!(links.turn(now()));
    assert!(!links.turn(now()));
    assert_eq!(fake.calls().len(), 192);
}

/// A Logout Response that the peer takes in time goes out before the connection ends.
#[test]
fn what_is_held_goes_out_before_an_orderly_end() {
    let (mut links, fake) = links(0);
    let start = now();
    links.calls(send(LogoutResponse { itt: Itt(1), ..LogoutResponse::default() }));
    links.calls(DownCall::ConnectionTerminate);
    assert!(!links.turn(start));
    assert_eq!(links.poll_timeout(), Some(start + PARTING));
    fake.state().controls = 1;
    assert!(links.turn(start + PARTING / 2));
    assert_eq!(fake.calls(), ["control 1", "terminate"]);
    assert_eq!(links.poll_timeout(), None);
    links.turn(start + 2 * PARTING);
    assert_eq!(fake.calls(), [""; 0]);
}

/// A peer that takes nothing: its connection ends all the same, soon. What was held is not sent any more; its buffers
/// come with the end.
// req: 5047-8.7-2
#[test]
fn an_end_does_not_wait_for_a_peer_that_takes_nothing() {
    let (mut links, fake) = links(0);
    let start = now();
    links.calls(get(7));
    (0..300).for_each(|n| links.calls(answer(n)));
    fake.pings(2);
    assert_eq!(links.taken(), 0);
    links.calls(DownCall::ConnectionTerminate);
    assert_eq!(links.taken(), 2, "no more answers will come");
    links.turn(start);
    links.turn(start + PARTING - Duration::from_millis(1));
    assert_eq!(fake.calls(), [""; 0]);
    links.turn(start + PARTING);
    assert_eq!(fake.calls(), ["terminate"]);
    assert_eq!(links.poll_timeout(), None);
    // A datamover may take calls without effect when it is to end: buffers would come by two ways.
    fake.state().terminated = false;
    (fake.state().controls, fake.state().gets) = (1000, 1);
    assert!(!links.turn(start + PARTING));
    assert_eq!(fake.calls(), [""; 0]);
    fake.dies();
    let Some((ID, Event::Terminated(end))) = links.poll_event() else { panic!("no end") };
    assert_eq!(end.reclaimed.len(), 1);
}
