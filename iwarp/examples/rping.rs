//! RDMA ping-pong over a TCP socket, in user space: speaks to librdmacm's `rping` on the other machine's RDMA device or
//! software iWARP, or to itself.
//!
//! ```text
//!   rping -s [-a ADDRESS] [-p PORT]                server: serves one client, then ends
//!   rping -c -a ADDRESS [-p PORT] [-C N] [-S N]    client: N rounds with N octets
//!
//!   -1  MPA revision 1 (client)      --no-crc  do not ask for CRCs       --markers  require markers from the peer
//!   --peer-to-peer  (client) send an RTR indication first                -v  show the data
//!   --hello  only one message each way, as librdmacm's rdma_client and rdma_server exchange them
//! ```
//! One round, as `rping` plays it:
//!
//! ```text
//!   client                                   server
//!   Send: STag, offset, size of the ping ──►
//!                          ◄── RDMA Read ──  fetches the ping
//!                          ◄── Send ───────  go ahead
//!   Send: STag, offset, size of a buffer ──►
//!                          ◄── RDMA Write ─  the ping, as a pong
//!                          ◄── Send ───────  complete
//! ```
#![allow(clippy::disallowed_methods)] // a driver: it has the clock the library does without

use bytes::Bytes;
use iwarp::mpa::{Config, Established, Initiator, InitiatorEvent, Responder, ResponderEvent, Revision};
use iwarp::{
    Access, Completion, Done, Gather, Limits, QueuePair, ReadWr, Region, RemoteAddr, SendWr, Stag, Status,
    WrId, WriteWr,
};
use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The message of `rping`: where a buffer is (`struct rping_rdma_info`).
struct Advert {
    addr: RemoteAddr,
    size: u32,
}

impl Advert {
    const LEN: usize = 16;

    fn encode(&self) -> Bytes {
        let mut b = Vec::with_capacity(Self::LEN);
        b.extend_from_slice(&self.addr.offset.to_be_bytes());
        b.extend_from_slice(&self.addr.stag.0.to_be_bytes());
        b.extend_from_slice(&self.size.to_be_bytes());
        b.into()
    }

    fn decode(b: &[u8]) -> Result<Self> {
        let b: &[u8; Self::LEN] = b.try_into().map_err(|_| format!("message of {} octets", b.len()))?;
        let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let offset = (u64::from(word(0)) << 32) | u64::from(word(4));
        Ok(Self { addr: RemoteAddr { stag: Stag(word(8)), offset }, size: word(12) })
    }
}

/// A queue pair and its socket: one vectored write, one vectored read a turn.
struct Connection {
    stream: TcpStream,
    qp: QueuePair<Vec<u8>>,
}

impl Connection {
    fn new(stream: TcpStream, established: &Established, unread: &[u8]) -> Result<Self> {
        eprintln!(
            "established: {:?}, revision {:?}, crc {}, markers in {} out {}, ird {} ord {}",
            established.role,
            established.revision,
            established.crc,
            established.rx_markers,
            established.tx_markers,
            established.ird,
            established.ord
        );
        let random = || RandomState::new().build_hasher().finish().to_ne_bytes();
        let seed = [random(), random()].concat().try_into().unwrap_or_default();
        let mut qp = QueuePair::new(established, Limits::default(), seed);
        for id in 0..2 {
            qp.post_recv(WrId(id), vec![0; Advert::LEN])?;
        }
        qp.handle_bytes(unread);
        Ok(Self { stream, qp })
    }

    fn write_all(&mut self) -> Result<()> {
        loop {
            let mut iov = [IoSlice::new(&[]); 64];
            let used = self.qp.transmit_slices(&mut iov);
            if used == 0 {
                return Ok(());
            }
            let n = self.stream.write_vectored(&iov[..used])?;
            self.qp.transmitted(n);
        }
    }

    fn read_some(&mut self) -> Result<()> {
        match self.stream.read_vectored(&mut self.qp.recv_slots())? {
            0 => self.qp.handle_eof(),
            n => self.qp.received(n),
        }
        Ok(())
    }

