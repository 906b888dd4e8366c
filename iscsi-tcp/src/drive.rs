//! [`TcpDatamover`]: the core on a stream.

use crate::core::TcpCore;
use crate::stream::Stream;
use datamover::{
    Budget, BufPool, ConnKeys, Control, Datamover, Drive, Event, Full, GetData, PutData, Role, Stats,
    TransportInfo, Window,
};
use iscsi_pdu::Itt;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Slices of one write.
const SLOTS: usize = 128;

/// A connection in full feature phase over a [`Stream`].
pub struct TcpDatamover<S> {
    /// `None` when the connection is over.
    stream: Option<S>,
    core: TcpCore,
    info: TransportInfo,
    /// Who drives it, while nothing is received.
    paused: Option<Waker>,
}

impl<S: Stream> TcpDatamover<S> {
    /// Puts a core on a stream.
    pub(crate) fn new(stream: Option<S>, core: TcpCore, info: TransportInfo) -> Self {
        Self { stream, core, info, paused: None }
    }

    /// Sends what there is to send, as far as the stream takes it.
    fn write(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(stream) = &mut self.stream else { return };
            // Slots for nothing cost more than the rest of an idle turn.
            if self.core.is_flushed() {
                return;
            }
            let mut slots = [IoSlice::new(&[]); SLOTS];
            let n = self.core.transmit_slices(&mut slots);
            if n == 0 {
                return;
            }
            let written = stream.poll_write(cx, slots.get(..n).unwrap_or_default());
            if written.is_ready() {
                self.count_syscall();
            }
            match written {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => self.core.disconnected(None),
                Poll::Ready(Ok(n)) => self.core.transmitted(n),
                Poll::Ready(Err(e)) => self.core.disconnected(Some(e.kind())),
            }
        }
    }

    /// Receives within the budget; whether the stream had no more. While nobody takes what has come, nothing more is
    /// received: a peer that sends and reads no answers must not make this end keep all of it.
    fn read(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> bool {
        while self.core.is_open() && budget.pdus > 0 && budget.bytes > 0 {
            if self.core.is_crowded() {
                self.paused = Some(cx.waker().clone());
                return true;
            }
            let Some(stream) = &mut self.stream else { return true };
            let before = self.core.stats().pdus_in;
            let mut slots = self.core.recv_slots();
            let slots = slots.as_mut_slice();
            // A read to nowhere would look like the end of the stream.
            if slots.is_empty() {
                return true;
            }
            let read = stream.poll_read(cx, slots);
            if read.is_ready() {
                self.count_syscall();
            }
            match read {
                Poll::Pending => return true,
                Poll::Ready(Ok(0)) => self.core.disconnected(None),
                Poll::Ready(Ok(n)) => {
                    self.core.received(n);
                    let pdus = self.core.stats().pdus_in.saturating_sub(before);
                    budget.pdus = budget.pdus.saturating_sub(u32::try_from(pdus).unwrap_or(u32::MAX));
                    budget.bytes = budget.bytes.saturating_sub(n);
                }
                Poll::Ready(Err(e)) => self.core.disconnected(Some(e.kind())),
            }
        }
        !self.core.is_open()
    }

    fn count_syscall(&mut self) {
        let stats = self.core.stats_mut();
        stats.syscalls = stats.syscalls.saturating_add(1);
    }

    /// Closes the stream. What the peer has sent is read away first: data that nobody read would make the system
    /// reset the connection, and our last PDUs might be lost with it.
    fn close(&mut self, cx: &mut Context<'_>) {
        let Some(mut stream) = self.stream.take() else { return };
        stream.shutdown();
        let mut away = [0; 4096];
        for _ in 0..256 {
            match stream.poll_read(cx, &mut [IoSliceMut::new(&mut away)]) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                _ => return,
            }
        }
    }
}

impl<S: Stream> Drive for TcpDatamover<S> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<io::Result<()>> {
        self.core.set_now(budget.now);
        self.write(cx);
        let waits = self.read(cx, budget);
        self.write(cx);
        if self.core.is_ended() {
            self.close(cx);
        }
        if waits { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
    }
}

impl<S: Stream> Datamover for TcpDatamover<S> {
    fn role(&self) -> Role {
        self.core.role()
    }

    fn transport(&self) -> TransportInfo {
        self.info.clone()
    }

    fn send_control(&mut self, control: Control) -> Result<(), Full<Control>> {
        self.core.send_control(control)
    }

    fn put_data(&mut self, put: PutData) -> Result<(), Full<PutData>> {
        self.core.put_data(put)
    }

    fn get_data(&mut self, get: GetData) -> Result<(), Full<GetData>> {
        self.core.get_data(get)
    }

    fn deallocate_task_resources(&mut self, itt: Itt) {
        self.core.deallocate_task_resources(itt);
    }

    fn connection_terminate(&mut self) {
        self.core.connection_terminate();
    }

    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.core.notice_key_values(keys);
    }

    fn set_window(&mut self, window: Window) {
        self.core.set_window(window);
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.core.poll_event();
        if !self.core.is_crowded()
            && let Some(waker) = self.paused.take()
        {
            waker.wake();
        }
        event
    }

    fn is_ended(&self) -> bool {
        self.core.is_ended()
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        &self.core.pool
    }

    fn stats(&self) -> Stats {
        self.core.stats()
    }
}
