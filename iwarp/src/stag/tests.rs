use super::*;
use bytes::Bytes;
use std::collections::HashSet;

type Table = StagTable<Vec<u8>>;

fn table() -> Table {
    StagTable::new(512, *b"sixteen octets..")
}

fn owned(len: usize) -> Region<Vec<u8>> {
    Region::Owned(vec![0; len])
}

#[test]
fn bounds_are_those_of_the_registration() {
    let mut t = table();
    let stag = t.register(owned(100), Access::READ_WRITE, 1000).unwrap();
    for (offset, len, ok) in [
        (1000, 1, true),
        (1000, 100, true),
        (1099, 1, true),
        (999, 1, false),
        (1000, 101, false),
        (1099, 2, false),
        (1100, 1, false),
        (0, 1, false),
        (u64::MAX - 1, 1, false),
    ] {
        let write = t.check(stag, offset, len, Kind::Write);
        let read = t.check(stag, offset, len, Kind::Read);
        match ok {
            true => assert_eq!(write, Ok(Place { region: stag, offset: offset - 1000 })),
            false => {
                assert_eq!(write, Err(TerminateCode::DDP_BOUNDS), "{offset} {len}");
                assert_eq!(read, Err(TerminateCode::RDMAP_BOUNDS), "{offset} {len}");
            }
        }
    }
    assert_eq!(t.check(stag, u64::MAX, 2, Kind::Write), Err(TerminateCode::DDP_TO_WRAP));
    assert_eq!(t.check(stag, u64::MAX, 2, Kind::Read), Err(TerminateCode::RDMAP_TO_WRAP));
}

#[test]
fn rights_are_those_of_the_registration() {
    let mut t = table();
    let read = t.register(owned(8), Access::READ, 0).unwrap();
    let write = t.register(owned(8), Access::WRITE.keep(), 0).unwrap();
    assert_eq!(t.check(read, 0, 1, Kind::Write), Err(TerminateCode::DDP_INVALID_STAG));
    assert_eq!(t.check(write, 0, 1, Kind::Read), Err(TerminateCode::RDMAP_ACCESS));
    assert!(t.check(read, 0, 1, Kind::Read).is_ok());
    assert!(t.check(write, 0, 1, Kind::Write).is_ok());
    assert_eq!(t.remote_invalidate(write).unwrap_err(), TerminateCode::RDMAP_CANNOT_INVALIDATE);
    assert_eq!(t.remote_invalidate(read).unwrap().stag, read);
    assert_eq!(t.remote_invalidate(read).unwrap_err(), TerminateCode::RDMAP_CANNOT_INVALIDATE);
    assert_eq!(t.check(read, 0, 1, Kind::Read), Err(TerminateCode::RDMAP_INVALID_STAG));
}

#[test]
fn what_cannot_be_registered_comes_back() {
    let mut t = table();
    let data = || Region::Shared(Bytes::from_static(b"data").into());
    assert!(matches!(t.register(data(), Access::WRITE, 0), Err(Region::Shared(g)) if g.len() == 4));
    assert!(t.register(owned(4), Access::WRITE, u64::MAX - 3).is_err());
    assert!(t.register(owned(3), Access::WRITE, u64::MAX - 3).is_ok());
    let mut small = Table::new(1, [0; 16]);
    small.register(data(), Access::READ, 0).unwrap();
    assert!(small.register(data(), Access::READ, 0).is_err());
    assert!(small.reserve().is_none());
}

#[test]
fn windows_have_rights_and_bounds_of_their_own() {
    let mut t = table();
    let region = t.register(owned(100), Access::NONE, 0).unwrap();
    let window = t.bind(region, 10, 20, Access::WRITE, 7).unwrap();
    assert_eq!(t.check(region, 10, 1, Kind::Write), Err(TerminateCode::DDP_INVALID_STAG));
    assert_eq!(t.check(window, 7, 20, Kind::Write), Ok(Place { region, offset: 10 }));
    assert_eq!(t.check(window, 7, 21, Kind::Write), Err(TerminateCode::DDP_BOUNDS));
    assert_eq!(t.check(window, 6, 1, Kind::Write), Err(TerminateCode::DDP_BOUNDS));
    assert_eq!(t.bind(region, 90, 11, Access::WRITE, 0), None);
    assert_eq!(t.bind(region, u64::MAX, 2, Access::WRITE, 0), None);
    assert_eq!(t.bind(window, 0, 1, Access::WRITE, 0), None);
    assert_eq!(t.invalidate(region).unwrap_err(), InvalidateError::WindowsBound);
    assert!(t.invalidate(window).unwrap().region.is_none());
    assert!(matches!(t.invalidate(region).unwrap().region, Some(Region::Owned(m)) if m.len() == 100));
    let shared = t.register(Region::Shared(Bytes::from_static(b"data").into()), Access::NONE, 0).unwrap();
    assert_eq!(t.bind(shared, 0, 4, Access::WRITE, 0), None);
    assert!(t.bind(shared, 0, 4, Access::READ, 0).is_some());
}

