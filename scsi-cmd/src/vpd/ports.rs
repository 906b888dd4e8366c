//! VPD pages of descriptors: 87h Mode Page Policy, 88h SCSI Ports, 8Fh Third-Party Copy.

use super::Designator;
use crate::codec::{Parsed, Put, arr, be16, take};
use crate::layout::{bit, bits, bytes, records};
use alloc::vec::Vec;

records! {
    /// Mode page policy descriptor (SPC-4 clause 7.8.10).
    ModePagePolicy, 4 {
        /// POLICY PAGE CODE; 3Fh is every page not listed.
        page_code: u8 = bits(0, 0, 6),
        /// POLICY SUBPAGE CODE; FFh is every subpage not listed.
        subpage_code: u8 = bytes(1, 1),
        /// MLUS: shared by several logical units.
        mlus: bool = bit(2, 7),
        /// MODE PAGE POLICY: 0 shared, 1 per target port, 3 per I_T nexus.
        policy: u8 = bits(2, 0, 2),
    }
}

/// SCSI port designation descriptor (SPC-4 clause 7.8.13.2).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ScsiPort {
    /// RELATIVE PORT IDENTIFIER.
    pub relative_port_id: u16,
    /// INITIATOR PORT TRANSPORTID, encoded; empty for a port that is a target port only.
    pub initiator_transport_id: Vec<u8>,
    /// Names of the target port.
    pub target_port: Vec<Designator>,
}

impl ScsiPort {
    pub(super) fn encode(&self, o: &mut Vec<u8>) {
        o.put16(0);
        o.put16(self.relative_port_id);
        o.put16(0);
        let at = o.len();
        o.put16(0);
        o.put_bytes(&self.initiator_transport_id);
        o.fill_len16(at);
        o.put16(0);
        let at = o.len();
        o.put16(0);
        self.target_port.iter().for_each(|d| d.encode(o));
        o.fill_len16(at);
    }

    pub(super) fn decode_all(mut i: &[u8]) -> Parsed<'_, Vec<Self>> {
        let mut all = Vec::new();
        while !i.is_empty() {
            let (rest, [_, _, p0, p1, _, _]) = arr(i)?;
            let (rest, len) = be16(rest)?;
            let (rest, transport_id) = take(usize::from(len))(rest)?;
            let (rest, _) = arr::<2>(rest)?;
            let (rest, len) = be16(rest)?;
            let (rest, designators) = take(usize::from(len))(rest)?;
            all.push(Self {
                relative_port_id: u16::from_be_bytes([p0, p1]),
                initiator_transport_id: transport_id.to_vec(),
                target_port: Designator::decode_all(designators)?.1,
            });
            i = rest;
        }
        Ok((i, all))
    }
}

/// Third-party copy descriptor (SPC-4 clause 7.8.17.2).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ThirdPartyCopyDescriptor {
    /// THIRD-PARTY COPY DESCRIPTOR TYPE.
    pub kind: u16,
    /// What follows THIRD-PARTY COPY DESCRIPTOR LENGTH; padded to a multiple of four on the wire.
    pub data: Vec<u8>,
}

impl ThirdPartyCopyDescriptor {
    /// Supported Commands (SPC-4 clause 7.8.17.4): operation codes and their service actions.
    #[must_use]
    pub fn supported_commands(commands: &[(u8, &[u8])]) -> Self {
        let mut list = Vec::new();
        for (op, actions) in commands {
            list.put8(*op);
            list.put8(u8::try_from(actions.len()).unwrap_or(u8::MAX));
            list.extend(actions.iter().take(255));
        }
        let mut data = Vec::new();
        data.put8(u8::try_from(list.len()).unwrap_or(u8::MAX));
        data.put_bytes(&list);
        Self { kind: 0x0001, data: padded(data) }
    }

    /// Parameter Data (SPC-4 clause 7.8.17.5): the limits of EXTENDED COPY.
    #[must_use]
    pub fn parameter_data(
        max_targets: u16,
        max_segments: u16,
        max_list_length: u32,
        max_inline: u32,
    ) -> Self {
        let mut data = Vec::new();
        data.put_zeros(4);
        data.put16(max_targets);
        data.put16(max_segments);
        data.put32(max_list_length);
        data.put32(max_inline);
        data.put_zeros(12);
        Self { kind: 0x0004, data }
    }

    /// Supported Descriptors (SPC-4 clause 7.8.17.6): CSCD and segment descriptor type codes, ascending.
    #[must_use]
    pub fn supported_descriptors(codes: &[u8]) -> Self {
        let mut data = Vec::new();
        data.put8(u8::try_from(codes.len()).unwrap_or(u8::MAX));
        data.extend(codes.iter().take(255));
        Self { kind: 0x0008, data: padded(data) }
    }

    /// General Copy Operations (SPC-4 clause 7.8.17.10).
    #[must_use]
    pub fn general_copy_operations(
        total_concurrent: u32,
        max_identified: u32,
        max_segment_length: u32,
        granularity: u8,
    ) -> Self {
        let mut data = Vec::new();
        data.put32(total_concurrent);
        data.put32(max_identified);
        data.put32(max_segment_length);
        data.put8(granularity);
        data.put8(0);
        data.put_zeros(18);
        Self { kind: 0x8001, data }
    }

    pub(super) fn encode(&self, o: &mut Vec<u8>) {
        o.put16(self.kind);
        let at = o.len();
        o.put16(0);
        o.put_bytes(&self.data);
        o.fill_len16(at);
    }

    pub(super) fn decode_all(mut i: &[u8]) -> Parsed<'_, Vec<Self>> {
        let mut all = Vec::new();
        while !i.is_empty() {
            let (rest, kind) = be16(i)?;
            let (rest, len) = be16(rest)?;
            let (rest, data) = take(usize::from(len))(rest)?;
            all.push(Self { kind, data: data.to_vec() });
            i = rest;
        }
        Ok((i, all))
    }
}

/// `data` so long that descriptor header and data are a multiple of four.
fn padded(mut data: Vec<u8>) -> Vec<u8> {
    data.resize(data.len().next_multiple_of(4), 0);
    data
}
