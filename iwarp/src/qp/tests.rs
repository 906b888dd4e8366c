//! What needs a look inside; the rest is in the crate's `tests/`.

use super::*;
use crate::mpa::Revision;
use bytes::Bytes;

fn end(role: Role) -> QueuePair<Vec<u8>> {
    let e = Established {
        role,
        crc: true,
        tx_markers: false,
        rx_markers: false,
        revision: Revision::Two,
        ird: 1,
        ord: 1,
        peer_ird: None,
        peer_ord: None,
        rtr: None,
        fault: None,
        private_data: Bytes::new(),
    };
    QueuePair::new(&e, Limits::default(), [0; 16])
}

fn carry(a: &mut QueuePair<Vec<u8>>, b: &mut QueuePair<Vec<u8>>) {
    let mut iov = [IoSlice::new(&[]); 64];
    let used = a.transmit_slices(&mut iov);
    let octets: Vec<u8> = iov[..used].iter().flat_map(|s| s.to_vec()).collect();
    a.transmitted(octets.len());
    b.handle_bytes(&octets);
}

#[test]
fn message_numbers_wrap_to_zero() {
    // RFC 5041 section 4.3: "MUST wrap to 0 after a value of 0xFFFFFFFF".
    let (mut a, mut b) = (end(Role::Initiator), end(Role::Responder));
    a.tx.send_msn = u32::MAX;
    b.rx.queues[0].msn = u32::MAX;
    for round in 0..3 {
        b.post_recv(WrId(round), vec![0; 4]).unwrap();
        let payload = Bytes::from(vec![round as u8; 4]).into();
        a.post_send(SendWr { payload, unsignaled: true, ..SendWr::default() }).unwrap();
        carry(&mut a, &mut b);
        let done = b.poll_cq().unwrap();
        assert!(matches!(done.done, Done::Recv { buffer, len: 4, .. } if buffer == [round as u8; 4]));
    }
    assert_eq!(a.tx.send_msn, 2);
}

#[test]
fn the_arena_does_not_grow_with_the_stream() {
    let (mut a, mut b) = (end(Role::Initiator), end(Role::Responder));
    for round in 0..2000u64 {
        b.post_recv(WrId(round), vec![0; 200]).unwrap();
        a.post_send(SendWr { payload: Bytes::from(vec![7; 200]).into(), ..SendWr::default() }).unwrap();
        // Half of what is there at a time, so that something is always left over.
        let mut iov = [IoSlice::new(&[]); 64];
        let used = a.transmit_slices(&mut iov);
        let octets: Vec<u8> = iov[..used].iter().flat_map(|s| s.to_vec()).collect();
        let half = octets.len().div_ceil(2);
        a.transmitted(half);
        b.handle_bytes(&octets[..half]);
        while b.poll_cq().is_some() {}
        while a.poll_cq().is_some() {}
    }
    assert!(a.out.arena_len() < 160 * 1024, "{}", a.out.arena_len());
}

#[test]
fn the_spill_is_small_until_there_is_much_to_read() {
    let (mut a, mut b) = (end(Role::Initiator), end(Role::Responder));
    let mut meet = |len: usize| {
        b.post_recv(WrId(0), vec![0; len]).unwrap();
        let payload = Bytes::from(vec![7; len]).into();
        a.post_send(SendWr { payload, unsignaled: true, ..SendWr::default() }).unwrap();
        carry(&mut a, &mut b);
        let done = b.poll_cq().unwrap().done;
        assert!(
            matches!(done, Done::Recv { buffer, len: n, .. } if n == len && buffer.iter().all(|b| *b == 7))
        );
        b.rx.spill_len()
    };
    let small = meet(100);
    assert!(small <= 4096, "{small}");
    assert_eq!(meet(200), small);
    assert!(meet(20_000) > small);
}
