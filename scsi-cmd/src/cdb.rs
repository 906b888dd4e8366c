//! Command descriptor blocks (SPC-4 clause 4.2, SBC-3 clause 5).
//!
//! Each CDB is a struct whose fields are placed by one table (`cdbs!`); decoder, encoder and the CDB usage
//! data of REPORT SUPPORTED OPERATION CODES (SPC-4 clause 6.35) come from that table.

mod block;
mod io;
mod maintenance;
mod primary;
mod transfer;
mod transfer16;

pub use block::*;
pub use io::{BlockIo, IoKind};
pub use maintenance::*;
pub use primary::*;
pub use transfer::*;
pub use transfer16::*;

use crate::error::{DecodeError, DecodeErrorKind};
use alloc::boxed::Box;
use core::fmt;

crate::codec::code! {
    /// OPERATION CODE: byte 0 of every CDB.
    OpCode(u8) {
        /// TEST UNIT READY.
        0x00 => TestUnitReady,
        /// REQUEST SENSE.
        0x03 => RequestSense,
        /// FORMAT UNIT.
        0x04 => FormatUnit,
        /// READ(6).
        0x08 => Read6,
        /// WRITE(6).
        0x0a => Write6,
        /// INQUIRY.
        0x12 => Inquiry,
        /// MODE SELECT(6).
        0x15 => ModeSelect6,
        /// RESERVE(6).
        0x16 => Reserve6,
        /// RELEASE(6).
        0x17 => Release6,
        /// MODE SENSE(6).
        0x1a => ModeSense6,
        /// START STOP UNIT.
        0x1b => StartStopUnit,
        /// RECEIVE DIAGNOSTIC RESULTS.
        0x1c => ReceiveDiagnosticResults,
        /// SEND DIAGNOSTIC.
        0x1d => SendDiagnostic,
        /// PREVENT ALLOW MEDIUM REMOVAL.
        0x1e => PreventAllowMediumRemoval,
        /// READ CAPACITY(10).
        0x25 => ReadCapacity10,
        /// READ(10).
        0x28 => Read10,
        /// WRITE(10).
        0x2a => Write10,
        /// WRITE AND VERIFY(10).
        0x2e => WriteAndVerify10,
        /// VERIFY(10).
        0x2f => Verify10,
        /// PRE-FETCH(10).
        0x34 => PreFetch10,
        /// SYNCHRONIZE CACHE(10).
        0x35 => SynchronizeCache10,
        /// READ DEFECT DATA(10).
        0x37 => ReadDefectData10,
        /// WRITE BUFFER.
        0x3b => WriteBuffer,
        /// READ BUFFER(10).
        0x3c => ReadBuffer,
        /// WRITE SAME(10).
        0x41 => WriteSame10,
        /// UNMAP.
        0x42 => Unmap,
        /// SANITIZE.
        0x48 => Sanitize,
        /// LOG SELECT.
        0x4c => LogSelect,
        /// LOG SENSE.
        0x4d => LogSense,
        /// MODE SELECT(10).
        0x55 => ModeSelect10,
        /// RESERVE(10).
        0x56 => Reserve10,
        /// RELEASE(10).
        0x57 => Release10,
        /// MODE SENSE(10).
        0x5a => ModeSense10,
        /// PERSISTENT RESERVE IN.
        0x5e => PersistentReserveIn,
        /// PERSISTENT RESERVE OUT.
        0x5f => PersistentReserveOut,
        /// Variable-length CDB; the command is in the service action.
        0x7f => VariableLength,
        /// Third-party copy OUT: EXTENDED COPY(LID1) and others.
        0x83 => ThirdPartyCopyOut,
        /// Third-party copy IN: RECEIVE COPY RESULTS.
        0x84 => ThirdPartyCopyIn,
        /// READ(16).
        0x88 => Read16,
        /// COMPARE AND WRITE.
        0x89 => CompareAndWrite,
        /// WRITE(16).
        0x8a => Write16,
        /// ORWRITE(16).
        0x8b => OrWrite16,
        /// WRITE AND VERIFY(16).
        0x8e => WriteAndVerify16,
        /// VERIFY(16).
        0x8f => Verify16,
        /// PRE-FETCH(16).
        0x90 => PreFetch16,
        /// SYNCHRONIZE CACHE(16).
        0x91 => SynchronizeCache16,
        /// WRITE SAME(16).
        0x93 => WriteSame16,
        /// WRITE ATOMIC(16).
        0x9c => WriteAtomic16,
        /// SERVICE ACTION IN(16).
        0x9e => ServiceActionIn16,
        /// REPORT LUNS.
        0xa0 => ReportLuns,
        /// MAINTENANCE IN.
        0xa3 => MaintenanceIn,
        /// MAINTENANCE OUT.
        0xa4 => MaintenanceOut,
        /// READ(12).
        0xa8 => Read12,
        /// WRITE(12).
        0xaa => Write12,
        /// WRITE AND VERIFY(12).
        0xae => WriteAndVerify12,
        /// VERIFY(12).
        0xaf => Verify12,
        /// READ DEFECT DATA(12).
        0xb7 => ReadDefectData12,
    }
}

