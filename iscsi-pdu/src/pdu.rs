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

use crate::error::DecodeErrorKind;
use crate::leaf::unwrap_err;
use crate::*;
use bytes::{BufMut, Bytes, BytesMut};

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

/// What can stand for a data segment when a header is encoded: all that it must know is its length.
///
/// Implement it for a scatter list and `Pdu<MyList>` encodes headers whose payload the transport chains.
pub trait DataLen {
    /// Bytes of the data segment, padding not counted.
    fn data_len(&self) -> usize;

    /// TotalAHSLength in 4-byte words of AHSs that the PDU itself does not hold: 0 except in [`SegmentLen`].
    fn ahs_words(&self) -> u8 {
        0
    }
}

impl DataLen for Bytes {
    fn data_len(&self) -> usize {
        self.len()
    }
}

impl DataLen for &[u8] {
    fn data_len(&self) -> usize {
        self.len()
    }
}

/// No data.
impl DataLen for () {
    fn data_len(&self) -> usize {
        0
    }
}

impl DataLen for SegmentLen {
    fn data_len(&self) -> usize {
        Self::data_len(*self)
    }

    fn ahs_words(&self) -> u8 {
        self.ahs_words
    }
}

/// One match over all variants, with one arm for those with a data segment and one for the others.
macro_rules! each {
    ($pdu:expr, $p:ident => $with:expr, $q:ident => $without:expr) => {
        match $pdu {
            Pdu::NopOut($p) => $with,
            Pdu::ScsiCommand($p) => $with,
            Pdu::TaskMgmtRequest($q) => $without,
            Pdu::LoginRequest($p) => $with,
            Pdu::TextRequest($p) => $with,
            Pdu::DataOut($p) => $with,
            Pdu::LogoutRequest($q) => $without,
            Pdu::Snack($q) => $without,
            Pdu::NopIn($p) => $with,
            Pdu::ScsiResponse($p) => $with,
            Pdu::TaskMgmtResponse($q) => $without,
            Pdu::LoginResponse($p) => $with,
            Pdu::TextResponse($p) => $with,
            Pdu::DataIn($p) => $with,
            Pdu::LogoutResponse($q) => $without,
            Pdu::R2t($q) => $without,
            Pdu::AsyncMessage($p) => $with,
            Pdu::Reject($p) => $with,
        }
    };
}

