//! What went over the connections of a case, and its capture file.
//!
//! The frames are made up around the bytes of the streams: addresses and ports are true, TCP's numbers begin at 1
//! and nothing is ever lost, so that Wireshark and tshark follow the streams.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, TsResolution};

/// Payload of one frame: an IP packet holds less than 64 KiB.
const SEGMENT: usize = 32 << 10;
/// More than this of a case's traffic is not kept.
const LIMIT: usize = 64 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Data,
    Close,
}

struct Event {
    when: Duration,
    stream: usize,
    /// Sent by this program.
    ours: bool,
    kind: Kind,
    bytes: Vec<u8>,
}

struct Stream {
    ours: SocketAddr,
    theirs: SocketAddr,
    we_connected: bool,
}

#[derive(Default)]
struct Inner {
    streams: Vec<Stream>,
    events: Vec<Event>,
    size: usize,
}

/// Records the streams of a case; clones record to the same tape.
#[derive(Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<Inner>>);

impl Tape {
    /// A new stream; returns its number.
    pub(crate) fn open(&self, ours: SocketAddr, theirs: SocketAddr, we_connected: bool) -> usize {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.streams.push(Stream { ours, theirs, we_connected });
        let stream = inner.streams.len() - 1;
        inner.push(stream, we_connected, Kind::Open, &[]);
        stream
    }

    /// Bytes that were sent or received.
    pub(crate) fn data(&self, stream: usize, ours: bool, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stream, ours, Kind::Data, bytes);
    }

    /// One side has closed.
    pub(crate) fn close(&self, stream: usize, ours: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stream, ours, Kind::Close, &[]);
    }

    /// Nothing was recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).streams.is_empty()
    }

    /// Writes a capture file of raw IP packets.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
        let header = PcapHeader {
            datalink: DataLink::RAW,
            ts_resolution: TsResolution::MicroSecond,
            ..PcapHeader::default()
        };
        let mut writer = PcapWriter::with_header(std::io::BufWriter::new(file), header)?;
        // Next sequence number of our and of their side, for each stream.
        let mut next = vec![[1_u32; 2]; inner.streams.len()];
        for event in &inner.events {
            let chunks: Vec<&[u8]> =
                if event.bytes.is_empty() { vec![&[]] } else { event.bytes.chunks(SEGMENT).collect() };
            for chunk in chunks {
                for packet in inner.packets(event, chunk, &mut next[event.stream])? {
                    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
                    let packet =
                        PcapPacket { timestamp: event.when, orig_len: length, data: Cow::Owned(packet) };
                    writer.write_packet(&packet)?;
                }
            }
        }
        Ok(())
    }
}

impl Inner {
    fn push(&mut self, stream: usize, ours: bool, kind: Kind, bytes: &[u8]) {
        self.size += bytes.len();
        if self.size <= LIMIT {
            let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.events.push(Event { when, stream, ours, kind, bytes: bytes.to_vec() });
        }
    }

    /// One packet for data, three for a handshake.
    fn packets(&self, event: &Event, chunk: &[u8], next: &mut [u32; 2]) -> anyhow::Result<Vec<Vec<u8>>> {
        let stream = &self.streams[event.stream];
        let (me, other) = (usize::from(!event.ours), usize::from(event.ours));
        let make = |ours: bool, seq: u32, ack: Option<u32>, flags: Flags, payload: &[u8]| {
            let (from, to) = if ours { (stream.ours, stream.theirs) } else { (stream.theirs, stream.ours) };
            packet(from, to, seq, ack, flags, payload)
        };
        match event.kind {
            Kind::Open => {
                let ours = stream.we_connected;
                Ok(vec![
                    make(ours, 0, None, Flags::Syn, &[])?,
                    make(!ours, 0, Some(1), Flags::Syn, &[])?,
                    make(ours, 1, Some(1), Flags::None, &[])?,
                ])
            }
            Kind::Data => {
                let packet = make(event.ours, next[me], Some(next[other]), Flags::Push, chunk)?;
                next[me] = next[me].wrapping_add(u32::try_from(chunk.len())?);
                Ok(vec![packet])
            }
            Kind::Close => {
                let packet = make(event.ours, next[me], Some(next[other]), Flags::Fin, &[])?;
                next[me] = next[me].wrapping_add(1);
                Ok(vec![packet])
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flags {
    None,
    Syn,
    Push,
    Fin,
}

fn packet(
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    ack: Option<u32>,
    flags: Flags,
    payload: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => anyhow::bail!("the two ends of a stream have addresses of different families"),
    };
    let mut tcp = ip.tcp(from.port(), to.port(), seq, 65_535);
    if let Some(ack) = ack {
        tcp = tcp.ack(ack);
    }
    tcp = match flags {
        Flags::None => tcp,
        Flags::Syn => tcp.syn(),
        Flags::Push => tcp.psh(),
        Flags::Fin => tcp.fin(),
    };
    let mut out = Vec::with_capacity(tcp.size(payload.len()));
    tcp.write(&mut out, payload)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::SlicedPacket;
    use pcap_file::pcap::PcapReader;

    #[test]
    fn a_tape_becomes_a_capture_that_can_be_read_back() {
        let tape = Tape::default();
        let stream = tape.open("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:3260".parse().unwrap(), true);
        let long = vec![7; SEGMENT + 5];
        tape.data(stream, true, b"ask");
        tape.data(stream, false, &long);
        tape.close(stream, false);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcap");
        tape.save(&path).unwrap();
        let mut reader = PcapReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.header().datalink, DataLink::RAW);
        let mut seen = Vec::new();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.unwrap();
            let sliced = SlicedPacket::from_ip(&packet.data).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
            seen.push((
                tcp.source_port(),
                tcp.sequence_number(),
                tcp.acknowledgment_number(),
                tcp.payload().len(),
            ));
        }
        let (a, b) = (40_000, 3260);
        let long = u32::try_from(SEGMENT).unwrap();
        assert_eq!(
            seen,
            [
                (a, 0, 0, 0),
                (b, 0, 1, 0),
                (a, 1, 1, 0),
                (a, 1, 1, 3),
                (b, 1, 4, SEGMENT),
                (b, 1 + long, 4, 5),
                (b, 6 + long, 4, 0)
            ]
        );
    }
}
