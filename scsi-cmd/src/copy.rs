//! EXTENDED COPY(LID1) and RECEIVE COPY RESULTS (SPC-4 clauses 5.17, 6.4, 6.17 to 6.23).

use crate::codec::{Failure, Parsed, Put, arr, be16, run, take};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::layout::{bit, bits, bytes, records};
use alloc::vec::Vec;

records! {
    /// Header of an EXTENDED COPY(LID1) parameter list (SPC-4 clause 6.4.3).
    CopyHeader, 16 {
        /// LIST IDENTIFIER.
        list_identifier: u8 = bytes(0, 0),
        /// STR: sequential striped.
        str: bool = bit(1, 5),
        /// LIST ID USAGE: 0 results are kept, 2 kept but for held data, 3 the identifier is not used.
        list_id_usage: u8 = bits(1, 3, 2),
        /// PRIORITY.
        priority: u8 = bits(1, 0, 3),
        /// CSCD DESCRIPTOR LIST LENGTH in bytes.
        cscd_length: u16 = bytes(2, 3),
        /// SEGMENT DESCRIPTOR LIST LENGTH in bytes.
        segment_length: u32 = bytes(8, 11),
        /// INLINE DATA LENGTH in bytes.
        inline_length: u32 = bytes(12, 15),
    }

    /// Identification descriptor CSCD descriptor, E4h (SPC-4 clause 6.4.5.1): a copy source or destination by name.
    IdentificationCscd, 32 {
        /// DESCRIPTOR TYPE CODE; E4h.
        kind: u8 = bytes(0, 0),
        /// LU ID TYPE; 0 is the logical unit number's.
        lu_id_type: u8 = bits(1, 6, 2),
        /// NUL: a null device.
        nul: bool = bit(1, 5),
        /// PERIPHERAL DEVICE TYPE.
        device_type: u8 = bits(1, 0, 5),
        /// RELATIVE INITIATOR PORT IDENTIFIER.
        relative_initiator_port: u16 = bytes(2, 3),
        /// CODE SET of the designator.
        code_set: u8 = bits(4, 0, 4),
        /// ASSOCIATION of the designator.
        association: u8 = bits(5, 4, 2),
        /// DESIGNATOR TYPE.
        designator_type: u8 = bits(5, 0, 4),
        /// DESIGNATOR LENGTH; at most 20.
        designator_length: u8 = bytes(7, 7),
        /// First 8 bytes of the DESIGNATOR.
        designator_0: u64 = bytes(8, 15),
        /// Next 8 bytes.
        designator_1: u64 = bytes(16, 23),
        /// Last 4 bytes.
        designator_2: u32 = bytes(24, 27),
        /// PAD: residual data are padded.
        pad: bool = bit(28, 2),
        /// DISK BLOCK LENGTH in bytes, 24 bits.
        block_length: u32 = bytes(29, 31),
    }

    /// Block device to block device segment descriptor, 02h (SPC-4 clause 6.4.6.6).
    BlockToBlock, 28 {
        /// DESCRIPTOR TYPE CODE; 02h.
        kind: u8 = bytes(0, 0),
        /// DC: the destination's blocks are counted.
        dc: bool = bit(1, 1),
        /// CAT: residual data are concatenated.
        cat: bool = bit(1, 0),
        /// DESCRIPTOR LENGTH; 18h.
        length: u16 = bytes(2, 3),
        /// SOURCE CSCD DESCRIPTOR INDEX.
        source: u16 = bytes(4, 5),
        /// DESTINATION CSCD DESCRIPTOR INDEX.
        destination: u16 = bytes(6, 7),
        /// BLOCK DEVICE NUMBER OF BLOCKS.
        blocks: u16 = bytes(10, 11),
        /// SOURCE BLOCK DEVICE LOGICAL BLOCK ADDRESS.
        source_lba: u64 = bytes(12, 19),
        /// DESTINATION BLOCK DEVICE LOGICAL BLOCK ADDRESS.
        destination_lba: u64 = bytes(20, 27),
    }

    /// RECEIVE COPY STATUS(LID1) parameter data (SPC-4 clause 6.23), in the shape of its obsolete name.
    CopyStatus, 12 {
        /// AVAILABLE DATA; 8.
        available_data: u32 = bytes(0, 3),
        /// HDD: held data were discarded.
        hdd: bool = bit(4, 7),
        /// COPY MANAGER STATUS: 0 in progress, 1 completed, 2 failed.
        status: u8 = bits(4, 0, 7),
        /// SEGMENTS PROCESSED.
        segments: u16 = bytes(5, 6),
        /// TRANSFER COUNT UNITS: 0 bytes, 1 KiB, 2 MiB.
        units: u8 = bytes(7, 7),
        /// TRANSFER COUNT.
        count: u32 = bytes(8, 11),
    }

    /// RECEIVE COPY OPERATING PARAMETERS parameter data (SPC-4 clause 6.19) before the descriptor type codes.
    CopyParameters, 44 {
        /// AVAILABLE DATA; [`CopyParameters::with_descriptors`] fills it in.
        available_data: u32 = bytes(0, 3),
        /// SNLID: LIST ID USAGE 3 is supported.
        snlid: bool = bit(4, 0),
        /// MAXIMUM CSCD DESCRIPTOR COUNT.
        max_cscds: u16 = bytes(8, 9),
        /// MAXIMUM SEGMENT DESCRIPTOR COUNT.
        max_segments: u16 = bytes(10, 11),
        /// MAXIMUM DESCRIPTOR LIST LENGTH in bytes.
        max_list_length: u32 = bytes(12, 15),
        /// MAXIMUM SEGMENT LENGTH in bytes.
        max_segment_length: u32 = bytes(16, 19),
        /// MAXIMUM INLINE DATA LENGTH in bytes.
        max_inline_length: u32 = bytes(20, 23),
        /// HELD DATA LIMIT in bytes.
        held_data_limit: u32 = bytes(24, 27),
        /// MAXIMUM STREAM DEVICE TRANSFER SIZE in bytes.
        max_stream_transfer: u32 = bytes(28, 31),
        /// TOTAL CONCURRENT COPIES.
        total_concurrent: u16 = bytes(34, 35),
        /// MAXIMUM CONCURRENT COPIES.
        max_concurrent: u8 = bytes(36, 36),
        /// DATA SEGMENT GRANULARITY, log2 of bytes.
        segment_granularity: u8 = bytes(37, 37),
        /// INLINE DATA GRANULARITY, log2 of bytes.
        inline_granularity: u8 = bytes(38, 38),
        /// HELD DATA GRANULARITY, log2 of bytes.
        held_granularity: u8 = bytes(39, 39),
        /// IMPLEMENTED DESCRIPTOR LIST LENGTH; [`CopyParameters::with_descriptors`] fills it in.
        descriptors: u8 = bytes(43, 43),
    }
}