/// One match for a field that only some variants have.
macro_rules! field {
    ($pdu:expr, $field:ident: $($v:ident)|*) => {
        match $pdu {
            $( Pdu::$v(p) => Some(p.$field), )*
            _ => None,
        }
    };
}

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

    /// The data segment; `None` in a PDU that has no room for one.
    #[must_use]
    pub const fn data(&self) -> Option<&D> {
        each!(self, p => Some(&p.data), _q => None)
    }

    /// The same PDU with `f` of its data segment.
    #[must_use]
    pub fn map<E>(self, f: impl FnOnce(D) -> E) -> Pdu<E> {
        macro_rules! variants {
            ($($with:ident { $($field:ident),* })*; $($without:ident),*) => {
                match self {
                    $( Pdu::$with($with { $($field,)* data }) => Pdu::$with($with { $($field,)* data: f(data) }), )*
                    $( Pdu::$without(p) => Pdu::$without(p), )*
                }
            };
        }
        variants! {
            NopOut { immediate, lun, itt, ttt, cmd_sn, exp_stat_sn }
            ScsiCommand {
                immediate, final_pdu, read, write, attr, priority, lun, itt, expected_data_transfer_length,
                cmd_sn, exp_stat_sn, cdb, ahs
            }
            LoginRequest {
                transit, continue_text, csg, nsg, version_max, version_min, isid, tsih, itt, cid, cmd_sn,
                exp_stat_sn
            }
            TextRequest { immediate, final_pdu, continue_text, lun, itt, ttt, cmd_sn, exp_stat_sn }
            DataOut { final_pdu, lun, itt, ttt, exp_stat_sn, data_sn, buffer_offset }
            NopIn { lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn }
            ScsiResponse {
                response, status, status_qualifier, itt, snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn,
                exp_data_sn, residual, bidirectional_read_residual
            }
            LoginResponse {
                transit, continue_text, csg, nsg, version_max, version_active, isid, tsih, itt, stat_sn,
                exp_cmd_sn, max_cmd_sn, status_class, status_detail
            }
            TextResponse { final_pdu, continue_text, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn }
            DataIn {
                final_pdu, acknowledge, status, residual, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn,
                data_sn, buffer_offset
            }
            AsyncMessage {
                lun, stat_sn, exp_cmd_sn, max_cmd_sn, event, vendor_code, parameter1, parameter2, parameter3
            }
            Reject { reason, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn };
            TaskMgmtRequest, LogoutRequest, Snack, TaskMgmtResponse, LogoutResponse, R2t
        }
    }

    /// Initiator Task Tag; [`Itt::NONE`] in Async Message and Reject.
    #[must_use]
    pub const fn itt(&self) -> Itt {
        match self {
            Self::NopOut(p) => p.itt,
            Self::ScsiCommand(p) => p.itt,
            Self::TaskMgmtRequest(p) => p.itt,
            Self::LoginRequest(p) => p.itt,
            Self::TextRequest(p) => p.itt,
            Self::DataOut(p) => p.itt,
            Self::LogoutRequest(p) => p.itt,
            Self::Snack(p) => p.itt,
            Self::NopIn(p) => p.itt,
            Self::ScsiResponse(p) => p.itt,
            Self::TaskMgmtResponse(p) => p.itt,
            Self::LoginResponse(p) => p.itt,
            Self::TextResponse(p) => p.itt,
            Self::DataIn(p) => p.itt,
            Self::LogoutResponse(p) => p.itt,
            Self::R2t(p) => p.itt,
            Self::AsyncMessage(_) | Self::Reject(_) => Itt::NONE,
        }
    }

    /// The LUN field, in the PDUs that have one; whether it means something is said at each struct.
    #[must_use]
    pub const fn lun(&self) -> Option<Lun> {
        field!(self, lun: NopOut | ScsiCommand | TaskMgmtRequest | TextRequest | DataOut | Snack | NopIn
            | TextResponse | DataIn | R2t | AsyncMessage)
    }

    /// Whether the I bit is set; always in a Login Request, never in a PDU that has none.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        match self {
            Self::NopOut(p) => p.immediate,
            Self::ScsiCommand(p) => p.immediate,
            Self::TaskMgmtRequest(p) => p.immediate,
            Self::TextRequest(p) => p.immediate,
            Self::LogoutRequest(p) => p.immediate,
            Self::LoginRequest(_) => true,
            _ => false,
        }
    }

    /// CmdSN, in the requests that have one: all but Data-Out and SNACK.
    #[must_use]
    pub const fn cmd_sn(&self) -> Option<CmdSn> {
        field!(self, cmd_sn: NopOut | ScsiCommand | TaskMgmtRequest | LoginRequest | TextRequest | LogoutRequest)
    }

    /// ExpStatSN, in all requests.
    #[must_use]
    pub const fn exp_stat_sn(&self) -> Option<StatSn> {
        field!(self, exp_stat_sn: NopOut | ScsiCommand | TaskMgmtRequest | LoginRequest | TextRequest | DataOut
            | LogoutRequest | Snack)
    }

    /// StatSN, in all target PDUs but a Data-In without status.
    #[must_use]
    pub const fn stat_sn(&self) -> Option<StatSn> {
        if let Self::DataIn(DataIn { status: None, .. }) = self {
            return None;
        }
        field!(self, stat_sn: NopIn | ScsiResponse | TaskMgmtResponse | LoginResponse | TextResponse | DataIn
            | LogoutResponse | R2t | AsyncMessage | Reject)
    }

    /// ExpCmdSN, in all target PDUs.
    #[must_use]
    pub const fn exp_cmd_sn(&self) -> Option<CmdSn> {
        field!(self, exp_cmd_sn: NopIn | ScsiResponse | TaskMgmtResponse | LoginResponse | TextResponse | DataIn
            | LogoutResponse | R2t | AsyncMessage | Reject)
    }

    /// MaxCmdSN, in all target PDUs.
    #[must_use]
    pub const fn max_cmd_sn(&self) -> Option<CmdSn> {
        field!(self, max_cmd_sn: NopIn | ScsiResponse | TaskMgmtResponse | LoginResponse | TextResponse | DataIn
            | LogoutResponse | R2t | AsyncMessage | Reject)
    }

    /// Appends the Additional Header Segments, padded. Like every [`BufMut`] writer it panics when `out` has a
    /// fixed size and is too small; they take up what [`Self::encode_header`] has put into TotalAHSLength.
    pub fn encode_ahs(&self, out: &mut impl BufMut) {
        if let Self::ScsiCommand(p) = self {
            ahs::emit(&p.ahs, out);
        }
    }
}