impl OpCode {
    /// Whether the command is named by OPERATION CODE and SERVICE ACTION together, as far as this crate decodes
    /// it to separate variants of [`Command`].
    #[must_use]
    pub const fn has_service_action(self) -> bool {
        matches!(self.0, 0x7f | 0x83 | 0x9e | 0xa3 | 0xa4)
    }

    /// Whether the command can change the state of the device or of its medium, as far as its operation code tells:
    /// such commands are not sent as immediate ones (RFC 7143 section 10.6). Unknown commands may.
    #[must_use]
    pub const fn may_change_state(self) -> bool {
        // req: 7143-10.6-1
        !matches!(
            self,
            Self::TestUnitReady
                | Self::RequestSense
                | Self::Inquiry
                | Self::ModeSense6
                | Self::ModeSense10
                | Self::ReceiveDiagnosticResults
                | Self::ReadCapacity10
                | Self::Read6
                | Self::Read10
                | Self::Read12
                | Self::Read16
                | Self::Verify10
                | Self::Verify12
                | Self::Verify16
                | Self::PreFetch10
                | Self::PreFetch16
                | Self::ReadDefectData10
                | Self::ReadDefectData12
                | Self::LogSense
                | Self::PersistentReserveIn
                | Self::ThirdPartyCopyIn
                | Self::ServiceActionIn16
                | Self::ReportLuns
                | Self::MaintenanceIn
        )
    }

    /// Length in bytes of the CDBs of this operation code's group (SPC-4 clause 4.2.5.1); `None` where the
    /// length is not fixed: variable-length CDBs, the reserved and the vendor-specific groups.
    #[must_use]
    pub const fn cdb_len(self) -> Option<usize> {
        match self.0 >> 5 {
            0 => Some(6),
            1 | 2 => Some(10),
            4 => Some(16),
            5 => Some(12),
            _ => None,
        }
    }
}

/// CONTROL byte of a CDB (SAM-5 clause 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Control(pub u8);

impl Control {
    /// NACA: the initiator asks for an auto contingent allegiance on CHECK CONDITION.
    #[must_use]
    pub const fn naca(self) -> bool {
        self.0 & 0x04 != 0
    }
}

/// The longest CDB: an additional CDB length of 252 (SPC-4 clause 4.2.3).
pub const MAX_CDB_LEN: usize = 260;

/// The bytes of a CDB; up to 32 of them without allocation.
#[derive(Clone)]
pub struct CdbBuf(Repr);

#[derive(Clone)]
enum Repr {
    Short { len: u8, bytes: [u8; 32] },
    Long(Box<[u8]>),
}