impl IdentificationCscd {
    /// DESCRIPTOR TYPE CODE.
    pub const KIND: u8 = 0xe4;

    /// The designator.
    #[must_use]
    pub fn designator(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(20);
        all.put64(self.designator_0);
        all.put64(self.designator_1);
        all.put32(self.designator_2);
        all.truncate(usize::from(self.designator_length));
        all
    }

    /// With a designator, cut at 20 bytes.
    #[must_use]
    pub fn with_designator(self, designator: &[u8]) -> Self {
        let mut bytes = self.encode();
        if let Some(field) = bytes.get_mut(8..28) {
            field.fill(0);
            field.iter_mut().zip(designator).for_each(|(to, from)| *to = *from);
        }
        let designator_length = u8::try_from(designator.len().min(20)).unwrap_or(20);
        Self { designator_length, ..Self::decode(&bytes) }
    }
}

impl BlockToBlock {
    /// DESCRIPTOR TYPE CODE.
    pub const KIND: u8 = 0x02;
}

/// A segment descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Segment {
    /// Blocks to blocks.
    BlockToBlock(BlockToBlock),
    /// One that this crate does not know: its type code, and all of its bytes.
    Unknown(u8, Vec<u8>),
}

/// A CSCD descriptor: all are 32 bytes long.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cscd {
    /// By designator.
    Identification(IdentificationCscd),
    /// One that this crate does not know: its type code, and the 31 bytes that follow it.
    Unknown(u8, [u8; 31]),
}

/// An EXTENDED COPY(LID1) parameter list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyList {
    /// The header; its lengths are those of what follows.
    pub header: CopyHeader,
    /// Copy sources and destinations.
    pub cscds: Vec<Cscd>,
    /// What to copy.
    pub segments: Vec<Segment>,
    /// Inline data.
    pub inline: Vec<u8>,
}

