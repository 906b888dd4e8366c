//! Sense data (SPC-4 clause 4.5): one value, two formats.
//!
//! ```
//! use scsi_cmd::sense::{Asc, Sense, SenseKey};
//!
//! let sense = Sense::new(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB).field_in_cdb(1, Some(5));
//! let fixed = sense.encode_fixed();
//! assert_eq!(fixed[..3], [0x70, 0x00, 0x05]);
//! assert_eq!(fixed[12..], [0x24, 0x00, 0x00, 0xcd, 0x00, 0x01]);
//! assert_eq!(Sense::decode(&fixed)?, sense);
//! # Ok::<_, scsi_cmd::DecodeError>(())
//! ```

mod asc;

pub use asc::Asc;

use crate::codec::{Failure, Parsed, Put, arr, flag, has, run, take};
use crate::error::{DecodeError, DecodeErrorKind};
use alloc::vec::Vec;

crate::codec::code! {
    /// SENSE KEY (SPC-4 table 43).
    SenseKey(u8) {
        /// NO SENSE.
        0x0 => NoSense,
        /// RECOVERED ERROR.
        0x1 => RecoveredError,
        /// NOT READY.
        0x2 => NotReady,
        /// MEDIUM ERROR.
        0x3 => MediumError,
        /// HARDWARE ERROR.
        0x4 => HardwareError,
        /// ILLEGAL REQUEST.
        0x5 => IllegalRequest,
        /// UNIT ATTENTION.
        0x6 => UnitAttention,
        /// DATA PROTECT.
        0x7 => DataProtect,
        /// BLANK CHECK.
        0x8 => BlankCheck,
        /// Vendor specific.
        0x9 => VendorSpecific,
        /// COPY ABORTED.
        0xa => CopyAborted,
        /// ABORTED COMMAND.
        0xb => AbortedCommand,
        /// VOLUME OVERFLOW.
        0xd => VolumeOverflow,
        /// MISCOMPARE.
        0xe => Miscompare,
        /// COMPLETED.
        0xf => Completed,
    }
}

/// What a field pointer points at (SPC-4 clause 4.5.2.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FieldPointer {
    /// C/D: the field is in the CDB, not in the parameter list.
    pub in_cdb: bool,
    /// Byte of the field.
    pub byte: u16,
    /// Its most significant bit, when known.
    pub bit: Option<u8>,
}

/// A descriptor of descriptor format sense data that this crate does not interpret.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OtherDescriptor {
    /// DESCRIPTOR TYPE.
    pub kind: u8,
    /// What follows the ADDITIONAL LENGTH byte; at most 255 bytes.
    pub data: Vec<u8>,
}

/// Sense data, whatever the format.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sense {
    /// The error belongs to an earlier command (response codes 71h and 73h).
    pub deferred: bool,
    /// SENSE KEY, 4 bits.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE and QUALIFIER.
    pub asc: Asc,
    /// INFORMATION with VALID set: the logical block address or offset that the ASC is about.
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION; in fixed format, 0 is absence.
    pub command_specific: Option<u64>,
    /// SENSE KEY SPECIFIC, 23 bits without SKSV; see [`Sense::field_pointer`] and [`Sense::progress`].
    pub key_specific: Option<[u8; 3]>,
    /// FIELD REPLACEABLE UNIT CODE; 0 is absence.
    pub fru: u8,
    /// FILEMARK (stream commands).
    pub filemark: bool,
    /// EOM (stream commands).
    pub eom: bool,
    /// ILI.
    pub ili: bool,
    /// SDAT_OVFL: the sense data would have been longer.
    pub sdat_ovfl: bool,
    /// Further descriptors; lost in fixed format.
    pub other: Vec<OtherDescriptor>,
}

const SKSV: u8 = 0x80;
const CD: u8 = 0x40;
const BPV: u8 = 0x08;

impl Sense {
    /// Current sense data with this key and code.
    #[must_use]
    pub fn new(key: SenseKey, asc: Asc) -> Self {
        Self { key, asc, ..Self::default() }
    }

    /// ILLEGAL REQUEST with this code.
    #[must_use]
    pub fn illegal(asc: Asc) -> Self {
        Self::new(SenseKey::IllegalRequest, asc)
    }

