//! REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4 clauses 6.35, 6.36), from the table.

use super::basic::not_mine;
use super::table::{self, Row};
use super::{Begun, Call, Flow};
use crate::sequence::Finish;
use scsi_cmd::Sense;
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::supported::{
    AllCommands, CommandDescriptor, CommandTimeouts, OneCommand, Support, SupportedTmfs,
};

pub(super) fn supported_op_codes(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReportSupportedOpCodes(request) = &cdb.command else { return Err(not_mine()) };
    let timeouts = |row: &Row| {
        request.rctd.then(|| CommandTimeouts { recommended: row.timeout(), ..CommandTimeouts::default() })
    };
    let (op, sa) = (request.requested_op_code, request.requested_service_action);
    let of_op: Vec<&Row> = table::rows(call.unit).filter(|row| row.op == op).collect();
    let has_actions = of_op.iter().any(|row| row.service_action.is_some());
    let row = match request.reporting_options {
        0 => {
            let all = table::rows(call.unit).map(|row| CommandDescriptor {
                op_code: row.op,
                service_action: row.service_action,
                cdb_length: row.usage(false).count() as u16,
                timeouts: timeouts(row),
            });
            let data = AllCommands(all.collect()).encode();
            return Ok(Flow::Finish(Finish::data(data, request.allocation_length as usize)));
        }
        // An operation code that needs a service action, and one that has none.
        1 if has_actions => return Err(Sense::invalid_cdb_field(2, 2).into()),
        2 if !of_op.is_empty() && !has_actions => return Err(Sense::invalid_cdb_field(2, 2).into()),
        1..=3 => of_op.into_iter().find(|row| row.service_action.is_none_or(|action| action == sa)),
        _ => return Err(Sense::invalid_cdb_field(2, 2).into()),
    };
    let row = row.filter(|row| request.reporting_options != 3 || row.service_action.is_some() || sa == 0);
    let protected = call.unit.geometry().protectable;
    let data = match row {
        Some(row) => OneCommand {
            support: Support::Supported,
            usage: row.usage(protected).collect(),
            timeouts: timeouts(row),
        },
        None => OneCommand { support: Support::NotSupported, ..OneCommand::default() },
    };
    Ok(Flow::Finish(Finish::data(data.encode(), request.allocation_length as usize)))
}

/// The functions that the engine and this device server do together. QUERY and I_T NEXUS RESET functions need
/// iSCSIProtocolLevel 2 (RFC 7144 section 4.1).
pub(super) fn supported_tmfs(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReportSupportedTmfs(request) = &cdb.command else { return Err(not_mine()) };
    if request.allocation_length < 4 {
        return Err(Sense::invalid_cdb_field(6, None).into());
    }
    let level_2 = call.protocol_level >= 2;
    let functions = SupportedTmfs {
        abort_task: true,
        abort_task_set: true,
        clear_task_set: true,
        logical_unit_reset: true,
        target_reset: true,
        query_task: level_2,
        query_task_set: level_2,
        query_asynchronous_event: level_2,
        it_nexus_reset: level_2,
        additional_length: if request.repd { 12 } else { 0 },
        ..SupportedTmfs::default()
    };
    let mut data = functions.encode().to_vec();
    if request.repd {
        // No timeouts are reported (SPC-4 clause 6.36.3).
        data.resize(16, 0);
    }
    Ok(Flow::Finish(Finish::data(data, request.allocation_length as usize)))
}
