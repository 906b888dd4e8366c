//! The floor: the least that any target on this machine has to do. The same bytes over loopback TCP, from and to a
//! memory of the same size, by a server without protocol, in a process of its own so that its CPU is counted alike.

use std::collections::VecDeque;
use std::io::{IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::lean::{Random, write_all};
use super::load::{self, Load};
use super::wire::{BHS, Url, be32, put32};
use super::{Sample, Workload};

/// Bytes of one read.
const BUFFER: usize = 512 << 10;

/// Serves for ever; says its port first.
pub(crate) fn serve(span: u64) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // Not zeros, which the kernel would take from one page.
    let memory: Arc<[u8]> = (0..span).map(|n| (n >> 12 | 1) as u8).collect();
    println!("listening on {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    for socket in listener.incoming() {
        let (socket, memory) = (socket?, memory.clone());
        // The client's end ends it.
        std::thread::spawn(move || serve_one(socket, &memory));
    }
    Ok(())
}

fn serve_one(mut socket: TcpStream, memory: &[u8]) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    // Output is received and dropped: into the buffer is where it must be copied in any case.
    let (mut have, mut skip, mut late) = (0, 0, false);
    let head = [0; BHS];
    loop {
        let got = socket.read(&mut buffer[have..])?;
        if got == 0 {
            return Ok(());
        }
        have += got;
        let mut slices = Vec::with_capacity(256);
        let mut at = 0;
        loop {
            let step = usize::min(skip, have - at);
            (at, skip) = (at + step, skip - step);
            if skip > 0 {
                break;
            }
            if std::mem::take(&mut late) {
                slices.push(IoSlice::new(&head));
            }
            if have - at < BHS {
                break;
            }
            let request = &buffer[at..at + BHS];
            let from = u64::from_be_bytes(request[..8].try_into()?) as usize;
            let (input, output) = (be32(request, 8) as usize, be32(request, 12) as usize);
            at += BHS;
            if output > 0 {
                // The answer goes out when all of it is in.
                (skip, late) = (output, true);
                continue;
            }
            slices.push(IoSlice::new(&head));
            slices.push(IoSlice::new(&memory[from..from + input]));
        }
        write_all(&socket, &mut slices)?;
        buffer.copy_within(at..have, 0);
        have -= at;
    }
}

/// The same load on the floor's server as the lean client's: requests of 48 bytes and data, answers of 48 bytes and data.
pub(crate) struct Client<'a> {
    socket: TcpStream,
    workload: &'a Workload,
    payload: Vec<u8>,
    random: Random,
    next: u64,
    /// Answers come in the order of the requests.
    pending: VecDeque<(Instant, usize)>,
    /// Bytes of the first answer that have come.
    have: usize,
    latencies: Vec<u32>,
}

/// Runs a workload on one connection for a time.
pub(crate) fn run(url: &Url, workload: &Workload, time: Duration, seed: u64) -> Result<Sample> {
    load::one(Client::open(url, workload, seed)?, time)
}

impl<'a> Client<'a> {
    pub(crate) fn open(url: &Url, workload: &'a Workload, seed: u64) -> Result<Self> {
        let socket = TcpStream::connect(url.portal)?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            payload: vec![0x5a; workload.size],
            workload,
            random: Random(seed | 1),
            next: 0,
            pending: VecDeque::new(),
            have: 0,
            latencies: Vec::new(),
        })
    }
}

impl Load for Client<'_> {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn offer(&mut self, over: bool, now: Instant) -> Result<()> {
        let Workload { size, span, depth, reads, random, .. } = *self.workload;
        let mut heads: Vec<([u8; BHS], bool)> = Vec::with_capacity(depth);
        while !over && self.pending.len() < depth {
            let write = self.random.below(100) >= reads;
            let slots = span / size as u64;
            let slot = if random { self.random.below(slots) } else { self.next % slots };
            self.next += 1;
            let mut head = [0; BHS];
            head[..8].copy_from_slice(&(slot * size as u64).to_be_bytes());
            put32(&mut head, 8, if write { 0 } else { size as u32 });
            put32(&mut head, 12, if write { size as u32 } else { 0 });
            heads.push((head, write));
            self.pending.push_back((now, BHS + if write { 0 } else { size }));
        }
        let mut slices = Vec::with_capacity(heads.len() * 2);
        for (head, write) in &heads {
            slices.push(IoSlice::new(head));
            if *write {
                slices.push(IoSlice::new(&self.payload));
            }
        }
        write_all(&self.socket, &mut slices)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<()> {
        let got = self.socket.read(buffer)?;
        ensure!(got > 0, "the floor's server is gone");
        self.have += got;
        let now = Instant::now();
        while let Some((at, len)) = self.pending.front().copied().filter(|(_, len)| *len <= self.have) {
            self.have -= len;
            self.pending.pop_front();
            self.latencies.push((now - at).as_nanos().min(u64::from(u32::MAX).into()) as u32);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    fn latencies(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.latencies)
    }
}