impl<D> Pdu<D> {
    /// Decodes the BHS, with what `segment` makes of its lengths for a data segment.
    #[inline]
    pub(crate) fn decode_with(
        bhs: &[u8; BHS_LEN],
        segment: impl FnOnce(SegmentLen) -> D,
    ) -> Result<Self, DecodeError> {
        // A function for each: all in one, every opcode would save the registers that one of them needs.
        macro_rules! parse {
            ($t:ident $(, $segment:ident)?) => {{
                #[inline(never)]
                fn parse<D>(
                    bhs: &[u8; BHS_LEN]
                    $(, $segment: impl FnOnce(SegmentLen) -> D)?
                ) -> Result<Pdu<D>, DecodeError> {
                    match $t::parse(bhs $(, $segment)?) {
                        Ok((_, p)) => Ok(Pdu::$t(p)),
                        Err(e) => Err(unwrap_err(e)),
                    }
                }
                parse(bhs $(, $segment)?)
            }};
        }
        match opcode(bhs) {
            Opcode::NopOut => parse!(NopOut, segment),
            Opcode::ScsiCommand => parse!(ScsiCommand, segment),
            Opcode::TaskMgmtRequest => parse!(TaskMgmtRequest),
            Opcode::LoginRequest => parse!(LoginRequest, segment),
            Opcode::TextRequest => parse!(TextRequest, segment),
            Opcode::DataOut => parse!(DataOut, segment),
            Opcode::LogoutRequest => parse!(LogoutRequest),
            Opcode::Snack => parse!(Snack),
            Opcode::NopIn => parse!(NopIn, segment),
            Opcode::ScsiResponse => parse!(ScsiResponse, segment),
            Opcode::TaskMgmtResponse => parse!(TaskMgmtResponse),
            Opcode::LoginResponse => parse!(LoginResponse, segment),
            Opcode::TextResponse => parse!(TextResponse, segment),
            Opcode::DataIn => parse!(DataIn, segment),
            Opcode::LogoutResponse => parse!(LogoutResponse),
            Opcode::R2t => parse!(R2t),
            Opcode::AsyncMessage => parse!(AsyncMessage, segment),
            Opcode::Reject => parse!(Reject, segment),
            other => Err(DecodeError::new(DecodeErrorKind::UnknownOpcode(other), 0)),
        }
    }
}

impl Pdu<SegmentLen> {
    /// Step 1 of decoding: the Basic Header Segment alone. No allocation, no data needed.
    ///
    /// The `data` of the result says how many bytes of AHS and data follow; a caller that knows where the data
    /// belongs reads it there and never needs step 2.
    ///
    /// # Errors
    /// [`DecodeErrorKind::UnknownOpcode`] or the [`Rule`] that the header breaks.
    pub fn decode_header(bhs: &[u8; BHS_LEN]) -> Result<Self, DecodeError> {
        Self::decode_with(bhs, |len| len)
    }

    /// The lengths that the header announced.
    #[must_use]
    pub fn segment_len(&self) -> SegmentLen {
        self.data().copied().unwrap_or_default()
    }

    /// Step 2 of decoding: the header together with its AHSs and its data, both of exactly the announced lengths
    /// (data without padding). Allocates only if there are AHSs.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Incomplete`] or [`DecodeErrorKind::TrailingBytes`] when a length is another, or the
    /// [`Rule`] that an AHS breaks.
    pub fn with_data(self, ahs: &[u8], data: Bytes) -> Result<Pdu<Bytes>, DecodeError> {
        let len = self.segment_len();
        exact_len(ahs.len(), len.ahs_len(), BHS_LEN)?;
        exact_len(data.len(), len.data_len(), BHS_LEN.saturating_add(len.ahs_len()))?;
        let mut pdu = self.map(|_| data);
        pdu.check_segments(ahs)?;
        Ok(pdu)
    }
}

