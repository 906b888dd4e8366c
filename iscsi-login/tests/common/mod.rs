//! Two machines face to face, driven as a caller would.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses a part

use bytes::Bytes;
use iscsi_login::*;
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginRequest, LoginResponse, Stage, StatSn, Tsih};
use std::{sync::Arc, time::Duration, time::Instant};

pub const INITIATOR: &str = "iqn.2024-01.org.example:initiator";
pub const TARGET: &str = "iqn.2024-01.org.example:disk";

pub fn name(s: &str) -> IscsiName {
    s.parse().unwrap()
}

#[allow(clippy::disallowed_methods)] // tests need some instant to begin with
pub fn now() -> Instant {
    Instant::now()
}

pub fn later(t: Instant, seconds: u64) -> Instant {
    t + Duration::from_secs(seconds)
}

pub fn start() -> LoginStart {
    LoginStart {
        isid: Isid::random([1, 2, 3], 4),
        cid: Cid(1),
        itt: Itt(0x10),
        cmd_sn: CmdSn(123),
        exp_stat_sn: StatSn(0),
        session: None,
    }
}

pub fn normal(auth: InitiatorAuth) -> InitiatorLoginConfig {
    InitiatorLoginConfig::new(name(INITIATOR), SessionGoal::Normal(name(TARGET)), auth)
}

pub fn discovery(auth: InitiatorAuth) -> InitiatorLoginConfig {
    InitiatorLoginConfig::new(name(INITIATOR), SessionGoal::Discovery(None), auth)
}

pub fn grant(auth: TargetAuth) -> Grant {
    Grant { portal_group_tag: Some(1), alias: None, auth, preferences: None, session: None }
}

/// A target's caller: its decisions, and what it has been asked.
pub struct Caller {
    pub decision: AccessDecision,
    #[cfg(feature = "_chap")]
    pub account: Option<iscsi_login::auth::ChapAccount>,
    pub tsih: Option<Tsih>,
    pub log: Vec<&'static str>,
    pub access: Option<AccessRequest>,
}

impl Caller {
    pub fn new(grant: Grant) -> Self {
        Self {
            decision: AccessDecision::Grant(Box::new(grant)),
            #[cfg(feature = "_chap")]
            account: None,
            tsih: Some(Tsih(7)),
            log: Vec::new(),
            access: None,
        }
    }
}

#[derive(Debug, Clone)]
pub enum End {
    Enabled(Box<Negotiated>),
    Redirected(Redirection),
    Failed(LoginFailure),
}

impl End {
    pub fn enabled(&self) -> &Negotiated {
        match self {
            End::Enabled(n) => n,
            other => panic!("login did not succeed: {other:?}"),
        }
    }

    pub fn failed(&self) -> LoginFailure {
        match self {
            End::Failed(f) => *f,
            other => panic!("login did not fail: {other:?}"),
        }
    }
}

/// Answers everything the target machine asks; gives the responses to send and the end, if it has come.
pub fn drive_target(t: &mut TargetLogin, caller: &mut Caller) -> (Vec<LoginResponse<Bytes>>, Option<End>) {
    let (mut sent, mut end) = (Vec::new(), None);
    while let Some(output) = t.poll_output() {
        match output {
            LoginOutput::Send(r) => {
                caller.log.push(if r.status_class == 0 { "send" } else { "refuse" });
                sent.push(r);
            }
            LoginOutput::NeedAccess(request) => {
                caller.log.push("access");
                caller.access = Some(*request);
                t.handle_access(caller.decision.clone());
            }
            #[cfg(feature = "_chap")]
            LoginOutput::NeedSecret(_) => {
                caller.log.push("secret");
                t.handle_secret(caller.account.clone());
            }
            LoginOutput::NoticeKeys(_) => caller.log.push("notice"),
            LoginOutput::Allocate(_) => {
                caller.log.push("allocate");
                t.handle_resources(caller.tsih);
            }
            LoginOutput::Deallocate => caller.log.push("deallocate"),
            LoginOutput::Enable { negotiated, final_response } => {
                caller.log.push("enable");
                sent.push(final_response.expect("a target's Enable has the final response"));
                end = Some(End::Enabled(negotiated));
            }
            LoginOutput::Failed(f) => {
                caller.log.push("failed");
                end = Some(End::Failed(f));
            }
            other => panic!("unexpected output of a target: {other:?}"),
        }
    }
    (sent, end)
}

