//! A map from Initiator Task Tags, hashed fast: the tags of a session are few (bounded by its window), so an
//! initiator that chooses them badly slows itself down.

use iscsi_pdu::Itt;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub(crate) type TagMap<V> = HashMap<Itt, V, BuildHasherDefault<TagHasher>>;

/// Multiplicative hashing of one 32-bit value.
#[derive(Default)]
pub(crate) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        let mixed = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
