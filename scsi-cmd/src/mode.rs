//! Mode parameter lists (SPC-4 clause 7.5): header, block descriptors, pages.

mod pages;

pub use pages::{
    ApplicationTagDescriptor, ApplicationTags, Caching, Control, ControlExtension, InformationalExceptions,
    ModePage, ReadWriteErrorRecovery, VerifyErrorRecovery,
};

use crate::codec::{Failure, Parsed, Put, arr, flag, has, run, take};
use crate::error::{DecodeError, DecodeErrorKind};
use alloc::vec::Vec;

/// Which header a parameter list has: that of the 6-byte or of the 10-byte commands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ModeForm {
    /// MODE SENSE(6), MODE SELECT(6): 4 bytes (SPC-4 table 363).
    Six,
    /// MODE SENSE(10), MODE SELECT(10): 8 bytes (SPC-4 table 364).
    Ten,
}

/// A block descriptor of a direct-access block device (SBC-3 clause 6.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BlockDescriptor {
    /// Short, 8 bytes.
    Short {
        /// NUMBER OF LOGICAL BLOCKS; FFFF_FFFFh when it does not fit.
        blocks: u32,
        /// LOGICAL BLOCK LENGTH in bytes, 24 bits.
        length: u32,
    },
    /// Long, 16 bytes, with LONGLBA.
    Long {
        /// NUMBER OF LOGICAL BLOCKS.
        blocks: u64,
        /// LOGICAL BLOCK LENGTH in bytes.
        length: u32,
    },
}

/// A mode parameter list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModeParameters {
    /// MEDIUM TYPE; 0 for direct-access block devices.
    pub medium_type: u8,
    /// WP of the DEVICE-SPECIFIC PARAMETER (SBC-3 clause 6.4.1): the medium is write-protected.
    pub wp: bool,
    /// DPOFUA: DPO and FUA are supported.
    pub dpofua: bool,
    /// Block descriptors, all short or all long.
    pub descriptors: Vec<BlockDescriptor>,
    /// Mode pages.
    pub pages: Vec<ModePage>,
}

impl ModeParameters {
    /// The list with the header of `form`. MODE DATA LENGTH is filled in, as MODE SENSE returns it; with `select` it
    /// is zero, as MODE SELECT reserves it.
    #[must_use]
    pub fn encode(&self, form: ModeForm, select: bool) -> Vec<u8> {
        let long = self.descriptors.iter().any(|d| matches!(d, BlockDescriptor::Long { .. }));
        let each: usize = if long { 16 } else { 8 };
        let descriptors = self.descriptors.len().saturating_mul(each);
        let device_specific = flag(self.wp, 7) | flag(self.dpofua, 4);
        let mut o = Vec::with_capacity(64);
        match form {
            ModeForm::Six => {
                let len = u8::try_from(descriptors).unwrap_or(u8::MAX);
                o.put_bytes(&[0, self.medium_type, device_specific, len]);
            }
            ModeForm::Ten => {
                o.put_bytes(&[0, 0, self.medium_type, device_specific, u8::from(long), 0]);
                o.put16(u16::try_from(descriptors).unwrap_or(u16::MAX));
            }
        }
        for descriptor in &self.descriptors {
            match *descriptor {
                BlockDescriptor::Short { blocks, length } if !long => {
                    o.put32(blocks);
                    o.put8(0);
                    o.put24(length);
                }
                BlockDescriptor::Short { blocks, length } => put_long(&mut o, blocks.into(), length),
                BlockDescriptor::Long { blocks, length } => put_long(&mut o, blocks, length),
            }
        }
        self.pages.iter().for_each(|page| page.encode(&mut o));
        if !select {
            match form {
                ModeForm::Six => {
                    let len = u8::try_from(o.len().saturating_sub(1)).unwrap_or(u8::MAX);
                    o.first_mut().into_iter().for_each(|first| *first = len);
                }
                ModeForm::Ten => o.fill_len16(0),
            }
        }
        o
    }

    /// Decodes a list. MODE DATA LENGTH is not looked at: MODE SELECT reserves it, and MODE SENSE data that an
    /// allocation length cut are shorter.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when header, descriptors or a page are cut, [`DecodeErrorKind::Length`] when
    /// BLOCK DESCRIPTOR LENGTH is no multiple of a descriptor's length.
    pub fn decode(bytes: &[u8], form: ModeForm) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, mut list, long, descriptors) = header(i, form)?;
            let (mut i, mut block) = take(descriptors)(i)?;
            while !block.is_empty() {
                let (rest, descriptor) = block_descriptor(block, long)?;
                list.descriptors.push(descriptor);
                block = rest;
            }
            while !i.is_empty() {
                let (rest, page) = ModePage::decode(i)?;
                list.pages.push(page);
                i = rest;
            }
            Ok((i, list))
        })
    }
}

fn put_long(o: &mut Vec<u8>, blocks: u64, length: u32) {
    o.put64(blocks);
    o.put32(0);
    o.put32(length);
}

/// The rest, a list without descriptors and pages, LONGLBA, BLOCK DESCRIPTOR LENGTH.
type Header<'a> = (&'a [u8], ModeParameters, bool, usize);

fn header(i: &[u8], form: ModeForm) -> Result<Header<'_>, nom::Err<Failure<'_>>> {
    let (rest, medium_type, device_specific, long, len) = match form {
        ModeForm::Six => {
            let (rest, [_, medium_type, device_specific, len]) = arr(i)?;
            (rest, medium_type, device_specific, false, usize::from(len))
        }
        ModeForm::Ten => {
            let (rest, [_, _, medium_type, device_specific, long, _, l0, l1]) = arr(i)?;
            (rest, medium_type, device_specific, has(long, 0), usize::from(u16::from_be_bytes([l0, l1])))
        }
    };
    let each = if long { 15 } else { 7 };
    if len & each != 0 {
        // The pointer is at BLOCK DESCRIPTOR LENGTH.
        let at = if form == ModeForm::Six { i.get(3..) } else { i.get(6..) };
        return Err(Failure::at(at.unwrap_or_default(), DecodeErrorKind::Length));
    }
    let list = ModeParameters {
        medium_type,
        wp: has(device_specific, 7),
        dpofua: has(device_specific, 4),
        ..ModeParameters::default()
    };
    Ok((rest, list, long, len))
}

fn block_descriptor(i: &[u8], long: bool) -> Parsed<'_, BlockDescriptor> {
    if long {
        let (i, [n0, n1, n2, n3, n4, n5, n6, n7, _, _, _, _, l0, l1, l2, l3]) = arr(i)?;
        let blocks = u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        Ok((i, BlockDescriptor::Long { blocks, length: u32::from_be_bytes([l0, l1, l2, l3]) }))
    } else {
        let (i, [n0, n1, n2, n3, _, l0, l1, l2]) = arr(i)?;
        let blocks = u32::from_be_bytes([n0, n1, n2, n3]);
        Ok((i, BlockDescriptor::Short { blocks, length: u32::from_be_bytes([0, l0, l1, l2]) }))
    }
}

#[cfg(test)]
mod tests;