impl CopyList {
    /// The list, lengths filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut cscds = Vec::new();
        for cscd in &self.cscds {
            match cscd {
                Cscd::Identification(c) => cscds.put_bytes(&c.encode()),
                Cscd::Unknown(kind, rest) => {
                    cscds.put8(*kind);
                    cscds.put_bytes(rest);
                }
            }
        }
        let mut segments = Vec::new();
        for segment in &self.segments {
            match segment {
                Segment::BlockToBlock(s) => segments.put_bytes(&s.encode()),
                Segment::Unknown(_, all) => segments.put_bytes(all),
            }
        }
        let header = CopyHeader {
            cscd_length: u16::try_from(cscds.len()).unwrap_or(u16::MAX),
            segment_length: u32::try_from(segments.len()).unwrap_or(u32::MAX),
            inline_length: u32::try_from(self.inline.len()).unwrap_or(u32::MAX),
            ..self.header
        };
        let mut o = header.encode().to_vec();
        o.put_bytes(&cscds);
        o.put_bytes(&segments);
        o.put_bytes(&self.inline);
        o
    }

    /// Decodes a list. Segments that are not known end where DESCRIPTOR LENGTH says.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when it is shorter than its lengths say, [`DecodeErrorKind::Length`] when the
    /// CSCD descriptors do not fill their list.
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        run(data, |i| {
            let (rest, header) = arr::<16>(i)?;
            let header = CopyHeader::decode(&header);
            let (after, mut list) = take(usize::from(header.cscd_length))(rest)?;
            if !header.cscd_length.is_multiple_of(32) {
                return Err(Failure::at(i.get(2..).unwrap_or_default(), DecodeErrorKind::Length));
            }
            let mut cscds = Vec::new();
            while !list.is_empty() {
                let (next, [kind, tail @ ..]) = arr::<32>(list)?;
                cscds.push(match kind {
                    IdentificationCscd::KIND => Cscd::Identification(IdentificationCscd::decode(list)),
                    _ => Cscd::Unknown(kind, tail),
                });
                list = next;
            }
            let (after, mut list) =
                take(usize::try_from(header.segment_length).unwrap_or(usize::MAX))(after)?;
            let mut segments = Vec::new();
            while !list.is_empty() {
                let (next, segment) = segment(list)?;
                segments.push(segment);
                list = next;
            }
            let (after, inline) = take(usize::try_from(header.inline_length).unwrap_or(usize::MAX))(after)?;
            Ok((after, Self { header, cscds, segments, inline: inline.to_vec() }))
        })
    }
}

fn segment(i: &[u8]) -> Parsed<'_, Segment> {
    let (rest, [kind, _]) = arr(i)?;
    let (_, len) = be16(rest)?;
    let (next, all) = take(usize::from(len).saturating_add(4))(i)?;
    let segment = match (kind, all.len()) {
        (BlockToBlock::KIND, BlockToBlock::LEN) => Segment::BlockToBlock(BlockToBlock::decode(all)),
        _ => Segment::Unknown(kind, all.to_vec()),
    };
    Ok((next, segment))
}

impl CopyParameters {
    /// The data with the descriptor type codes that are implemented, ascending.
    #[must_use]
    pub fn with_descriptors(&self, codes: &[u8]) -> Vec<u8> {
        let descriptors = u8::try_from(codes.len()).unwrap_or(u8::MAX);
        let mut o = Self { descriptors, ..*self }.encode().to_vec();
        o.extend(codes.iter().take(255));
        o.fill_len32(0);
        o
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn list() -> CopyList {
        let cscd = IdentificationCscd {
            kind: 0xe4,
            code_set: 1,
            designator_type: 3,
            block_length: 512,
            ..IdentificationCscd::default()
        };
        let segment = BlockToBlock {
            kind: 2,
            dc: true,
            length: 0x18,
            blocks: 2048,
            destination_lba: 4096,
            ..BlockToBlock::default()
        };
        CopyList {
            header: CopyHeader {
                list_identifier: 1,
                cscd_length: 32,
                segment_length: 28,
                ..CopyHeader::default()
            },
            cscds: vec![Cscd::Identification(cscd.with_designator(&[0x30, 1, 2, 3, 4, 5, 6, 7]))],
            segments: vec![Segment::BlockToBlock(segment)],
            inline: Vec::new(),
        }
    }

    // SPC-4 tables 112, 121 and 134.
    #[test]
    fn a_copy_by_hand() {
        let bytes = hex::decode(concat!(
            "01000020000000000000001c00000000",
            "e4000000010300083001020304050607000000000000000000000000",
            "00000200",
            "02020018000000000000080000000000000000000000000000001000"
        ))
        .unwrap();
        assert_eq!(list().encode(), bytes);
        assert_eq!(CopyList::decode(&bytes), Ok(list()));
        for len in 0..bytes.len() {
            assert_eq!(
                CopyList::decode(&bytes[..len]).unwrap_err().kind,
                DecodeErrorKind::Truncated,
                "{len}"
            );
        }
        let Cscd::Identification(cscd) = &list().cscds[0] else { panic!() };
        assert_eq!(cscd.designator(), [0x30, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn operating_parameters_by_hand() {
        let bytes =
            CopyParameters { max_cscds: 2, ..CopyParameters::default() }.with_descriptors(&[0x02, 0xe4]);
        assert_eq!(bytes.len(), 46);
        assert_eq!(
            (&bytes[..4], &bytes[8..10], &bytes[43..]),
            (&[0, 0, 0, 42][..], &[0, 2][..], &[2, 2, 0xe4][..])
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(list) = CopyList::decode(&bytes) {
                prop_assert_eq!(CopyList::decode(&list.encode()), Ok(list));
            }
        }
    }
}
