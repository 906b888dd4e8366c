//! Task management end to end: the requests typed from RFC 7143 section 11.5 and RFC 7144 section 6, over sockets to the
//! target, and what they do to this session and to those of other initiators.

mod common;

use common::wire::*;
use common::{IQN, ram, serve, serve_with};
use iscsi_target::config::{Config, TargetConfig};
use std::net::SocketAddr;

/// Functions (RFC 7143 section 11.5.1, RFC 7144 section 6.3).
const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_TASK_SET: u8 = 4;
const LU_RESET: u8 = 5;
const WARM_RESET: u8 = 6;
const COLD_RESET: u8 = 7;
const REASSIGN: u8 = 8;
const QUERY_TASK: u8 = 9;
const QUERY_TASK_SET: u8 = 10;
const NEXUS_RESET: u8 = 11;
const QUERY_ASYNC_EVENT: u8 = 12;

/// Responses (RFC 7143 section 11.6.1, RFC 7144 section 6.4).
const COMPLETE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_LUN: u8 = 2;
const NO_REASSIGNMENT: u8 = 4;
const NOT_SUPPORTED: u8 = 5;
const SUCCEEDED: u8 = 7;

/// Writes wait for the data that the target asks for.
const SOLICITED: &str = "InitialR2T=Yes\0ImmediateData=No\0";

/// A session that has taken its unit attention; the next CmdSN is 2.
fn session(portal: SocketAddr, isid: u8, keys: &str) -> Wire {
    let place = Place { isid, tsih: 0, cid: 0, cmd_sn: 1 };
    let (mut wire, _) = Wire::logged_in(portal, place, &names(&format!("{SOLICITED}{keys}")));
    wire.send(ready(1, 1), &[]);
    assert_eq!(wire.answer().asc().0, 0x29);
    wire
}

/// Begins a write: the R2T (section 11.8) that it is answered with.
fn begin_write(wire: &mut Wire, itt: u8, cmd_sn: u32, lba: u8) -> Answer {
    wire.send(write_block(itt, cmd_sn, lba), &[]);
    let r2t = wire.answer();
    assert_eq!((r2t.opcode(), r2t.itt(), r2t.word(44)), (0x31, itt, 512));
    r2t
}

/// The Data-Out (section 11.7) that an R2T asks for.
fn give(wire: &mut Wire, r2t: &Answer, fill: u8) {
    let mut bhs = [0; 48];
    bhs[0] = 0x05;
    bhs[1] = 0x80;
    bhs[16..24].copy_from_slice(&r2t.bhs[16..24]);
    wire.send(bhs, &[fill; 512]);
}

/// Sends a function and expects its response.
fn ask(wire: &mut Wire, request: [u8; 48]) -> u8 {
    wire.send(request, &[]);
    let answer = wire.answer();
    assert_eq!((answer.opcode(), answer.itt()), (0x22, request[19]), "{answer:?}");
    answer.bhs[2]
}

/// A function about one task: its tag and its CmdSN.
fn about(code: u8, itt: u8, cmd_sn: u32, task: u8, ref_cmd_sn: u32) -> [u8; 48] {
    let mut bhs = function(code, itt, cmd_sn);
    bhs[20..24].copy_from_slice(&[0, 0, 0, task]);
    bhs[32..36].copy_from_slice(&ref_cmd_sn.to_be_bytes());
    bhs
}

/// A command that answers with GOOD: the session is as it should be.
fn goes_on(wire: &mut Wire, cmd_sn: u32) {
    wire.send(ready(0x70, cmd_sn), &[]);
    let answer = wire.answer();
    assert_eq!((answer.opcode(), answer.bhs[3], answer.itt()), (0x21, 0, 0x70), "{answer:?}");
}

