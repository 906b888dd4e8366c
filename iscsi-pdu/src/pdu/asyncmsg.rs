//! Asynchronous Message (RFC 7143 section 11.9).
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x32      |1| Reserved                                    |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| LUN or Reserved                                               |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| 0xffffffff                                                    |
//!    +---------------+---------------+---------------+---------------+
//!  20| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  24| StatSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| AsyncEvent    | AsyncVCode    | Parameter1 or Reserved        |
//!    +---------------+---------------+---------------+---------------+
//!  40| Parameter2 or Reserved        | Parameter3 or Reserved        |
//!    +---------------+---------------+---------------+---------------+
//!  44| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//!    / DataSegment - Sense Data and iSCSI Event Data                 /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::bhs::code;
use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, be16, cmd_sn, lun, no_ahs, skip, stat_sn};
use crate::{BHS_LEN, CmdSn, Itt, Lun, Opcode, SegmentLen, StatSn};
use bytes::Bytes;
use nom::Parser;

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
        /// Vendor specific, as are all codes from 248 on; AsyncVCode tells which.
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

impl AsyncEvent {
    /// Whether the LUN field means something: not in the events about connections.
    // req: 7143-11.9.3-1
    #[must_use]
    pub const fn names_lun(self) -> bool {
        !matches!(self.0, 1..=4)
    }

    /// Whether the event is vendor specific (codes 248 to 255), so that AsyncVCode means something.
    #[must_use]
    pub const fn is_vendor_specific(self) -> bool {
        self.0 >= 248
    }
}

impl<D> AsyncMessage<D> {
    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        let vendor_code = if self.event.is_vendor_specific() { self.vendor_code } else { 0 };
        Emit::new(bhs)
            .put([Opcode::AsyncMessage.0, 0x80, 0, 0])
            .segment_len(len)
            .put(if self.event.names_lun() { self.lun.0 } else { [0; 8] })
            .be32(Itt::NONE.0)
            .zero::<4>()
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .put([self.event.0, vendor_code])
            .be16(self.parameter1)
            .be16(self.parameter2)
            .be16(self.parameter3)
            .zero::<4>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ((), len, lun, (), stat_sn, exp_cmd_sn, max_cmd_sn)) =
            (skip::<4>, no_ahs, lun, skip::<8>, stat_sn, cmd_sn, cmd_sn).parse(i)?;
        let (i, ([event, vendor_code], parameter1, parameter2, parameter3)) =
            (arr::<2>, be16, be16, be16).parse(i)?;
        let event = AsyncEvent(event);
        let pdu = Self {
            lun: if event.names_lun() { lun } else { Lun::ZERO },
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            event,
            vendor_code: if event.is_vendor_specific() { vendor_code } else { 0 },
            parameter1,
            parameter2,
            parameter3,
            data: segment(len),
        };
        Ok((i, pdu))
    }
}
