//! Reactors: threads that each run a share of the sessions on a runtime of their own, and who gets the next one.
//!
//! ```text
//!   listening sockets ─ front ─┬─▶ reactor 0: logins, sessions, their sockets, memory pool
//!    (the caller's runtime)    └─▶ reactor 1: …           a session never leaves its reactor
//! ```
//! A connection goes to the reactor with the fewest busy sessions: those that had something to do lately, and those
//! that have only just come. Idle ones do not count, however many there are; they decide between equals.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

/// A session is looked at this often at most.
const LOOK: Duration = Duration::from_millis(100);
/// Turns between two looks that make a session busy: pings do not.
const BUSY: u64 = 8;
/// How long a connection counts as busy after it was given away.
const FRESH: Duration = Duration::from_secs(1);

/// How many reactors, and on which processors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cores {
    /// So many, wherever the system runs them.
    Number(usize),
    /// One on each of these processors, and nowhere else.
    List(Vec<usize>),
}

/// `N`, or a list such as `0,2-3`; a single processor is `3-3`.
impl std::str::FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: usize = 256;
        let number = |n: &str| n.trim().parse::<usize>().map_err(|_| format!("'{n}' is no number"));
        let cores = if text.contains([',', '-']) {
            let mut list = Vec::new();
            for part in text.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (number(first)?, number(last)?);
                if first > last || last >= 1024 {
                    return Err(format!("'{part}' is no range of processors"));
                }
                list.extend(first..=last);
            }
            list.sort_unstable();
            list.dedup();
            Self::List(list)
        } else {
            Self::Number(number(text)?)
        };
        match cores.len() {
            1..=MOST => Ok(cores),
            n => Err(format!("{n} reactors: there are 1 to {MOST}")),
        }
    }
}

impl Cores {
    fn len(&self) -> usize {
        match self {
            Self::Number(n) => *n,
            Self::List(list) => list.len(),
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::List(list) => {
                let parts: Vec<String> = list.iter().map(|n| format!("{n}-{n}")).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

/// The threads. Dropping them stops what they run.
pub struct Reactors {
    reactors: Vec<Arc<Reactor>>,
    threads: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    recent: Mutex<Recent>,
}

/// What the placing of connections remembers.
#[derive(Default)]
struct Recent {
    placed: Vec<(Instant, usize)>,
    looked: Option<Instant>,
}

impl Reactors {
    /// Starts the threads. With `spin`, one that has nothing to do asks its sockets again and again for so long before
    /// it sleeps.
    ///
    /// # Errors
    /// Those of the system; [`io::ErrorKind::Unsupported`] for a list of processors where threads cannot be bound to
    /// them.
    pub fn start(cores: &Cores, spin: Option<Duration>) -> io::Result<Self> {
        let mut all = Self { reactors: Vec::new(), threads: Vec::new(), recent: Mutex::default() };
        for index in 0..cores.len() {
            let core = match cores {
                Cores::Number(_) => None,
                Cores::List(list) => list.get(index).copied(),
            };
            let (stop, stopped) = oneshot::channel();
            let (tell, told) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new()
                .name(format!("reactor-{index}"))
                .spawn(move || run(core, spin, &tell, stopped))?;
            all.threads.push((stop, thread));
            let (handle, pulse) = told.recv().map_err(|_| io::Error::other("a reactor has ended"))??;
            all.reactors.push(Arc::new(Reactor {
                handle,
                pulse,
                seats: Mutex::default(),
                busy: Mutex::default(),
            }));
        }
        Ok(all)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reactors.len()
    }

    /// Whether there are none, which never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reactors.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Reactor>> {
        self.reactors.iter()
    }

    /// The reactor for a connection that has just come.
    pub(crate) fn place(&self, now: Instant) -> usize {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.placed.retain(|(at, _)| now.saturating_duration_since(*at) < FRESH);
        if recent.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK) {
            recent.looked = Some(now);
            self.reactors.iter().for_each(|reactor| reactor.look());
        }
        let load = |index: usize| {
            let fresh = recent.placed.iter().filter(|(_, at)| *at == index).count();
            let (busy, all) = self.reactors.get(index).map_or((0, 0), |r| *r.busy());
            (busy + fresh, all + fresh)
        };
        let chosen = (0..self.reactors.len()).min_by_key(|index| load(*index)).unwrap_or_default();
        recent.placed.push((now, chosen));
        chosen
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        for (stop, thread) in self.threads.drain(..) {
            let _ = stop.send(());
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Reactors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reactors({})", self.reactors.len())
    }
}

type Started = io::Result<(Handle, Option<Arc<Pulse>>)>;

/// A reactor's thread.
fn run(
    core: Option<usize>,
    spin: Option<Duration>,
    tell: &std::sync::mpsc::Sender<Started>,
    stopped: oneshot::Receiver<()>,
) {
    let begun = core.map_or(Ok(()), bind_to);
    let runtime = begun.and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let pulse = spin.map(|_| Arc::new(Pulse::default()));
    let _ = tell.send(Ok((runtime.handle().clone(), pulse.clone())));
    runtime.block_on(async {
        if let (Some(spin), Some(pulse)) = (spin, pulse) {
            tokio::spawn(async move { pulse.spin(spin).await });
        }
        // An error is the end of who could have sent.
        let _ = stopped.await;
    });
}

#[cfg(target_os = "linux")]
fn bind_to(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("processor {core}: {e}")))
}

#[cfg(not(target_os = "linux"))]
fn bind_to(_: usize) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "threads cannot be bound to processors here"))
}

