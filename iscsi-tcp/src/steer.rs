//! Where data belongs: tasks by Initiator Task Tag, transfers by Target Transfer Tag.

use iscsi_pdu::{Itt, Ttt};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Tasks by ITT. One connection has a few hundred at most, so a peer that chooses tags to collide gains nothing.
pub(crate) type TagMap<V> = HashMap<Itt, V, BuildHasherDefault<TagHasher>>;

/// Multiplies by a large odd number: tags are counters or random, both spread well.
#[derive(Default)]
pub(crate) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u32(u32::from(*b)));
    }

    fn write_u32(&mut self, n: u32) {
        let product = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// Slots that hand out tags which are never the same for two values in a row: slot number and generation.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u16>,
    len: usize,
}

struct Slot<T> {
    generation: u16,
    value: Option<T>,
}

/// What a tag from the peer names.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Found<T> {
    /// A value that is there.
    Live(T),
    /// Something that was there before: late data of an ended task.
    Stale,
    /// Nothing that ever was.
    Unknown,
}

impl<T> Slab<T> {
    /// Values at a time.
    pub(crate) const TAGS: usize = u16::MAX as usize;

    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes a slot; `None` when all 65,535 are in use. Slot 0xffff stays unused, so that no tag is 0xffffffff.
    // req: 7143-11.8.5-1
    pub(crate) fn insert(&mut self, value: T) -> Option<Ttt> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u16::try_from(self.slots.len()).ok().filter(|n| *n < u16::MAX)?;
                self.slots.push(Slot { generation: 0, value: None });
                index
            }
        };
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.value = Some(value);
        self.len = self.len.saturating_add(1);
        Some(Ttt(u32::from(slot.generation) << 16 | u32::from(index)))
    }

    pub(crate) fn find(&mut self, tag: Ttt) -> Found<&mut T> {
        let (generation, index) = split(tag);
        match self.slots.get_mut(index) {
            Some(Slot { generation: now, value: Some(value) }) if *now == generation => Found::Live(value),
            // One that was handed out before lies behind; what lies ahead never was.
            Some(Slot { generation: now, .. }) if (1..1 << 15).contains(&now.wrapping_sub(generation)) => {
                Found::Stale
            }
            Some(_) | None => Found::Unknown,
        }
    }

    pub(crate) fn get_mut(&mut self, tag: Ttt) -> Option<&mut T> {
        match self.find(tag) {
            Found::Live(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get(&self, tag: Ttt) -> Option<&T> {
        let (generation, index) = split(tag);
        self.slots.get(index).filter(|s| s.generation == generation)?.value.as_ref()
    }

    pub(crate) fn remove(&mut self, tag: Ttt) -> Option<T> {
        let (generation, index) = split(tag);
        let slot = self.slots.get_mut(index).filter(|s| s.generation == generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(u16::try_from(index).ok()?);
        self.len = self.len.saturating_sub(1);
        Some(value)
    }

    /// All values with their tags.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ttt, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let index = u32::try_from(index).ok()?;
            Some((Ttt(u32::from(slot.generation) << 16 | index), slot.value.as_ref()?))
        })
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        self.free.clear();
        self.len = 0;
        self.slots.drain(..).filter_map(|slot| slot.value)
    }
}

fn split(tag: Ttt) -> (u16, usize) {
    let [a, b, c, d] = tag.0.to_be_bytes();
    (u16::from_be_bytes([a, b]), usize::from(u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_not_reused_at_once() {
        let mut slab = Slab::new();
        let a = slab.insert('a').unwrap();
        let b = slab.insert('b').unwrap();
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c').unwrap();
        assert_ne!(a, c);
        assert_eq!(slab.find(a), Found::Stale);
        assert_eq!(slab.find(c), Found::Live(&mut 'c'));
        assert_eq!(slab.find(Ttt(0xdead_beef)), Found::Unknown);
        // The slot is there, but such a tag was never given.
        assert_eq!(slab.find(Ttt(a.0 ^ 0x5a5a_0000)), Found::Unknown);
        assert_eq!(slab.find(Ttt::NONE), Found::Unknown);
        assert_eq!((slab.remove(a), slab.get(b), slab.len()), (None, Some(&'b'), 2));
        let mut left: Vec<_> = slab.drain().collect();
        left.sort_unstable();
        assert_eq!((left, slab.len(), slab.get(b)), (vec!['b', 'c'], 0, None));
    }

    // req: 7143-11.8.5-1
    #[test]
    fn the_reserved_tag_is_never_handed_out() {
        let mut slab = Slab::new();
        let tags: Vec<_> = std::iter::from_fn(|| slab.insert(())).collect();
        assert_eq!(tags.len(), 65535);
        assert!(tags.iter().all(|t| !t.is_none() && t.0 & 0xffff != 0xffff));
        // A slot's generation wraps around without touching the reserved value.
        let mut tag = *tags.last().unwrap();
        for _ in 0..70_000 {
            slab.remove(tag).unwrap();
            tag = slab.insert(()).unwrap();
            assert!(!tag.is_none());
        }
    }

    #[test]
    fn tags_spread() {
        let mut low = std::collections::BTreeSet::new();
        for n in 0..256u32 {
            let mut h = TagHasher::default();
            h.write_u32(n << 16);
            low.insert(h.finish() & 0xff);
        }
        assert!(low.len() > 128, "{}", low.len());
    }
}
