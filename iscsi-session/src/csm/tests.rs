//! The matrices of RFC 7143 sections 8.1.3, 8.1.4 and 8.2, typed from the RFC, and who may cause what.

use super::*;
use std::fmt::Write as _;

/// The state × state matrix, in the RFC's layout: which transition leads from the row to the column.
fn matrix(role: Role) -> String {
    let states: Vec<ConnState> = ConnState::ALL
        .into_iter()
        .filter(|s| *s != if role == Role::Initiator { ConnState::XptUp } else { ConnState::XptWait })
        .collect();
    let mut out = String::new();
    for from in &states {
        write!(out, "{}|", &from.name()[..2]).unwrap();
        for to in &states {
            let mut names: Vec<&str> = ConnEvent::ALL
                .iter()
                .filter_map(|e| lookup(role, *from, *e).filter(|r| r.to == *to).map(|r| r.name))
                .collect();
            names.dedup();
            assert!(names.len() <= 1, "{from} to {to}: {names:?}");
            write!(out, "{}|", names.first().copied().unwrap_or("-")).unwrap();
        }
        out.push('\n');
    }
    out
}

// req: 7143-8.1.3-1
#[test]
fn initiator_matrix_is_that_of_section_8_1_3() {
    let rfc = "\
S1|-|T1|-|-|-|-|-|
S2|T2|-|T4|-|-|-|-|
S4|T7|-|-|T5|-|-|-|
S5|T8|-|-|-|T9|T11|T15|
S6|T13|-|-|-|T14|-|T17|
S7|T18|-|-|-|T10|T12|T16|
S8|-|-|-|-|-|-|-|
";
    assert_eq!(matrix(Role::Initiator), rfc);
}

// req: 7143-8.1.4-1
#[test]
fn target_matrix_is_that_of_section_8_1_4() {
    let rfc = "\
S1|-|T3|-|-|-|-|-|
S3|T6|-|T4|-|-|-|-|
S4|T7|-|-|T5|-|-|-|
S5|T8|-|-|-|T9|T11|T15|
S6|T13|-|-|-|-|-|T17|
S7|T18|-|-|-|T10|T12|T16|
S8|-|-|-|-|-|-|-|
";
    assert_eq!(matrix(Role::Target), rfc);
}

/// Every state × event pair: the transition and the state after it, for both roles.
fn events(role: Role) -> String {
    let mut out = String::new();
    for event in ConnEvent::ALL {
        write!(out, "{event:?}:").unwrap();
        for from in ConnState::ALL {
            let mut machine = ConnMachine { role, state: from };
            if let Some(name) = machine.apply(event) {
                write!(out, " {}-{name}-{}", &from.name()[..2], &machine.state().name()[..2]).unwrap();
            } else {
                assert_eq!(machine.state(), from, "an event without transition changes nothing");
            }
        }
        out.push('\n');
    }
    out
}

// The causes as section 8.1.2 lists them for the initiator.
// req: 7143-8.1.2-1, 7143-8.1.2-2, 7143-8.1.2-4, 7143-8.1.2-5, 7143-8.1.2-7, 7143-8.1.2-8, 7143-8.1.2-9
// req: 7143-8.1.2-10, 7143-8.1.2-11, 7143-8.1.2-12, 7143-8.1.2-13, 7143-8.1.2-14, 7143-8.1.2-15
#[test]
fn initiator_events_have_the_causes_of_section_8_1_2() {
    let rfc = "\
ConnectRequested: S1-T1-S2
TransportAccepted:
TransportUp: S2-T4-S4
LoginRequested:
LoginSucceeded: S4-T5-S5
LoginFailed: S4-T7-S1
LoginTimedOut: S4-T7-S1
TransportTimedOut: S2-T2-S1 S4-T7-S1 S5-T15-S8 S6-T17-S8 S7-T16-S8
TransportReset: S2-T2-S1 S4-T7-S1 S5-T15-S8 S6-T17-S8 S7-T16-S8
TransportDisconnected: S4-T7-S1 S5-T15-S8 S6-T17-S8 S7-T16-S8
SessionClosed: S2-T2-S1 S4-T7-S1 S5-T8-S1 S6-T13-S1 S7-T18-S1
Reinstated:
ReinstatementFailed:
LogoutStarted: S5-T9-S6 S7-T10-S6
LogoutAsked: S5-T11-S7 S6-T14-S6 S7-T12-S7
LogoutSucceeded: S6-T13-S1
LogoutFailed: S6-T17-S8
Dropped: S5-T15-S8 S6-T17-S8 S7-T16-S8
";
    assert_eq!(events(Role::Initiator), rfc);
}

// The causes as section 8.1.2 lists them for the target.
// req: 7143-8.1.2-3, 7143-8.1.2-4, 7143-8.1.2-5, 7143-8.1.2-6, 7143-8.1.2-7, 7143-8.1.2-8, 7143-8.1.2-9
// req: 7143-8.1.2-10, 7143-8.1.2-11, 7143-8.1.2-12, 7143-8.1.2-13, 7143-8.1.2-14, 7143-8.1.2-15
#[test]
fn target_events_have_the_causes_of_section_8_1_2() {
    let rfc = "\
ConnectRequested:
TransportAccepted: S1-T3-S3
TransportUp:
LoginRequested: S3-T4-S4
LoginSucceeded: S4-T5-S5
LoginFailed: S4-T7-S1
LoginTimedOut: S3-T6-S1 S4-T7-S1
TransportTimedOut: S3-T6-S1 S4-T7-S1 S5-T15-S8 S6-T17-S8 S7-T16-S8
TransportReset: S3-T6-S1 S4-T7-S1 S5-T15-S8 S6-T17-S8 S7-T16-S8
TransportDisconnected: S3-T6-S1 S4-T7-S1 S5-T15-S8 S6-T17-S8 S7-T16-S8
SessionClosed: S4-T7-S1 S5-T8-S1 S6-T13-S1 S7-T18-S1
Reinstated: S5-T8-S1 S6-T13-S1 S7-T18-S1
ReinstatementFailed: S5-T15-S8 S6-T17-S8 S7-T16-S8
LogoutStarted: S5-T9-S6 S7-T10-S6
LogoutAsked: S5-T11-S7 S7-T12-S7
LogoutSucceeded: S6-T13-S1
LogoutFailed: S6-T17-S8
Dropped: S5-T15-S8 S6-T17-S8 S7-T16-S8
";
    assert_eq!(events(Role::Target), rfc);
}

// req: 7143-8.2.2-1, 7143-8.2.2-2, 7143-8.2.2-3, 7143-8.2.2-4
#[test]
fn cleanup_matrix_is_that_of_section_8_2() {
    use CleanupEvent as E;
    use CleanupState as R;
    let all = [E::StateTimedOut, E::SessionClosed, E::LogoutStarted, E::LogoutFailed, E::LogoutSucceeded];
    let row = |from: R| {
        all.map(|e| {
            let mut machine = CleanupMachine { state: from };
            machine.apply(e).map(|name| (name, machine.state()))
        })
    };
    let (m1, m2, m3, m4) = (
        Some(("M1", R::Free)),
        Some(("M2", R::InCleanup)),
        Some(("M3", R::CleanupWait)),
        Some(("M4", R::Free)),
    );
    assert_eq!(row(R::CleanupWait), [m1, m1, m2, None, None]);
    assert_eq!(row(R::InCleanup), [None, m4, None, m3, m4]);
    assert_eq!(row(R::Free), [None; 5]);
}
