use super::world::*;
use crate::provider::mem::MemConfig;
use crate::quirks::Quirks;
use crate::wire::{ControlHeader, Hello, HelloReply, ISER_HEADER_LEN, IserHeader};
use bytes::Bytes;
use datamover::{Cause, ConnKeys, Datamover, Drive, Event, Role};
use iscsi_pdu::*;
use std::time::Duration;

fn with_hello(key: Option<bool>) -> ConnKeys {
    keyed(keys(), |k| {
        k.iser_hello_required = key;
    })
}

fn opcodes(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().map(|m| m[0] >> 4).collect()
}

fn nop_out() -> Pdu {
    NopOut { itt: Itt(5), data: Bytes::new(), ..Default::default() }.into()
}

fn hello(min: u8, max: u8, ird: u16) -> [u8; ISER_HEADER_LEN] {
    IserHeader::Hello(Hello { max_version: max, min_version: min, ird }).encode()
}

#[test]
fn hello_is_the_first_message_exactly_when_it_is_required() {
    // req: 7145-5.1.1-9, 7145-5.1.3-1, 7145-5.1.3-2
    for (key, want) in [(Some(true), vec![2, 1]), (Some(false), vec![1]), (None, vec![1])] {
        let mut half = Half::new(Role::Initiator, &with_hello(key));
        half.dm.send_control(nop_out().into()).unwrap();
        half.run();
        if key == Some(true) {
            assert_eq!(opcodes(&half.peer.messages()), [2], "the PDU waits for HelloReply");
            let reply = HelloReply { reject: false, max_version: 10, cur_version: 10, ord: 4 };
            half.peer.send(&IserHeader::HelloReply(reply).encode(), None);
            half.run();
        }
        assert_eq!(opcodes(&half.peer.messages()), want, "{key:?}");
    }
}

#[test]
fn the_initiator_declares_its_ird() {
    // req: 7145-5.1.1-4, 7145-5.1.1-5, 7145-9.3-3, 7145-9.3-4
    let mut config = MemConfig::default();
    config.caps[SIDE_INI].ird = 8;
    let mut half = Half::with(Role::Initiator, &with_hello(Some(true)), config, Quirks::default());
    half.run();
    let mut want = vec![0x20, 0xaa, 0x00, 0x08];
    want.resize(ISER_HEADER_LEN, 0);
    assert_eq!(half.peer.messages(), [want]);
}

#[test]
fn hello_is_answered_and_sets_iser_ord() {
    // req: 7145-5.1.2-10, 7145-5.1.3-3, 7145-5.1.3-4, 7145-5.1.3-9, 7145-9.4-3, 7145-9.4-4
    for key in [Some(true), None] {
        let mut config = MemConfig::default();
        config.caps[SIDE_TGT].ord = 8;
        let mut half = Half::with(Role::Target, &with_hello(key), config, Quirks::default());
        half.dm.send_control(NopIn { ttt: Ttt(1), data: Bytes::new(), ..Default::default() }.into()).unwrap();
        half.run();
        assert_eq!(half.peer.messages().len(), 0, "nothing before the HelloReply");
        half.peer.send(&hello(10, 10, 4), None);
        half.run();
        let messages = half.peer.messages();
        assert_eq!(opcodes(&messages), [3, 1], "{key:?}");
        let mut want = vec![0x30, 0xaa, 0x00, 0x04];
        want.resize(ISER_HEADER_LEN, 0);
        assert_eq!(messages[0], want);
        assert_eq!(half.dm.iser_ord(), 4);
    }
}

#[test]
fn hello_where_it_was_declined_is_a_protocol_error() {
    // req: 7145-5.1.2-11, 7145-10.1.3.3-1
    let mut half = Half::new(Role::Target, &with_hello(Some(false)));
    half.peer.send(&hello(10, 10, 4), None);
    half.run();
    assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)));
    assert!(half.peer.messages().is_empty());
}

#[test]
fn a_second_hello_is_a_protocol_error() {
    let mut half = Half::new(Role::Target, &with_hello(Some(true)));
    half.peer.send(&hello(10, 10, 4), None);
    half.peer.send(&hello(10, 10, 4), None);
    half.run();
    assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)));
}