/// As [`drive_target`] for an initiator; `grant` answers `Allocate`.
pub fn drive_initiator(
    i: &mut InitiatorLogin,
    grant: bool,
    log: &mut Vec<&'static str>,
) -> (Vec<LoginRequest<Bytes>>, Option<End>) {
    let (mut sent, mut end) = (Vec::new(), None);
    while let Some(output) = i.poll_output() {
        match output {
            LoginOutput::Send(r) => {
                log.push("send");
                sent.push(r);
            }
            LoginOutput::Allocate(_) => {
                log.push("allocate");
                i.handle_resources(grant);
            }
            LoginOutput::Deallocate => log.push("deallocate"),
            LoginOutput::Enable { negotiated, final_response } => {
                log.push("enable");
                assert!(final_response.is_none());
                end = Some(End::Enabled(negotiated));
            }
            LoginOutput::Redirected(r) => {
                log.push("redirected");
                end = Some(End::Redirected(*r));
            }
            LoginOutput::Failed(f) => {
                log.push("failed");
                end = Some(End::Failed(f));
            }
            other => panic!("unexpected output of an initiator: {other:?}"),
        }
    }
    (sent, end)
}

/// All that passed between two machines.
pub struct Login {
    pub initiator: End,
    pub target: Option<End>,
    pub requests: Vec<LoginRequest<Bytes>>,
    pub responses: Vec<LoginResponse<Bytes>>,
    pub initiator_log: Vec<&'static str>,
    pub target_log: Vec<&'static str>,
}

/// Runs a login to its end. PDUs strictly alternate, or this panics.
pub fn run(i: InitiatorLoginConfig, t: TargetLoginConfig, caller: &mut Caller) -> Login {
    run_from(i, start(), t, caller)
}

pub fn run_from(
    i: InitiatorLoginConfig,
    from: LoginStart,
    t: TargetLoginConfig,
    caller: &mut Caller,
) -> Login {
    let t0 = now();
    let mut initiator = InitiatorLogin::new(Arc::new(i), from, [0x11; 32], t0);
    let mut target = TargetLogin::new(Arc::new(t), [0x22; 32], t0);
    let mut log = Vec::new();
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    let mut target_end = None;
    loop {
        let (sent, end) = drive_initiator(&mut initiator, true, &mut log);
        if let Some(end) = end {
            assert!(sent.is_empty());
            let target_log = std::mem::take(&mut caller.log);
            return Login {
                initiator: end,
                target: target_end,
                requests,
                responses,
                initiator_log: log,
                target_log,
            };
        }
        let [request] = <[_; 1]>::try_from(sent).expect("one request at a time");
        requests.push(request.clone());
        target.handle_request(t0, request);
        let (sent, end) = drive_target(&mut target, caller);
        target_end = target_end.or(end);
        let [response] = <[_; 1]>::try_from(sent).expect("one response to each request");
        responses.push(response.clone());
        initiator.handle_response(t0, response);
    }
}

/// The text of a PDU, one pair a line.
pub fn lines(data: &[u8]) -> Vec<String> {
    if data.is_empty() {
        return Vec::new();
    }
    let text = std::str::from_utf8(data).unwrap();
    text.strip_suffix('\0').expect("ends in NUL").split('\0').map(str::to_owned).collect()
}

/// A text of these pairs.
pub fn text(pairs: &[&str]) -> Bytes {
    pairs.iter().flat_map(|p| p.bytes().chain([0])).collect::<Vec<u8>>().into()
}

/// InitiatorName and TargetName as lines.
pub fn names() -> Vec<String> {
    vec![format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}")]
}

/// A Login Request of these fields and lines.
pub fn request(csg: u8, next: Option<u8>, pairs: &[&str]) -> LoginRequest<Bytes> {
    LoginRequest {
        transit: next.is_some(),
        csg: Stage(csg),
        nsg: Stage(next.unwrap_or(0)),
        isid: Isid::random([1, 2, 3], 4),
        itt: Itt(5),
        cid: Cid(6),
        cmd_sn: CmdSn(7),
        data: text(pairs),
        ..Default::default()
    }
}

/// The same as a first request, with names.
pub fn first(csg: u8, next: Option<u8>, pairs: &[&str]) -> LoginRequest<Bytes> {
    let names = names();
    let all: Vec<&str> = names.iter().map(String::as_str).chain(pairs.iter().copied()).collect();
    request(csg, next, &all)
}