/// One thread, seen from outside.
pub(crate) struct Reactor {
    pub(crate) handle: Handle,
    pulse: Option<Arc<Pulse>>,
    seats: Mutex<Vec<(Weak<Seat>, u64)>>,
    /// Sessions that were busy at the last look, and all.
    busy: Mutex<(usize, usize)>,
}

impl Reactor {
    fn busy(&self) -> MutexGuard<'_, (usize, usize)> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut busy, mut all) = (0, 0);
        seats.retain_mut(|(seat, before)| {
            let Some(seat) = seat.upgrade() else { return false };
            let turns = seat.turns.load(Ordering::Relaxed);
            busy += usize::from(turns.wrapping_sub(*before) >= BUSY);
            all += 1;
            *before = turns;
            true
        });
        *self.busy() = (busy, all);
    }

    /// Runs a session, its turns counted.
    pub(crate) async fn seat<T>(&self, session: impl Future<Output = T>) -> T {
        let seat = Arc::new(Seat { turns: AtomicU64::new(0) });
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::downgrade(&seat), 0));
        let mut session = pin!(session);
        std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<T> {
            // Written here alone.
            seat.turns.store(seat.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            if let Some(pulse) = &self.pulse {
                pulse.beat();
            }
            session.as_mut().poll(cx)
        })
        .await
    }
}

/// A session's place on its reactor.
struct Seat {
    turns: AtomicU64,
}

/// Whether anything happens on a reactor, for the task that spins.
#[derive(Default)]
struct Pulse {
    beats: AtomicU64,
    sleeps: AtomicBool,
    wake: Notify,
}

impl Pulse {
    fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        if self.sleeps.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Keeps the reactor from sleeping for some time after each turn of a session. A task that gives way makes the
    /// runtime look at its sockets without waiting.
    #[allow(clippy::disallowed_methods, reason = "a driver: it reads the clock")]
    async fn spin(&self, time: Duration) {
        loop {
            let (mut seen, mut since) = (self.beats.load(Ordering::Relaxed), Instant::now());
            loop {
                tokio::task::yield_now().await;
                let beats = self.beats.load(Ordering::Relaxed);
                if beats != seen {
                    (seen, since) = (beats, Instant::now());
                } else if since.elapsed() >= time {
                    break;
                }
            }
            self.sleeps.store(true, Ordering::Relaxed);
            self.wake.notified().await;
            self.sleeps.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests wait")]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_number_or_a_list() {
        assert_eq!("3".parse(), Ok(Cores::Number(3)));
        assert_eq!("5-5".parse(), Ok(Cores::List(vec![5])));
        assert_eq!("4,0-1,1".parse(), Ok(Cores::List(vec![0, 1, 4])));
        for wrong in ["0", "", "x", "3-1", "1,", "0-2000", "257"] {
            assert!(wrong.parse::<Cores>().is_err(), "{wrong}");
        }
    }

    /// Lets the task run on its reactor.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    #[tokio::test]
    async fn connections_go_where_the_fewest_sessions_are_busy() {
        let reactors = Reactors::start(&Cores::Number(2), None).unwrap();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        // Fresh ones count as busy: they alternate.
        let placed: Vec<usize> = (0..4).map(|_| reactors.place(start)).collect();
        assert_eq!(placed, [0, 1, 0, 1]);
        // Three idle sessions on the first, one busy on the second.
        let first = reactors.reactors[0].clone();
        for _ in 0..3 {
            let reactor = first.clone();
            first.handle.spawn(async move { reactor.seat(std::future::pending::<()>()).await });
        }
        let second = reactors.reactors[1].clone();
        second.clone().handle.spawn(async move {
            let busy = async {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                std::future::pending::<()>().await;
            };
            second.seat(busy).await;
        });
        settle().await;
        assert_eq!(reactors.place(later(10)), 0, "idle sessions weigh nothing beside a busy one");
        // By now the second is idle too: the number decides.
        assert_eq!(reactors.place(later(20)), 1);
    }

    #[tokio::test]
    async fn a_reactor_that_spins_sleeps_in_the_end_and_wakes_again() {
        let reactors = Reactors::start(&Cores::Number(1), Some(Duration::from_millis(5))).unwrap();
        let reactor = reactors.reactors[0].clone();
        let pulse = reactor.pulse.clone().unwrap();
        while !pulse.sleeps.load(Ordering::Relaxed) {
            settle().await;
        }
        let (tell, told) = oneshot::channel();
        let seated = reactor.clone();
        reactor.handle.spawn(async move { tell.send(seated.seat(async { 7 }).await) });
        assert_eq!(told.await, Ok(7));
        while !pulse.sleeps.load(Ordering::Relaxed) {
            settle().await;
        }
        assert!(pulse.beats.load(Ordering::Relaxed) > 0);
    }
}
