//! Ends above ErrorRecoveryLevel 0, and what passes between them.

use super::Peer;
use bytes::Bytes;
use datamover::{ConnKeys, Role};
use iscsi_pdu::{DataIn, DataSn, Itt, Lun, ScsiResponse, StatSn};

pub(crate) const LUN: Lun = Lun([0, 7, 0, 0, 0, 0, 0, 0]);

/// An end at ErrorRecoveryLevel 1 with both digests, but for what `change` changes.
pub(crate) fn peer(role: Role, change: impl FnOnce(&mut ConnKeys)) -> Peer {
    let mut keys = ConnKeys::default();
    keys.error_recovery_level = 1;
    (keys.header_digest, keys.data_digest) = (true, true);
    change(&mut keys);
    Peer::new(role, &keys)
}

/// The `sn`-th ten bytes of `data` for task 1.
pub(crate) fn data_in(sn: u32, data: &Bytes) -> DataIn {
    let at = sn as usize * 10;
    DataIn {
        itt: Itt(1),
        data_sn: DataSn(sn),
        buffer_offset: at as u32,
        data: data.slice(at..at + 10),
        ..DataIn::default()
    }
}

/// Of task 1.
pub(crate) fn response(stat_sn: u32, exp_data_sn: u32) -> ScsiResponse {
    ScsiResponse {
        itt: Itt(1),
        stat_sn: StatSn(stat_sn),
        exp_data_sn: DataSn(exp_data_sn),
        ..ScsiResponse::default()
    }
}
