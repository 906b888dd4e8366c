//! tshark, which has never seen this crate, reads what it sends. Skipped, and said so, where tshark is not installed.

mod common;

use bytes::Bytes;
use common::*;
use iwarp::ddp::Model;
use iwarp::mpa::{Config, Established, Initiator, InitiatorEvent, Responder, ResponderEvent, Revision};
use iwarp::rdmap::{Opcode, ReadRequest};
use iwarp::{Access, Limits, ReadWr, Region, RemoteAddr, SendWr, Stag, TerminateCode, WrId, WriteWr};
use std::collections::HashMap;
use std::process::Command;
use std::time::Instant;

const PORTS: [u16; 2] = [40_000, 7174];

/// A capture file with TCP segments between two ends.
struct Pcap {
    file: Vec<u8>,
    seq: [u32; 2],
}

impl Pcap {
    fn new() -> Self {
        // Link type 101: packets begin with their IP header.
        let header: [u32; 6] = [0xa1b2_c3d4, 0x0002_0004, 0, 0, 0xffff, 101];
        let mut file: Vec<u8> = header.iter().flat_map(|w| w.to_ne_bytes()).collect();
        file[4..8].copy_from_slice(&[2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat());
        Self { file, seq: [1000, 9000] }
    }

    fn segment(&mut self, dir: usize, payload: &[u8]) {
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
        let len = (40 + payload.len()) as u16;
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
        ip.extend_from_slice(&addresses[dir]);
        ip.extend_from_slice(&addresses[1 - dir]);
        ip.extend_from_slice(&PORTS[dir].to_be_bytes());
        ip.extend_from_slice(&PORTS[1 - dir].to_be_bytes());
        ip.extend_from_slice(&self.seq[dir].to_be_bytes());
        ip.extend_from_slice(&self.seq[1 - dir].to_be_bytes());
        ip.extend_from_slice(&[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        ip.extend_from_slice(payload);
        self.seq[dir] += payload.len() as u32;
        let record = [0, 0, ip.len() as u32, ip.len() as u32];
        self.file.extend(record.iter().flat_map(|w| w.to_ne_bytes()));
        self.file.extend_from_slice(&ip);
    }
}

/// Cuts octets at the ends of FPDUs, as a sender that aligns them with segments does: tshark follows markers only then.
fn fpdus<'a>(mut octets: &'a [u8], markers: bool, position: &mut usize) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    while !octets.is_empty() {
        let is_marker = |at: usize| markers && (*position + at).is_multiple_of(512);
        let length = if is_marker(0) { 4 } else { 0 };
        let ulpdu = usize::from(u16::from_be_bytes([octets[length], octets[length + 1]]));
        let (mut end, mut left) = (0, (2 + ulpdu).next_multiple_of(4) + 4);
        while left > 0 {
            (end, left) = if is_marker(end) { (end + 4, left) } else { (end + 4, left - 4) };
        }
        *position += end;
        let (fpdu, rest) = octets.split_at(end);
        all.push(fpdu);
        octets = rest;
    }
    all
}

/// What both ends say in a startup and in one message of every kind.
#[allow(clippy::disallowed_methods)]
fn conversation(crc: bool, markers: bool, revision: Revision) -> (Pcap, Vec<Vec<u8>>) {
    let mut pcap = Pcap::new();
    let mut sent = Vec::new();
    let config = Config { crc, markers, revision, ..Config::default() };
    let now = Instant::now();
    let mut initiator = Initiator::new(config.clone(), Bytes::from_static(b"private"), now).unwrap();
    let mut responder = Responder::new(config, now);
    pcap.segment(0, initiator.transmit());
    responder.handle_bytes(initiator.transmit()).unwrap();
    responder.poll_event();
    responder.accept(Bytes::from_static(b"data")).unwrap();
    pcap.segment(1, responder.transmit());
    initiator.handle_bytes(responder.transmit()).unwrap();
    responder.transmitted(responder.transmit().len());
    let (i, r): (Established, Established) = match (initiator.poll_event(), responder.poll_event()) {
        (Some(InitiatorEvent::Established(i)), Some(ResponderEvent::Established(r))) => (i, r),
        other => panic!("{other:?}"),
    };
    // The same MULPDU, 1454, with and without markers.
    let limits = Limits { emss: if markers { 1472 } else { 1460 }, ..Limits::default() };
    let mut positions = [0; 2];
    let (mut a, mut b) = (Qp::new(&i, limits, [1; 16]), Qp::new(&r, limits, [2; 16]));
    let writable = b.register(Region::Owned(vec![0; 5000]), Access::WRITE, 0x1_0000_0000).unwrap();
    let source = Region::Shared(Bytes::from(vec![5; 3000]).into());
    let readable = b.register(source, Access::READ, 0x2_0000_0000).unwrap();
    (0..8).for_each(|n| b.post_recv(WrId(n), vec![0; 4000]).unwrap());
    (0..8).for_each(|n| a.post_recv(WrId(n), vec![0; 4000]).unwrap());
    let mut carry = |a: &mut Qp, b: &mut Qp| {
        loop {
            let (to_b, to_a) = (output(a), output(b));
            if to_b.is_empty() && to_a.is_empty() {
                return;
            }
            for (dir, octets) in [(0, &to_b), (1, &to_a)] {
                for fpdu in fpdus(octets, markers, &mut positions[dir]) {
                    pcap.segment(dir, fpdu);
                    sent.push(fpdu.to_vec());
                }
            }
            b.handle_bytes(&to_b);
            a.handle_bytes(&to_a);
        }
    };
    let payload = |len: usize| Bytes::from((0..len).map(|n| n as u8).collect::<Vec<_>>()).into();
    for (len, solicited, invalidate) in [
        (0, false, None),
        (1, false, None),
        (3001, true, None),
        (2, false, Some(writable)),
        (3, true, Some(readable)),
    ] {
        let to = RemoteAddr { stag: writable, offset: 0x1_0000_0007 };
        if invalidate.is_none() {
            let write =
                WriteWr { id: WrId(1), payload: payload(len + 500), to, fence: false, unsignaled: true };
            a.post_write(write).unwrap();
            carry(&mut a, &mut b);
            let from = RemoteAddr { stag: readable, offset: 0x2_0000_0000 };
            let len = len.min(2999) as u32;
            a.post_read(ReadWr { id: WrId(2), from, len, sink: vec![0; len as usize] }).unwrap();
            carry(&mut a, &mut b);
        }
        let send = SendWr { payload: payload(len), solicited, invalidate, ..SendWr::default() };
        a.post_send(send).unwrap();
        carry(&mut a, &mut b);
        b.post_send(SendWr { payload: payload(len), ..SendWr::default() }).unwrap();
        carry(&mut a, &mut b);
    }
    // A read of what is not there: a Terminate message with all its parts.
    let from = RemoteAddr { stag: Stag(0x0bad_0bad), offset: 1 };
    a.post_read(ReadWr { id: WrId(2), from, len: 9, sink: vec![0; 9] }).unwrap();
    carry(&mut a, &mut b);
    assert_eq!(local_code(&b), Some(TerminateCode::RDMAP_INVALID_STAG));
    assert_eq!((i.crc, i.tx_markers), (crc, markers));
    (pcap, sent)
}

const FIELDS: &[&str] = &[
    "iwarp_mpa.rev",
    "iwarp_mpa.privatedata",
    "iwarp_mpa.ulpdulength",
    "iwarp_mpa.crc_check",
    "iwarp_mpa.marker_fpduptr",
    "iwarp_ddp.tagged_flag",
    "iwarp_ddp.last_flag",
    "iwarp_ddp.dv",
    "iwarp_ddp.stag",
    "iwarp_ddp.tagged_offset",
    "iwarp_ddp.qn",
    "iwarp_ddp.msn",
    "iwarp_ddp.mo",
    "iwarp_rdma.version",
    "iwarp_rdma.opcode",
    "iwarp_rdma.inval_stag",
    "iwarp_rdma.sinkstag",
    "iwarp_rdma.sinkto",
    "iwarp_rdma.rdmardsz",
    "iwarp_rdma.srcstag",
    "iwarp_rdma.srcto",
    "iwarp_rdma.term_layer",
    "iwarp_rdma.term_etype_rdma",
    "iwarp_rdma.term_errcode_rdma",
    "iwarp_rdma.term_ddp_seg_len",
    "iwarp_rdma.term_ddp_h",
    "iwarp_rdma.term_rdma_h",
    "_ws.malformed",
    "_ws.expert.message",
];

/// All values of every field, in the order of the packets.
fn tshark(pcap: &Pcap) -> HashMap<&'static str, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("iwarp.pcap");
    std::fs::write(&path, &pcap.file).unwrap();
    let mut command = Command::new("tshark");
    // Protocols that would try to make something of the payloads.
    command.args(["--disable-protocol", "rpcordma", "--disable-protocol", "smb_direct"]);
    command.arg("-r").arg(&path).args(["-T", "fields", "-E", "separator=|", "-E", "aggregator=;"]);
    FIELDS.iter().for_each(|f| {
        command.args(["-e", f]);
    });
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut all: HashMap<&str, Vec<String>> = HashMap::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        for (field, values) in FIELDS.iter().zip(line.split('|')) {
            let values = values.split(';').filter(|v| !v.is_empty()).map(str::to_owned);
            all.entry(field).or_default().extend(values);
        }
    }
    all
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None if text == "True" => 1,
        None if text == "False" => 0,
        None => text.parse().unwrap(),
    }
}