    /// INVALID FIELD IN CDB, pointing at a byte and its most significant offending bit.
    #[must_use]
    pub fn invalid_cdb_field(byte: u16, bit: impl Into<Option<u8>>) -> Self {
        Self::illegal(Asc::INVALID_FIELD_IN_CDB).field_in_cdb(byte, bit.into())
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at a byte and its most significant offending bit.
    #[must_use]
    pub fn invalid_parameter(byte: u16, bit: impl Into<Option<u8>>) -> Self {
        Self::illegal(Asc::INVALID_FIELD_IN_PARAMETER_LIST).field_in_parameters(byte, bit.into())
    }

    /// With INFORMATION.
    #[must_use]
    pub fn information(mut self, value: u64) -> Self {
        self.information = Some(value);
        self
    }

    /// With COMMAND-SPECIFIC INFORMATION.
    #[must_use]
    pub fn command_specific(mut self, value: u64) -> Self {
        self.command_specific = Some(value);
        self
    }

    /// With a pointer to a byte, and optionally a bit, of the CDB.
    #[must_use]
    pub fn field_in_cdb(self, byte: u16, bit: Option<u8>) -> Self {
        self.pointing(CD, byte, bit)
    }

    /// With a pointer to a byte, and optionally a bit, of the parameter list.
    #[must_use]
    pub fn field_in_parameters(self, byte: u16, bit: Option<u8>) -> Self {
        self.pointing(0, byte, bit)
    }

    fn pointing(mut self, cd: u8, byte: u16, bit: Option<u8>) -> Self {
        let [high, low] = byte.to_be_bytes();
        self.key_specific = Some([cd | bit.map_or(0, |bit| BPV | (bit & 0x07)), high, low]);
        self
    }

    /// With a progress indication: `done` of 65536.
    #[must_use]
    pub fn with_progress(mut self, done: u16) -> Self {
        let [high, low] = done.to_be_bytes();
        self.key_specific = Some([0, high, low]);
        self
    }

    /// The field pointer of an ILLEGAL REQUEST.
    #[must_use]
    pub fn field_pointer(&self) -> Option<FieldPointer> {
        let [flags, high, low] = self.key_specific.filter(|_| self.key == SenseKey::IllegalRequest)?;
        Some(FieldPointer {
            in_cdb: flags & CD != 0,
            byte: u16::from_be_bytes([high, low]),
            bit: (flags & BPV != 0).then_some(flags & 0x07),
        })
    }

    /// The progress indication of NO SENSE and NOT READY, in parts of 65536.
    #[must_use]
    pub fn progress(&self) -> Option<u16> {
        let [_, high, low] =
            self.key_specific.filter(|_| matches!(self.key, SenseKey::NoSense | SenseKey::NotReady))?;
        Some(u16::from_be_bytes([high, low]))
    }

    /// The actual retry count of RECOVERED, MEDIUM and HARDWARE ERROR.
    #[must_use]
    pub fn retry_count(&self) -> Option<u16> {
        let errors = [SenseKey::RecoveredError, SenseKey::MediumError, SenseKey::HardwareError];
        let [_, high, low] = self.key_specific.filter(|_| errors.contains(&self.key))?;
        Some(u16::from_be_bytes([high, low]))
    }

    /// Fixed format (SPC-4 clause 4.5.3), 18 bytes. What has no place in it is left out: INFORMATION and
    /// COMMAND-SPECIFIC INFORMATION beyond 32 bits, other descriptors.
    #[must_use]
    pub fn encode_fixed(&self) -> [u8; 18] {
        let information = self.information.and_then(|v| u32::try_from(v).ok());
        let specific = self.command_specific.and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
        let [i0, i1, i2, i3] = information.unwrap_or(0).to_be_bytes();
        let [c0, c1, c2, c3] = specific.to_be_bytes();
        let [k0, k1, k2] = self.key_specific.map_or([0; 3], |[a, b, c]| [a | SKSV, b, c]);
        let flags = flag(self.filemark, 7) | flag(self.eom, 6) | flag(self.ili, 5) | flag(self.sdat_ovfl, 4);
        [
            0x70 | u8::from(self.deferred) | flag(information.is_some(), 7),
            0,
            flags | (self.key.0 & 0x0f),
            i0,
            i1,
            i2,
            i3,
            10,
            c0,
            c1,
            c2,
            c3,
            self.asc.asc(),
            self.asc.ascq(),
            self.fru,
            k0,
            k1,
            k2,
        ]
    }

    /// Descriptor format (SPC-4 clause 4.5.2). ADDITIONAL SENSE LENGTH ends at 244: descriptors that do not fit are
    /// left out and SDAT_OVFL is set.
    #[must_use]
    pub fn encode_descriptor(&self) -> Vec<u8> {
        let mut o = Vec::with_capacity(32);
        o.put_bytes(&[
            0x72 | u8::from(self.deferred),
            self.key.0 & 0x0f,
            self.asc.asc(),
            self.asc.ascq(),
            flag(self.sdat_ovfl, 7),
            0,
            0,
            0,
        ]);
        if let Some(v) = self.information {
            o.put_bytes(&[0x00, 0x0a, 0x80, 0]);
            o.put64(v);
        }
        if let Some(v) = self.command_specific {
            o.put_bytes(&[0x01, 0x0a, 0, 0]);
            o.put64(v);
        }
        if let Some([a, b, c]) = self.key_specific {
            o.put_bytes(&[0x02, 0x06, 0, 0, a | SKSV, b, c, 0]);
        }
        if self.fru != 0 {
            o.put_bytes(&[0x03, 0x02, 0, self.fru]);
        }
        if self.filemark || self.eom {
            let flags = flag(self.filemark, 7) | flag(self.eom, 6) | flag(self.ili, 5);
            o.put_bytes(&[0x04, 0x02, 0, flags]);
        } else if self.ili {
            o.put_bytes(&[0x05, 0x02, 0, 0x20]);
        }
        for other in &self.other {
            let len = u8::try_from(other.data.len()).unwrap_or(u8::MAX);
            if o.len().saturating_add(usize::from(len)) > 250 {
                if let Some(byte) = o.get_mut(4) {
                    *byte |= 0x80;
                }
                break;
            }
            o.put_bytes(&[other.kind, len]);
            o.extend(other.data.iter().take(usize::from(len)));
        }
        let additional = u8::try_from(o.len().saturating_sub(8)).unwrap_or(u8::MAX);
        if let Some(byte) = o.get_mut(7) {
            *byte = additional;
        }
        o
    }

    /// The format that D_SENSE of the Control mode page selects.
    #[must_use]
    pub fn encode(&self, descriptor: bool) -> Vec<u8> {
        if descriptor { self.encode_descriptor() } else { self.encode_fixed().to_vec() }
    }

    /// Decodes either format. Fixed format data may end anywhere after byte 7, as an allocation length may have cut
    /// them: absent fields are zero.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] below 8 bytes or in the middle of a descriptor,
    /// [`DecodeErrorKind::Value`] for a response code other than 70h to 73h.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (_, [code]) = arr(i)?;
            match code & 0x7f {
                0x70 | 0x71 => fixed(i),
                0x72 | 0x73 => descriptor(i),
                _ => Err(Failure::at(i, DecodeErrorKind::Value)),
            }
        })
    }
}