#[test]
fn an_unacceptable_hello_is_rejected_and_the_connection_ends() {
    // req: 7145-10.1.3.2-1
    let cases = [
        // No common version.
        (hello(1, 1, 4), 16),
        (hello(11, 15, 4), 16),
        // The initiator expects R2Ts, the target cannot read.
        (hello(10, 10, 4), 0),
    ];
    for (bytes, ord) in cases {
        let mut config = MemConfig::default();
        config.caps[SIDE_TGT].ord = ord;
        let mut half = Half::with(Role::Target, &with_hello(Some(true)), config, Quirks::default());
        half.peer.send(&bytes, None);
        half.run();
        let messages = half.peer.messages();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0][0], 0x31, "HelloReply with REJ=1");
        assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)));
    }
    // A range that contains 10 is acceptable, and so is a peer that serves no Reads.
    for bytes in [hello(1, 15, 4), hello(10, 10, 0)] {
        let mut half = Half::new(Role::Target, &with_hello(Some(true)));
        half.peer.send(&bytes, None);
        half.run();
        assert_eq!(half.peer.messages()[0][0], 0x30);
    }
}

#[test]
fn the_first_message_must_be_hello_where_it_is_required() {
    // req: 7145-10.1.3.4-1, 7145-10.1.3.4-2
    let mut target = Half::new(Role::Target, &with_hello(Some(true)));
    target.peer.send_pdu(ControlHeader::default(), nop_out());
    target.run();
    assert!(matches!(ended(&mut target.dm).0, Cause::Protocol(_)));

    let mut initiator = Half::new(Role::Initiator, &with_hello(Some(true)));
    let nop_in = NopIn { itt: Itt(1), data: Bytes::new(), ..Default::default() };
    initiator.peer.send_pdu(ControlHeader::default(), nop_in);
    initiator.run();
    assert!(matches!(ended(&mut initiator.dm).0, Cause::Protocol(_)));
}

#[test]
fn a_bad_hello_reply_ends_the_connection() {
    let reply = |reject, cur| {
        IserHeader::HelloReply(HelloReply { reject, max_version: 10, cur_version: cur, ord: 4 }).encode()
    };
    for (key, bytes) in
        [(Some(true), reply(true, 10)), (Some(true), reply(false, 9)), (None, reply(false, 10))]
    {
        let mut half = Half::new(Role::Initiator, &with_hello(key));
        half.peer.send(&bytes, None);
        half.run();
        assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)), "{key:?}");
    }
}

#[test]
fn both_ends_with_hello_move_data() {
    let mut world = World::with(MemConfig::default(), &with_hello(Some(true)));
    world.command(read_command(1, 4096));
    world.tgt.put_data(put(1, 0, pattern(4096))).unwrap();
    assert_eq!(joined(&world.conclude(Itt(1)).r#in.unwrap()), pattern(4096));
}

#[test]
fn a_target_without_hello_is_quiet_at_first() {
    // req: 7145-5.1.3-11
    let ping = || NopIn { ttt: Ttt(1), data: Bytes::new(), ..Default::default() };
    // Until the initiator has sent something …
    let mut half = Half::new(Role::Target, &with_hello(Some(false)));
    half.dm.send_control(ping().into()).unwrap();
    half.run();
    assert!(half.peer.messages().is_empty());
    half.peer.send_pdu(ControlHeader::default(), nop_out());
    assert!(matches!(&half.events()[..], [Event::Control(_)]));
    assert_eq!(half.peer.messages().len(), 1);
    // … or a second has gone by.
    let mut half = Half::new(Role::Target, &with_hello(None));
    half.dm.send_control(ping().into()).unwrap();
    half.run();
    let wake = half.dm.poll_timeout().unwrap();
    assert_eq!(wake, half.now + Duration::from_secs(1));
    half.now = wake;
    half.dm.handle_timeout(wake);
    half.run();
    assert_eq!(half.peer.messages().len(), 1);
}
