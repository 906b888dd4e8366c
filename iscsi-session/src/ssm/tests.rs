//! The matrices of RFC 7143 sections 8.3.1 and 8.3.2, typed from the RFC.

use super::*;
use std::fmt::Write as _;

fn matrix(role: Role, states: &[SessionState]) -> String {
    let mut out = String::new();
    for from in states {
        write!(out, "{}|", &from.name()[..2]).unwrap();
        for to in states {
            let mut names: Vec<&str> = SessionEvent::ALL
                .iter()
                .filter_map(|e| {
                    let mut machine = SessionMachine { role, state: *from };
                    machine.apply(*e).filter(|_| machine.state() == *to)
                })
                .collect();
            names.dedup();
            assert!(names.len() <= 1, "{from} to {to}: {names:?}");
            write!(out, "{}|", names.first().copied().unwrap_or("-")).unwrap();
        }
        out.push('\n');
    }
    out
}

// req: 7143-8.3.4-1, 7143-8.3.4-3, 7143-8.3.4-4, 7143-8.3.4-5, 7143-8.3.4-6
#[test]
fn initiator_matrix_is_that_of_section_8_3_1() {
    use SessionState as Q;
    let rfc = "\
Q1|-|N1|-|
Q3|N3|-|N5|
Q4|N6|N4|-|
";
    assert_eq!(matrix(Role::Initiator, &[Q::Free, Q::LoggedIn, Q::Failed]), rfc);
}

// req: 7143-8.3.4-1, 7143-8.3.4-2, 7143-8.3.4-3, 7143-8.3.4-5, 7143-8.3.4-6, 7143-8.3.4-7, 7143-8.3.4-8
// req: 7143-8.3.4-9
#[test]
fn target_matrix_is_that_of_section_8_3_2() {
    let rfc = "\
Q1|-|N1|-|-|-|
Q2|N9|-|N2|-|-|
Q3|N3|-|-|N5|-|
Q4|N6|-|-|-|N7|
Q5|N11|-|N10|N8|-|
";
    assert_eq!(matrix(Role::Target, &SessionState::ALL), rfc);
}

/// Every state × event pair, both roles.
fn events(role: Role) -> String {
    let mut out = String::new();
    for event in SessionEvent::ALL {
        write!(out, "{event:?}:").unwrap();
        for from in SessionState::ALL {
            let mut machine = SessionMachine { role, state: from };
            if let Some(name) = machine.apply(event) {
                write!(out, " {}-{name}-{}", &from.name()[..2], &machine.state().name()[..2]).unwrap();
            }
        }
        out.push('\n');
    }
    out
}

// req: 7143-8.3.4-1, 7143-8.3.4-3, 7143-8.3.4-4, 7143-8.3.4-5, 7143-8.3.4-6
#[test]
fn initiator_events_have_the_causes_of_section_8_3_4() {
    let rfc = "\
ConnectionInLogin:
LeadingLoginFailed:
ConnectionLoggedIn: Q1-N1-Q3
Closed: Q3-N3-Q1
Reinstated: Q4-N6-Q1
Failed: Q3-N5-Q4
ContinuationStarted:
ContinuationSucceeded: Q4-N4-Q3
ContinuationFailed:
StateTimedOut: Q4-N6-Q1
";
    assert_eq!(events(Role::Initiator), rfc);
}

// req: 7143-8.3.4-1, 7143-8.3.4-2, 7143-8.3.4-3, 7143-8.3.4-5, 7143-8.3.4-6, 7143-8.3.4-7, 7143-8.3.4-8
// req: 7143-8.3.4-9
#[test]
fn target_events_have_the_causes_of_section_8_3_4() {
    let rfc = "\
ConnectionInLogin: Q1-N1-Q2
LeadingLoginFailed: Q2-N9-Q1
ConnectionLoggedIn: Q2-N2-Q3
Closed: Q3-N3-Q1
Reinstated: Q3-N3-Q1 Q4-N6-Q1 Q5-N11-Q1
Failed: Q3-N5-Q4
ContinuationStarted: Q4-N7-Q5
ContinuationSucceeded: Q5-N10-Q3
ContinuationFailed: Q5-N8-Q4
StateTimedOut: Q4-N6-Q1
";
    assert_eq!(events(Role::Target), rfc);
}
