use super::*;

fn queue() -> OrderQueue<&'static str> {
    OrderQueue::new(TargetWindow::new(CmdSn(5), 4))
}

// req: 7143-4.2.2.1-7, 7143-4.2.2.1-9
#[test]
fn delivery_is_in_order_and_exp_cmd_sn_stops_at_a_gap() {
    let mut q = queue();
    assert_eq!(q.insert(CmdSn(5), "five"), Admission::Taken);
    assert_eq!(q.insert(CmdSn(7), "seven"), Admission::Taken);
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(6));
    assert_eq!((q.pop(), q.pop()), (Some("five"), None));
    assert_eq!(q.insert(CmdSn(6), "six"), Admission::Taken);
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(8));
    assert_eq!((q.pop(), q.pop(), q.pop()), (Some("six"), Some("seven"), None));
}

// req: 7143-4.2.2.1-12
#[test]
fn what_is_outside_the_window_or_twice_is_ignored() {
    let mut q = queue();
    assert_eq!(q.insert(CmdSn(9), "beyond MaxCmdSN = 8"), Admission::Ignored);
    assert_eq!(q.insert(CmdSn(4), "before ExpCmdSN"), Admission::Ignored);
    assert_eq!(q.insert(CmdSn(6), "six"), Admission::Taken);
    assert_eq!(q.insert(CmdSn(6), "six again"), Admission::Ignored);
    assert_eq!(q.insert(CmdSn(5), "five"), Admission::Taken);
    assert_eq!(q.insert(CmdSn(5), "five again, acknowledged"), Admission::Ignored);
    assert_eq!((q.pop(), q.pop()), (Some("five"), Some("six")));
    assert_eq!(q.insert(CmdSn(5), "five again, delivered"), Admission::Ignored);
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(7));
}

#[test]
fn a_plugged_number_is_received_and_its_command_comes_too_late() {
    let mut q = queue();
    q.insert(CmdSn(6), "six");
    assert_eq!(q.plug(CmdSn(5)), Admission::Taken);
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(7));
    assert_eq!(q.window().max_cmd_sn(), CmdSn(9), "the credit is back");
    assert_eq!(q.insert(CmdSn(5), "five"), Admission::Ignored);
    assert_eq!(q.pop(), Some("six"));
}

#[test]
fn plugging_stops_at_the_end_given() {
    let mut q = queue();
    q.insert(CmdSn(6), "six");
    q.plug_until(CmdSn(8));
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(8));
    assert_eq!((q.pop(), q.pop()), (Some("six"), None));
    assert_eq!(q.next(), CmdSn(8));
}

#[test]
fn removal_reopens_gaps_only_beyond_exp_cmd_sn() {
    let mut q = queue();
    q.insert(CmdSn(5), "a");
    q.insert(CmdSn(7), "a");
    q.insert(CmdSn(8), "b");
    assert_eq!(q.remove(|t| *t == "a"), [(CmdSn(5), "a"), (CmdSn(7), "a")]);
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(6), "5 was acknowledged and stays so");
    assert_eq!(q.insert(CmdSn(7), "retried"), Admission::Taken, "7 was not");
    assert_eq!(q.insert(CmdSn(6), "six"), Admission::Taken);
    assert_eq!((q.pop(), q.pop(), q.pop()), (Some("six"), Some("retried"), Some("b")));
}

#[test]
fn a_voided_command_is_not_delivered() {
    let mut q = queue();
    q.insert(CmdSn(5), "five");
    q.insert(CmdSn(7), "seven");
    assert_eq!((q.void(CmdSn(7)), q.void(CmdSn(6)), q.void(CmdSn(4))), (Some("seven"), None, None));
    q.insert(CmdSn(6), "six");
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(8));
    assert_eq!((q.pop(), q.pop(), q.pop()), (Some("five"), Some("six"), None));
}

/// Nothing fills the gap at ExpCmdSN, and each number behind it is aborted, that of the window's growth too.
// req: 7143-7.11-3
#[test]
fn numbers_that_are_aborted_behind_a_gap_do_not_make_the_queue_grow() {
    let mut q = queue();
    let plug_all = |q: &mut OrderQueue<&'static str>| {
        let mut next = CmdSn(6);
        while next.precedes_or_is(q.window().max_cmd_sn()) && next.precedes(CmdSn(1000)) {
            q.plug(next);
            next = next.next();
        }
    };
    plug_all(&mut q);
    assert_eq!((q.slots.len(), q.window().max_cmd_sn()), (4, CmdSn(8)), "5 to 8");
    q.insert(CmdSn(5), "five");
    assert_eq!(q.window().exp_cmd_sn(), CmdSn(9));
    assert_eq!(q.pop(), Some("five"));
    assert_eq!((q.next(), q.slots.len()), (CmdSn(9), 0));
    assert_eq!(q.window().max_cmd_sn(), CmdSn(11), "three credits are back, and that of 5 with its end");
    // What was here and is taken out behind a command that cannot be delivered yet is no different.
    for cmd_sn in 9..12 {
        q.insert(CmdSn(cmd_sn), "here");
    }
    q.void(CmdSn(10));
    assert_eq!(q.window().max_cmd_sn(), CmdSn(11));
    q.remove(|_| true);
    assert_eq!((q.slots.len(), q.window().max_cmd_sn()), (0, CmdSn(14)));
}

/// The number that is delivered next is one with something to deliver.
#[test]
fn void_numbers_are_passed_at_once() {
    let mut q = queue();
    for cmd_sn in 5..8 {
        q.insert(CmdSn(cmd_sn), "here");
    }
    q.void(CmdSn(6));
    assert_eq!(q.next(), CmdSn(5));
    q.pop();
    assert_eq!(q.next(), CmdSn(7));
    q.void(CmdSn(7));
    assert_eq!(q.next(), CmdSn(8));
}
