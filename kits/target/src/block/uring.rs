//! An io_uring of the kernel on one file, safe to use: the only `unsafe` code of this crate.
//!
//! A call owns its buffers from [`push`](Ring::push) until its completion is [taken](Ring::take): nothing else can
//! see or free them while the kernel may touch them, whatever becomes of who asked. A ring that is dropped waits for
//! what is still under way; [`wait`](Ring::wait) does so for those who want to know.
//!
//! Slabs of pools that it meets again and again it registers (IORING_REGISTER_BUFFERS_UPDATE, Linux 5.19 for the empty
//! table it starts from), which spares the kernel the search for a call's pages. The ring holds a registered
//! [`Slab`](datamover::Slab), so that its addresses lead to the same pages as long as the kernel has them pinned.
#![allow(unsafe_code)]

mod registered;

use datamover::{SgList, SgListMut, Slab};
use io_uring::{IoUring, Probe, Submitter, opcode, squeue, types};
use registered::{Registered, Table};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Calls under way at a time.
pub(super) const DEPTH: usize = 128;
/// Elements of one call's vector.
pub(super) const IOV: usize = 64;

/// What the kernel is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// Fill [`Buffers::Into`] from a byte of the file on.
    Read { at: u64 },
    /// Write [`Buffers::From`] to a byte of the file; on the medium, if `durable` (RWF_DSYNC).
    Write { at: u64, durable: bool },
    /// fdatasync.
    Sync,
    /// fallocate.
    Allocate { mode: i32, at: u64, len: u64 },
    /// posix_fadvise, POSIX_FADV_WILLNEED.
    Prefetch { at: u64, len: u64 },
}

/// Memory of a call.
#[derive(Debug)]
pub(super) enum Buffers {
    None,
    Into(SgListMut),
    From(SgList),
}

/// The end of a call.
pub(super) struct Ended<T> {
    pub(super) tag: T,
    pub(super) buffers: Buffers,
    /// Bytes moved, or 0.
    pub(super) result: io::Result<usize>,
}

/// A ring for one file. `T` names a call.
pub(super) struct Ring<T> {
    io: IoUring,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Pushed and not seen by the kernel yet.
    queued: usize,
    /// After the ring itself, which is closed first.
    registered: Registered,
}

/// A call under way. Slots move when their vector grows; what the kernel is told of does not.
struct Slot<T> {
    call: Option<(Buffers, T)>,
    iov: Option<Box<[libc::iovec; IOV]>>,
}

// SAFETY: the pointers in `iov` are into the slot's own buffers, which may be sent to another thread, and are
// dereferenced by the kernel only, which does not care for threads. `IoUring` is `Send`.
unsafe impl<T: Send> Send for Ring<T> {}

/// Whether this kernel lets us; asked once. The error says why not.
pub(super) fn available() -> Result<(), &'static str> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| {
        let answer = try_out();
        match &answer {
            Ok(()) => tracing::info!("files and block devices are served through io_uring"),
            Err(why) => {
                tracing::info!(%why, "files and block devices are served by threads: no io_uring")
            }
        }
        answer
    });
    match answer {
        Ok(()) => Ok(()),
        Err(why) => Err(why),
    }
}

fn try_out() -> Result<(), String> {
    let mut io = open(4).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM) => "not permitted (kernel.io_uring_disabled, or a seccomp filter)".to_owned(),
        Some(libc::ENOSYS) => "the kernel has none, or a seccomp filter hides it".to_owned(),
        _ => e.to_string(),
    })?;
    let mut probe = Probe::new();
    io.submitter().register_probe(&mut probe).map_err(|e| format!("older than Linux 5.6: {e}"))?;
    let needed = [
        opcode::Read::CODE,
        opcode::Readv::CODE,
        opcode::Write::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::Fadvise::CODE,
    ];
    if !needed.iter().all(|code| probe.is_supported(*code)) {
        return Err("older than Linux 5.6".into());
    }
    // A filter may let one set up what it does not let one use.
    // SAFETY: a NOP refers to no memory.
    unsafe { io.submission().push(&opcode::Nop::new().build()) }.map_err(|e| e.to_string())?;
    io.submit_and_wait(1).map_err(|e| e.to_string())?;
    io.completion().next().map(drop).ok_or_else(|| "it does nothing".to_owned())
}