    /// The next completion; `None` when the peer has closed the stream.
    fn next(&mut self) -> Result<Option<Completion<Vec<u8>>>> {
        loop {
            self.write_all()?;
            if let Some(done) = self.qp.poll_cq() {
                if !done.flushed {
                    return Ok(Some(done));
                }
                return match self.qp.cause() {
                    None => Ok(None), // half closed
                    Some(cause) => Err(format!("stream ended: {cause:?}").into()),
                };
            }
            self.read_some()?;
        }
    }

    /// The next message; its buffer is posted again.
    fn message(&mut self) -> Result<Option<Vec<u8>>> {
        match self.next()? {
            None => Ok(None),
            Some(Completion { id, done: Done::Recv { buffer, len, .. }, .. }) => {
                let message = buffer[..len].to_vec();
                self.qp.post_recv(id, buffer)?;
                Ok(Some(message))
            }
            Some(other) => Err(format!("message expected: {other:?}").into()),
        }
    }

    fn send(&mut self, message: Bytes) -> Result<()> {
        self.qp.post_send(SendWr { payload: message.into(), unsignaled: true, ..SendWr::default() })?;
        self.write_all()
    }

    /// Closes this half and waits for the peer to close the other.
    fn close(mut self) -> Result<()> {
        self.qp.close();
        while self.qp.status() != Status::Closed {
            self.write_all()?;
        }
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let mut rest = [0; 512];
        while self.stream.read(&mut rest)? > 0 {}
        eprintln!("{:?}", self.qp.stats());
        Ok(())
    }
}

/// MPA startup over a blocking socket: sends, receives, and keeps time.
macro_rules! startup {
    ($machine:ident, $stream:ident, $event:ident => $body:expr) => {{
        let mut unread = Vec::new();
        loop {
            while !$machine.transmit().is_empty() {
                let n = $stream.write($machine.transmit())?;
                $machine.transmitted(n);
            }
            if let Some($event) = $machine.poll_event() {
                if let Some(established) = $body {
                    break Connection::new($stream, &established, &unread);
                }
                continue;
            }
            let left = $machine.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            $stream.set_read_timeout(left.map(|d| d.max(Duration::from_millis(1))))?;
            let mut buf = [0; 1024];
            match $stream.read(&mut buf) {
                Ok(0) => $machine.handle_eof()?,
                Ok(n) => {
                    let used = $machine.handle_bytes(&buf[..n])?;
                    unread.extend_from_slice(&buf[used..n]);
                }
                Err(_) => $machine.handle_timeout(Instant::now())?,
            }
        }
    }};
}

fn connect(mut stream: TcpStream, config: Config) -> Result<Connection> {
    let mut machine = Initiator::new(config, Bytes::new(), Instant::now())?;
    startup!(machine, stream, event => match event {
        InitiatorEvent::Established(e) => Some(e),
        other => return Err(format!("{other:?}").into()),
    })
}

fn accept(mut stream: TcpStream, config: Config) -> Result<Connection> {
    let mut machine = Responder::new(config, Instant::now());
    startup!(machine, stream, event => match event {
        ResponderEvent::Request(request) => {
            eprintln!("{request:?}");
            machine.accept(Bytes::new())?;
            None
        }
        ResponderEvent::Established(e) => Some(e),
        ResponderEvent::Rejected => None,
    })
}

/// Serves the rounds of one client and returns how many there were.
fn server(c: &mut Connection, verbose: bool) -> Result<u32> {
    let mut rounds = 0;
    while let Some(message) = c.message()? {
        let ping = Advert::decode(&message)?;
        let sink = vec![0; ping.size as usize];
        c.qp.post_read(ReadWr { id: WrId(0), from: ping.addr, len: ping.size, sink })?;
        let data = match c.next()? {
            Some(Completion { done: Done::Read { sink, .. }, .. }) => sink,
            other => return Err(format!("read expected: {other:?}").into()),
        };
        if verbose {
            println!("server ping data: {}", String::from_utf8_lossy(&data));
        }
        c.send(message.into())?;
        let Some(message) = c.message()? else { return Err("client left".into()) };
        let pong = Advert::decode(&message)?;
        let (payload, to) = (Gather::from(Bytes::from(data)), pong.addr);
        c.qp.post_write(WriteWr { id: WrId(1), payload, to, fence: false, unsignaled: true })?;
        c.send(message.into())?;
        rounds += 1;
    }
    Ok(rounds)
}

