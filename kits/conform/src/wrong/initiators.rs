//! Wrong initiators.

use super::{LONG, fails, judge_initiator, passes, skips};
use crate::pdu::{F, Pdu, at, before, op};
use crate::target::{Conn, Io, Login, cdb10};
use crate::verdict::Stop;
use crate::wire::Got;

/// A command that goes on until it is ended.
const FOREVER: &str = "sleep 60";

fn log_in(conn: &mut Conn, keys: &[(&str, &str)]) -> Result<(), Stop> {
    conn.log_in(&Login::normal(keys))
}

/// Sends a command of six zeros but for the first byte: TEST UNIT READY is all zeros.
fn send(conn: &mut Conn, opcode: u8) -> Pdu {
    let command = conn.command(&Io { cdb: vec![opcode, 0, 0, 0, 0, 0], ..Io::default() });
    conn.send(&command);
    command
}

fn log_out(conn: &mut Conn) -> Result<(), Stop> {
    let request = conn.request(0x40 | op::LOGOUT_REQUEST, F);
    conn.send(&request);
    linger(conn)
}

/// Until the other side closes.
fn linger(conn: &mut Conn) -> Result<(), Stop> {
    while let Got::Pdu(_) = conn.recv(LONG)? {}
    Ok(())
}

/// Until MaxCmdSN lets another command go.
fn await_room(conn: &mut Conn) -> Result<(), Stop> {
    while before(conn.max_cmd_sn, conn.cmd_sn) {
        conn.recv(LONG)?;
    }
    Ok(())
}

#[test]
fn an_initiator_that_ignores_max_cmd_sn() {
    let judge = |command, waits: bool| {
        judge_initiator("icommand-08", command, move |conn| {
            log_in(conn, &[])?;
            for _ in 0..3 {
                if waits {
                    await_room(conn)?;
                }
                send(conn, 0);
                conn.next()?;
            }
            log_out(conn)
        })
    };
    passes(judge("true", true));
    fails(judge("true", false), "7143-4.2.2.1-13");
}

#[test]
fn an_initiator_that_does_not_see_the_window_open() {
    let stuck = judge_initiator("icommand-08", FOREVER, |conn| {
        log_in(conn, &[])?;
        send(conn, 0);
        linger(conn)
    });
    fails(stuck, "7143-4.2.2.1-13");
}

#[test]
fn an_initiator_that_takes_a_check_condition_for_good() {
    let judge = |command, then: Option<u8>| {
        judge_initiator("iasync-14", command, move |conn| {
            log_in(conn, &[])?;
            send(conn, 0);
            conn.next()?;
            if let Some(opcode) = then {
                send(conn, opcode);
                conn.next()?;
            }
            log_out(conn)
        })
    };
    let rule = "7143-10.2-1";
    passes(judge("true", Some(0)));
    fails(judge("true", None), rule);
    // Sense data that has come already is asked for.
    fails(judge("true", Some(0x03)), rule);
    fails(judge("false", Some(0)), rule);
    skips(judge("false", None));
}

#[test]
fn an_initiator_that_takes_any_response_for_its_own() {
    let judge = |command, own: bool, more: bool| {
        judge_initiator("iasync-08", command, move |conn| {
            log_in(conn, &[])?;
            let command = send(conn, 0);
            while let Got::Pdu(pdu) = conn.next()? {
                if !own || pdu.itt() == command.itt() {
                    break;
                }
            }
            if more {
                send(conn, 0);
                conn.next()?;
            }
            log_out(conn)
        })
    };
    let rule = "7143-4.2.5.3-1";
    passes(judge("true", true, true));
    passes(judge("true", true, false));
    fails(judge("true", false, true), rule);
    fails(judge("true", false, false), rule);
    // It ends the session over it, and says so; or it was answered in the end, and says that it was not.
    passes(judge("false", false, false));
    fails(judge("false", true, false), rule);
}

fn read(conn: &mut Conn, blocks: u16) -> Pdu {
    let length = u32::from(blocks) * 512;
    let command = conn.command(&Io { cdb: cdb10(0x28, 0, blocks), read: Some(length), ..Io::default() });
    conn.send(&command);
    command
}

#[test]
fn an_initiator_that_drops_the_connection_over_the_a_bit() {
    let judge = |command, takes: bool| {
        judge_initiator("idata-08", command, move |conn| {
            log_in(conn, &[])?;
            read(conn, 4);
            while let Got::Pdu(pdu) = conn.next()? {
                if !takes {
                    conn.wire.close();
                    return Ok(());
                }
                if pdu.flags() & 1 != 0 {
                    break;
                }
            }
            log_out(conn)
        })
    };
    passes(judge("true", true));
    fails(judge("false", false), "7143-11.7.2-4");
}

#[test]
fn an_initiator_that_does_not_heed_f_in_a_text_response() {
    let judge = |command, flags: u8, ends: bool| {
        judge_initiator("idiscovery-07", command, move |conn| {
            conn.log_in(&Login { discovery: true, ..Login::normal(&[]) })?;
            let request = conn.text(flags, b"SendTargets=All\0");
            conn.send(&request);
            conn.next()?;
            if ends {
                return log_out(conn);
            }
            let more = conn.text(F, b"").set32(at::ITT, request.itt()).set32(at::TTT, 0x77);
            conn.send(&more);
            linger(conn)
        })
    };
    let rule = "7143-11.11.1-4";
    passes(judge("true", F, true));
    fails(judge("true", F, false), rule);
    fails(judge("false", F, true), rule);
    // Where the answer ended what the request had not, it must not count.
    passes(judge("false", 0, true));
    fails(judge("true", 0, true), rule);
    fails(judge(FOREVER, 0, false), rule);
}

#[test]
fn an_initiator_that_hears_of_its_target_and_waits_on() {
    let silent = judge_initiator("idiscovery-07", FOREVER, |conn| {
        conn.log_in(&Login { discovery: true, ..Login::normal(&[]) })?;
        let request = conn.text(F, b"SendTargets=All\0");
        conn.send(&request);
        linger(conn)
    });
    skips(silent);
}

#[test]
fn an_initiator_that_takes_damaged_data() {
    let judge = |command, closes: bool| {
        judge_initiator("idigest-04", command, move |conn| {
            log_in(conn, &[("DataDigest", "CRC32C")])?;
            read(conn, 4);
            // The digest of what comes is wrong.
            if conn.next().is_ok() {
                return Ok(());
            }
            if closes {
                conn.wire.close();
                return Ok(());
            }
            linger(conn)
        })
    };
    passes(judge("false", true));
    fails(judge("true", false), "7143-7.8-5");
    // It waits on, or nobody knows.
    skips(judge(FOREVER, false));
}