#[test]
fn tshark_reads_what_is_sent() {
    if Command::new("tshark").arg("-v").output().is_err() {
        eprintln!("skipped: tshark is not installed");
        return;
    }
    // Without markers the test itself can take the stream apart; the same work gives the same segments with them.
    let (_, plain) = conversation(true, false, Revision::One);
    let expected: Vec<Segment> = plain.iter().flat_map(|s| segments(s)).collect();
    assert!(expected.iter().all(|s| s.crc_valid && s.pad_zero));
    assert_eq!(expected.len(), 29);

    for (crc, markers) in [(true, false), (false, false), (true, true), (false, true)] {
        let (pcap, sent) = conversation(crc, markers, Revision::One);
        let seen = tshark(&pcap);
        let what = format!("crc {crc} markers {markers}");
        let numbers = |field: &str| -> Vec<u64> { seen[field].iter().map(|v| number(v)).collect() };
        assert_eq!(seen["_ws.malformed"], [""; 0], "{what}");
        assert_eq!(seen["_ws.expert.message"], [""; 0], "{what}");
        assert_eq!(numbers("iwarp_mpa.rev"), [1, 1]);
        assert_eq!(seen["iwarp_mpa.privatedata"], [hex::encode("private"), hex::encode("data")]);
        // Every FPDU, its CRC checked where there is one, every marker.
        let ulpdus = expected.iter().map(|s| (s.header.encoded_len() + s.payload.len()) as u64);
        assert_eq!(numbers("iwarp_mpa.ulpdulength"), ulpdus.collect::<Vec<_>>(), "{what}");
        assert_eq!(seen["iwarp_mpa.crc_check"].len(), if crc { expected.len() } else { 0 });
        let total: usize = sent.iter().map(Vec::len).sum();
        let at_least = if markers { total / 512 - 1 } else { 0 };
        assert!(seen["iwarp_mpa.marker_fpduptr"].len() >= at_least, "{what}");

        let all = |f: &dyn Fn(&Segment) -> Option<u64>| expected.iter().filter_map(f).collect::<Vec<u64>>();
        assert_eq!(numbers("iwarp_ddp.last_flag"), all(&|s| Some(s.header.last.into())));
        assert_eq!(numbers("iwarp_ddp.dv"), all(&|_| Some(1)));
        assert_eq!(numbers("iwarp_rdma.version"), all(&|_| Some(1)));
        assert_eq!(numbers("iwarp_rdma.opcode"), all(&|s| Some(s.header.control.opcode.0.into())));
        let is_tagged = |s: &Segment| matches!(s.header.model, Model::Tagged { .. });
        assert_eq!(numbers("iwarp_ddp.tagged_flag"), all(&|s| Some(is_tagged(s).into())));
        let tagged = |s: &Segment| match s.header.model {
            Model::Tagged { stag, offset } => Some((stag.0.into(), offset)),
            Model::Untagged { .. } => None,
        };
        assert_eq!(numbers("iwarp_ddp.stag"), all(&|s| tagged(s).map(|t| t.0)));
        assert_eq!(numbers("iwarp_ddp.tagged_offset"), all(&|s| tagged(s).map(|t| t.1)));
        let untagged = |s: &Segment| match s.header.model {
            Model::Untagged { queue, msn, offset, .. } => Some([queue, msn, offset].map(u64::from)),
            Model::Tagged { .. } => None,
        };
        for (n, field) in ["iwarp_ddp.qn", "iwarp_ddp.msn", "iwarp_ddp.mo"].iter().enumerate() {
            assert_eq!(numbers(field), all(&|s| untagged(s).map(|u| u[n])), "{field}");
        }
        let invalidates = |s: &Segment| match s.header.model {
            Model::Untagged { invalidate, .. } if s.header.control.opcode.invalidates() => {
                Some(invalidate.0.into())
            }
            _ => None,
        };
        assert_eq!(numbers("iwarp_rdma.inval_stag"), all(&invalidates));
        let request = |s: &Segment| {
            (s.header.control.opcode == Opcode::READ_REQUEST)
                .then(|| ReadRequest::decode(&s.payload).unwrap())
        };
        assert_eq!(numbers("iwarp_rdma.sinkstag"), all(&|s| request(s).map(|r| r.sink_stag.0.into())));
        assert_eq!(numbers("iwarp_rdma.sinkto"), all(&|s| request(s).map(|r| r.sink_offset)));
        assert_eq!(numbers("iwarp_rdma.rdmardsz"), all(&|s| request(s).map(|r| r.size.into())));
        assert_eq!(numbers("iwarp_rdma.srcstag"), all(&|s| request(s).map(|r| r.source_stag.0.into())));
        assert_eq!(numbers("iwarp_rdma.srcto"), all(&|s| request(s).map(|r| r.source_offset)));
        // The Terminate message: RDMAP, remote protection error, invalid STag; the request it is about.
        let bad = expected.iter().rfind(|s| s.header.control.opcode == Opcode::READ_REQUEST).unwrap();
        assert_eq!(numbers("iwarp_rdma.term_layer"), [0]);
        assert_eq!(numbers("iwarp_rdma.term_etype_rdma"), [1]);
        assert_eq!(numbers("iwarp_rdma.term_errcode_rdma"), [0]);
        assert_eq!(seen["iwarp_rdma.term_ddp_seg_len"], ["002e"]);
        // tshark takes every terminated DDP header for one of 14 octets, though an untagged one has 18 (RFC 5040
        // section 4.8): what it shows as two headers are the first 42 octets of ours.
        let copies = hex::encode([&bad.header.to_bytes()[..], &bad.payload].concat());
        let shown = [&seen["iwarp_rdma.term_ddp_h"][..], &seen["iwarp_rdma.term_rdma_h"]].concat().concat();
        assert_eq!(shown, copies[..84]);
    }

    // Revision 2 is newer than the dissector, which remarks on it and reads on.
    let (pcap, _) = conversation(true, false, Revision::Two);
    let seen = tshark(&pcap);
    assert_eq!(seen["_ws.malformed"], [""; 0]);
    assert!(
        seen["_ws.expert.message"].iter().all(|m| m.contains("required by RFC 5044")),
        "{:?}",
        seen["_ws.expert.message"]
    );
    assert_eq!(seen["iwarp_mpa.ulpdulength"].len(), expected.len());
}
