//! A slab whose keys are checked by generation: a tag of a task that is over names nothing, however soon its slot is
//! used again.

/// Slots that an [`Itt`](iscsi_pdu::Itt) can name: 16 bits, of which the last value is left out so that the
/// reserved tag 0xffffffff is never made.
pub(crate) const MAX_SLOTS: u32 = 0xffff;

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Values by key; the key is a slot number and how often the slot was used.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

/// Generation in the upper, slot in the lower half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Key(pub(crate) u64);

impl Key {
    const fn new(slot: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | slot as u64)
    }

    const fn slot(self) -> u32 {
        self.0 as u32
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The key in 32 bits: slot and the low half of the generation. Never 0xffffffff, and unlike that of any other key
    /// that is there.
    // req: 7143-11.2.1.8-1, 7143-11.2.1.8-2
    pub(crate) const fn to_tag(self) -> u32 {
        (self.generation() << 16) | (self.slot() & MAX_SLOTS)
    }
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what `make` makes of its key; `None` when all slots are in use.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.entries.len()).ok().filter(|n| *n < MAX_SLOTS)?;
                self.entries.push(Entry { generation: 0, value: None });
                slot
            }
        };
        let entry = self.entries.get_mut(slot as usize)?;
        let key = Key::new(slot, entry.generation);
        entry.value = Some(make(key));
        Some(key)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.entry(key)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key.slot() as usize).filter(|e| e.generation == key.generation())?.value.as_mut()
    }

    /// As [`remove`](Self::remove), the value dropped where it is.
    pub(crate) fn discard(&mut self, key: Key) {
        let entry = self.entries.get_mut(key.slot() as usize).filter(|e| e.generation == key.generation());
        if let Some(entry) = entry.filter(|e| e.value.is_some()) {
            entry.value = None;
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(key.slot());
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.slot() as usize).filter(|e| e.generation == key.generation())?;
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.slot());
        Some(value)
    }

    /// The key that [`Key::to_tag`] made this tag of, if its value is still here.
    pub(crate) fn key_of_tag(&self, tag: u32) -> Option<Key> {
        let slot = tag & MAX_SLOTS;
        let entry = self.entries.get(slot as usize)?;
        let key = Key::new(slot, entry.generation);
        (entry.value.is_some() && key.to_tag() == tag).then_some(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0u32..)
            .zip(&self.entries)
            .filter_map(|(slot, e)| e.value.as_ref().map(|value| (Key::new(slot, e.generation), value)))
    }

    fn entry(&self, key: Key) -> Option<&Entry<T>> {
        self.entries.get(key.slot() as usize).filter(|e| e.generation == key.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    // req: 7143-11.2.1.8-2
    #[test]
    fn no_tag_is_the_reserved_one() {
        for generation in [0, 1, 0xffff, 0x1_0000, u32::MAX] {
            assert_ne!(Key::new(MAX_SLOTS - 1, generation).to_tag(), 0xffff_ffff);
        }
        let mut slab = Slab::new();
        let keys: Vec<Key> = std::iter::from_fn(|| slab.insert_with(|_| ())).collect();
        assert_eq!(keys.len(), 0xffff, "slot 0xffff is never used");
    }

    proptest! {
        // Security class 18: a tag of a task that is over never names another one.
        // req: 7143-11.2.1.8-1
        #[test]
        fn tags_of_live_values_are_unique_and_stale_ones_name_nothing(ops in proptest::collection::vec(any::<u8>(), 1..400)) {
            let mut slab = Slab::new();
            let mut live: HashMap<u32, (Key, u8)> = HashMap::new();
            let mut stale = Vec::new();
            for op in ops {
                if op % 3 != 0 || live.is_empty() {
                    let key = slab.insert_with(|_| op).unwrap();
                    prop_assert!(live.insert(key.to_tag(), (key, op)).is_none());
                } else {
                    let tag = *live.keys().min().unwrap();
                    let (key, value) = live.remove(&tag).unwrap();
                    prop_assert_eq!(slab.remove(key), Some(value));
                    stale.push(key);
                }
                prop_assert_eq!(slab.len(), live.len());
                for (tag, (key, value)) in &live {
                    prop_assert_eq!(slab.key_of_tag(*tag), Some(*key));
                    prop_assert_eq!(slab.get(*key), Some(value));
                }
                for key in &stale {
                    prop_assert!(slab.get(*key).is_none() && slab.remove(*key).is_none());
                }
            }
        }
    }
}