impl<D: DataLen> Pdu<D> {
    /// Writes the Basic Header Segment, for data that the caller sends after it (padded, [`pad_len`]).
    ///
    /// A field that the RFC reserves under the circumstances (the LUN of an unsolicited Data-Out, say) is written
    /// with its reserved value, whatever the struct holds.
    ///
    /// # Errors
    /// [`EncodeError`] when a length does not fit its field or a [`Rule`] is broken; `bhs` is then unspecified.
    pub fn encode_header(&self, bhs: &mut [u8; BHS_LEN]) -> Result<(), EncodeError> {
        each!(self, p => p.emit(data_len(&p.data)?, bhs)?, q => q.emit(bhs)?);
        Ok(())
    }

    /// Bytes of the whole PDU on the wire: header, AHSs, data, padding; digests not counted.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let ahs = match self {
            Self::ScsiCommand(p) if !p.ahs.is_empty() => ahs::encoded_len(&p.ahs),
            Self::ScsiCommand(p) => usize::from(p.data.ahs_words()).saturating_mul(4),
            _ => 0,
        };
        let data = self.data().map_or(0, DataLen::data_len);
        BHS_LEN.saturating_add(ahs).saturating_add(data).saturating_add(pad_len(data))
    }
}

impl Pdu<Bytes> {
    /// What is left of decoding once the header and the data are there: the AHSs, and what the data must be.
    pub(crate) fn check_segments(&mut self, ahs: &[u8]) -> Result<(), DecodeError> {
        match self {
            Self::ScsiCommand(p) if !ahs.is_empty() => p.with_ahs(ahs),
            Self::AsyncMessage(p) => Ok(p.check_data()?),
            _ => Ok(()),
        }
    }

    /// Decodes one whole PDU without digests; its data is a slice of `frame`, not a copy.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Incomplete`] while bytes are missing, [`DecodeErrorKind::TrailingBytes`] when some
    /// follow, or what [`Pdu::decode_header`] and [`Pdu::with_data`] find.
    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let Some(bhs) = frame.first_chunk::<BHS_LEN>() else {
            return Err(DecodeError::incomplete(BHS_LEN.saturating_sub(frame.len()), frame.len()));
        };
        let header = Pdu::decode_header(bhs)?;
        let len = header.segment_len();
        let data_at = BHS_LEN.saturating_add(len.ahs_len());
        let data_end = data_at.saturating_add(len.data_len());
        exact_len(frame.len(), data_at.saturating_add(len.padded_data_len()), 0)?;
        header.with_data(frame.get(BHS_LEN..data_at).unwrap_or_default(), frame.slice(data_at..data_end))
    }

    /// Appends the whole PDU, padded, without digests. [`Pdu::encode_with`] adds digests.
    ///
    /// # Errors
    /// As [`Pdu::encode_header`]; `out` is then unchanged.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_with(Digests::NONE, out)
    }

    /// The whole PDU, padded, without digests.
    ///
    /// # Errors
    /// As [`Pdu::encode_header`].
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        self.encode(&mut out)?;
        Ok(out.freeze())
    }
}

/// The DataSegmentLength of `data`, without AHS.
#[inline(always)]
fn data_len(data: &impl DataLen) -> Result<SegmentLen, EncodeError> {
    let len = data.data_len();
    match u32::try_from(len) {
        Ok(data @ ..=MAX_DATA_SEGMENT_LEN) => Ok(SegmentLen { ahs_words: 0, data }),
        _ => Err(EncodeError::DataTooLong { len }),
    }
}

/// The opcode of a header.
pub(crate) const fn opcode(bhs: &[u8; BHS_LEN]) -> Opcode {
    let [first, ..] = bhs;
    Opcode(*first & 0x3f)
}

/// Whether `have` bytes, which begin at offset `at` of the PDU, are the `want` that must be there.
fn exact_len(have: usize, want: usize, at: usize) -> Result<(), DecodeError> {
    match have.checked_sub(want) {
        Some(0) => Ok(()),
        Some(extra) => {
            let extra = u32::try_from(extra).unwrap_or(u32::MAX);
            let at = u16::try_from(at.saturating_add(want)).unwrap_or(u16::MAX);
            Err(DecodeError::new(DecodeErrorKind::TrailingBytes { extra }, at))
        }
        None => Err(DecodeError::incomplete(want.saturating_sub(have), at.saturating_add(have))),
    }
}

#[cfg(test)]
mod tests;
