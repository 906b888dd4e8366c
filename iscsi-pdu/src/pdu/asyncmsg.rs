//! Asynchronous Message (RFC 7143 section 11.9).

use crate::{CmdSn, Lun, StatSn, bhs::code};
use bytes::Bytes;

code! {
    /// AsyncEvent (RFC 7143 section 11.9.1).
    AsyncEvent {
        /// A SCSI asynchronous event; the data segment carries sense data.
        0 => ScsiEvent,
        /// The target asks for a logout of this connection within Parameter3 seconds.
        1 => LogoutRequest,
        /// The target will drop the connection that Parameter1 names.
        2 => ConnectionDrop,
        /// The target will drop all connections of the session.
        3 => SessionDrop,
        /// The target asks for parameter negotiation on this connection within Parameter3 seconds.
        4 => NegotiationRequest,
        /// All tasks of the logical unit are being terminated (RFC 7143 section 4.2.3.4, FastAbort).
        5 => TasksTerminated,
        /// Vendor specific; AsyncVCode tells which.
        255 => VendorSpecific,
    }
}

/// Asynchronous Message (RFC 7143 section 11.9).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AsyncMessage<D = Bytes> {
    /// Logical unit, for events 0 and 5.
    pub lun: Lun,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// AsyncEvent.
    pub event: AsyncEvent,
    /// AsyncVCode, for vendor-specific events.
    pub vendor_code: u8,
    /// Parameter1.
    pub parameter1: u16,
    /// Parameter2.
    pub parameter2: u16,
    /// Parameter3.
    pub parameter3: u16,
    /// SenseLength (2 bytes), sense data, event data; empty when there is neither.
    pub data: D,
}