// req: 7143-11.5.1-12, 7143-11.5.1-13, 7144-6.3-8, 7144-6.4.2-2, 7144-6.4.2-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_task_is_queried_and_aborted() {
    let server = serve(vec![ram(1)]).await;
    let mut wire = session(server.local_addrs()[0], 1, "iSCSIProtocolLevel=2\0");
    assert_eq!(ask(&mut wire, function(QUERY_TASK_SET, 2, 2)), COMPLETE, "no task there");
    begin_write(&mut wire, 3, 2, 0);
    assert_eq!(ask(&mut wire, about(QUERY_TASK, 4, 3, 3, 2)), SUCCEEDED);
    assert_eq!(ask(&mut wire, function(QUERY_TASK_SET, 5, 3)), SUCCEEDED);
    assert_eq!(ask(&mut wire, about(ABORT_TASK, 6, 3, 3, 2)), COMPLETE, "and no SCSI Response");
    assert_eq!(ask(&mut wire, about(QUERY_TASK, 7, 3, 3, 2)), COMPLETE, "not there any more");
    assert_eq!(ask(&mut wire, about(ABORT_TASK, 8, 3, 0x55, 1)), NO_TASK);
    // A command that never arrived: its number counts as received.
    assert_eq!(ask(&mut wire, about(ABORT_TASK, 9, 4, 0x56, 3)), COMPLETE);
    goes_on(&mut wire, 4);
    server.shutdown().await;
}

// req: 7143-11.5.1-24, 7143-7.2.2-7, 7144-4.1-2, 7144-6.3-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_supported_is_said_to_be() {
    let server = serve(vec![ram(1)]).await;
    let mut wire = session(server.local_addrs()[0], 1, "");
    for (itt, code) in [(2, QUERY_TASK), (3, QUERY_TASK_SET), (4, NEXUS_RESET), (5, QUERY_ASYNC_EVENT)] {
        assert_eq!(ask(&mut wire, function(code, itt, 2)), NOT_SUPPORTED, "{code} below level 2");
    }
    assert_eq!(ask(&mut wire, function(0x20, 6, 2)), NOT_SUPPORTED, "no such function");
    assert_eq!(
        ask(&mut wire, about(REASSIGN, 7, 2, 0x55, 1)),
        NO_REASSIGNMENT,
        "below error recovery level 2"
    );
    let mut absent = function(LU_RESET, 8, 2);
    absent[9] = 9;
    assert_eq!(ask(&mut wire, absent), NO_LUN);
    goes_on(&mut wire, 2);
    server.shutdown().await;
}

/// With a task set for each nexus (TST 001b in the Control mode page) both functions end the tasks of the one nexus.
// req: 7143-4.2.3.3-7, 7143-11.5.1-7, 7143-4.2.3.3-12, 7143-4.2.3.4-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_set_is_aborted_by_standard_and_by_fast_semantics() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let mut other = session(portal, 9, "");
    let held = begin_write(&mut other, 2, 2, 7);
    for (isid, reporting) in
        [(1, ""), (2, "TaskReporting=RFC3720,ResponseFence\0"), (3, "TaskReporting=FastAbort\0")]
    {
        let fast = reporting.contains("FastAbort");
        let mut wire = session(portal, isid, reporting);
        let mut cmd_sn = 2;
        for code in [ABORT_TASK_SET, CLEAR_TASK_SET] {
            let first = begin_write(&mut wire, 3, cmd_sn, 0);
            let second = begin_write(&mut wire, 4, cmd_sn + 1, 1);
            cmd_sn += 2;
            wire.send(function(code, 5, cmd_sn), &[]);
            if !fast {
                // Standard: the data that was asked for is still to come, from this initiator.
                assert!(wire.is_silent(), "not before the data is there");
                give(&mut wire, &first, 0x11);
                give(&mut wire, &second, 0x22);
            }
            let answer = wire.answer();
            assert_eq!(
                (answer.opcode(), answer.bhs[2], answer.itt()),
                (0x22, COMPLETE, 5),
                "{reporting} {answer:?}"
            );
            goes_on(&mut wire, cmd_sn);
            cmd_sn += 1;
        }
    }
    give(&mut other, &held, 0x33);
    let answer = other.answer();
    assert_eq!(
        (answer.opcode(), answer.bhs[3], answer.itt()),
        (0x21, 0, 2),
        "the other nexus has its own task set"
    );
    server.shutdown().await;
}