impl CdbBuf {
    /// Takes over the bytes of a CDB; what is beyond [`MAX_CDB_LEN`] is cut off.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..MAX_CDB_LEN).unwrap_or(bytes);
        let mut short = [0; 32];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(bytes);
                Self(Repr::Short { len, bytes: short })
            }
            _ => Self(Repr::Long(bytes.into())),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Repr::Long(bytes) => bytes,
        }
    }

    fn set(&mut self, at: usize, value: u8) {
        let byte = match &mut self.0 {
            Repr::Short { bytes, .. } => bytes.get_mut(at),
            Repr::Long(bytes) => bytes.get_mut(at),
        };
        if let Some(byte) = byte {
            *byte = value;
        }
    }
}

impl core::ops::Deref for CdbBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for CdbBuf {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for CdbBuf {}

/// Hexadecimal.
impl fmt::Debug for CdbBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A command and its CONTROL byte: all that a CDB says.
///
/// ```
/// use scsi_cmd::cdb::{Cdb, Command, Inquiry};
///
/// let cdb = Cdb::decode(&[0x12, 0x01, 0x83, 0x00, 0xff, 0x00])?;
/// assert_eq!(cdb.command, Command::Inquiry(Inquiry { evpd: true, page_code: 0x83, allocation_length: 255 }));
/// assert_eq!(&*cdb.encode(), &[0x12, 0x01, 0x83, 0x00, 0xff, 0x00]);
/// # Ok::<_, scsi_cmd::DecodeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cdb {
    /// The command.
    pub command: Command,
    /// CONTROL.
    pub control: Control,
}

impl Cdb {
    /// Decodes a CDB. `bytes` may be longer than the CDB, as the 16-byte field of a SCSI Command PDU is; reserved
    /// bits are ignored (compare with [`Command::usage`] to refuse them). Operation codes and service actions that
    /// this crate does not know are kept as [`Command::Unknown`].
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when `bytes` is shorter than its operation code says,
    /// [`DecodeErrorKind::Length`] when a known variable-length command has another ADDITIONAL CDB LENGTH, or any has
    /// one beyond 252.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let len = cdb_len(bytes)?;
        let Some(bytes) = bytes.get(..len) else {
            return Err(truncated(bytes.len()));
        };
        let command = Command::decode(bytes)?;
        Ok(Self { command, control: control(bytes) })
    }

    /// The bytes of the CDB, reserved bits zero.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> CdbBuf {
        let mut bytes = self.command.encode();
        let at = control_at(&bytes);
        bytes.set(at, self.control.0);
        bytes
    }
}

impl From<Command> for Cdb {
    fn from(command: Command) -> Self {
        Self { command, control: Control(0) }
    }
}

fn truncated(len: usize) -> DecodeError {
    DecodeError { kind: DecodeErrorKind::Truncated, at: u32::try_from(len).unwrap_or(u32::MAX) }
}

/// Length of the CDB that `bytes` begins with.
fn cdb_len(bytes: &[u8]) -> Result<usize, DecodeError> {
    let op = OpCode(*bytes.first().ok_or(truncated(0))?);
    if let Some(len) = op.cdb_len() {
        return Ok(len);
    }
    match op.0 {
        // ADDITIONAL CDB LENGTH counts what follows byte 7.
        0x7e | 0x7f => {
            let additional = *bytes.get(7).ok_or(truncated(bytes.len()))?;
            let len = usize::from(additional).saturating_add(8);
            if len > MAX_CDB_LEN {
                return Err(DecodeError { kind: DecodeErrorKind::Length, at: 7 });
            }
            Ok(len)
        }
        _ => Ok(bytes.len().min(MAX_CDB_LEN)),
    }
}

/// Where the CONTROL byte is: byte 1 of a variable-length CDB, else the last one.
fn control_at(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(0x7e | 0x7f) => 1,
        _ => bytes.len().saturating_sub(1),
    }
}

fn control(bytes: &[u8]) -> Control {
    Control(bytes.get(control_at(bytes)).copied().unwrap_or(0))
}

/// SERVICE ACTION of the CDB `bytes`: bytes 8 and 9 of a variable-length CDB, else bits 4 to 0 of byte 1.
#[must_use]
pub fn service_action(bytes: &[u8]) -> u16 {
    match *bytes {
        [0x7f, _, _, _, _, _, _, _, hi, lo, ..] => u16::from_be_bytes([hi, lo]),
        [_, b, ..] => u16::from(b & 0x1f),
        _ => 0,
    }
}