fn fixed(i: &[u8]) -> Parsed<'_, Sense> {
    let (rest, [code, _, flags, i0, i1, i2, i3, additional]) = arr(i)?;
    // ADDITIONAL SENSE LENGTH bounds the rest; zeros stand for what is not there.
    let mut tail = [0; 10];
    let present = rest.iter().take(usize::from(additional));
    tail.iter_mut().zip(present).for_each(|(to, from)| *to = *from);
    let [c0, c1, c2, c3, asc, ascq, fru, k0, k1, k2] = tail;
    let specific = u32::from_be_bytes([c0, c1, c2, c3]);
    let sense = Sense {
        deferred: code & 0x01 != 0,
        key: SenseKey(flags & 0x0f),
        asc: Asc::new(asc, ascq),
        information: has(code, 7).then(|| u32::from_be_bytes([i0, i1, i2, i3]).into()),
        command_specific: (specific != 0).then_some(specific.into()),
        key_specific: (k0 & SKSV != 0).then_some([k0 & !SKSV, k1, k2]),
        fru,
        filemark: has(flags, 7),
        eom: has(flags, 6),
        ili: has(flags, 5),
        sdat_ovfl: has(flags, 4),
        other: Vec::new(),
    };
    Ok((&[], sense))
}

fn descriptor(i: &[u8]) -> Parsed<'_, Sense> {
    let (i, [code, key, asc, ascq, flags, _, _, additional]) = arr(i)?;
    let mut sense = Sense {
        deferred: code & 0x01 != 0,
        key: SenseKey(key & 0x0f),
        asc: Asc::new(asc, ascq),
        sdat_ovfl: has(flags, 7),
        ..Sense::default()
    };
    let (rest, mut i) = take(usize::from(additional))(i)?;
    while !i.is_empty() {
        let (after, [kind, len]) = arr(i)?;
        let (after, data) = take(usize::from(len))(after)?;
        match (kind, data) {
            (0x00, &[valid, _, a, b, c, d, e, f, g, h]) if has(valid, 7) => {
                sense.information = Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
            }
            (0x01, &[_, _, a, b, c, d, e, f, g, h]) => {
                sense.command_specific = Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
            }
            (0x02, &[_, _, a, b, c, _]) if a & SKSV != 0 => sense.key_specific = Some([a & !SKSV, b, c]),
            (0x03, &[_, fru]) if fru != 0 => sense.fru = fru,
            (0x04, &[_, flags]) if flags & 0xc0 != 0 => {
                (sense.filemark, sense.eom, sense.ili) = (has(flags, 7), has(flags, 6), has(flags, 5));
            }
            (0x05, &[_, flags]) if has(flags, 5) => sense.ili = true,
            _ => sense.other.push(OtherDescriptor { kind, data: data.to_vec() }),
        }
        i = after;
    }
    Ok((rest, sense))
}

#[cfg(test)]
mod tests;
