//! A table of what each command answers to addresses beyond the end, lengths at their limits, lists that end early and
//! fields that cannot be (SPC-4, SBC-3). A command of the dispatch table without lines in it fails the test.

use super::*;
use crate::sbc::table;
use iscsi_pdu::ScsiStatus;
use std::collections::BTreeSet;

const TABLE: &str = include_str!("every_command.txt");

fn bytes(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .flat_map(|word| {
            let (byte, times) = word.split_once('*').unwrap_or((word, "1"));
            vec![u8::from_str_radix(byte, 16).unwrap(); times.parse().unwrap()]
        })
        .collect()
}

/// The answer in the words of the table.
fn answer(reply: &Reply) -> String {
    match reply.outcome.status {
        ScsiStatus::Good => format!("{} bytes", reply.data.len()),
        ScsiStatus::ReservationConflict => "conflict".into(),
        _ => {
            let sense = reply.sense();
            assert_eq!(sense.key, SenseKey::IllegalRequest, "{sense:?}");
            let pointer = sense.field_pointer().map_or(String::new(), |pointer| {
                let bit = pointer.bit.map_or(String::new(), |bit| format!(".{bit}"));
                format!(" {} {}{bit}", if pointer.in_cdb { "cdb" } else { "list" }, pointer.byte)
            });
            format!("{:02x}/{:02x}{pointer}", sense.asc.asc(), sense.asc.ascq())
        }
    }
}

#[test]
fn every_command_answers_bad_input_as_the_table_says() {
    let config = UnitConfig { removable: true, max_transfer: 64 << 10, ..UnitConfig::new("table") };
    let (target, unit) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (line, text) in
        (1..).zip(TABLE.lines()).filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
    {
        let [cdb, output, expected] = text.split('|').collect::<Vec<_>>()[..] else {
            panic!("line {line}: CDB | output | answer");
        };
        let (cdb, expected) = (bytes(cdb), expected.trim());
        if let Ok(row) = table::find(&unit, &cdb) {
            assert_eq!(cdb.len(), row.accepted().count(), "line {line}");
            seen.insert((row.op, row.service_action));
        }
        let reply = e.raw(&cdb, 1 << 20, &bytes(output));
        let found = answer(&reply);
        if found != expected {
            wrong.push(format!("line {line}: {text}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for row in table::rows(&unit) {
        let key = (row.op, row.service_action);
        assert!(seen.contains(&key), "the table has no line for {:02x}h {:?}", key.0, key.1);
    }
}