macro_rules! commands {
    ($($name:ident),* $(,)?) => {
        /// A SCSI command of a direct-access block device, by CDB format.
        #[derive(Clone, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum Command {
            $(
                #[doc = concat!("See [`", stringify!($name), "`].")]
                $name($name),
            )*
            /// An operation code or service action that this crate does not know: the whole CDB.
            Unknown(CdbBuf),
        }

        impl Command {
            /// Decodes `bytes`, which have the length of the CDB.
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let op = OpCode(*bytes.first().ok_or(truncated(0))?);
                let sa = if op.has_service_action() { service_action(bytes) } else { 0 };
                match (op.0, sa) {
                    $(
                        ($name::OP, $name::SA_KEY) => {
                            let whole = <&[u8; $name::LEN]>::try_from(bytes)
                                .map_err(|_| DecodeError { kind: DecodeErrorKind::Length, at: 7 })?;
                            Ok(Self::$name($name::decode(whole)))
                        }
                    )*
                    _ => Ok(Self::Unknown(CdbBuf::new(bytes))),
                }
            }

            /// The bytes, CONTROL zero.
            fn encode(&self) -> CdbBuf {
                match self {
                    $( Self::$name(c) => CdbBuf::new(&c.encode()), )*
                    Self::Unknown(bytes) => bytes.clone(),
                }
            }

            /// OPERATION CODE.
            #[must_use]
            pub fn op_code(&self) -> OpCode {
                match self {
                    $( Self::$name(_) => OpCode($name::OP), )*
                    Self::Unknown(bytes) => OpCode(bytes.first().copied().unwrap_or(0)),
                }
            }

            /// CDB usage data (SPC-4 clause 6.35.3): a bit is set where this command has a field; the first byte is
            /// the operation code and the service action is given by value. `None` for [`Command::Unknown`].
            #[must_use]
            pub fn usage(&self) -> Option<&'static [u8]> {
                match self {
                    $( Self::$name(_) => Some(&$name::USAGE), )*
                    Self::Unknown(_) => None,
                }
            }
        }

        $(
            impl From<$name> for Command {
                fn from(c: $name) -> Self {
                    Self::$name(c)
                }
            }
        )*

        /// CDB usage data of every command that this crate decodes, in no order that matters.
        pub const USAGES: &[&[u8]] = &[$( &$name::USAGE, )*];
    };
}

commands! {
    TestUnitReady, RequestSense, FormatUnit, Read6, Write6, Inquiry, ModeSelect6, Reserve6, Release6, ModeSense6,
    StartStopUnit, ReceiveDiagnosticResults, SendDiagnostic, PreventAllowMediumRemoval, ReadCapacity10, Read10,
    Write10, WriteAndVerify10, Verify10, PreFetch10, SynchronizeCache10, ReadDefectData10, WriteBuffer, ReadBuffer,
    WriteSame10, Unmap, Sanitize, LogSelect, LogSense, ModeSelect10, Reserve10, Release10, ModeSense10,
    PersistentReserveIn, PersistentReserveOut, ExtendedCopyLid1, ReceiveCopyResults, Read16, CompareAndWrite,
    Write16, OrWrite16, WriteAndVerify16, Verify16, PreFetch16, SynchronizeCache16, WriteSame16, WriteAtomic16,
    ReadCapacity16, GetLbaStatus, ReportLuns, ReportTargetPortGroups, ReportSupportedOpCodes,
    ReportSupportedTmfs, ReportIdentifyingInformation, ReportTimestamp, SetTargetPortGroups,
    SetIdentifyingInformation, SetTimestamp, Read12, Write12, WriteAndVerify12, Verify12, ReadDefectData12, Read32,
    Verify32, Write32, WriteAndVerify32, WriteSame32,
}

#[cfg(test)]
mod tests;
