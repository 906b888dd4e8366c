//! How nexuses on different shards reach each other.

use crate::unit::LogicalUnit;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// What another nexus asks of this one.
#[derive(Debug)]
pub(crate) enum Order {
    /// End the tasks on the unit that came before the order was given, with TASK ABORTED status if `report`.
    AbortTasks {
        unit: Arc<LogicalUnit>,
        /// Tasks of this epoch of the unit and later ones are none of its business: the order may be followed late.
        epoch: u64,
        report: bool,
        until_done: Hold,
    },
}

/// The orders for a nexus, and what wakes its driver.
pub(crate) struct Mailbox {
    /// `None` once the nexus is over: it follows no orders, and must hold no one up.
    orders: Mutex<Option<Vec<Order>>>,
    /// There may be orders, or a lock may have become free.
    woken: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self { orders: Mutex::new(Some(Vec::new())), woken: AtomicBool::default(), driver: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox {
    /// The driver's waker of this poll.
    pub(crate) fn listen(&self, waker: &Waker) {
        let mut driver = lock(&self.driver);
        match &mut *driver {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(crate) fn post(self: &Arc<Self>, order: Order) {
        // What is not taken is dropped outside the lock: it may wake another mailbox.
        let refused = match &mut *lock(&self.orders) {
            Some(orders) => {
                orders.push(order);
                None
            }
            None => Some(order),
        };
        drop(refused);
        self.wake_by_ref();
    }

    /// Whether it was woken since the last call.
    pub(crate) fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn take_orders(&self) -> Vec<Order> {
        lock(&self.orders).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The nexus is over: orders that it has not followed, and those to come, are given back to who waits for them. An
    /// order of its own would else keep the mailbox alive in which it lies.
    pub(crate) fn close(&self) {
        let rest = lock(&self.orders).take();
        drop(rest);
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if let Some(waker) = &*lock(&self.driver) {
            waker.wake_by_ref();
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox")
    }
}

/// Something that others hold on to while they work for a nexus.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    count: Option<Arc<()>>,
    owner: Arc<Mailbox>,
}

impl Hold {
    pub(crate) fn new(owner: &Arc<Mailbox>) -> Self {
        Self { count: Some(Arc::new(())), owner: owner.clone() }
    }

    /// Whether all clones are gone.
    pub(crate) fn is_last(&self) -> bool {
        self.count.as_ref().is_some_and(|c| Arc::strong_count(c) == 1)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.count = None;
        self.owner.wake_by_ref();
    }
}
