//! RFC 5047 section by section: the scenarios that show it, on the in-memory datamover. What the types alone
//! guarantee is shown by functions that would not compile otherwise.

use super::{Links, PairFactory, run_one};
use crate::mem::{MemConfig, pair};
use crate::{
    Control, DataCompletion, Datamover, Event, Full, GetData, LoginLink, PutData, SgList, SgListMut,
    Terminated,
};
use iscsi_pdu::LoginResponse;

struct Mem;

impl PairFactory for Mem {
    fn pair(&self) -> Links {
        let (initiator, target, _) = pair(MemConfig::default());
        Links { initiator: Box::new(initiator), target: Box::new(target) }
    }
}

fn hold(names: &[&str]) {
    names.iter().for_each(|name| run_one(&Mem, name));
}

/// There is no way to send on a connection but through the value that Enable_Datamover makes, and that consumes the
/// link: not before, not twice, and for one connection only, whose handle the value is.
#[test]
fn the_connection_handle_is_the_value() {
    // req: 5047-5.3-1, 5047-5.4-1, 5047-5.4-2, 7145-7.3-1, 7145-7.3-2
    // req: 5047-8.1-2, 5047-8.2-2, 5047-8.3-2, 5047-8.4-3, 5047-8.6-1
    type Enable = fn(Box<dyn LoginLink>, Option<LoginResponse>) -> Box<dyn Datamover>;
    let _: Enable = |link, response| link.enable_datamover(response);
    type Send = for<'a> fn(&'a mut dyn Datamover, Control) -> Result<(), Full<Control>>;
    let _: Send = |mover, control| mover.send_control(control);
    type Put = for<'a> fn(&'a mut dyn Datamover, PutData) -> Result<(), Full<PutData>>;
    let _: Put = |mover, put| mover.put_data(put);
    type Get = for<'a> fn(&'a mut dyn Datamover, GetData) -> Result<(), Full<GetData>>;
    let _: Get = |mover, get| mover.get_data(get);
    hold(&["enable_with_final_response"]);
}

#[test]
fn section_5_classes_of_pdus() {
    // req: 5047-5.1.1-1, 5047-5.1.2-1, 5047-10.4.2.1-1, 5047-10.4.2.2-1, 5047-10.4.2.3-1
    hold(&["data_pdus_are_no_control", "unsolicited_data_out", "read_in_pieces", "write_at_offsets"]);
}

/// A descriptor: parts, an offset, a length, in either direction.
#[test]
fn section_5_2_data_descriptors() {
    // req: 5047-5.2-1
    let out: SgList = [&b"ab"[..], b"cde"].into_iter().map(bytes::Bytes::from_static).collect();
    assert_eq!(out.slice(1, 3).to_bytes(), &b"bcd"[..]);
    let mut list: SgListMut = [crate::IoBuf::zeroed(2), crate::IoBuf::zeroed(3)].into_iter().collect();
    assert_eq!(list.copy_from(1, b"bcd"), 3);
    assert_eq!(list.freeze().to_bytes(), &b"\0bcd\0"[..]);
    hold(&["foreign_memory"]);
}

#[test]
fn section_6_functions() {
    // req: 5047-6-1, 5047-6-2, 5047-6-3, 5047-6-4, 5047-6-5, 5047-6-6, 5047-6-7, 5047-6-8
    hold(&[
        "many_tasks_at_once",
        "control_pdus_keep_order",
        "data_acknowledged",
        "large_transfers",
        "peer_loss",
    ]);
}

#[test]
fn section_7_1_login() {
    // req: 5047-7.1-1, 5047-7.1-2, 5047-7.1-3, 5047-8.4-1, 5047-8.4-2, 5047-8.4-4, 5047-8.4-5, 5047-8.5-1
    // req: 5047-8.6-1, 5047-8.6-3, 5047-8.8-1, 5047-8.8-3
    hold(&[
        "login_pdus_both_ways",
        "enable_with_final_response",
        "failed_login_deallocates",
        "allocate_is_idempotent",
    ]);
}

/// What was noticed reaches the link and, in full feature phase, the datamover.
#[test]
fn section_8_8_notice_key_values() {
    // req: 5047-8.8-1, 5047-8.8-2
    let (mut link, _target, _) = pair(MemConfig::default());
    let keys = crate::ConnKeys { max_burst_length: 4711, ..Default::default() };
    link.notice_key_values(&keys);
    assert_eq!(link.noticed(), &keys);
    assert_eq!(link.allocated(), None);
}

#[test]
fn section_7_2_task_resources() {
    // req: 5047-7.2-1, 5047-8.9-1, 5047-8.9-2, 5047-8.9-3, 5047-8.9-4
    hold(&["tags_are_used_again", "abort_in_the_middle", "deallocate_unknown_task"]);
}

#[test]
fn section_7_3_end_of_the_connection() {
    // req: 5047-7.3-1, 5047-8.7-1, 5047-8.7-2, 5047-9.2-1, 5047-9.2-2, 5047-9.2-3
    hold(&["terminate_with_open_tasks", "peer_loss", "nothing_after_the_end"]);
}

#[test]
fn section_8_down_calls() {
    // req: 5047-8-1, 5047-8.1-1, 5047-8.1-3, 5047-8.2-1, 5047-8.2-3, 5047-8.2-4, 5047-8.3-1, 5047-8.3-3
    // req: 5047-8.3-4
    hold(&[
        "control_pdus_keep_order",
        "full_hands_back",
        "read_in_pieces",
        "read_in_any_order",
        "write_at_offsets",
        "target_calls_at_an_initiator",
    ]);
}

/// All four notifications, in one place: a layer above handles these (and what moving buffers adds).
#[test]
fn section_9_up_calls() {
    // req: 5047-9-1, 5047-9.1-1, 5047-9.3-1, 5047-9.3-2, 5047-9.3-3, 5047-9.3-4, 5047-9.4-1
    // req: 5047-10.2.2.1-1, 5047-10.2.3-1, 5047-10.2.3-2
    fn name(event: &Event) -> &'static str {
        match event {
            Event::Control(Control { .. }) => "Control_Notify",
            Event::Terminated(Terminated { .. }) => "Connection_Terminate_Notify",
            Event::DataCompletion(DataCompletion { .. }) => "Data_Completion_Notify",
            Event::DataAck { .. } => "Data_ACK_Notify",
            Event::TaskReclaimed { .. } | Event::Window(_) | Event::Invalid(_) => "of ours",
        }
    }
    assert_eq!(name(&Event::Window(crate::Window::default())), "of ours");
    hold(&["notify_only_when_asked", "data_acknowledged", "write_at_offsets"]);
}

#[test]
fn section_10_3_every_pdu_down() {
    // req: 5047-10.3.1-1, 5047-10.3.2-1, 5047-10.3.3-1, 5047-10.3.4-1, 5047-10.3.5.1-1, 5047-10.3.5.2-1
    // req: 5047-10.3.6-1, 5047-10.3.7-1, 5047-10.3.8-1, 5047-10.3.9-1, 5047-10.3.12-1, 5047-10.3.13-1
    // req: 5047-10.3.14-1, 5047-10.3.15-1, 5047-10.3.16-1, 5047-10.3.17-1, 5047-10.4.1-1
    hold(&[
        "every_control_pdu",
        "command_with_ahs",
        "write_immediate",
        "unsolicited_data_out",
        "read_in_pieces",
        "write_at_offsets",
        "bidirectional",
    ]);
}