#[test]
fn sinks_grant_nothing() {
    let mut t = table();
    let sink = t.reserve().unwrap();
    assert_eq!(t.check(sink, 0, 1, Kind::Write), Err(TerminateCode::DDP_INVALID_STAG));
    assert_eq!(t.check(sink, 0, 1, Kind::Read), Err(TerminateCode::RDMAP_INVALID_STAG));
    assert_eq!(t.remote_invalidate(sink).unwrap_err(), TerminateCode::RDMAP_CANNOT_INVALIDATE);
    assert_eq!(t.invalidate(sink).unwrap_err(), InvalidateError::Unknown);
    t.release(sink);
    assert_ne!(t.reserve(), Some(sink));
}

#[test]
fn stags_are_not_reused_and_not_foretold() {
    // RFC 5040 section 8.1.1 item 8, RFC 5042 section 6.1.1.
    let (mut a, mut b) = (table(), StagTable::<Vec<u8>>::new(512, *b"other sixteen .."));
    let mut seen = HashSet::new();
    let mut last = Stag(0);
    for _ in 0..2000 {
        let stag = a.register(owned(1), Access::WRITE, 0).unwrap();
        assert!(seen.insert(stag), "{stag:?} again");
        assert_ne!(stag, b.register(owned(1), Access::WRITE, 0).unwrap());
        assert_eq!(a.check(last, 0, 1, Kind::Write), Err(TerminateCode::DDP_INVALID_STAG));
        a.invalidate(stag).unwrap();
        let _ = b.drain().count();
        last = stag;
    }
}

/// The place in the table is not enough: a guess has to hit sixteen bits more, and an STag that once had the place is no
/// key to what is there now.
#[test]
fn the_tag_of_a_place_has_to_be_right() {
    let mut t = table();
    let first = t.register(owned(8), Access::READ_WRITE, 0).unwrap();
    for bit in 0..16 {
        let guess = Stag(first.0 ^ (1 << bit));
        assert_eq!(t.check(guess, 0, 1, Kind::Write), Err(TerminateCode::DDP_INVALID_STAG), "{guess:?}");
        assert_eq!(t.check(guess, 0, 1, Kind::Read), Err(TerminateCode::RDMAP_INVALID_STAG), "{guess:?}");
        assert_eq!(t.remote_invalidate(guess).unwrap_err(), TerminateCode::RDMAP_CANNOT_INVALIDATE);
    }
    t.invalidate(first).unwrap();
    let place = |stag: Stag| stag.0 >> 16;
    let again = loop {
        let stag = t.register(owned(8), Access::READ_WRITE, 0).unwrap();
        if place(stag) == place(first) {
            break stag;
        }
        t.invalidate(stag).unwrap();
    };
    assert!(t.check(again, 0, 1, Kind::Write).is_ok());
    assert_eq!(t.check(first, 0, 1, Kind::Write), Err(TerminateCode::DDP_INVALID_STAG));
    assert_eq!(t.remote_invalidate(first).unwrap_err(), TerminateCode::RDMAP_CANNOT_INVALIDATE);
}

