use super::*;
use crate::ports::{InitiatorPort, TargetPort};

fn nexus(n: u8) -> NexusId {
    let name = format!("iqn.2026-01.org.example:i{n}");
    let port = TargetPort { relative_id: 1, portal_group: 1 };
    NexusId::new(InitiatorPort { name, isid: [0x80, 0, 0, 0, 0, n] }, "iqn.2026-01.org.example:t", port)
}

/// Three nexuses registered with keys 1, 2, 3; a fourth is not.
fn three() -> Reservations {
    let mut r = Reservations::default();
    for n in 1..=3 {
        r.register(&[nexus(n)], Some(0), n.into(), false).unwrap();
    }
    r
}

const ALL_REGISTRANTS: PrType = PrType::WriteExclusiveAllRegistrants;

// SPC-4 table 50: rows by type; columns: holder, registrant, stranger; read and write.
#[test]
fn access_by_type() {
    use PrType as T;
    let table = [
        (T::WriteExclusive, [true, true], [true, false], [true, false]),
        (T::ExclusiveAccess, [true, true], [false, false], [false, false]),
        (T::WriteExclusiveRegistrantsOnly, [true, true], [true, true], [true, false]),
        (T::ExclusiveAccessRegistrantsOnly, [true, true], [true, true], [false, false]),
        (T::WriteExclusiveAllRegistrants, [true, true], [true, true], [true, false]),
        (T::ExclusiveAccessAllRegistrants, [true, true], [true, true], [false, false]),
    ];
    for (pr_type, holder, registrant, stranger) in table {
        let mut r = three();
        r.reserve(&nexus(1), 1, pr_type).unwrap();
        for (n, [read, write]) in [(1, holder), (2, registrant), (4, stranger)] {
            assert_eq!(!r.conflicts(&nexus(n), Access::Read), read, "{pr_type:?} {n} read");
            assert_eq!(!r.conflicts(&nexus(n), Access::Write), write, "{pr_type:?} {n} write");
            assert!(!r.conflicts(&nexus(n), Access::Persistent));
        }
    }
}

#[test]
fn registering() {
    let mut r = Reservations::default();
    assert_eq!(
        r.register(&[nexus(1)], Some(7), 1, false),
        Err(conflict()),
        "not registered: the key must be 0"
    );
    r.register(&[nexus(1)], Some(0), 1, false).unwrap();
    assert_eq!(
        r.register(&[nexus(1)], Some(0), 2, false),
        Err(conflict()),
        "registered: the key must be ours"
    );
    r.register(&[nexus(1)], Some(1), 2, true).unwrap();
    assert_eq!((r.generation, r.keys[&nexus(1)], r.persist), (2, 2, true));
    r.register(&[nexus(1)], None, 3, false).unwrap();
    assert_eq!((r.generation, r.keys[&nexus(1)], r.persist), (3, 3, false));
    r.register(&[nexus(1)], Some(3), 0, false).unwrap();
    assert!(r.keys.is_empty());
}

#[test]
fn unregistering_the_holder_releases() {
    let mut r = three();
    r.reserve(&nexus(1), 1, PrType::WriteExclusiveRegistrantsOnly).unwrap();
    let effects = r.register(&[nexus(1)], Some(1), 0, false).unwrap();
    assert_eq!(r.held, None);
    let told: Vec<_> = [2, 3].map(|n| (nexus(n), Asc::RESERVATIONS_RELEASED)).into();
    assert_eq!(effects.attentions, told);
    // Write Exclusive is released without telling.
    let mut r = three();
    r.reserve(&nexus(1), 1, PrType::WriteExclusive).unwrap();
    assert_eq!(r.register(&[nexus(1)], Some(1), 0, false), Ok(Effects::default()));
    assert_eq!(r.held, None);
    // All registrants: the last one releases.
    let mut r = three();
    r.reserve(&nexus(1), 1, ALL_REGISTRANTS).unwrap();
    for n in 1..=3 {
        assert!(r.held.is_some());
        r.register(&[nexus(n)], Some(n.into()), 0, false).unwrap();
    }
    assert_eq!(r.held, None);
}

