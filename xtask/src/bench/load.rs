//! Sessions under load: one alone on its thread, which sleeps in its read, or many shared among as many threads as
//! there are processors, so that what is measured is the target and not the scheduler.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};

use super::Sample;

/// Bytes of one read.
const BUFFER: usize = 512 << 10;

/// One end of a connection that makes load.
pub(crate) trait Load {
    fn socket(&self) -> &TcpStream;

    /// Begins what may begin, nothing when it is `over`, and sends it.
    fn offer(&mut self, over: bool, now: Instant) -> Result<()>;

    /// Takes what one read brings.
    fn take(&mut self, buffer: &mut [u8]) -> Result<()>;

    /// Whether nothing is under way.
    fn is_idle(&self) -> bool;

    /// Latencies so far; leaves none.
    fn latencies(&mut self) -> Vec<u32>;
}

/// Keeps a session busy for a time.
pub(crate) fn one(mut load: impl Load, time: Duration) -> Result<Sample> {
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    loop {
        let now = Instant::now();
        let over = now - start >= time;
        load.offer(over, now)?;
        if over && load.is_idle() {
            break;
        }
        load.take(&mut buffer)?;
    }
    Ok(Sample { seconds: start.elapsed().as_secs_f64(), latencies: load.latencies() })
}

/// Keeps sessions busy, on a thread a processor.
pub(crate) fn many<L: Load + Send>(loads: Vec<L>, time: Duration) -> Result<Vec<Sample>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut shares: Vec<Vec<L>> = (0..threads).map(|_| Vec::new()).collect();
    loads.into_iter().enumerate().for_each(|(n, load)| shares[n % threads].push(load));
    thread::scope(|scope| {
        let running: Vec<_> =
            shares.into_iter().map(|share| scope.spawn(move || crowd(share, time))).collect();
        running.into_iter().map(|t| t.join().expect("a client panicked")).collect()
    })
}

fn crowd<L: Load>(mut loads: Vec<L>, time: Duration) -> Result<Sample> {
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    for load in &mut loads {
        load.offer(false, start)?;
    }
    loop {
        let waiting = loads.iter().filter(|load| !load.is_idle()).count();
        if waiting == 0 {
            break;
        }
        let mut fds: Vec<PollFd<'_>> =
            loads.iter().map(|load| PollFd::new(load.socket(), PollFlags::IN)).collect();
        poll(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (load, _) in loads.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            load.take(&mut buffer)?;
            let now = Instant::now();
            load.offer(now - start >= time, now)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Sample { seconds, latencies: loads.iter_mut().flat_map(Load::latencies).collect() })
}
