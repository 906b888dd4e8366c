//! LOG SENSE and LOG SELECT (SPC-4 clauses 6.7, 6.8, 7.3): counters of errors and of work, start-stop cycles, self-test
//! results, informational exceptions. There is no thermometer, and no threshold.

use super::basic::not_mine;
use super::{Begun, Call, Flow};
use crate::counters::{
    BLOCKS_READ, BLOCKS_VERIFIED, BLOCKS_WRITTEN, READ_ERRORS, READS, VERIFY_ERRORS, WRITE_ERRORS, WRITES,
};
use crate::sequence::Finish;
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::log::{BINARY_LIST, LogContent, LogPage, LogParameter, UNBOUNDED_COUNTER};
use scsi_cmd::{Asc, Sense};

const WRITE_ERROR: u8 = 0x02;
const READ_ERROR: u8 = 0x03;
const VERIFY_ERROR: u8 = 0x05;
const START_STOP: u8 = 0x0e;
const SELF_TEST: u8 = 0x10;
const STATISTICS: u8 = 0x19;
const EXCEPTIONS: u8 = 0x2f;
const PAGES: [u8; 8] =
    [0x00, WRITE_ERROR, READ_ERROR, VERIFY_ERROR, START_STOP, SELF_TEST, STATISTICS, EXCEPTIONS];
/// Those that count, and can be set to zero.
const COUNTING: [u8; 4] = [WRITE_ERROR, READ_ERROR, VERIFY_ERROR, STATISTICS];

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
        (0x00, 0xff) => {
            let others = PAGES[1..].iter().map(|page| [*page, 0]);
            raw([[0, 0], [0, 0xff]].into_iter().chain(others).flatten().collect())
        }
        (page, 0) if COUNTING.contains(&page) => {
            let mut counters = call.unit.counters(page);
            match request.page_control {
                1 => {}
                // The values to which a reset sets them.
                3 => counters.fill(0),
                // Thresholds.
                _ => return Err(Sense::invalid_cdb_field(2, 7).into()),
            }
            let size = u64::from(call.unit.block_size);
            LogPage::new(
                page,
                0,
                match page {
                    WRITE_ERROR => errors(counters[BLOCKS_WRITTEN] * size, counters[WRITE_ERRORS]),
                    READ_ERROR => errors(counters[BLOCKS_READ] * size, counters[READ_ERRORS]),
                    VERIFY_ERROR => errors(counters[BLOCKS_VERIFIED] * size, counters[VERIFY_ERRORS]),
                    _ => statistics(&counters),
                },
            )
        }
        (START_STOP, 0) => LogPage::new(START_STOP, 0, cycles(call)),
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

/// LOG SELECT: sets counters to zero (PCR), of one page or of all. No parameter can be given another value.
pub(super) fn select(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::LogSelect(request) = &cdb.command else { return Err(not_mine()) };
    if request.sp {
        return Err(Sense::invalid_cdb_field(1, 0).into());
    }
    if request.parameter_list_length != 0 {
        return Err(Sense::invalid_cdb_field(7, None).into());
    }
    if !PAGES.contains(&request.page_code) {
        return Err(Sense::invalid_cdb_field(2, 5).into());
    }
    if request.subpage_code != 0 {
        return Err(Sense::invalid_cdb_field(3, 7).into());
    }
    if request.pcr {
        let wanted = |page: &u8| request.page_code == 0 || request.page_code == *page;
        let mut pages = COUNTING.into_iter().filter(wanted).peekable();
        if pages.peek().is_some() {
            pages.for_each(|page| call.unit.reset_counters(page));
            call.unit.attention(Asc::LOG_PARAMETERS_CHANGED, Some(&call.view.nexus));
        }
    }
    Ok(Flow::Finish(Finish::good()))
}

/// An error counter page (SPC-4 clause 7.3.6): nothing is corrected here, so what is counted is what was processed and
/// what failed.
fn errors(bytes: u64, uncorrected: u64) -> Vec<LogParameter> {
    let counter = |(code, value): (u16, u64)| LogParameter {
        code,
        control: UNBOUNDED_COUNTER,
        value: value.to_be_bytes().to_vec(),
    };
    [(3, 0), (5, bytes), (6, uncorrected)].into_iter().map(counter).collect()
}

/// General Access Statistics and Performance (SPC-4 clause 7.3.9). No clock is asked for each command: the processing
/// intervals are zero.
fn statistics(counters: &[u64]) -> Vec<LogParameter> {
    let fields = [READS, WRITES, BLOCKS_WRITTEN, BLOCKS_READ].map(|n| counters[n].to_be_bytes());
    let mut value = fields.concat();
    value.resize(64, 0);
    vec![LogParameter { code: 1, control: BINARY_LIST, value }]
}

/// Start-stop and load-unload cycles since the unit was made.
fn cycles(call: &Call<'_>) -> Vec<LogParameter> {
    let (starts, loads) = call.unit.state().cycles;
    let loads = call.unit.config.removable.then_some((6, loads));
    [(4, starts)]
        .into_iter()
        .chain(loads)
        .map(|(code, n)| LogParameter { code, control: BINARY_LIST, value: n.to_be_bytes().to_vec() })
        .collect()
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