#[test]
fn reserving_and_releasing() {
    let mut r = three();
    assert_eq!(r.reserve(&nexus(4), 0, PrType::WriteExclusive), Err(conflict()), "not registered");
    assert_eq!(r.reserve(&nexus(1), 9, PrType::WriteExclusive), Err(conflict()), "wrong key");
    r.reserve(&nexus(1), 1, PrType::WriteExclusive).unwrap();
    r.reserve(&nexus(1), 1, PrType::WriteExclusive).unwrap();
    assert_eq!(r.reserve(&nexus(1), 1, PrType::ExclusiveAccess), Err(conflict()), "another type");
    assert_eq!(r.reserve(&nexus(2), 2, PrType::WriteExclusive), Err(conflict()));
    r.release(&nexus(2), 2, PrType::WriteExclusive).unwrap();
    assert!(r.held.is_some(), "only the holder releases");
    let wrong = r.release(&nexus(1), 1, PrType::ExclusiveAccess);
    assert_eq!(wrong, Err(Sense::illegal(Asc::INVALID_RELEASE_OF_PERSISTENT_RESERVATION).into()));
    let generation = r.generation;
    assert_eq!(r.release(&nexus(1), 1, PrType::WriteExclusive), Ok(Effects::default()));
    assert_eq!((r.held.clone(), r.generation), (None, generation), "PRGENERATION counts no reservations");
    // Registrants only: the others are told.
    r.reserve(&nexus(1), 1, PrType::ExclusiveAccessRegistrantsOnly).unwrap();
    let effects = r.release(&nexus(1), 1, PrType::ExclusiveAccessRegistrantsOnly).unwrap();
    assert_eq!(effects.attentions.len(), 2);
}

#[test]
fn all_registrants_hold() {
    let mut r = three();
    r.reserve(&nexus(1), 1, ALL_REGISTRANTS).unwrap();
    r.reserve(&nexus(2), 2, ALL_REGISTRANTS).unwrap();
    assert_eq!(r.holder_key(), 0);
    r.release(&nexus(3), 3, ALL_REGISTRANTS).unwrap();
    assert_eq!(r.held, None);
}

#[test]
fn clearing() {
    let mut r = three();
    r.reserve(&nexus(1), 1, PrType::WriteExclusive).unwrap();
    let effects = r.clear(&nexus(2), 2).unwrap();
    assert_eq!((r.keys.len(), r.held.clone(), r.generation), (0, None, 4));
    let told: Vec<_> = [1, 3].map(|n| (nexus(n), Asc::RESERVATIONS_PREEMPTED)).into();
    assert_eq!(effects.attentions, told);
}

#[test]
fn preempting_the_holder() {
    let mut r = three();
    r.reserve(&nexus(1), 1, PrType::WriteExclusive).unwrap();
    let effects = r.preempt(&nexus(2), 2, 1, PrType::ExclusiveAccess).unwrap();
    assert_eq!(r.held, Some(Held { pr_type: PrType::ExclusiveAccess, by: Some(nexus(2)) }));
    assert_eq!(r.keys.keys().cloned().collect::<Vec<_>>(), [nexus(2), nexus(3)]);
    let told = [(nexus(1), Asc::REGISTRATIONS_PREEMPTED), (nexus(3), Asc::RESERVATIONS_RELEASED)];
    assert_eq!(effects.attentions, told);
    assert_eq!(effects.preempted, [nexus(1)].into());
}

