//! Two ends in one process, on a virtual clock, with seeded faults: the provider for tests and simulation.
//!
//! It moves data as an adapter does, from memory that one end owns into memory that the other end owns, and it is
//! strict: every access is checked against the STag's direction, bounds and lifetime, every Read against the depths,
//! every Send against the receive buffers. What breaks a rule ends the connection and is remembered in
//! [`MemWire::violations`].
//!
//! ```text
//!   MemRcap a ── post ─▶ queue a ─(latency)─▶ receive buffers, STag table of b ─▶ completions b ── poll ─▶ MemRcap b
//! ```

mod wire;

use crate::provider::pools::Pools;
use crate::rcap::{Completion, Invalidation, Op, Rcap, RcapCaps, RcapResources, RemoteBuf, Stag, Tagged};
use datamover::{AllocError, Budget, BufPool, Full, IoBuf, SlabObserver, TransportInfo};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};
use wire::Wire;
pub use wire::{Event, Violation};

/// Behaviour of a pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemConfig {
    /// What each end can do; the first is the end that `pair` returns first.
    pub caps: [RcapCaps; 2],
    /// Where all choices come from: the same seed and the same calls give the same run.
    pub seed: u64,
    /// Shortest time from posting to effect, and from effect to the completion of a Read.
    pub latency: Duration,
    /// Up to so much more, at random; order within a direction is kept.
    pub jitter: Duration,
    /// A Send that finds no receive buffer waits for one (an endless RNR retry); otherwise it breaks the connection.
    pub wait_for_receive: bool,
    /// Local invalidations take a turn, as they do on an adapter.
    pub slow_invalidation: bool,
    /// Only memory of the pools can be reached, as on an adapter.
    pub registered_only: bool,
    /// The connection is reset after so many work requests.
    pub reset_after: Option<u64>,
    /// Nothing is delivered any more after so many work requests, as if the peer had died.
    pub dead_after: Option<u64>,
    /// Bytes of messages and of task data that each end can allocate; more is refused.
    pub memory: usize,
    /// Keep what [`MemWire::log`] tells; it grows with every work request.
    pub record: bool,
}

/// What the ends of a pair can do unless told otherwise.
#[must_use]
pub fn default_caps() -> RcapCaps {
    RcapCaps {
        send_invalidate: true,
        scoped_stags: true,
        max_sge: 16,
        max_read_sge: 16,
        max_tagged_parts: usize::MAX,
        tags_local_only: false,
        max_transfer: 1 << 30,
        ord: 16,
        ird: 16,
    }
}

impl Default for MemConfig {
    fn default() -> Self {
        Self {
            caps: [default_caps(), default_caps()],
            seed: 0,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            wait_for_receive: false,
            slow_invalidation: false,
            registered_only: false,
            reset_after: None,
            dead_after: None,
            memory: 256 << 20,
            record: true,
        }
    }
}

/// Addresses of slabs, for [`Rcap::is_local`].
#[derive(Clone, Default)]
struct Registered(Arc<Mutex<Vec<(usize, usize)>>>);

impl SlabObserver for Registered {
    fn slab_added(&self, slab: &mut [u8]) -> bool {
        let mut slabs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slabs.push((slab.as_ptr() as usize, slab.len()));
        true
    }
}

impl Registered {
    fn covers(&self, memory: &[u8]) -> bool {
        let at = memory.as_ptr() as usize;
        let slabs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slabs.iter().any(|(start, len)| {
            at.checked_sub(*start).is_some_and(|from| from.saturating_add(memory.len()) <= *len)
        })
    }
}

/// One end of a pair.
pub struct MemRcap {
    wire: Arc<Mutex<Wire>>,
    side: usize,
    caps: RcapCaps,
    registered_only: bool,
    memory: usize,
    registered: Registered,
    pools: Pools<Registered>,
}

/// A hand on what is between the two ends.
#[derive(Clone)]
pub struct MemWire(Arc<Mutex<Wire>>);