/// LOGICAL UNIT RESET and TARGET WARM RESET end the tasks of all nexuses: with TAS=1 in the Control mode page the others
/// are told by TASK ABORTED, and all by a unit attention.
// req: 7143-4.2.3.3-1, 7144-6.5-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_end_the_tasks_of_all_initiators() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let mut isid = 1;
    for code in [LU_RESET, WARM_RESET] {
        for reporting in ["", "TaskReporting=FastAbort\0"] {
            let mut a = session(portal, isid, reporting);
            let mut b = session(portal, isid + 1, reporting);
            isid += 2;
            let r2t = begin_write(&mut b, 2, 2, 0);
            assert_eq!(ask(&mut a, function(code, 2, 2)), COMPLETE);
            // Nobody waits for data from an initiator that may be dead (section 4.2.3.3 a); when it comes after all,
            // it touches nothing.
            let answer = b.answer();
            assert_eq!(
                (answer.opcode(), answer.bhs[3], answer.itt()),
                (0x21, 0x40, 2),
                "TASK ABORTED: {answer:?}"
            );
            give(&mut b, &r2t, 0x44);
            for (wire, cmd_sn) in [(&mut a, 2), (&mut b, 3)] {
                wire.send(ready(0x60, cmd_sn), &[]);
                assert_eq!(wire.answer().asc(), (0x29, 0x03), "BUS DEVICE RESET FUNCTION OCCURRED");
            }
            b.send(read_block(0x61, 4, 0), &[]);
            assert_eq!(b.answer().data, [0; 512], "late data was not written");
        }
    }
    server.shutdown().await;
}

/// What a write and a command before it, sent right behind a function, are answered with: the function's response, the
/// unit attention or status of the command, and the R2T of the write, which goes on.
fn goes_on_behind(wire: &mut Wire, cmd_sn: u32, lba: u8, attention: bool, what: &str) {
    let (mut responded, mut r2t, mut ready) = (false, None, false);
    for _ in 0..3 {
        let answer = wire.answer();
        match (answer.opcode(), answer.itt()) {
            (0x22, 3) => {
                assert_eq!(answer.bhs[2], COMPLETE, "{what}");
                responded = true;
            }
            (0x21, 4) if attention => {
                assert_eq!(answer.asc(), (0x29, 0x03), "{what}");
                ready = true;
            }
            (0x21, 4) => {
                assert_eq!(answer.bhs[3], 0, "{what}");
                ready = true;
            }
            (0x31, 5) => r2t = Some(answer),
            _ => panic!("{what}: {answer:?}"),
        }
    }
    assert!(responded && ready, "{what}");
    give(wire, &r2t.expect("an R2T"), lba);
    let answer = wire.answer();
    assert_eq!((answer.opcode(), answer.bhs[3], answer.itt()), (0x21, 0, 5), "{what}: {answer:?}");
    wire.send(read_block(6, cmd_sn, lba), &[]);
    assert_eq!(wire.answer().data, [lba; 512], "{what}");
}

/// Commands behind a function, sent along with it, are not among those that it acts on (section 11.5.1): each is
/// answered, and does what it is there for.
// req: 7143-4.2.3.3-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_sent_along_behind_a_function_are_carried_out() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let reportings = ["", "TaskReporting=RFC3720,ResponseFence\0", "TaskReporting=FastAbort\0"];
    for (isid, reporting) in (1..).zip(reportings) {
        let mut wire = session(portal, isid, reporting);
        let mut cmd_sn = 2;
        for code in [ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LU_RESET, WARM_RESET] {
            for immediate in [true, false] {
                let what = format!("{reporting} function {code}, immediate: {immediate}");
                let reset = matches!(code, LU_RESET | WARM_RESET);
                let before = begin_write(&mut wire, 2, cmd_sn, 0);
                let mut request = about(code, 3, cmd_sn + 1, 2, cmd_sn);
                cmd_sn += 1;
                if code != ABORT_TASK {
                    request = function(code, 3, cmd_sn);
                }
                if !immediate {
                    request[0] &= !0x40;
                    cmd_sn += 1;
                }
                let lba = code * 2 + u8::from(immediate);
                let behind = [request, ready(4, cmd_sn), write_block(5, cmd_sn + 1, lba)];
                wire.send_together(&behind);
                if code != ABORT_TASK && !reporting.contains("FastAbort") {
                    // Standard: the data that was asked for is still to come.
                    give(&mut wire, &before, 0xee);
                }
                goes_on_behind(&mut wire, cmd_sn + 2, lba, reset, &what);
                cmd_sn += 3;
            }
        }
        wire.send(read_block(7, cmd_sn, 0), &[]);
        assert_eq!(wire.answer().data, [0; 512], "what the functions ended has written nothing");
    }
    server.shutdown().await;
}