#[test]
fn preempting_registrations() {
    let mut r = three();
    r.reserve(&nexus(1), 1, PrType::WriteExclusive).unwrap();
    let effects = r.preempt(&nexus(1), 1, 3, PrType::WriteExclusive).unwrap();
    assert_eq!(r.held.as_ref().and_then(|h| h.by.clone()), Some(nexus(1)), "the reservation stays");
    assert_eq!(effects.attentions, [(nexus(3), Asc::REGISTRATIONS_PREEMPTED)]);
    assert_eq!(r.preempt(&nexus(1), 1, 99, PrType::WriteExclusive), Err(conflict()), "nobody has that key");
    assert!(r.preempt(&nexus(1), 1, 0, PrType::WriteExclusive).is_err(), "key 0 is for all registrants");
    // Without a reservation PREEMPT removes registrations and reserves nothing.
    let mut r = three();
    r.preempt(&nexus(1), 1, 2, PrType::WriteExclusive).unwrap();
    assert_eq!((r.held.clone(), r.keys.len()), (None, 2));
}

#[test]
fn preempting_all_registrants() {
    let mut r = three();
    r.reserve(&nexus(1), 1, ALL_REGISTRANTS).unwrap();
    r.preempt(&nexus(1), 1, 3, PrType::WriteExclusive).unwrap();
    assert_eq!(
        r.held.as_ref().map(|h| h.pr_type),
        Some(ALL_REGISTRANTS),
        "a key removes registrations alone"
    );
    let effects = r.preempt(&nexus(1), 1, 0, PrType::WriteExclusive).unwrap();
    assert_eq!(r.held, Some(Held { pr_type: PrType::WriteExclusive, by: Some(nexus(1)) }));
    assert_eq!(effects.attentions, [(nexus(2), Asc::REGISTRATIONS_PREEMPTED)]);
}

#[test]
fn moving() {
    let mut r = three();
    assert_eq!(
        r.register_and_move(&nexus(1), 1, nexus(4), 4, false, false),
        Err(conflict()),
        "no reservation"
    );
    r.reserve(&nexus(1), 1, PrType::ExclusiveAccess).unwrap();
    assert_eq!(
        r.register_and_move(&nexus(2), 2, nexus(4), 4, false, false),
        Err(conflict()),
        "not the holder"
    );
    r.register_and_move(&nexus(1), 1, nexus(4), 4, true, false).unwrap();
    assert!(r.holds(&nexus(4)) && !r.keys.contains_key(&nexus(1)));
    assert_eq!(r.keys[&nexus(4)], 4);
}

#[test]
fn reserve_of_spc2() {
    let mut r = Reservations::default();
    r.reserve_legacy(&nexus(1)).unwrap();
    r.reserve_legacy(&nexus(1)).unwrap();
    assert_eq!(r.reserve_legacy(&nexus(2)), Err(conflict()));
    assert!(r.conflicts(&nexus(2), Access::Persistent) && r.conflicts(&nexus(2), Access::Read));
    assert!(!r.conflicts(&nexus(2), Access::Always) && !r.conflicts(&nexus(1), Access::Write));
    assert!(r.conflicts(&nexus(1), Access::Reserving), "PERSISTENT RESERVE conflicts even for the holder");
    r.release_legacy(&nexus(2)).unwrap();
    assert!(r.legacy.is_some());
    r.release_legacy(&nexus(1)).unwrap();
    assert!(r.legacy.is_none());
    let mut r = three();
    assert_eq!(r.reserve_legacy(&nexus(1)), Err(conflict()), "there are registrations");
    assert_eq!(r.release_legacy(&nexus(1)), Err(conflict()));
}

#[test]
fn saved_and_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("unit.pr"));
    assert_eq!(store.load().unwrap(), Reservations::default());
    for pr_type in PrType::ALL {
        let mut r = three();
        r.register(&[nexus(1)], Some(1), u64::MAX, true).unwrap();
        r.reserve(&nexus(1), u64::MAX, pr_type).unwrap();
        store.save(&r).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded, Reservations { generation: 0, ..r });
    }
    store.save(&three()).unwrap();
    assert_eq!(store.load().unwrap(), Reservations::default(), "without APTPL nothing survives");
    std::fs::write(dir.path().join("unit.pr"), "pr_type = 1\n").unwrap();
    assert_eq!(store.load().unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}
