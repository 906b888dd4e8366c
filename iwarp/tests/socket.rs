//! Over a real socket: vectored reads and writes, and how much of the payload they put straight into its place.

mod common;

use bytes::Bytes;
use common::*;
use iwarp::mpa::Role;
use iwarp::{Access, Done, Region, RemoteAddr, SendWr, WrId, WriteWr};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 256;

fn data(chunk: usize) -> Vec<u8> {
    (0..CHUNK).map(|n| (n / 251 + n + chunk * 7) as u8).collect()
}

#[test]
#[allow(clippy::disallowed_methods)] // the other end of the socket needs a thread
fn bulk_data_is_read_into_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut receiver = qp(&end(Role::Responder, true));
    let memory = vec![vec![0; CHUNK / 4]; 4].concat();
    let stags: Vec<_> = (0..CHUNKS)
        .map(|_| receiver.register(Region::Owned(memory.clone()), Access::WRITE, 0).unwrap())
        .collect();
    let theirs = stags.clone();
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut qp = qp(&end(Role::Initiator, true));
        let mut work = theirs.into_iter().enumerate();
        loop {
            while qp.send_room() > 1 {
                let Some((n, stag)) = work.next() else { break };
                let (payload, to) = (Bytes::from(data(n)).into(), RemoteAddr { stag, offset: 0 });
                qp.post_write(WriteWr { id: WrId(0), payload, to, fence: false, unsignaled: true }).unwrap();
                if n + 1 == CHUNKS {
                    let payload = Bytes::from_static(b"done").into();
                    qp.post_send(SendWr { payload, ..SendWr::default() }).unwrap();
                }
            }
            let mut iov = [IoSlice::new(&[]); 64];
            let used = qp.transmit_slices(&mut iov);
            if used == 0 {
                break;
            }
            let n = stream.write_vectored(&iov[..used]).unwrap();
            qp.transmitted(n);
        }
        assert_eq!(completions(&mut qp).len(), 1);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read(&mut [0]);
    });

    let (mut stream, _) = listener.accept().unwrap();
    receiver.post_recv(WrId(1), vec![0; 4]).unwrap();
    let done = loop {
        let n = stream.read_vectored(&mut receiver.recv_slots()).unwrap();
        assert!(n > 0, "{:?}", receiver.cause());
        receiver.received(n);
        if let Some(done) = receiver.poll_cq() {
            break done;
        }
    };
    assert!(matches!(done.done, Done::Recv { len: 4, .. }), "{done:?}");
    for (n, stag) in stags.into_iter().enumerate() {
        match receiver.invalidate(stag).unwrap().region {
            Some(Region::Owned(m)) => assert!(m == data(n), "chunk {n}"),
            other => panic!("{other:?}"),
        }
    }
    let stats = receiver.stats();
    assert_eq!(stats.placed_bytes + stats.copied_bytes, (CHUNK * CHUNKS + 4) as u64);
    assert!(stats.placed_bytes > 9 * stats.copied_bytes, "{stats:?}");
    drop(stream);
    sender.join().unwrap();
}
