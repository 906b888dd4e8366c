//! The in-memory datamover: two ends in one process, for testing what is above the interface.
//!
//! It behaves as a transport does: what one end queues reaches the other when that one's
//! [`poll_drive`](crate::Drive::poll_drive) runs, data is placed without its iSCSI layer knowing, buffers go down and
//! come back. It is strict about the rules of RFC 5047: a call that breaks one ends the connection with
//! [`Cause::Protocol`] and is remembered in [`MemControl::violations`].
//!
//! ```text
//!   MemDatamover (initiator)        Wire         MemDatamover (target)
//!     send_control ──▶ task table, inbox[target] ──▶ Control
//!     in-buffer  ◀── Put ────── inbox[initiator] ◀── put_data
//!     out-buffer ──▶ Get, Data ─────────────────▶── get_data, DataCompletion
//! ```

use crate::{BufPool, PoolConfig, Role, SgList, SlabPool, Window};
use bytes::Bytes;
use iscsi_pdu::{Itt, Pdu};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

mod datamover;
mod fabric;
mod link;

pub use datamover::MemDatamover;
pub use fabric::{MemAcceptor, MemFabric};
pub use link::MemLink;

use crate::{Cause, DataError, InvalidPdu};

/// Behaviour of a pair.
#[derive(Clone)]
pub struct MemConfig {
    /// Memory that both ends hand out.
    pub pool: Arc<dyn BufPool>,
    /// Whether transfers carry the [`Window`], as on TCP, or not, as on iSER.
    pub window: bool,
    /// Faults that happen by themselves.
    pub faults: MemFaults,
}

impl Default for MemConfig {
    /// A default pool, TCP's windows, no faults.
    fn default() -> Self {
        Self {
            pool: Arc::new(SlabPool::new(PoolConfig::default())),
            window: true,
            faults: MemFaults::default(),
        }
    }
}

/// Faults that a pair commits by itself, the same for the same seed and calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemFaults {
    /// Where the choices come from.
    pub seed: u64,
    /// Get_Data transfers of all tasks complete in any order.
    pub reorder_gets: bool,
    /// One in so many Get_Data transfers fails with [`DataError::Digest`]; 0 for never.
    pub fail_get_one_in: u32,
    /// One in so many messages is the last before the connection is reset; 0 for never.
    pub cut_one_in: u32,
}

/// Makes a connection: the initiator's end, the target's end, and a hand on what is between.
#[must_use]
pub fn pair(config: MemConfig) -> (MemLink, MemLink, MemControl) {
    let wire = Arc::new(Mutex::new(Wire {
        sides: [Side::default(), Side::default()],
        // Any odd number keeps the generator off its fixed point 0.
        rng: config.faults.seed.wrapping_mul(2).wrapping_add(1),
        faults: config.faults,
        window: config.window,
        fail_gets: VecDeque::new(),
        violations: Vec::new(),
    }));
    let link = |role| MemLink::new(role, wire.clone(), config.pool.clone());
    (link(Role::Initiator), link(Role::Target), MemControl { wire: wire.clone() })
}

/// Disturbs a pair, and tells what went wrong on it.
#[derive(Clone)]
pub struct MemControl {
    wire: SharedWire,
}

impl MemControl {
    /// Resets the connection: what is under way is lost, both ends report
    /// [`Cause::Transport`].
    pub fn cut(&self) {
        lock(&self.wire).cut();
    }

    /// Lets the next Get_Data that is answered fail. Several calls line up.
    pub fn fail_next_get(&self, error: DataError) {
        lock(&self.wire).fail_gets.push_back(error);
    }

    /// Lets one end report a PDU that cannot be delivered, in order with what is under way to it.
    pub fn deliver_invalid(&self, to: Role, invalid: InvalidPdu) {
        lock(&self.wire).send(to, Msg::Invalid(invalid));
    }

    /// Holds back, or lets go, everything that is under way to one end.
    pub fn hold(&self, to: Role, held: bool) {
        let mut wire = lock(&self.wire);
        let side = wire.side(to);
        side.held = held;
        side.wake();
    }

