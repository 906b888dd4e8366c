//! STags: type-2 memory windows, or regions for one use.

use super::ffi::{self, Bind, SendWr, WorkRequest};
use super::memory::Local;
use super::object::{Mr, Mw, Pd};
use super::send::{SendQueue, Work};
use crate::rcap::{Invalidation, RemoteBuf, Stag, Tagged};
use libc::{c_int, c_uint};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// A memory window and its key of the moment.
struct Window {
    mw: Mw,
    rkey: u32,
}

impl Window {
    fn new(mw: Mw) -> Self {
        let rkey = mw.rkey();
        Self { mw, rkey }
    }
}

/// What an STag stands for. The memory is dropped after what gives access to it.
struct Live {
    window: Option<Window>,
    /// A region for this one use.
    mr: Option<Mr>,
    memory: Tagged,
    /// Until the peer invalidates it.
    valid: bool,
}

/// The STags of one connection.
pub(super) struct Tags {
    free: Vec<Window>,
    live: HashMap<Stag, Live>,
    windows: bool,
    pd: Arc<Pd>,
}

impl Tags {
    /// `windows`: try to use memory windows.
    pub(super) fn new(pd: Arc<Pd>, windows: bool) -> Self {
        let first = if windows { Mw::new(pd.clone()).ok() } else { None };
        let windows = first.is_some();
        Self { free: first.map(Window::new).into_iter().collect(), live: HashMap::new(), windows, pd }
    }

    /// Whether STags are windows, which the peer may invalidate; else they are regions, which it may not.
    pub(super) fn are_windows(&self) -> bool {
        self.windows
    }

    /// STags in use.
    pub(super) fn in_use(&self) -> usize {
        self.live.len()
    }

    /// STags that can be had, given room for so many work requests.
    pub(super) fn available(&self, room: usize) -> usize {
        // Each takes a request to bind it and one to invalidate it.
        let room = room.saturating_sub(self.in_use()) / 2;
        if self.windows { self.free.len().min(room) } else { room }
    }

    /// Makes windows until there are `count` free ones, or as many as the device gives.
    pub(super) fn provide(&mut self, count: usize) -> io::Result<()> {
        while self.windows && self.free.len() < count {
            match Mw::new(self.pd.clone()) {
                Ok(mw) => self.free.push(Window::new(mw)),
                Err(_) if self.free.len() >= 2 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Gives memory of one part an STag. `local` is the pool's region that it lies in.
    pub(super) fn advertise(
        &mut self,
        memory: Tagged,
        local: Option<Local>,
        send: &mut SendQueue,
    ) -> io::Result<RemoteBuf> {
        match self.free.pop() {
            Some(window) => self.bind(memory, window, local, send),
            None => self.register(memory),
        }
    }

    fn register(&mut self, memory: Tagged) -> io::Result<RemoteBuf> {
        let access = match memory {
            Tagged::Source(_) => ffi::ACCESS_REMOTE_READ,
            Tagged::Sink(_) => ffi::ACCESS_REMOTE_WRITE | ffi::ACCESS_LOCAL_WRITE,
        };
        let mr = self.region(&memory, access)?;
        let (stag, offset) = (Stag(mr.rkey()), place(&memory).0 as u64);
        self.live.insert(stag, Live { window: None, mr: Some(mr), memory, valid: true });
        Ok(RemoteBuf { stag, offset })
    }

    fn bind(
        &mut self,
        memory: Tagged,
        mut window: Window,
        local: Option<Local>,
        send: &mut SendQueue,
    ) -> io::Result<RemoteBuf> {
        let (start, len) = place(&memory);
        let (mr, own) = match local {
            Some(local) => (local.mr, None),
            None => {
                let own = self.region(&memory, ffi::ACCESS_LOCAL_WRITE | ffi::ACCESS_MW_BIND)?;
                (own.as_ptr(), Some(own))
            }
        };
        // A new key for every use: the low byte is the consumer's.
        window.rkey = window.rkey & !0xff | window.rkey.wrapping_add(1) & 0xff;
        let access = match memory {
            Tagged::Source(_) => ffi::ACCESS_REMOTE_READ,
            Tagged::Sink(_) => ffi::ACCESS_REMOTE_WRITE,
        };
        let mut request = SendWr::new(ffi::WR_BIND_MW);
        let to = Bind { mr, addr: start as u64, len: len as u64, access: access as c_uint };
        request.set_bind(window.mw.as_ptr(), window.rkey, to);
        let stag = Stag(window.rkey);
        send.push(request, std::iter::empty(), Work::Bind);
        self.live.insert(stag, Live { window: Some(window), mr: own, memory, valid: true });
        Ok(RemoteBuf { stag, offset: start as u64 })
    }

    /// A region for this one use, for memory that is in no pool or where there are no windows.
    fn region(&self, memory: &Tagged, access: c_int) -> io::Result<Mr> {
        let (start, len) = place(memory);
        // SAFETY: the memory is owned by `live` until the region is dropped. A source is registered without write
        // access, or lies in memory that this provider's caller made for the purpose.
        unsafe { Mr::new(self.pd.clone(), start as *mut u8, len, access) }
    }

    /// The peer invalidated it.
    pub(super) fn peer_invalidated(&mut self, stag: Stag) {
        if let Some(live) = self.live.get_mut(&stag) {
            live.valid = false;
        }
    }

    /// Invalidates an STag. `send` is `None` when the queue pair is gone, and with it all access.
    pub(super) fn invalidate(&mut self, stag: Stag, send: Option<&mut SendQueue>) -> Invalidation {
        let Some(live) = self.live.get(&stag) else { return Invalidation::Unknown };
        if let Some(send) = send.filter(|_| live.valid && live.window.is_some()) {
            let mut request = SendWr::new(ffi::WR_LOCAL_INV);
            request.set_invalidate(stag.0);
            send.push(request, std::iter::empty(), Work::Invalidate(stag));
            return Invalidation::Pending;
        }
        // Invalid by the peer's hand; or a region, which its deregistration makes invalid; or the queue pair is gone.
        self.release(stag).map_or(Invalidation::Unknown, Invalidation::Done)
    }

    /// The STag is invalid: its window is free again, its region goes, and here is the memory.
    pub(super) fn release(&mut self, stag: Stag) -> Option<Tagged> {
        let Live { memory, window, mr, .. } = self.live.remove(&stag)?;
        if let Some(mut window) = window {
            // Providers look for the key of the last bind here when they bind again.
            window.mw.set_rkey(window.rkey);
            self.free.push(window);
        }
        drop(mr);
        Some(memory)
    }

    /// Gives all windows up: a queue pair is not destroyed while windows are bound to it.
    pub(super) fn unbind(&mut self) {
        self.live.values_mut().for_each(|live| drop(live.window.take()));
        self.free.clear();
    }
}

/// Where memory of one part is.
fn place(memory: &Tagged) -> (usize, usize) {
    match memory {
        Tagged::Source(list) => list.parts().next().map(|p| (p.as_ptr() as usize, p.len())),
        Tagged::Sink(list) => list.parts().next().map(|p| (p.as_ptr() as usize, p.len())),
    }
    .unwrap_or_default()
}
