//! Where the field departs from RFC 7145, in one place.
//!
//! | matter | RFC 7145 | practice (Linux ib_iser and ib_isert, libiscsi, tgt) | here |
//! |---|---|---|---|
//! | Write Base Offset | whole buffer unless TaggedBufferForSolicitedDataOnly=Yes | past the unsolicited data, key never negotiated | [`Quirks::write_base`] |
//! | data segment of a response | InitiatorRecvDataSegmentLength | initiators post 128 bytes whatever they declared | [`Quirks::max_response_data`] |
//! | Hello | when negotiated | never | sent only when negotiated to Yes, answered when it comes |
//! | STag to invalidate | named in the header of the response | header zero, Send with Invalidate | both |
//! | keys | declared by either side | an unasked key in a response fails the login | never volunteered (iscsi-login) |
//! | private data | - | 4 bytes in both directions | [`CmHeader`] |

use bytes::{Bytes, BytesMut};
use datamover::ConnKeys;
use iscsi_pdu::{Itt, Pdu};
use std::time::Duration;

/// Which byte of the output the Write Base Offset stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum WriteBase {
    /// The first solicited byte.
    Solicited,
    /// The first byte of the whole output.
    Whole,
}

/// Deviations for one peer. The default serves the peers of the field and those that follow the RFC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quirks {
    /// Overrides what the keys say about the Write Base Offset.
    pub write_base: Option<WriteBase>,
    /// Overrides how many bytes of data a control-type PDU of a target may have in full feature phase.
    pub max_response_data: Option<usize>,
    /// How long a target sends nothing of its own accord after a login without Hello (RFC 7145 section 5.1.3).
    pub quiet_after_login: Duration,
}

impl Default for Quirks {
    fn default() -> Self {
        Self { write_base: None, max_response_data: None, quiet_after_login: Duration::from_secs(1) }
    }
}

/// Receive buffers of ib_iser and libiscsi hold this much data after the BHS.
pub const FIELD_RESPONSE_DATA: usize = 128;

impl Quirks {
    /// What the Write Base Offset of this connection stands for. A key that was never negotiated means what the
    /// field means; an explicit value means what the RFC says (RFC 7145 section 6.9).
    #[must_use]
    pub fn write_base(&self, keys: &ConnKeys) -> WriteBase {
        self.write_base.unwrap_or(match keys.tagged_buffer_for_solicited_data_only {
            Some(false) => WriteBase::Whole,
            None | Some(true) => WriteBase::Solicited,
        })
    }

    /// Most bytes of data in a response. Initiators that declare one of the keys of RFC 7145 that the field does
    /// not know post what they declare; the others post [`FIELD_RESPONSE_DATA`].
    #[must_use]
    pub fn response_data(&self, keys: &ConnKeys) -> usize {
        let declared = usize::try_from(keys.initiator_recv_data_segment_length).unwrap_or(usize::MAX);
        self.max_response_data.unwrap_or_else(|| {
            let honest = keys.tagged_buffer_for_solicited_data_only.is_some()
                || keys.iser_hello_required.is_some()
                || keys.peer_max_outstanding_unexpected_pdus.is_some();
            if honest { declared } else { declared.min(FIELD_RESPONSE_DATA) }
        })
    }
}

/// Cuts what may be cut so that the data segment has `limit` bytes at most: sense data, and the echo of a ping.
/// Text is left alone, as initiators post a long buffer for the answer that they await.
#[must_use]
pub(crate) fn fit(pdu: Pdu<Bytes>, limit: usize) -> Pdu<Bytes> {
    if pdu.data().is_none_or(|d| d.len() <= limit) {
        return pdu;
    }
    match pdu {
        Pdu::ScsiResponse(mut p) => {
            p.data = cut_sense(&p.data, limit);
            Pdu::ScsiResponse(p)
        }
        Pdu::AsyncMessage(mut p) => {
            p.data = cut_sense(&p.data, limit);
            Pdu::AsyncMessage(p)
        }
        Pdu::NopIn(mut p) if p.itt != Itt::NONE => {
            p.data.truncate(limit);
            Pdu::NopIn(p)
        }
        Pdu::Reject(mut p) => {
            p.data.truncate(limit);
            Pdu::Reject(p)
        }
        other => other,
    }
}

/// SenseLength and sense data (RFC 7143 section 11.4.7), cut to `limit` bytes; what followed the sense data goes.
fn cut_sense(data: &Bytes, limit: usize) -> Bytes {
    let Some(([a, b], rest)) = data.split_first_chunk::<2>() else { return data.clone() };
    let sense = usize::from(u16::from_be_bytes([*a, *b])).min(limit.saturating_sub(2)).min(rest.len());
    let mut out = BytesMut::with_capacity(limit);
    out.extend_from_slice(&u16::try_from(sense).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(rest.get(..sense).unwrap_or_default());
    out.freeze()
}

/// The four bytes of private data that iSER peers exchange when they connect (InfiniBand annex A15, and the same on
/// iWARP): one byte of flags and three reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct CmHeader {
    /// 0x80: zero-based virtual addresses are not supported, or not used. Everybody says so.
    pub no_zero_based_va: bool,
    /// 0x40: Send with Invalidate is not supported (by an initiator), or not used (by a target).
    pub no_send_invalidate: bool,
}

impl CmHeader {
    /// Reads private data; what is missing reads as 0, as tgt sends none.
    #[must_use]
    pub fn decode(private_data: &[u8]) -> Self {
        let flags = private_data.first().copied().unwrap_or(0);
        Self { no_zero_based_va: flags & 0x80 != 0, no_send_invalidate: flags & 0x40 != 0 }
    }

    /// The four bytes.
    #[must_use]
    pub const fn encode(self) -> [u8; 4] {
        let a = if self.no_zero_based_va { 0x80 } else { 0 };
        let b = if self.no_send_invalidate { 0x40 } else { 0 };
        [a | b, 0, 0, 0]
    }
}

#[cfg(test)]
mod tests;
