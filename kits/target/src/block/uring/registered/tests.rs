//! With a table that stands for the kernel's.

use super::*;
use datamover::{BufPool as _, IoBuf, PoolConfig, SlabPool};
use std::cell::{Cell, RefCell};

/// Slabs of 4096 bytes, one chunk each.
fn pool() -> SlabPool {
    SlabPool::new(PoolConfig { chunk_lens: vec![4096], slab_len: 4096, max_bytes: 1 << 20 })
}

fn chunk(pool: &SlabPool) -> IoBuf {
    pool.alloc(4096).unwrap().into_parts().next().unwrap()
}

/// What the kernel has been told: first addresses by place.
#[derive(Default)]
struct Told {
    made: Cell<u32>,
    places: RefCell<Vec<Option<usize>>>,
    asked: Cell<u32>,
    refuses: Cell<Option<i32>>,
}

impl Table for Told {
    fn make(&self, places: u32) -> io::Result<()> {
        self.made.set(self.made.get() + 1);
        self.places.borrow_mut().resize(places as usize, None);
        Ok(())
    }

    fn set(&self, place: u32, slab: Option<&Slab>) -> io::Result<()> {
        self.asked.set(self.asked.get() + 1);
        if let Some(error) = self.refuses.get() {
            return Err(io::Error::from_raw_os_error(error));
        }
        // What it had in the place it lets go of now: the memory has to be there until then.
        self.places.borrow_mut()[place as usize] = slab.map(|slab| slab.addresses().start);
        Ok(())
    }
}

fn warm(limit: usize, told: &Told) -> Registered {
    let mut registered = Registered::new(limit);
    (0..WARM).for_each(|_| assert_eq!(registered.index_of(&[0; 16], told), None));
    registered
}

#[test]
fn a_slab_is_registered_once_after_some_calls() {
    let (pool, told) = (pool(), Told::default());
    let (one, other) = (chunk(&pool), chunk(&pool));
    let mut registered = Registered::new(1 << 20);
    for _ in 0..WARM {
        assert_eq!(registered.index_of(&one, &told), None);
    }
    assert_eq!((told.made.get(), registered.has_table()), (0, false), "it pinned for a few calls");
    for _ in 0..3 {
        assert_eq!(registered.index_of(&one, &told), Some(0));
        assert_eq!(registered.index_of(&other[512..1024], &told), Some(1));
        assert_eq!(registered.index_of(&one[4095..], &told), Some(0));
    }
    assert_eq!((told.made.get(), told.asked.get(), registered.hits), (1, 2, 9));
    let starts = [&one, &other].map(|c| Some(c.as_ptr() as usize));
    assert_eq!(told.places.borrow()[..3], [starts[0], starts[1], None]);
}

#[test]
fn memory_of_no_pool_goes_without() {
    let told = Told::default();
    let mut registered = warm(1 << 20, &told);
    assert_eq!(registered.index_of(&vec![0; 4096], &told), None);
    assert_eq!((told.made.get(), registered.hits), (0, 0));
}

#[test]
fn no_more_is_pinned_than_allowed() {
    let (pool, told) = (pool(), Told::default());
    let chunks: Vec<_> = (0..4).map(|_| chunk(&pool)).collect();
    let mut registered = warm(2 * 4096 + 100, &told);
    let found: Vec<_> = chunks.iter().map(|c| registered.index_of(c, &told)).collect();
    assert_eq!(found, [Some(0), Some(1), None, None]);
    assert_eq!(registered.index_of(&chunks[0], &told), Some(0), "what is pinned stays in use");
    let mut none = warm(0, &told);
    assert_eq!(none.index_of(&chunks[0], &told), None);
    assert_eq!(told.asked.get(), 2);
}

#[test]
fn the_table_has_an_end() {
    let (pool, told) = (pool(), Told::default());
    let chunks: Vec<_> = (0..=PLACES).map(|_| chunk(&pool)).collect();
    let mut registered = warm(usize::MAX, &told);
    for (place, c) in chunks.iter().enumerate() {
        let expected = (place < PLACES).then_some(place as u16);
        assert_eq!(registered.index_of(c, &told), expected);
    }
}

#[test]
fn slabs_of_a_pool_that_is_gone_make_room() {
    let (gone, pool, told) = (pool(), pool(), Told::default());
    let mut registered = warm(4096, &told);
    let old = chunk(&gone);
    assert_eq!(registered.index_of(&old, &told), Some(0));
    let new = chunk(&pool);
    assert_eq!(registered.index_of(&new, &told), None);
    let was = old.as_ptr() as usize;
    drop(gone);
    assert_eq!(registered.index_of(&new, &told), None, "a chunk is still out");
    drop(old);
    // The kernel still has the old pages, so nobody else may have their addresses.
    assert!((0..64).map(|_| vec![1u8; 8192]).all(|v| !v.as_ptr_range().contains(&(was as *const u8))));
    assert_eq!(told.places.borrow()[0], Some(was));
    assert_eq!(registered.index_of(&new, &told), Some(0));
    assert_eq!(told.places.borrow()[0], Some(new.as_ptr() as usize));
    // Cleared and set.
    assert_eq!(told.asked.get(), 3);
}

#[test]
fn what_the_kernel_keeps_is_kept() {
    let (gone, pool, told) = (pool(), pool(), Told::default());
    let mut registered = warm(1 << 20, &told);
    assert_eq!(registered.index_of(&chunk(&gone), &told), Some(0));
    drop(gone);
    told.refuses.set(Some(libc::ENOMEM));
    let new = chunk(&pool);
    assert_eq!(registered.index_of(&new, &told), None);
    assert!(registered.slabs[0].is_some(), "it is still pinned");
}

#[test]
fn a_kernel_that_refuses_is_not_asked_again() {
    let (pool, told) = (pool(), Told::default());
    let (one, two) = (chunk(&pool), chunk(&pool));
    let mut registered = warm(1 << 20, &told);
    assert_eq!(registered.index_of(&one, &told), Some(0));
    told.refuses.set(Some(libc::ENOMEM));
    for _ in 0..3 {
        assert_eq!(registered.index_of(&two, &told), None);
        assert_eq!(registered.index_of(&one, &told), Some(0), "what it has taken stays");
    }
    assert_eq!(told.asked.get(), 2);
}
