//! One SCSI command and its reply.

use crate::Error;
use datamover::SgList;
use iscsi_pdu::{Lun, Residual, ScsiStatus, TaskAttr};
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::{Asc, Sense, SenseKey, StatusQualifier};
use std::fmt;
use std::time::Duration;

/// Data that goes with a command.
#[derive(Clone, Debug, Default)]
pub enum DataDirection {
    /// None.
    #[default]
    None,
    /// From the target, at most this many bytes.
    In(u32),
    /// To the target.
    Out(SgList),
}

/// A SCSI command.
#[derive(Clone, Debug)]
pub struct ScsiCommand {
    /// Logical unit.
    pub lun: Lun,
    /// Command and its CONTROL byte.
    pub cdb: Cdb,
    /// Data.
    pub data: DataDirection,
    /// Task attribute.
    pub attr: TaskAttr,
    /// Command priority, 1 (served first) to 15, or 0 for none (SAM-5 clause 8.7; higher bits are cut off). It is sent
    /// when iSCSIProtocolLevel 2 was negotiated, which [`Preferences`](iscsi_login::Preferences) have to ask for.
    pub priority: u8,
}

impl ScsiCommand {
    /// A command with the SIMPLE task attribute.
    #[must_use]
    pub fn new(lun: Lun, command: Command, data: DataDirection) -> Self {
        Self { lun, cdb: command.into(), data, attr: TaskAttr::Simple, priority: 0 }
    }

    /// The same command with a [`priority`](Self::priority).
    #[must_use]
    pub fn with_priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// Whether carrying the command out twice has the effect of once. COMPARE AND WRITE has not: the second time it
    /// meets its own data; nor has PERSISTENT RESERVE OUT, whose key has changed then; READ(6) and WRITE(6) move a tape.
    pub(crate) fn may_repeat(&self) -> bool {
        use Command as C;
        matches!(
            self.cdb.command,
            C::TestUnitReady(_)
                | C::Inquiry(_)
                | C::ModeSense6(_)
                | C::ModeSense10(_)
                | C::LogSense(_)
                | C::ReadCapacity10(_)
                | C::ReadCapacity16(_)
                | C::GetLbaStatus(_)
                | C::PersistentReserveIn(_)
                | C::ReportLuns(_)
                | C::ReportTargetPortGroups(_)
                | C::ReportSupportedOpCodes(_)
                | C::ReportSupportedTmfs(_)
                | C::ReportIdentifyingInformation(_)
                | C::ReportTimestamp(_)
                | C::Read10(_)
                | C::Read12(_)
                | C::Read16(_)
                | C::Read32(_)
                | C::Write10(_)
                | C::Write12(_)
                | C::Write16(_)
                | C::Write32(_)
                | C::WriteAtomic16(_)
                | C::WriteAndVerify10(_)
                | C::WriteAndVerify12(_)
                | C::WriteAndVerify16(_)
                | C::WriteAndVerify32(_)
                | C::WriteSame10(_)
                | C::WriteSame16(_)
                | C::WriteSame32(_)
                | C::Unmap(_)
                | C::Verify10(_)
                | C::Verify12(_)
                | C::Verify16(_)
                | C::Verify32(_)
                | C::PreFetch10(_)
                | C::PreFetch16(_)
                | C::SynchronizeCache10(_)
                | C::SynchronizeCache16(_)
        )
    }
}

/// Answer to a command that ended with GOOD or CONDITION MET.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: ScsiStatus,
    /// What the target sent, cut to its real length.
    pub data: SgList,
    /// Difference between the data expected and the data moved.
    pub residual: Residual,
}

impl Reply {
    /// The data if it is as long as expected.
    ///
    /// # Errors
    /// [`Error::Short`].
    pub(crate) fn whole(self, expected: u32) -> Result<SgList, Error> {
        if self.data.len() == expected as usize {
            Ok(self.data)
        } else {
            Err(Error::Short { expected, found: self.data.len() })
        }
    }
}

/// A command that the target ended with another status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScsiError {
    /// Status.
    pub status: ScsiStatus,
    /// Status qualifier; 0 unless iSCSIProtocolLevel 2 was negotiated.
    pub qualifier: StatusQualifier,
    /// Sense data, when the target sent some that can be read.
    pub sense: Option<Sense>,
}

impl ScsiError {
    /// How long the target wants to be left alone before the next command, if it says so: with BUSY and TASK SET FULL.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let waits = matches!(self.status, ScsiStatus::Busy | ScsiStatus::TaskSetFull);
        self.qualifier.retry_after().filter(|_| waits)
    }

    /// Whether this is a unit attention, which the target reports once.
    #[must_use]
    pub fn is_unit_attention(&self) -> bool {
        self.sense.as_ref().is_some_and(|s| s.key == SenseKey::UnitAttention)
    }

    /// Whether the unit says that it has restarted: POWER ON, or one of the resets that cannot be told from it
    /// (SPC-4 table E.1, 29h/00h and 29h/01h).
    #[must_use]
    pub fn is_restart(&self) -> bool {
        self.is_unit_attention() && self.sense.as_ref().is_some_and(|s| matches!(s.asc, Asc(0x2900 | 0x2901)))
    }

    /// Whether the target does not know the command or one of its fields.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.sense
            .as_ref()
            .is_some_and(|s| matches!(s.asc, Asc::INVALID_COMMAND_OPERATION_CODE | Asc::INVALID_FIELD_IN_CDB))
    }
}

impl fmt::Display for ScsiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sense {
            Some(sense) => write!(f, "{}: {:?}, {}", self.status, sense.key, sense.asc),
            None => write!(f, "{}", self.status),
        }?;
        match self.retry_after() {
            Some(after) => write!(f, ", try again after {after:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ScsiError {}

#[cfg(test)]
mod tests {
    use super::*;
    use scsi_cmd::cdb::{self, BlockIo, IoKind};

    // user need: a lost connection must not turn a compare that succeeded into a miscompare
    #[test]
    fn only_what_twice_is_as_once_is_repeated() {
        let repeats =
            |command: Command| ScsiCommand::new(Lun::ZERO, command, DataDirection::None).may_repeat();
        for kind in [IoKind::Read, IoKind::Write, IoKind::SynchronizeCache] {
            assert!(repeats(BlockIo::new(kind, 0, 1).command().unwrap()), "{kind:?}");
            assert!(repeats(BlockIo::new(kind, 1 << 40, 1).command().unwrap()), "{kind:?}");
        }
        assert!(repeats(cdb::Unmap::default().into()));
        assert!(!repeats(cdb::CompareAndWrite::default().into()));
        assert!(!repeats(cdb::PersistentReserveOut::default().into()));
        assert!(!repeats(cdb::Reserve6::default().into()));
        assert!(!repeats(cdb::ExtendedCopyLid1::default().into()));
    }
}