/// One message each way; the client's goes first.
fn hello(c: &mut Connection, serve: bool) -> Result<u32> {
    if !serve {
        c.send(Bytes::from_static(&[b'h'; Advert::LEN]))?;
    }
    let message = c.message()?.ok_or("peer left")?;
    if serve {
        c.send(message.into())?;
    }
    Ok(1)
}

/// Plays `count` rounds of `size` octets.
fn client(c: &mut Connection, count: u32, size: usize, verbose: bool) -> Result<u32> {
    for round in 0..count {
        let mut data = format!("rdma-ping-{round}: ").into_bytes();
        data.extend((b'A'..=b'z').cycle().skip(round as usize).take(size.saturating_sub(data.len())));
        data.truncate(size);
        data[size - 1] = 0;
        let data = Bytes::from(data);
        let size = u32::try_from(size)?;

        // Addresses of this end are what it makes of them: not zero, to see offsets at work.
        let offset = 0x7000_0000_0000 + u64::from(round);
        let stag = c.qp.register(Region::Shared(data.clone().into()), Access::READ, offset)?;
        c.send(Advert { addr: RemoteAddr { stag, offset }, size }.encode())?;
        c.message()?.ok_or("server left")?;
        c.qp.invalidate(stag)?;

        let stag = c.qp.register(Region::Owned(vec![0; data.len()]), Access::WRITE, offset)?;
        c.send(Advert { addr: RemoteAddr { stag, offset }, size }.encode())?;
        c.message()?.ok_or("server left")?;
        match c.qp.invalidate(stag)?.region {
            Some(Region::Owned(pong)) if pong == data => {}
            _ => return Err(format!("round {round}: data came back changed").into()),
        }
        if verbose {
            println!("ping data: {}", String::from_utf8_lossy(&data));
        }
    }
    Ok(count)
}

fn main() -> Result<()> {
    let mut config = Config { ird: 1, ord: 1, ..Config::default() };
    let (mut serve, mut verbose, mut only_hello) = (None, false, false);
    let (mut address, mut port, mut count, mut size) = ("0.0.0.0".to_owned(), 7174u16, 5u32, 64usize);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "-s" => serve = Some(true),
            "-c" => serve = Some(false),
            "-a" => address = value()?,
            "-p" => port = value()?.parse()?,
            "-C" => count = value()?.parse()?,
            "-S" => size = value()?.parse::<usize>()?.max(17),
            "-v" => verbose = true,
            "--hello" => only_hello = true,
            "-1" => config.revision = Revision::One,
            "--no-crc" => config.crc = false,
            "--markers" => config.markers = true,
            "--peer-to-peer" => config.peer_to_peer = true,
            _ => return Err(format!("unknown option {arg}; see the head of examples/rping.rs").into()),
        }
    }
    let rounds = match serve.ok_or("-s or -c?")? {
        true => {
            let listener = TcpListener::bind((address.as_str(), port))?;
            eprintln!("listening on {}", listener.local_addr()?);
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut c = accept(stream, config)?;
            c.stream.set_read_timeout(None)?;
            let rounds = if only_hello { hello(&mut c, true)? } else { server(&mut c, verbose)? };
            c.close()?;
            rounds
        }
        false => {
            let stream = TcpStream::connect((address.as_str(), port))?;
            stream.set_nodelay(true)?;
            let mut c = connect(stream, config)?;
            c.stream.set_read_timeout(None)?;
            let rounds = match only_hello {
                true => hello(&mut c, false)?,
                false => client(&mut c, count, size, verbose)?,
            };
            c.close()?;
            rounds
        }
    };
    println!("{rounds} rounds");
    Ok(())
}
