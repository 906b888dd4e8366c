//! The target's machine in every state against every call.

mod common;

use common::*;
use iscsi_login::*;
use iscsi_pdu::{LoginRequest, NopOut, Pdu, Tsih};
use std::time::Instant;

/// The machine in every state, against every call: what comes out. A state is reached by the calls before the bar.
#[test]
fn state_event_matrix() {
    type Reach = fn() -> Raw;
    type Apply = fn(&mut Raw);
    let states: [(&str, Reach); 7] = [
        ("start", Raw::start),
        ("access", Raw::access),
        ("security", Raw::security),
        ("operational", Raw::operational),
        ("resources", Raw::resources),
        ("enabled", Raw::enabled),
        ("failed", Raw::failed),
    ];
    let events: [(&str, Apply); 8] = [
        ("last request", |r| r.request(1, Some(3), &[])),
        ("security request", |r| r.request(0, None, &[])),
        ("text begins", |r| {
            let part = LoginRequest { continue_text: true, ..request(r.csg, None, &["InitiatorAlias=x"]) };
            r.target.handle_request(r.t0, part);
        }),
        ("nop", |r| r.target.handle_pdu(r.t0, Pdu::NopOut(NopOut::default()))),
        ("grant", |r| r.target.handle_access(AccessDecision::Grant(Box::new(grant(TargetAuth::None))))),
        ("deny", |r| r.target.handle_access(AccessDecision::Deny(Denial::NotFound))),
        ("resources", |r| r.target.handle_resources(Some(Tsih(9)))),
        ("time is up", |r| r.target.handle_timeout(later(r.t0, 15))),
    ];
    let mut table = String::new();
    for (state, reach) in states {
        for (event, apply) in &events {
            let mut raw = reach();
            apply(&mut raw);
            let out = raw.outputs();
            table += &format!("{state:<11} | {event:<16} | {}\n", if out.is_empty() { "-" } else { &out });
        }
    }
    assert_eq!(table, MATRIX, "\n{table}");
}

const MATRIX: &str = "\
start       | last request     | access?
start       | security request | access?
start       | text begins      | send
start       | nop              | failed NotLogin(NopOut)
start       | grant            | -
start       | deny             | -
start       | resources        | -
start       | time is up       | failed Timeout
access      | last request     | send 0200, failed OneOutstanding
access      | security request | send 0200, failed OneOutstanding
access      | text begins      | send 0200, failed OneOutstanding
access      | nop              | send 020b, failed NotLogin(NopOut)
access      | grant            | notice, allocate?
access      | deny             | send 0203, failed Access
access      | resources        | -
access      | time is up       | send 0301, failed Timeout
security    | last request     | send 0200, failed Stage
security    | security request | send
security    | text begins      | send
security    | nop              | send 020b, failed NotLogin(NopOut)
security    | grant            | -
security    | deny             | -
security    | resources        | -
security    | time is up       | failed Timeout
operational | last request     | notice, allocate?
operational | security request | send 0200, failed Stage
operational | text begins      | send
operational | nop              | send 020b, failed NotLogin(NopOut)
operational | grant            | -
operational | deny             | -
operational | resources        | -
operational | time is up       | failed Timeout
resources   | last request     | send 0200, deallocate, failed OneOutstanding
resources   | security request | send 0200, deallocate, failed OneOutstanding
resources   | text begins      | send 0200, deallocate, failed OneOutstanding
resources   | nop              | send 020b, deallocate, failed NotLogin(NopOut)
resources   | grant            | -
resources   | deny             | -
resources   | resources        | enable
resources   | time is up       | send 0301, deallocate, failed Timeout
enabled     | last request     | -
enabled     | security request | -
enabled     | text begins      | -
enabled     | nop              | -
enabled     | grant            | -
enabled     | deny             | -
enabled     | resources        | -
enabled     | time is up       | -
failed      | last request     | -
failed      | security request | -
failed      | text begins      | -
failed      | nop              | -
failed      | grant            | -
failed      | deny             | -
failed      | resources        | -
failed      | time is up       | -
";

/// A machine whose questions nobody answers for it.
struct Raw {
    target: TargetLogin,
    t0: Instant,
    csg: u8,
    began: bool,
}

impl Raw {
    fn start() -> Self {
        let t0 = now();
        Self {
            target: TargetLogin::new(TargetLoginConfig::default().into(), [3; 32], t0),
            t0,
            csg: 1,
            began: false,
        }
    }

    fn request(&mut self, csg: u8, next: Option<u8>, pairs: &[&str]) {
        let r = if self.began { request(csg, next, pairs) } else { first(csg, next, pairs) };
        self.began = true;
        self.target.handle_request(self.t0, r);
    }

    fn after(mut self, apply: impl FnOnce(&mut Self)) -> Self {
        apply(&mut self);
        self.outputs();
        self
    }

    fn granted(self) -> Self {
        self.after(|r| r.target.handle_access(AccessDecision::Grant(Box::new(grant(TargetAuth::None)))))
    }

    fn access() -> Self {
        Self::start().after(|r| r.request(1, Some(3), &[]))
    }

    fn security() -> Self {
        Self { csg: 0, ..Self::start().after(|r| r.request(0, None, &["AuthMethod=None"])).granted() }
    }

    fn operational() -> Self {
        Self::start().after(|r| r.request(1, None, &[])).granted()
    }

    fn resources() -> Self {
        Self::access().granted()
    }

    fn enabled() -> Self {
        Self::resources().after(|r| r.target.handle_resources(Some(Tsih(9))))
    }

    fn failed() -> Self {
        Self::access().after(|r| r.target.handle_access(AccessDecision::Deny(Denial::NotFound)))
    }

    fn outputs(&mut self) -> String {
        let mut out = Vec::new();
        while let Some(output) = self.target.poll_output() {
            out.push(match output {
                LoginOutput::Send(r) if r.status_class == 0 => "send".to_owned(),
                LoginOutput::Send(r) => format!("send {:02x}{:02x}", r.status_class, r.status_detail),
                LoginOutput::NeedAccess(_) => "access?".into(),
                LoginOutput::NoticeKeys(_) => "notice".into(),
                LoginOutput::Allocate(_) => "allocate?".into(),
                LoginOutput::Deallocate => "deallocate".into(),
                LoginOutput::Enable { .. } => "enable".into(),
                LoginOutput::Failed(f) => format!("failed {:?}", f.rule),
                other => format!("{other:?}"),
            });
        }
        out.join(", ")
    }
}