/// The same on another session while one resets the unit: whenever it hears of the reset, commands behind the one that
/// reports it are carried out, and none is left without an answer.
// req: 7143-4.2.3.3-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_another_session_are_answered_whenever_a_reset_comes() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let (mut a, mut b) = (session(portal, 1, ""), session(portal, 2, ""));
    let (mut sn_a, mut sn_b) = (2, 2);
    for round in 0..100u8 {
        let code = if round % 2 == 0 { LU_RESET } else { WARM_RESET };
        a.send_together(&[function(code, 3, sn_a), ready(4, sn_a), write_block(5, sn_a + 1, 1)]);
        b.send_together(&[ready(4, sn_b), write_block(5, sn_b + 1, 2), ready(6, sn_b + 2)]);
        goes_on_behind(&mut a, sn_a + 2, 1, true, "the session that resets");
        let (mut told, mut over) = (None, 0);
        while over < 3 {
            let answer = b.answer();
            match (answer.opcode(), answer.itt(), answer.bhs[3]) {
                (0x31, 5, _) => give(&mut b, &answer, 2),
                (0x21, itt, 2) => {
                    assert_eq!(answer.asc(), (0x29, 0x03));
                    assert_eq!(told.replace(itt), None, "told once");
                    over += 1;
                }
                (0x21, _, 0) => over += 1,
                (0x21, itt, 0x40) => {
                    let spared = told.is_some_and(|told| told < itt);
                    assert!(!spared, "round {round}: {itt} is behind what told of the reset");
                    over += 1;
                }
                _ => panic!("round {round}: {answer:?}"),
            }
        }
        (sn_a, sn_b) = (sn_a + 3, sn_b + 3);
        if told.is_none() {
            b.send(ready(7, sn_b), &[]);
            assert_eq!(b.answer().asc(), (0x29, 0x03), "round {round}");
            sn_b += 1;
        }
    }
    server.shutdown().await;
}

// req: 7143-11.5.1-17, 7143-11.6.1-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_reset_ends_all_sessions_with_the_target_and_no_other() {
    let target = |name: &str| TargetConfig { luns: vec![ram(1)], ..TargetConfig::new(name.parse().unwrap()) };
    let beside = "iqn.2026-01.org.example:beside";
    let server = serve_with(Config { targets: vec![target(IQN), target(beside)], ..Config::default() }).await;
    let portal = server.local_addrs()[0];
    let mut a = session(portal, 1, "");
    let mut b = session(portal, 2, "");
    let place = Place { isid: 3, tsih: 0, cid: 0, cmd_sn: 1 };
    let (mut c, _) = Wire::logged_in(portal, place, &names("").replace(IQN, beside));
    c.send(ready(1, 1), &[]);
    assert_eq!(c.answer().asc().0, 0x29);
    begin_write(&mut b, 2, 2, 0);
    assert_eq!(ask(&mut a, function(COLD_RESET, 2, 2)), COMPLETE);
    assert!(a.is_closed());
    let told = b.answer();
    assert_eq!((told.opcode(), told.bhs[3], told.itt()), (0x21, 0x40, 2), "TASK ABORTED: {told:?}");
    assert!(b.is_closed());
    goes_on(&mut c, 2);
    for _ in 0..1000 {
        if server.sessions() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(server.sessions(), 1);
    server.shutdown().await;
}

// req: 7144-6.3-12, 7144-6.3-13, 7144-6.4.2-4, 7144-6.4.2-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_of_rfc_7144() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let mut other = session(portal, 2, "");
    let place = Place { isid: 1, tsih: 0, cid: 0, cmd_sn: 1 };
    let (mut wire, _) = Wire::logged_in(portal, place, &names("iSCSIProtocolLevel=2\0"));
    // A unit attention waits. SAM-5 clause 7.10: UADE DEPTH 1, UNIT ATTENTION, 29h/00h.
    wire.send(function(QUERY_ASYNC_EVENT, 2, 1), &[]);
    let answer = wire.answer();
    assert_eq!((answer.opcode(), answer.bhs[2]), (0x22, SUCCEEDED));
    assert_eq!(answer.bhs[8..11], [0x16, 0x29, 0x00]);
    wire.send(ready(3, 1), &[]);
    assert_eq!(wire.answer().asc(), (0x29, 0x00));
    assert_eq!(
        ask(&mut wire, function(QUERY_ASYNC_EVENT, 4, 2)),
        COMPLETE,
        "asking did not clear it, the command did"
    );
    assert_eq!(ask(&mut wire, function(NEXUS_RESET, 5, 2)), COMPLETE);
    assert!(wire.is_closed(), "the session ends with its nexus");
    goes_on(&mut other, 2);
    server.shutdown().await;
}
