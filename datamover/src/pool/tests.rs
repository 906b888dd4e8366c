use super::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

fn small() -> SlabPool {
    SlabPool::new(PoolConfig { chunk_lens: vec![64, 16, 0, 64], slab_len: 256, max_bytes: 512 })
}

#[test]
fn allocates_nothing_until_asked() {
    let pool = small();
    assert_eq!((pool.allocated_bytes(), pool.outstanding(), pool.chunk_len()), (0, 0, 64));
    assert_eq!(pool.alloc(0).map(|l| l.len()), Some(0));
    assert_eq!(pool.allocated_bytes(), 0);
}

#[test]
fn shortest_chunk_that_fits() {
    let pool = small();
    let lens = |n: usize| pool.alloc(n).unwrap().parts().map(|p| (p.len(), p.capacity())).collect::<Vec<_>>();
    assert_eq!(lens(16), [(16, 16)]);
    assert_eq!(lens(17), [(17, 64)]);
    assert_eq!(lens(64), [(64, 64)]);
    assert_eq!(lens(150), [(64, 64), (64, 64), (22, 64)]);
    assert_eq!(pool.outstanding(), 0);
}

#[test]
fn chunks_of_whole_pages_begin_on_pages() {
    let pool = SlabPool::default();
    let lists: Vec<_> = [4096, 100, 16 << 10, 70 << 10, 600 << 10].map(|len| pool.alloc(len).unwrap()).into();
    for part in lists.iter().flat_map(SgListMut::parts) {
        assert!((part.as_ptr() as usize).is_multiple_of(4096), "{part:?}");
    }
    // What it takes to move the beginning is not counted.
    assert_eq!(pool.allocated_bytes() % (1 << 20), 0);
}

#[test]
fn bounded_and_whole_or_nothing() {
    let pool = small();
    // 512 bytes in all: one slab of 16s, one of 64s.
    let a = pool.alloc(16).unwrap();
    let b = pool.alloc(64).unwrap();
    assert_eq!(pool.allocated_bytes(), 512);
    // 3 × 64 and 15 × 16 are left: 432 bytes, reached only by falling back to shorter chunks.
    assert!(pool.alloc(433).is_none());
    assert_eq!(pool.outstanding(), 2);
    let c = pool.alloc(432).unwrap();
    assert_eq!(c.len(), 432);
    assert!(pool.alloc(1).is_none());
    drop((a, b));
    // A longer chunk stands in when the fitting ones are used up.
    assert_eq!(pool.alloc(64).map(|l| l.len()), Some(64));
    drop(c);
    assert_eq!((pool.outstanding(), pool.allocated_bytes()), (0, 512));
}

#[test]
fn falls_back_to_a_longer_chunk() {
    let pool = SlabPool::new(PoolConfig { chunk_lens: vec![16, 64], slab_len: 64, max_bytes: 64 });
    drop(pool.alloc(64).unwrap());
    let list = pool.alloc(5).unwrap();
    assert_eq!(list.parts().map(IoBuf::capacity).collect::<Vec<_>>(), [64]);
}

#[test]
fn chunks_return_from_frozen_clones() {
    let pool = small();
    let mut list = pool.alloc(100).unwrap();
    list.copy_from(0, &[7; 100]);
    let frozen = list.freeze();
    let clone = frozen.slice(10, 80);
    drop(frozen);
    assert_eq!(pool.outstanding(), 2);
    assert_eq!(clone.to_bytes(), [7u8; 80].as_slice());
    drop(clone);
    assert_eq!(pool.outstanding(), 0);
}

#[test]
fn truncated_chunks_come_back_whole() {
    let pool = SlabPool::new(PoolConfig { chunk_lens: vec![64], slab_len: 64, max_bytes: 64 });
    let mut list = pool.alloc(64).unwrap();
    list.truncate(3);
    drop(list);
    assert_eq!(pool.alloc(64).map(|l| l.len()), Some(64));
}

#[test]
fn outlives_its_handles() {
    let pool = small();
    let mut list = pool.alloc(64).unwrap();
    drop(pool);
    list.copy_from(0, &[1; 64]);
    assert_eq!(list.freeze().to_bytes(), [1u8; 64].as_slice());
}