#[test]
fn draining_returns_every_region_once() {
    let mut t = table();
    let region = t.register(owned(5), Access::NONE, 0).unwrap();
    t.bind(region, 0, 1, Access::WRITE, 0).unwrap();
    t.register(owned(6), Access::WRITE, 0).unwrap();
    t.reserve().unwrap();
    assert_eq!(t.drain().map(|r| r.len()).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(t.check(region, 0, 1, Kind::Write), Err(TerminateCode::DDP_INVALID_STAG));
}

mod lifetime {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug)]
    enum Op {
        Register { len: u64, access: Access },
        Bind { of: usize, start: u64, len: u64, access: Access },
        Reserve,
        Invalidate(usize),
        RemoteInvalidate(usize),
        Check { of: usize, offset: u64, len: u64, write: bool },
    }

    fn access() -> impl Strategy<Value = Access> {
        any::<(bool, bool, bool)>().prop_map(|(remote_read, remote_write, remote_invalidate)| Access {
            remote_read,
            remote_write,
            remote_invalidate,
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        let of = 0usize..20;
        prop_oneof![
            (0u64..40, access()).prop_map(|(len, access)| Op::Register { len, access }),
            (of.clone(), 0u64..40, 0u64..40, access()).prop_map(|(of, start, len, access)| Op::Bind {
                of,
                start,
                len,
                access
            }),
            Just(Op::Reserve),
            of.clone().prop_map(Op::Invalidate),
            of.clone().prop_map(Op::RemoteInvalidate),
            (of, 0u64..45, 1u64..45, any::<bool>()).prop_map(|(of, offset, len, write)| Op::Check {
                of,
                offset,
                len,
                write
            }),
        ]
    }

    /// What an STag stands for: the region it reaches, from where, how far, how, and whether it is a window.
    #[derive(Clone)]
    struct Meaning {
        region: Stag,
        start: u64,
        len: u64,
        access: Access,
        window: bool,
    }

    const BASE: u64 = 3;

    proptest! {
        /// An STag is good from its registration to its invalidation, for what it was made for, and never again.
        #[test]
        fn stags_mean_what_they_were_made_for(ops in proptest::collection::vec(op(), 0..60)) {
            let mut t = table();
            let mut all: Vec<Stag> = vec![Stag(0x1234_5678)];
            let mut live: HashMap<Stag, Meaning> = HashMap::new();
            for op in ops {
                let nth = |n: usize| all[n % all.len()];
                match op {
                    Op::Register { len, access } => {
                        let stag = t.register(owned(len as usize), access, BASE).unwrap();
                        live.insert(stag, Meaning { region: stag, start: 0, len, access, window: false });
                        prop_assert!(!all.contains(&stag));
                        all.push(stag);
                    }
                    Op::Bind { of, start, len, access } => {
                        let region = nth(of);
                        let fits = live.get(&region).is_some_and(|m| !m.window && start + len <= m.len);
                        let bound = t.bind(region, start, len, access, BASE);
                        prop_assert_eq!(bound.is_some(), fits);
                        if let Some(stag) = bound {
                            live.insert(stag, Meaning { region, start, len, access, window: true });
                            prop_assert!(!all.contains(&stag));
                            all.push(stag);
                        }
                    }
                    Op::Reserve => all.push(t.reserve().unwrap()),
                    Op::Invalidate(n) | Op::RemoteInvalidate(n) => {
                        let stag = nth(n);
                        let remote = matches!(op, Op::RemoteInvalidate(_));
                        let meaning = live.get(&stag).cloned();
                        let windows = live.values().any(|m| m.window && m.region == stag);
                        let allowed = meaning.as_ref().is_some_and(|m| !windows && (!remote || m.access.remote_invalidate));
                        let done = match remote {
                            true => t.remote_invalidate(stag).ok(),
                            false => t.invalidate(stag).ok(),
                        };
                        prop_assert_eq!(done.is_some(), allowed);
                        if let (Some(done), Some(m)) = (done, meaning) {
                            live.remove(&stag);
                            prop_assert_eq!(done.region.map(|r| r.len()), (!m.window).then_some(m.len));
                        }
                    }
                    Op::Check { of, offset, len, write } => {
                        let stag = nth(of);
                        let kind = if write { Kind::Write } else { Kind::Read };
                        let expected = live.get(&stag).and_then(|m| {
                            let right = if write { m.access.remote_write } else { m.access.remote_read };
                            let at = offset.checked_sub(BASE)?;
                            (right && at + len <= m.len).then_some(Place { region: m.region, offset: m.start + at })
                        });
                        prop_assert_eq!(t.check(stag, offset, len, kind).ok(), expected);
                    }
                }
            }
        }
    }
}