fn open(entries: u32) -> io::Result<IoUring> {
    // Completions wait for the thread's next system call instead of interrupting it (Linux 5.19).
    let cooperative = IoUring::builder().setup_clamp().setup_coop_taskrun().dontfork().build(entries);
    match cooperative {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_clamp().dontfork().build(entries)
        }
        result => result,
    }
}

impl<T> Ring<T> {
    /// A ring for `file`, which it keeps open. It may register `pinned` bytes of pools' memory.
    pub(super) fn new(file: BorrowedFd<'_>, pinned: usize) -> io::Result<Self> {
        let io = open(DEPTH as u32)?;
        // Spares each call the look-up, and holds the file.
        io.submitter().register_files(&[file.as_raw_fd()])?;
        let registered = Registered::new(pinned);
        Ok(Self { io, slots: Vec::new(), free: Vec::new(), queued: 0, registered })
    }

    /// Becomes readable when something has ended.
    pub(super) fn readable(&self) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: the ring's own descriptor, which is open as long as `self`.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.io.as_raw_fd()) }.try_clone_to_owned()?;
        // A runtime without its I/O driver panics here, and cannot be asked before.
        catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped.
            unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
        }))
        .map_err(|_| io::Error::other("the runtime's I/O driver is not enabled"))?
        .map_err(io::Error::from)
    }

    /// Calls under way, those in the queue among them.
    pub(super) fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Calls so far whose memory was registered.
    #[cfg(test)]
    pub(super) fn fixed(&self) -> u64 {
        self.registered.hits
    }

    /// Queues a call, which [`submit`](Self::submit) begins. Its buffers from byte `skip` on are moved, as many pieces
    /// as fit in one vector.
    ///
    /// # Errors
    /// The arguments, when [`DEPTH`] calls are under way.
    pub(super) fn push(
        &mut self,
        call: Call,
        buffers: Buffers,
        skip: usize,
        tag: T,
    ) -> Result<(), (Buffers, T)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < DEPTH => {
                self.slots.push(Slot { call: None, iov: None });
                // Room for all, so that giving back never allocates.
                self.free.reserve(self.slots.len());
                (self.slots.len() - 1) as u32
            }
            None => return Err((buffers, tag)),
        };
        let slot = &mut self.slots[index as usize];
        slot.call = Some((buffers, tag));
        let table = Submission(self.io.submitter());
        let entry = slot.entry(call, skip, |piece| self.registered.index_of(piece, &table));
        let entry = entry.user_data(index.into());
        // SAFETY: all memory that the entry points to belongs to the slot: the buffers' bytes and the vector, both on
        // the heap and so at one address. The slot gives them up in `take`, after the kernel has reported the call's
        // end, and `drop` waits for that. Where the entry names a registered slab, its bytes lie in that.
        let pushed = unsafe { self.io.submission().push(&entry) };
        match pushed {
            Ok(()) => {
                self.queued += 1;
                Ok(())
            }
            // Not reached: the queue has room for all slots.
            Err(_) => {
                self.free.push(index);
                match self.slots[index as usize].call.take() {
                    Some(call) => Err(call),
                    None => Ok(()),
                }
            }
        }
    }

    /// Has the kernel begin what was pushed: one system call, if there is something.
    ///
    /// # Errors
    /// Mostly that the kernel is out of memory: nothing is lost, the next call tries again.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        while self.queued > 0 {
            match self.io.submit() {
                // A call that fails at once ends a batch.
                Ok(_) => self.queued = self.io.submission().len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A call that has ended.
    pub(super) fn take(&mut self) -> Option<Ended<T>> {
        let completion = self.io.completion().next()?;
        let index = completion.user_data() as u32;
        let (buffers, tag) = self.slots.get_mut(index as usize)?.call.take()?;
        self.free.push(index);
        let result = match completion.result() {
            error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
            moved => Ok(moved as usize),
        };
        Some(Ended { tag, buffers, result })
    }

    /// Waits for one call to end, the thread blocked; `None` when none is under way.
    pub(super) fn wait(&mut self) -> Option<Ended<T>> {
        while self.open() > 0 {
            if let Some(ended) = self.take() {
                return Some(ended);
            }
            match self.io.submit_and_wait(1) {
                Ok(_) => self.queued = self.io.submission().len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Out of memory, or too many completions: they have to be waited for all the same.
                Err(_) => std::thread::yield_now(),
            }
        }
        None
    }
}