#[test]
fn observer_sees_slabs_and_may_refuse() {
    struct Count(Arc<AtomicUsize>);
    impl SlabObserver for Count {
        fn slab_added(&self, slab: &mut [u8]) -> bool {
            assert!(slab.iter().all(|b| *b == 0));
            self.0.fetch_add(slab.len(), Ordering::Relaxed) == 0
        }
    }
    let seen = Arc::new(AtomicUsize::new(0));
    let config = PoolConfig { chunk_lens: vec![64], slab_len: 64, max_bytes: 640 };
    let pool = SlabPool::with_observer(config, Box::new(Count(seen.clone())));
    let first = pool.alloc(64).unwrap();
    assert!(pool.alloc(64).is_none());
    assert_eq!((seen.load(Ordering::Relaxed), pool.allocated_bytes()), (128, 64));
    drop(first);
    assert!(pool.alloc(64).is_some());
}

#[test]
fn without_chunk_lengths_there_is_nothing() {
    let pool = SlabPool::new(PoolConfig { chunk_lens: vec![0], slab_len: 64, max_bytes: 64 });
    assert!(pool.alloc(1).is_none());
    assert_eq!(pool.chunk_len(), 0);
}

#[test]
fn shared_between_threads() {
    let pool = small();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for n in 0..500 {
                    if let Some(list) = pool.alloc(1 + n % 80) {
                        drop(list.freeze());
                    }
                }
            });
        }
    });
    assert_eq!(pool.outstanding(), 0);
}

#[test]
fn a_chunk_leads_to_its_slab_which_can_be_kept() {
    let pool = SlabPool::new(PoolConfig { chunk_lens: vec![64, 4096], slab_len: 8192, max_bytes: 1 << 20 });
    let mut lists: Vec<_> = (0..4).map(|_| pool.alloc(4096).unwrap()).collect();
    lists.push(pool.alloc(64).unwrap());
    let mut starts = std::collections::HashSet::new();
    for part in lists.iter().flat_map(SgListMut::parts) {
        let slab = Slab::holding(part).unwrap();
        assert!(slab.holds(part) && slab.holds(&part[1..]) && !slab.is_given_up());
        assert_eq!((slab.len(), slab.addresses().len()), (8192, 8192));
        starts.insert(slab.addresses().start);
    }
    // Two of two pages, one of short chunks.
    assert_eq!(starts.len(), 3);
    assert!(Slab::holding(&[0; 64]).is_none(), "no pool's");
    // Kept beyond its pool: the bytes are still there, and it says that nobody uses them.
    let part = lists.remove(0).into_parts().next().unwrap();
    let (slab, at) = (Slab::holding(&part).unwrap(), part.as_ptr() as usize);
    drop((part, lists, pool));
    assert!(slab.is_given_up());
    let others: Vec<_> = (0..64).map(|_| BytesMut::zeroed(8192 + 4096)).collect();
    assert!(others.iter().all(|other| !slab.holds(other)), "its memory was given to somebody else");
    assert!(slab.addresses().contains(&at));
}

#[test]
fn what_crosses_the_end_of_a_slab_is_in_none() {
    let pool = SlabPool::new(PoolConfig { chunk_lens: vec![64], slab_len: 128, max_bytes: 128 });
    let list = pool.alloc(128).unwrap();
    let slab = Slab::holding(list.parts().next().unwrap()).unwrap();
    // Bytes of a larger allocation, of which the slab would be a part.
    let around = vec![0u8; 4096];
    let Range { start, .. } = around.as_ptr_range();
    let mut made = slab.clone();
    made.addresses = start as usize + 100..start as usize + 200;
    let within = |from: usize, to: usize| made.holds(&around[from..to]);
    assert_eq!([(100, 200), (100, 100), (150, 151)].map(|(from, to)| within(from, to)), [true; 3]);
    assert_eq!([(99, 200), (100, 201), (0, 99), (0, 4096)].map(|(from, to)| within(from, to)), [false; 4]);
}