/// Makes a connection.
#[must_use]
pub fn pair(config: MemConfig) -> (MemRcap, MemRcap, MemWire) {
    let (registered_only, memory, caps) = (config.registered_only, config.memory, config.caps.clone());
    let wire = Arc::new(Mutex::new(Wire::new(config)));
    let [first, second] = caps;
    let end = |side, caps| {
        let registered = Registered::default();
        let pools = Pools::new(registered.clone());
        MemRcap { wire: wire.clone(), side, caps, registered_only, memory, registered, pools }
    };
    (end(0, first), end(1, second), MemWire(wire.clone()))
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemWire {
    /// Rules that were broken, in order; each has ended the connection.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.0).violations.clone()
    }

    /// What happened on the wire, in order; empty unless [`MemConfig::record`] is set.
    #[must_use]
    pub fn log(&self) -> Vec<Event> {
        lock(&self.0).log.clone()
    }

    /// STags of an end (0 or 1) that are valid.
    #[must_use]
    pub fn live_stags(&self, side: usize) -> usize {
        lock(&self.0).live_stags(side)
    }

    /// STags of an end that its owner invalidated, rather than the peer by Send with Invalidate.
    #[must_use]
    pub fn local_invalidations(&self, side: usize) -> u64 {
        lock(&self.0).local_invalidations(side)
    }

    /// Receive buffers that an end has posted.
    #[must_use]
    pub fn posted_receives(&self, side: usize) -> usize {
        lock(&self.0).posted_receives(side)
    }

    /// Breaks the connection as a reset does.
    pub fn reset(&self) {
        lock(&self.0).reset();
    }
}

impl Drop for MemRcap {
    fn drop(&mut self) {
        lock(&self.wire).dropped(self.side);
    }
}

impl Rcap for MemRcap {
    fn caps(&self) -> &RcapCaps {
        &self.caps
    }

    fn transport(&self) -> TransportInfo {
        TransportInfo { name: "iser", detail: "mem".into(), local: None, peer: None }
    }

    fn allocate(&mut self, want: &RcapResources) -> Result<(), AllocError> {
        let count = want.receives.saturating_add(want.messages);
        if count.saturating_mul(want.message_len).saturating_add(want.pool_bytes) > self.memory {
            return Err(AllocError { what: "memory for messages and task data" });
        }
        self.pools.allocate(want);
        Ok(())
    }

    fn deallocate(&mut self) {
        self.pools.deallocate();
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        &self.pools.data
    }

    fn messages(&self) -> &Arc<dyn BufPool> {
        &self.pools.messages
    }

    fn is_local(&self, memory: &[u8]) -> bool {
        !self.registered_only || self.registered.covers(memory)
    }

    fn post_recv(&mut self, buf: IoBuf) -> Result<(), Full<IoBuf>> {
        lock(&self.wire).post_recv(self.side, buf);
        Ok(())
    }

    fn post(&mut self, op: Op) -> Result<(), Full<Op>> {
        lock(&self.wire).post(self.side, op)
    }

    fn advertisable(&self) -> usize {
        usize::MAX
    }

    fn advertise(&mut self, memory: Tagged) -> Result<RemoteBuf, Full<Tagged>> {
        Ok(lock(&self.wire).advertise(self.side, memory))
    }

    fn invalidate(&mut self, stag: Stag) -> Invalidation {
        lock(&self.wire).invalidate(self.side, stag)
    }

    fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Budget, out: &mut Vec<Completion>) {
        lock(&self.wire).poll(self.side, cx, turn, out);
    }

    fn is_flushed(&self) -> bool {
        lock(&self.wire).is_flushed(self.side)
    }

    fn disconnect(&mut self) {
        lock(&self.wire).disconnect(self.side);
    }

    fn abort(&mut self) {
        lock(&self.wire).abort(self.side);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        lock(&self.wire).next_due(self.side)
    }
}

#[cfg(test)]
mod tests;
