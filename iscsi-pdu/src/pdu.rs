//! The [`Pdu`] enum: one variant an opcode of RFC 7143 section 11.

pub(crate) mod asyncmsg;
pub(crate) mod data;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod nop;
pub(crate) mod r2t;
pub(crate) mod reject;
pub(crate) mod scsi;
pub(crate) mod snack;
pub(crate) mod task;
pub(crate) mod text;

use crate::*;
use bytes::Bytes;

/// Any iSCSI PDU of RFC 7143 section 11.
///
/// `D` is what stands for the data segment: [`SegmentLen`] when only the header has been read, [`Bytes`] when the
/// data is there, `()` when it travels elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs)] // each variant is documented at its struct
pub enum Pdu<D = Bytes> {
    NopOut(NopOut<D>),
    ScsiCommand(ScsiCommand<D>),
    TaskMgmtRequest(TaskMgmtRequest),
    LoginRequest(LoginRequest<D>),
    TextRequest(TextRequest<D>),
    DataOut(DataOut<D>),
    LogoutRequest(LogoutRequest),
    Snack(Snack),
    NopIn(NopIn<D>),
    ScsiResponse(ScsiResponse<D>),
    TaskMgmtResponse(TaskMgmtResponse),
    LoginResponse(LoginResponse<D>),
    TextResponse(TextResponse<D>),
    DataIn(DataIn<D>),
    LogoutResponse(LogoutResponse),
    R2t(R2t),
    AsyncMessage(AsyncMessage<D>),
    Reject(Reject<D>),
}

macro_rules! from_variant {
    ($($v:ident),*; $($w:ident),*) => {
        $( impl<D> From<$v<D>> for Pdu<D> {
            fn from(p: $v<D>) -> Self { Self::$v(p) }
        } )*
        $( impl<D> From<$w> for Pdu<D> {
            fn from(p: $w) -> Self { Self::$w(p) }
        } )*
    };
}
from_variant!(NopOut, ScsiCommand, LoginRequest, TextRequest, DataOut, NopIn, ScsiResponse, LoginResponse,
    TextResponse, DataIn, AsyncMessage, Reject; TaskMgmtRequest, LogoutRequest, Snack, TaskMgmtResponse,
    LogoutResponse, R2t);

impl<D> Pdu<D> {
    /// The opcode.
    #[must_use]
    pub const fn opcode(&self) -> Opcode {
        match self {
            Self::NopOut(_) => Opcode::NopOut,
            Self::ScsiCommand(_) => Opcode::ScsiCommand,
            Self::TaskMgmtRequest(_) => Opcode::TaskMgmtRequest,
            Self::LoginRequest(_) => Opcode::LoginRequest,
            Self::TextRequest(_) => Opcode::TextRequest,
            Self::DataOut(_) => Opcode::DataOut,
            Self::LogoutRequest(_) => Opcode::LogoutRequest,
            Self::Snack(_) => Opcode::Snack,
            Self::NopIn(_) => Opcode::NopIn,
            Self::ScsiResponse(_) => Opcode::ScsiResponse,
            Self::TaskMgmtResponse(_) => Opcode::TaskMgmtResponse,
            Self::LoginResponse(_) => Opcode::LoginResponse,
            Self::TextResponse(_) => Opcode::TextResponse,
            Self::DataIn(_) => Opcode::DataIn,
            Self::LogoutResponse(_) => Opcode::LogoutResponse,
            Self::R2t(_) => Opcode::R2t,
            Self::AsyncMessage(_) => Opcode::AsyncMessage,
            Self::Reject(_) => Opcode::Reject,
        }
    }
}
