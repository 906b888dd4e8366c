//! The two pools of a software provider: messages and task data, in ordinary memory.

use crate::login::LOGIN_MESSAGE_LEN;
use crate::rcap::RcapResources;
use datamover::{BufPool, PoolConfig, SlabObserver, SlabPool};
use std::sync::Arc;

/// Messages that there are before resources are allocated: enough for a login.
const LOGIN_MESSAGES: usize = 8;

/// Makes pools; each slab is told to `observer`.
pub(super) struct Pools<O> {
    observer: O,
    allocated: bool,
    pub(super) data: Arc<dyn BufPool>,
    pub(super) messages: Arc<dyn BufPool>,
}

impl<O: SlabObserver + Clone + 'static> Pools<O> {
    /// For a login.
    pub(super) fn new(observer: O) -> Self {
        let data = Arc::new(SlabPool::new(PoolConfig::default().with_max_bytes(0)));
        let messages = messages(&observer, LOGIN_MESSAGES, LOGIN_MESSAGE_LEN);
        Self { observer, allocated: false, data, messages }
    }

    /// For full feature phase; `false` when that was done before.
    pub(super) fn allocate(&mut self, want: &RcapResources) -> bool {
        if std::mem::replace(&mut self.allocated, true) {
            return false;
        }
        let count = want.receives.saturating_add(want.messages);
        self.messages = messages(&self.observer, count, want.message_len);
        let config = PoolConfig::default().with_max_bytes(want.pool_bytes);
        self.data = Arc::new(SlabPool::with_observer(config, Box::new(self.observer.clone())));
        true
    }

    /// Back to what a login needs.
    pub(super) fn deallocate(&mut self) {
        *self = Self::new(self.observer.clone());
    }
}

fn messages<O: SlabObserver + Clone + 'static>(observer: &O, count: usize, len: usize) -> Arc<dyn BufPool> {
    let config =
        PoolConfig { chunk_lens: vec![len], slab_len: 1 << 20, max_bytes: count.saturating_mul(len) };
    Arc::new(SlabPool::with_observer(config, Box::new(observer.clone())))
}
