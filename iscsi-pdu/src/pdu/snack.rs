//! SNACK Request (RFC 7143 section 11.16).

use crate::{Itt, Lun, StatSn, Ttt, bhs::code};

code! {
    /// Type of a SNACK (RFC 7143 section 11.16.1); four bits.
    SnackType {
        /// Data/R2T SNACK: resend Data-In or R2T PDUs.
        0 => DataR2t,
        /// Status SNACK: resend numbered responses.
        1 => Status,
        /// DataACK: acknowledge Data-In PDUs.
        2 => DataAck,
        /// R-Data SNACK: resend Data-In PDUs, segmented anew.
        3 => RData,
    }
}

/// SNACK Request (RFC 7143 section 11.16).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snack {
    /// Type.
    pub kind: SnackType,
    /// Logical unit of the Data-In with A set (DataACK).
    pub lun: Lun,
    /// The command (Data/R2T, R-Data), else [`Itt::NONE`].
    pub itt: Itt,
    /// Target Transfer Tag (DataACK), SNACK Tag (R-Data) or 0xffffffff, as the type says.
    pub ttt_or_snack_tag: Ttt,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// BegRun: first missing DataSN, R2TSN or StatSN, or next expected DataSN (DataACK).
    pub beg_run: u32,
    /// RunLength: number of missing PDUs; 0 means all from BegRun on.
    pub run_length: u32,
}
