//! Sense data in the data segment of SCSI Response and Async Message (RFC 7143 sections 11.4.7, 11.9.4).
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!       +---------------+---------------+---------------+---------------+
//!      0| SenseLength                   | Sense Data                    |
//!       +---------------+---------------+---------------+---------------+
//!      x/ Sense Data                                                    /
//!       +---------------+---------------+---------------+---------------+
//!      y/ Response Data or Async Event Data                             /
//!       +---------------+---------------+---------------+---------------+
//! ```

use crate::{AsyncEvent, AsyncMessage, DecodeError, Rule, ScsiResponse};
use bytes::{BufMut, Bytes, BytesMut};

/// A data segment with SenseLength in front, taken apart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct SenseData {
    /// Sense data as SPC defines it; empty if there is none.
    pub sense: Bytes,
    /// Response data, or data of the asynchronous event.
    pub rest: Bytes,
}

impl SenseData {
    /// Takes a data segment apart, without copying. An empty one holds nothing.
    ///
    /// # Errors
    /// [`Rule::SenseLength`] when SenseLength goes beyond the segment or is cut off.
    pub fn from_segment(segment: &Bytes) -> Result<Self, DecodeError> {
        if segment.is_empty() {
            return Ok(Self::default());
        }
        let (len, rest) = segment.split_first_chunk::<2>().ok_or(Rule::SenseLength)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (sense, rest) = rest.split_at_checked(len).ok_or(Rule::SenseLength)?;
        Ok(Self { sense: segment.slice_ref(sense), rest: segment.slice_ref(rest) })
    }

    /// The data segment; empty when there is neither sense data nor anything else.
    ///
    /// # Errors
    /// [`Rule::FieldWidth`] when the sense data is longer than 65535 bytes.
    pub fn to_segment(&self) -> Result<Bytes, Rule> {
        if self.sense.is_empty() && self.rest.is_empty() {
            return Ok(Bytes::new());
        }
        let len = u16::try_from(self.sense.len()).map_err(|_| Rule::FieldWidth)?;
        let mut out =
            BytesMut::with_capacity(self.sense.len().saturating_add(self.rest.len()).saturating_add(2));
        out.put_u16(len);
        out.put_slice(&self.sense);
        out.put_slice(&self.rest);
        Ok(out.freeze())
    }
}

impl ScsiResponse {
    /// Sense data and response data.
    ///
    /// # Errors
    /// As [`SenseData::from_segment`].
    pub fn sense_data(&self) -> Result<SenseData, DecodeError> {
        SenseData::from_segment(&self.data)
    }
}

impl AsyncMessage {
    /// Sense data and data of the event.
    ///
    /// # Errors
    /// As [`SenseData::from_segment`].
    pub fn sense_data(&self) -> Result<SenseData, DecodeError> {
        SenseData::from_segment(&self.data)
    }

    /// Data goes with a SenseLength of 0 unless the event is a SCSI event.
    // req: 7143-11.9.4.1-1
    pub(crate) fn check_data(&self) -> Result<(), Rule> {
        match (self.event, &self.data[..]) {
            (AsyncEvent::ScsiEvent, _) | (_, [] | [0, 0, ..]) => Ok(()),
            _ => Err(Rule::SenseLength),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apart_and_together() {
        let segment = Bytes::from_static(&[0, 3, 0x70, 0, 6, 0xaa, 0xbb]);
        let parts = SenseData::from_segment(&segment).unwrap();
        assert_eq!((&parts.sense[..], &parts.rest[..]), (&[0x70, 0, 6][..], &[0xaa, 0xbb][..]));
        assert_eq!(parts.to_segment(), Ok(segment));
        assert_eq!(SenseData::from_segment(&Bytes::new()).unwrap().to_segment(), Ok(Bytes::new()));
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        for bytes in [&[0][..], &[0, 1], &[0xff, 0xff, 0], &[0, 3, 1, 2]] {
            let e = SenseData::from_segment(&Bytes::copy_from_slice(bytes)).unwrap_err();
            assert_eq!(e, Rule::SenseLength.into());
        }
        let long = SenseData { sense: vec![0; 65_536].into(), rest: Bytes::new() };
        assert_eq!(long.to_segment(), Err(Rule::FieldWidth));
    }
}