impl<T> Slot<T> {
    /// `registered` tells under which number memory is registered.
    fn entry(
        &mut self,
        call: Call,
        skip: usize,
        registered: impl FnOnce(&[u8]) -> Option<u16>,
    ) -> squeue::Entry {
        const FILE: types::Fixed = types::Fixed(0);
        let Self { call: Some((buffers, _)), iov } = self else { return opcode::Nop::new().build() };
        match call {
            Call::Read { at } => {
                let mut slices: [IoSliceMut<'_>; IOV] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
                let len = if let Buffers::Into(into) = buffers { into.len() } else { 0 };
                let n = match buffers {
                    Buffers::Into(into) => into.io_slices_mut(skip, len.saturating_sub(skip), &mut slices),
                    _ => 0,
                };
                if let [one] = &mut slices[..n] {
                    let (ptr, len) = (one.as_mut_ptr(), one.len() as u32);
                    return match registered(one) {
                        Some(index) => opcode::ReadFixed::new(FILE, ptr, len, index).offset(at).build(),
                        None => opcode::Read::new(FILE, ptr, len).offset(at).build(),
                    };
                }
                let iov = vector(iov, slices[..n].iter_mut().map(|s| (s.as_mut_ptr(), s.len())));
                opcode::Readv::new(FILE, iov, n as u32).offset(at).build()
            }
            Call::Write { at, durable } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                let mut slices: [IoSlice<'_>; IOV] = std::array::from_fn(|_| IoSlice::new(&[]));
                let n = match buffers {
                    Buffers::From(from) => from.io_slices(skip, &mut slices),
                    _ => 0,
                };
                if let [one] = &slices[..n] {
                    let (ptr, len) = (one.as_ptr(), one.len() as u32);
                    return match registered(one) {
                        Some(index) => {
                            let write = opcode::WriteFixed::new(FILE, ptr, len, index);
                            write.offset(at).rw_flags(flags).build()
                        }
                        None => opcode::Write::new(FILE, ptr, len).offset(at).rw_flags(flags).build(),
                    };
                }
                // The kernel only reads them.
                let iov = vector(iov, slices[..n].iter().map(|s| (s.as_ptr().cast_mut(), s.len())));
                opcode::Writev::new(FILE, iov, n as u32).offset(at).rw_flags(flags).build()
            }
            Call::Sync => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
            Call::Allocate { mode, at, len } => {
                opcode::Fallocate::new(FILE, len).offset(at).mode(mode).build()
            }
            Call::Prefetch { at, len } => {
                // The entry has 32 bits for it.
                let len = len.min(u32::MAX.into()) as libc::off_t;
                opcode::Fadvise::new(FILE, len, libc::POSIX_FADV_WILLNEED).offset(at).build()
            }
        }
    }
}

/// Fills the vector, made when it is first needed.
fn vector(
    iov: &mut Option<Box<[libc::iovec; IOV]>>,
    pieces: impl Iterator<Item = (*mut u8, usize)>,
) -> *const libc::iovec {
    let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let iov = iov.get_or_insert_with(|| Box::new([empty; IOV]));
    for (element, (base, len)) in iov.iter_mut().zip(pieces) {
        *element = libc::iovec { iov_base: base.cast(), iov_len: len };
    }
    iov.as_ptr()
}

/// The table of registered memory of a ring.
struct Submission<'a>(Submitter<'a>);

impl Table for Submission<'_> {
    fn make(&self, places: u32) -> io::Result<()> {
        self.0.register_buffers_sparse(places)
    }

    fn set(&self, place: u32, slab: Option<&Slab>) -> io::Result<()> {
        let addresses = slab.map(Slab::addresses).unwrap_or_default();
        let memory = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(addresses.start),
            iov_len: addresses.len(),
        };
        // SAFETY: a slab's memory is allocated and initialised as long as the `Slab` exists, which `Registered` holds
        // until this place was cleared or the ring is gone. The kernel moves bytes there only for calls, whose own
        // buffers those bytes are. No address at all clears the place.
        unsafe { self.0.register_buffers_update(place, &[memory], None) }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // The kernel may touch the buffers until it says otherwise.
        while self.wait().is_some() {}
        // Memory is no longer pinned, nor counted against a limit, from now on and not from when the kernel gets round
        // to it.
        if self.registered.has_table() {
            let _ = self.io.submitter().unregister_buffers();
        }
        // The file is let go now, not when the kernel gets round to it.
        let _ = self.io.submitter().unregister_files();
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} calls)", self.open())
    }
}
