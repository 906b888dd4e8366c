//! SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-4 clauses 6.26, 6.42): self-tests.

use super::basic::not_mine;
use super::{Begun, Call, Flow};
use crate::background::Job;
use crate::block::Blocking;
use crate::sequence::Finish;
use crate::unit::LogicalUnit;
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::log::SelfTestResult;
use scsi_cmd::{Asc, Sense, SenseKey};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// RESULTS of a self-test.
const PASSED: u8 = 0;
const ABORTED: u8 = 1;
const FAILED: u8 = 5;

/// A self-test that is running.
#[derive(Clone, Debug)]
pub(crate) struct SelfTest {
    stop: Arc<AtomicBool>,
}

pub(super) fn receive(_: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReceiveDiagnosticResults(request) = &cdb.command else { return Err(not_mine()) };
    if request.pcv && request.page_code != 0 {
        return Err(Sense::invalid_cdb_field(2, 7).into());
    }
    // Supported Diagnostic Pages: that one.
    Ok(Flow::Finish(Finish::data(vec![0x00, 0, 0, 1, 0x00], request.allocation_length)))
}

pub(super) fn send(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::SendDiagnostic(request) = cdb.command.clone() else { return Err(not_mine()) };
    let (code, unit) = (request.self_test_code, call.unit.clone());
    if code != 0 && request.self_test {
        return Err(Sense::invalid_cdb_field(1, 7).into());
    }
    if request.parameter_list_length != 0 {
        return supported_pages(call, request.parameter_list_length, code != 0 || request.self_test);
    }
    match code {
        0 if !request.self_test => Ok(Flow::Finish(Finish::good())),
        // Background: status at once.
        1 | 2 => {
            start(&unit, code, code == 2)?;
            Ok(Flow::Finish(Finish::good()))
        }
        4 => {
            if let Some(test) = &unit.state().self_test {
                test.stop.store(true, Ordering::Release);
            }
            Ok(Flow::Finish(Finish::good()))
        }
        // Foreground, and the default self-test, which is the short one.
        0 | 5 | 6 => {
            let test = start(&unit, code, code == 6)?;
            call.sequence(|_| async move {
                match test.await.result {
                    PASSED => Ok(Finish::good()),
                    _ => Err(Sense::new(SenseKey::HardwareError, Asc::LOGICAL_UNIT_FAILED_SELF_TEST).into()),
                }
            })
        }
        _ => Err(Sense::invalid_cdb_field(1, 7).into()),
    }
}

/// A page: only Supported Diagnostic Pages, which asks for nothing.
fn supported_pages(call: &Call<'_>, len: u16, tests: bool) -> Begun {
    if tests {
        return Err(Sense::invalid_cdb_field(3, None).into());
    }
    call.sequence(move |co| async move {
        let page = co.parameters(len.into()).await?;
        match page.first() {
            Some(0) if page.len() >= 4 => Ok(Finish::good()),
            Some(0) => Err(Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR).into()),
            _ => Err(Sense::invalid_parameter(0, 7).into()),
        }
    })
}

fn start(unit: &Arc<LogicalUnit>, code: u8, extended: bool) -> Result<Job<SelfTestResult>, Sense> {
    let running = || Sense::new(SenseKey::NotReady, Asc::LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS);
    let stop = Arc::new(AtomicBool::new(false));
    let test = SelfTest { stop: stop.clone() };
    let free = unit.change(|state| state.self_test.is_none() && state.self_test.replace(test).is_none());
    if !free {
        return Err(running());
    }
    let failed = SelfTestResult { code, result: FAILED, ..SelfTestResult::default() };
    let unit = unit.clone();
    Ok(Job::start("self-test", failed, move || {
        let result = run(&unit, extended, &stop);
        let result = SelfTestResult { code, ..result };
        unit.change(|state| {
            state.self_test = None;
            state.self_tests.insert(0, result);
            state.self_tests.truncate(20);
        });
        result
    }))
}

/// Reads the whole medium, or for the short test its beginning and end.
fn run(unit: &LogicalUnit, extended: bool, stop: &AtomicBool) -> SelfTestResult {
    let ended = |result, first_failure| SelfTestResult { result, first_failure, ..SelfTestResult::default() };
    let Ok(device) = unit.open() else { return ended(FAILED, None) };
    let mut device = Blocking::new(device);
    let blocks = unit.blocks();
    let piece = u64::from((1 << 20) / unit.block_size);
    let mut lba = 0;
    while lba < blocks {
        if stop.load(Ordering::Acquire) {
            return ended(ABORTED, None);
        }
        let count = piece.min(blocks - lba);
        if device.read(lba, count as u32).is_err() {
            return ended(FAILED, Some(lba));
        }
        lba += count;
        if !extended && lba < blocks.saturating_sub(piece) {
            lba = blocks - piece;
        }
    }
    ended(PASSED, None)
}
