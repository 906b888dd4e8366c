//! What a SCSI Response says beyond the status: residuals (RFC 7143 section 11.4.5) and the sense segment (11.4.7).

use bytes::{BufMut, Bytes, BytesMut};
use iscsi_pdu::Residual;

/// Longest sense data that SPC allows.
pub(crate) const MAX_SENSE: usize = 252;

/// iSCSI conditions that end a command with CHECK CONDITION (RFC 7143 section 11.4.7.2): all ABORTED COMMAND.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    /// Unsolicited data came though InitialR2T or ImmediateData forbids it.
    UnexpectedUnsolicitedData,
    /// Unsolicited data is not as long as it must be.
    IncorrectAmountOfData,
    /// A data digest error, or the loss of data that implies one.
    ProtocolServiceCrc,
    /// Data that was asked for again cannot be sent again.
    SnackRejected,
}

impl Condition {
    /// Additional sense code and qualifier.
    const fn asc(self) -> [u8; 2] {
        match self {
            Self::UnexpectedUnsolicitedData => [0x0c, 0x0c],
            Self::IncorrectAmountOfData => [0x0c, 0x0d],
            Self::ProtocolServiceCrc => [0x47, 0x05],
            Self::SnackRejected => [0x11, 0x13],
        }
    }

    /// Fixed-format sense data.
    pub(crate) fn sense(self) -> Bytes {
        aborted_command(self.asc())
    }
}

/// Fixed-format sense data, ABORTED COMMAND (SPC-4 section 4.5.3).
pub(crate) fn aborted_command([asc, ascq]: [u8; 2]) -> Bytes {
    Bytes::copy_from_slice(&[0x70, 0, 0x0b, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])
}

/// Fixed-format sense data: HARDWARE ERROR, INTERNAL TARGET FAILURE.
pub(crate) fn target_failure() -> Bytes {
    Bytes::from_static(&[0x70, 0, 0x04, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x44, 0x00, 0, 0, 0, 0])
}

/// Whether sense data, fixed or descriptor, says UNIT ATTENTION.
pub(crate) fn is_unit_attention(sense: &[u8]) -> bool {
    let key = match sense.first().map(|b| b & 0x7f) {
        Some(0x70) => sense.get(2),
        Some(0x72) => sense.get(1),
        _ => None,
    };
    key.is_some_and(|k| k & 0x0f == 0x06)
}

/// The data segment of a SCSI Response or Async Message: SenseLength, then the sense data.
pub(crate) fn sense_segment(sense: &[u8]) -> Bytes {
    if sense.is_empty() {
        return Bytes::new();
    }
    let sense = sense.get(..MAX_SENSE).unwrap_or(sense);
    let mut out = BytesMut::with_capacity(2 + sense.len());
    out.put_u16(sense.len() as u16);
    out.put_slice(sense);
    out.freeze()
}

/// Splits the data segment of a SCSI Response or Async Message into sense data and what follows it; a SenseLength
/// beyond the segment's end yields what there is.
pub(crate) fn split_sense(segment: &Bytes) -> (Bytes, Bytes) {
    let Some(len) = segment.first_chunk().map(|b| u16::from_be_bytes(*b)) else {
        return (Bytes::new(), Bytes::new());
    };
    let end = segment.len().min(2 + usize::from(len));
    (segment.slice(2..end), segment.slice(end..))
}

/// The residual of one direction: what SCSI presented against what the initiator expected.
// req: 7143-11.4.5.2-1, 7143-11.4.5.2-2, 7143-11.4.5.2-3, 7143-11.4.5.2-4
pub(crate) fn residual(presented: u64, expected: u32) -> Residual {
    let expected = u64::from(expected);
    let cap = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    if presented > expected {
        Residual::Overflow(cap(presented - expected))
    } else if presented < expected {
        Residual::Underflow(cap(expected - presented))
    } else {
        Residual::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The examples are those of RFC 7143 section 11.4.5: INQUIRY data of 96 bytes, REPORT LUNS.
    // req: 7143-11.4.5.2-1, 7143-11.4.5.2-2, 7143-11.4.5.2-3, 7143-11.4.5.2-4, 7143-11.4.5.3-2, 7143-11.4.5.3-3
    #[test]
    fn residual_is_the_difference_of_spdtl_and_edtl() {
        assert_eq!(residual(96, 36), Residual::Overflow(60));
        assert_eq!(residual(36, 96), Residual::Underflow(60));
        assert_eq!(residual(96, 96), Residual::None);
        assert_eq!(residual(16, 512), Residual::Underflow(496));
        assert_eq!(residual(24, 512), Residual::Underflow(488));
        assert_eq!(residual(u64::MAX, 0), Residual::Overflow(u32::MAX));
    }

    // req: 7143-11.4.7-2
    #[test]
    fn sense_segment_begins_with_its_length() {
        assert_eq!(sense_segment(&[0x70, 0, 5])[..], [0, 3, 0x70, 0, 5]);
        assert!(sense_segment(&[]).is_empty());
        assert_eq!(sense_segment(&[0; 300]).len(), 2 + 252);
        let (sense, rest) = split_sense(&Bytes::from_static(&[0, 2, 0x72, 6, 9, 9]));
        assert_eq!((&sense[..], &rest[..]), (&[0x72, 6][..], &[9, 9][..]));
        let (sense, rest) = split_sense(&Bytes::from_static(&[0xff, 0xff, 1]));
        assert_eq!((&sense[..], rest.len()), (&[1][..], 0), "a length that lies");
        assert!(split_sense(&Bytes::from_static(&[7])).0.is_empty());
    }

    // RFC 7143 section 11.4.7.2, the table.
    #[test]
    fn conditions_have_the_codes_of_the_table() {
        let key_asc = |c: Condition| {
            let s = c.sense();
            (s[2], s[12], s[13])
        };
        assert_eq!(key_asc(Condition::UnexpectedUnsolicitedData), (0x0b, 0x0c, 0x0c));
        assert_eq!(key_asc(Condition::IncorrectAmountOfData), (0x0b, 0x0c, 0x0d));
        assert_eq!(key_asc(Condition::ProtocolServiceCrc), (0x0b, 0x47, 0x05));
        assert_eq!(key_asc(Condition::SnackRejected), (0x0b, 0x11, 0x13));
    }

    #[test]
    fn unit_attention_is_seen_in_both_formats() {
        assert!(is_unit_attention(&[0x70, 0, 0x06]) && is_unit_attention(&[0xf0, 0, 0x46]));
        assert!(is_unit_attention(&[0x72, 0x06]));
        assert!(!is_unit_attention(&[0x70, 0x06, 0x05]) && !is_unit_attention(&[0x71, 0, 0x06]));
        assert!(!is_unit_attention(&[]) && !is_unit_attention(&[0x70]));
    }
}