    /// Messages under way to one end.
    #[must_use]
    pub fn in_flight(&self, to: Role) -> usize {
        lock(&self.wire).side(to).inbox.len()
    }

    /// Rules of RFC 5047 that were broken from above, in order.
    #[must_use]
    pub fn violations(&self) -> Vec<&'static str> {
        lock(&self.wire).violations.clone()
    }
}

/// What is between the ends.
struct Wire {
    /// The initiator's, the target's.
    sides: [Side; 2],
    rng: u64,
    faults: MemFaults,
    window: bool,
    fail_gets: VecDeque<DataError>,
    violations: Vec<&'static str>,
}

type SharedWire = Arc<Mutex<Wire>>;

fn lock(wire: &SharedWire) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is under way to one end.
#[derive(Default)]
struct Side {
    inbox: VecDeque<Msg>,
    /// How many of `inbox` are control-type PDUs, and how many are Puts.
    controls: usize,
    puts: usize,
    held: bool,
    waker: Option<Waker>,
    /// Set when the connection ended for this end, for whatever is in the inbox no longer counts.
    ended: Option<Cause>,
}

enum Msg {
    Login(Pdu<Bytes>),
    Control {
        pdu: Pdu<Bytes>,
        unsolicited: u32,
    },
    Put {
        itt: Itt,
        offset: u32,
        data: SgList,
        ack: bool,
        window: Option<Window>,
    },
    Get {
        id: u64,
        itt: Itt,
        offset: u32,
        len: usize,
        window: Option<Window>,
    },
    Data {
        id: u64,
        result: Result<SgList, DataError>,
        window: Option<Window>,
    },
    Ack {
        itt: Itt,
    },
    Invalid(InvalidPdu),
    /// The last one: the peer closed.
    Bye,
}

impl Wire {
    fn side(&mut self, role: Role) -> &mut Side {
        let [initiator, target] = &mut self.sides;
        match role {
            Role::Initiator => initiator,
            Role::Target => target,
        }
    }

    fn send(&mut self, to: Role, msg: Msg) {
        if self.side(to).ended.is_some() {
            return;
        }
        let cut = self.one_in(self.faults.cut_one_in);
        // Answers to Get_Data may overtake each other, and nothing else.
        let overtake = self.faults.reorder_gets && matches!(msg, Msg::Data { .. }) && self.one_in(2);
        let side = self.side(to);
        match &msg {
            Msg::Control { .. } => side.controls = side.controls.saturating_add(1),
            Msg::Put { .. } => side.puts = side.puts.saturating_add(1),
            _ => {}
        }
        if overtake && matches!(side.inbox.back(), Some(Msg::Data { .. })) {
            side.inbox.insert(side.inbox.len().saturating_sub(1), msg);
        } else {
            side.inbox.push_back(msg);
        }
        side.wake();
        if cut {
            self.cut();
        }
    }

    fn cut(&mut self) {
        for side in &mut self.sides {
            side.end(Cause::Transport(std::io::ErrorKind::ConnectionReset));
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        if n == 0 {
            return false;
        }
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng.checked_rem(u64::from(n)) == Some(0)
    }

    /// The error with which the next Get_Data is to fail.
    fn get_fault(&mut self) -> Option<DataError> {
        let seeded = self.one_in(self.faults.fail_get_one_in).then_some(DataError::Digest);
        self.fail_gets.pop_front().or(seeded)
    }
}

impl Side {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn end(&mut self, cause: Cause) {
        if self.ended.is_none() {
            self.ended = Some(cause);
            self.inbox.clear();
        }
        self.wake();
    }

    fn next(&mut self) -> Option<Msg> {
        if self.held {
            return None;
        }
        let msg = self.inbox.pop_front()?;
        match &msg {
            Msg::Control { .. } => self.controls = self.controls.saturating_sub(1),
            Msg::Put { .. } => self.puts = self.puts.saturating_sub(1),
            _ => {}
        }
        Some(msg)
    }
}

#[cfg(test)]
mod tests;
