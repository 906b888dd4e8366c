//! One SCSI command and its reply.

use crate::Error;
use datamover::SgList;
use iscsi_pdu::{Lun, Residual, ScsiStatus, TaskAttr};
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::{Asc, Sense, SenseKey};
use std::fmt;

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
}

impl ScsiCommand {
    /// A command with the SIMPLE task attribute.
    #[must_use]
    pub fn new(lun: Lun, command: Command, data: DataDirection) -> Self {
        Self { lun, cdb: command.into(), data, attr: TaskAttr::Simple }
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
    /// Sense data, when the target sent some that can be read.
    pub sense: Option<Sense>,
}

impl ScsiError {
    /// Whether this is a unit attention, which the target reports once.
    #[must_use]
    pub fn is_unit_attention(&self) -> bool {
        self.sense.as_ref().is_some_and(|s| s.key == SenseKey::UnitAttention)
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
        }
    }
}

impl std::error::Error for ScsiError {}
