//! LOG SENSE (SPC-4 clauses 6.8, 7.3): supported pages, self-test results, informational exceptions.

use super::basic::not_mine;
use super::{Begun, Call, Flow};
use crate::sequence::Finish;
use scsi_cmd::Sense;
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::log::{BINARY_LIST, LogContent, LogPage, LogParameter};

const SELF_TEST: u8 = 0x10;
const EXCEPTIONS: u8 = 0x2f;
const PAGES: [u8; 3] = [0x00, SELF_TEST, EXCEPTIONS];

pub(super) fn sense(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::LogSense(request) = &cdb.command else { return Err(not_mine()) };
    if request.sp {
        return Err(Sense::invalid_cdb_field(1, 0).into());
    }
    let raw = |bytes: Vec<u8>| LogPage {
        page_code: 0,
        subpage_code: request.subpage_code,
        ds: false,
        content: LogContent::Raw(bytes),
    };
    let page = match (request.page_code, request.subpage_code) {
        (0x00, 0x00) => raw(PAGES.to_vec()),
        (0x00, 0xff) => raw(PAGES.iter().map(|p| [*p, 0]).chain([[0, 0xff]]).flatten().collect()),
        (SELF_TEST, 0) => LogPage::new(SELF_TEST, 0, self_tests(call)),
        // No exception condition is ever pending: failures are reported by the commands that meet them.
        (EXCEPTIONS, 0) => {
            let none = LogParameter { code: 0, control: BINARY_LIST, value: vec![0; 4] };
            LogPage::new(EXCEPTIONS, 0, vec![none])
        }
        (code, _) => {
            let (byte, bit) = if PAGES.contains(&code) { (3, 7) } else { (2, 5) };
            return Err(Sense::invalid_cdb_field(byte, bit).into());
        }
    };
    let LogContent::Parameters(mut parameters) = page.content else {
        return Ok(Flow::Finish(Finish::data(page.encode(), request.allocation_length)));
    };
    let last = parameters.last().map_or(0, |p| p.code);
    if request.parameter_pointer > last {
        return Err(Sense::invalid_cdb_field(5, 7).into());
    }
    parameters.retain(|p| p.code >= request.parameter_pointer);
    let page = LogPage { content: LogContent::Parameters(parameters), ..page };
    Ok(Flow::Finish(Finish::data(page.encode(), request.allocation_length)))
}

/// Twenty parameters, the most recent test first; zeros where none was made (SPC-4 clause 7.3.22).
fn self_tests(call: &Call<'_>) -> Vec<LogParameter> {
    let tests = call.unit.state().self_tests.clone();
    (1..=20)
        .map(|code| LogParameter {
            code,
            control: BINARY_LIST,
            value: tests.get(usize::from(code) - 1).map_or(vec![0; 16], |test| test.encode()),
        })
        .collect()
}
