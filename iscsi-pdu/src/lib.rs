#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;

mod ahs;
mod bhs;
mod digest;
mod error;
mod frame;
mod ids;
mod leaf;
mod pdu;
mod sense;
mod sn;
pub mod text;

pub use ahs::Ahs;
pub use bhs::{
    BHS_LEN, DIGEST_LEN, MAX_DATA_SEGMENT_LEN, Opcode, Residual, ScsiStatus, SegmentLen, TaskAttr, pad_len,
};
pub use digest::{Crc32c, Digests, data_digest, header_digest};
pub use error::{DecodeError, DecodeErrorKind, EncodeError, Rule};
pub use frame::{FrameError, Framer, Limits, Sender};
pub use ids::{Cid, Isid, IsidKind, Itt, Lun, SnackTag, Tsih, Ttt};
pub use pdu::asyncmsg::{AsyncEvent, AsyncMessage};
pub use pdu::data::{DataIn, DataOut};
pub use pdu::login::{LoginRequest, LoginResponse, Stage};
pub use pdu::logout::{LogoutReason, LogoutRequest, LogoutResponse, LogoutStatus};
pub use pdu::nop::{NopIn, NopOut};
pub use pdu::r2t::R2t;
pub use pdu::reject::{Reject, RejectReason};
pub use pdu::scsi::{ScsiCommand, ScsiResponse, ServiceResponse};
pub use pdu::snack::{Snack, SnackType};
pub use pdu::task::{TaskMgmtFunction, TaskMgmtRequest, TaskMgmtResponse, TaskMgmtStatus};
pub use pdu::text::{TextRequest, TextResponse};
pub use pdu::{DataLen, Pdu};
pub use sense::SenseData;
pub use sn::{CmdSn, DataSn, R2tSn, StatSn};
