//! Logins over a link that tells what was called on it: the order of RFC 5047 section 13, and what failures leave.

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use datamover::mem::{MemConfig, MemControl, pair};
use datamover::{
    AllocError, Budget, ConnKeys, Datamover, Drive, LinkError, LoginLink, RdmaOffer, Resources, Role,
    TransportInfo,
};
use iscsi_login::auth::{ChapAccount, SecretRequest};
use iscsi_login::{
    AccessDecision, AccessRequest, AuthIdentity, Denial, DigestPolicy, ExistingSession, InitiatorAuth,
    InitiatorLoginConfig, LoginStart, LoginStatus, Preferences, SessionParams, TargetLoginConfig,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginResponse, Pdu, StatSn, Tsih};
use iscsi_session::login::{LoggedIn, LoginError, LoginPolicy, accept, connect};
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

type Log = Arc<Mutex<Vec<&'static str>>>;

/// A link that writes down the calls of the Datamover Interface.
struct Watched {
    link: Box<dyn LoginLink>,
    log: Log,
    refuses: bool,
}

impl Watched {
    fn note(&self, what: &'static str) {
        self.log.lock().unwrap().push(what);
    }
}

impl Drive for Watched {
    fn poll_drive(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<io::Result<()>> {
        self.link.poll_drive(cx, budget)
    }
}

impl LoginLink for Watched {
    fn role(&self) -> Role {
        self.link.role()
    }

    fn transport(&self) -> TransportInfo {
        self.link.transport()
    }

    fn rdma_offer(&self) -> RdmaOffer {
        self.link.rdma_offer()
    }

    fn send_login(&mut self, pdu: Pdu<Bytes>) {
        let last = match &pdu {
            Pdu::LoginRequest(r) => r.transit && r.nsg == iscsi_pdu::Stage::FullFeaturePhase,
            Pdu::LoginResponse(r) => r.transit && r.nsg == iscsi_pdu::Stage::FullFeaturePhase,
            _ => false,
        };
        self.note(if last { "last" } else { "login" });
        self.link.send_login(pdu);
    }

    fn poll_login(&mut self) -> Option<Result<Pdu<Bytes>, LinkError>> {
        self.link.poll_login()
    }

    fn is_flushed(&self) -> bool {
        self.link.is_flushed()
    }

    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.note("notice");
        self.link.notice_key_values(keys);
    }

    fn allocate_connection_resources(&mut self, want: &Resources) -> Result<(), AllocError> {
        self.note("allocate");
        if self.refuses {
            return Err(AllocError { what: "nothing left" });
        }
        self.link.allocate_connection_resources(want)
    }

    fn deallocate_connection_resources(&mut self) {
        self.note("deallocate");
        self.link.deallocate_connection_resources();
    }

    fn enable_datamover(self: Box<Self>, response: Option<LoginResponse<Bytes>>) -> Box<dyn Datamover> {
        self.note(if response.is_some() { "enable with response" } else { "enable" });
        self.link.enable_datamover(response)
    }
}

/// Access and resources as told.
struct Policy {
    denial: Option<Denial>,
    tsih: Result<Tsih, Denial>,
    released: Mutex<Vec<Tsih>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { denial: None, tsih: Ok(Tsih(7)), released: Mutex::default() }
    }
}

#[async_trait]
impl LoginPolicy for Policy {
    async fn access(&self, request: &AccessRequest) -> AccessDecision {
        match self.denial {
            Some(denial) => AccessDecision::Deny(denial),
            None => Open.access(request).await,
        }
    }

    async fn account(&self, _request: &SecretRequest) -> Option<ChapAccount> {
        None
    }

    fn tsih(&self, _request: &AccessRequest) -> Result<Tsih, Denial> {
        self.tsih
    }

    fn release(&self, _request: &AccessRequest, tsih: Tsih) {
        self.released.lock().unwrap().push(tsih);
    }
}

struct Outcome {
    initiator: Result<LoggedIn, LoginError>,
    target: Result<LoggedIn, LoginError>,
    calls: [Vec<&'static str>; 2],
    wire: MemControl,
}

/// A login; `refuses` names the end that has no resources.
async fn log_in(policy: &Policy, refuses: Option<Role>, preferences: Preferences) -> Outcome {
    let (i, t, wire) = pair(MemConfig::default());
    let logs = [Log::default(), Log::default()];
    let watch = |link: Box<dyn LoginLink>, n: usize| {
        let refuses = refuses == Some(link.role());
        Box::new(Watched { link, log: logs[n].clone(), refuses })
    };
    let (i, t) = (watch(Box::new(i), 0), watch(Box::new(t), 1));
    let mut config =
        InitiatorLoginConfig::new(name("iqn.2026-01.org.example:host"), goal(), InitiatorAuth::None);
    config.preferences = preferences;
    let target = TargetLoginConfig {
        preferences: Preferences { header_digest: DigestPolicy::Never, ..Preferences::default() },
        ..TargetLoginConfig::default()
    };
    let start = LoginStart {
        isid: Isid::random([1, 2, 3], 4),
        cid: Cid(1),
        itt: Itt(0),
        cmd_sn: CmdSn(5),
        exp_stat_sn: StatSn(0),
        session: None,
    };
    let (initiator, target) = tokio::join!(
        connect(i, config, start, Resources::default(), [1; 32]),
        accept(t, target, Resources::default(), [2; 32], policy)
    );
    let calls = logs.map(|l| l.lock().unwrap().clone());
    Outcome { initiator, target, calls, wire }
}

fn before(calls: &[&str], first: &str, second: &str) -> bool {
    let at = |what: &str| calls.iter().position(|c| *c == what);
    matches!((at(first), at(second)), (Some(a), Some(b)) if a < b)
}

fn status<T>(result: &Result<T, LoginError>) -> Option<LoginStatus> {
    match result {
        Err(LoginError::Refused(failure)) => failure.status,
        _ => None,
    }
}

// RFC 5047 figures 2 and 3: keys, resources, then the step into full feature phase.
// req: 7145-5.1.1-1, 7145-5.1.1-8, 7145-5.1.2-1, 7145-5.1.2-7, 7143-4.2.8-1
#[tokio::test(start_paused = true)]
async fn calls_come_in_the_order_of_rfc_5047() {
    let o = log_in(&Policy::default(), None, Preferences::default()).await;
    let [i, t] = &o.calls;
    assert!(before(i, "allocate", "last") && before(i, "last", "enable"), "{i:?}");
    assert!(before(t, "notice", "allocate") && before(t, "allocate", "enable with response"), "{t:?}");
    assert!(!t.contains(&"last"), "the final response goes with Enable_Datamover");
    let (i, t) = (o.initiator.unwrap(), o.target.unwrap());
    assert_eq!((i.negotiated.tsih, t.negotiated.tsih), (Tsih(7), Tsih(7)));
    assert_eq!(i.negotiated.next_stat_sn, t.negotiated.next_stat_sn);
    assert_eq!(o.wire.violations(), [] as [&str; 0]);
}

// req: 7145-10.1.3.1-4, 7145-10.1.3.1-2
#[tokio::test(start_paused = true)]
async fn a_target_without_resources_says_so() {
    for (refuses, tsih) in [(Some(Role::Target), Ok(Tsih(7))), (None, Err(Denial::OutOfResources))] {
        let policy = Policy { tsih, ..Policy::default() };
        let o = log_in(&policy, refuses, Preferences::default()).await;
        assert_eq!(status(&o.initiator), Some(LoginStatus { class: 0x03, detail: 0x02 }));
        assert!(o.target.is_err());
    }
    let o = log_in(&Policy::default(), Some(Role::Initiator), Preferences::default()).await;
    assert!(o.initiator.is_err() && o.target.is_err(), "both ends have closed");
}

// req: 7145-10.1.4.6-5, 7145-10.1.4.6-6, 7145-10.1.4.6-4
#[tokio::test(start_paused = true)]
async fn a_refused_login_gives_resources_back_and_closes() {
    let policy = Policy { denial: Some(Denial::NotAuthorized), ..Policy::default() };
    let o = log_in(&policy, None, Preferences::default()).await;
    assert_eq!(status(&o.initiator), Some(LoginStatus { class: 0x02, detail: 0x02 }));
    let [i, t] = &o.calls;
    assert!(before(i, "allocate", "deallocate"), "{i:?}");
    assert!(!t.contains(&"allocate"), "7145-5.1.2-2: nothing for those who are not let in");
    assert!(o.initiator.is_err() && o.target.is_err());
}

// req: 7145-10.1.4.6-1, 7145-10.1.4.6-2, 7145-10.1.4.6-4
#[tokio::test(start_paused = true)]
async fn a_failed_negotiation_gives_resources_back_and_closes() {
    // The target of these tests knows no header digest, and its answer is not acceptable.
    let preferences = Preferences { header_digest: DigestPolicy::Require, ..Preferences::default() };
    let o = log_in(&Policy::default(), None, preferences).await;
    assert!(matches!(o.initiator, Err(LoginError::Refused(_))));
    let [i, _] = &o.calls;
    assert!(before(i, "allocate", "deallocate"), "{i:?}");
    assert!(!i.contains(&"enable"));
    // The target thought that all was well: its connection is closed.
    let mut datamover = o.target.unwrap().datamover;
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let now = tokio::time::Instant::now().into_std();
    let _ = datamover.poll_drive(&mut cx, &mut Budget::new(now));
    assert!(matches!(datamover.poll_event(), Some(datamover::Event::Terminated(_))));
}

// req: 7145-10.1.4.6-3, 7145-10.1.4.6-4
#[tokio::test(start_paused = true)]
async fn a_login_that_fails_at_the_target_after_allocation_gives_resources_back() {
    // Too many sessions: found out after the connection's resources were allocated.
    let policy = Policy { tsih: Err(Denial::OutOfResources), ..Policy::default() };
    let o = log_in(&policy, None, Preferences::default()).await;
    let [i, t] = &o.calls;
    assert!(before(t, "allocate", "deallocate"), "{t:?}");
    assert!(before(i, "allocate", "deallocate"), "{i:?}");
    assert!(o.initiator.is_err() && o.target.is_err());
}

// req: 7145-10.1.1.1-1
#[tokio::test(start_paused = true)]
async fn a_connection_lost_after_allocation_gives_resources_back() {
    let (i, t, wire) = pair(MemConfig::default());
    let log = Log::default();
    let i = Box::new(Watched { link: Box::new(i), log: log.clone(), refuses: false });
    let mut config =
        InitiatorLoginConfig::new(name("iqn.2026-01.org.example:host"), goal(), InitiatorAuth::None);
    config.preferences = Preferences::default();
    let start = LoginStart {
        isid: Isid::random([1, 2, 3], 4),
        cid: Cid(1),
        itt: Itt(0),
        cmd_sn: CmdSn(5),
        exp_stat_sn: StatSn(0),
        session: None,
    };
    let policy = Policy::default();
    let cutter = async {
        while !log.lock().unwrap().contains(&"allocate") {
            tokio::task::yield_now().await;
        }
        wire.cut();
    };
    // The target never gets to answer.
    wire.hold(Role::Initiator, true);
    let serving = accept(Box::new(t), TargetLoginConfig::default(), Resources::default(), [2; 32], &policy);
    let ((), (initiator, _)) = tokio::join!(cutter, async {
        let first = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            wire.hold(Role::Initiator, false);
        };
        let (i, t, ()) =
            tokio::join!(connect(i, config, start, Resources::default(), [1; 32]), serving, first);
        (i, t)
    });
    assert!(matches!(initiator, Err(LoginError::Link(_))));
    let calls = log.lock().unwrap().clone();
    assert!(before(&calls, "allocate", "deallocate"), "{calls:?}");
}

// req: 7143-8.1.2-6, 7143-8.1.2-7
#[tokio::test(start_paused = true)]
async fn a_silent_peer_ends_the_login_in_time() {
    let (i, t, _wire) = pair(MemConfig::default());
    let begun = tokio::time::Instant::now();
    let policy = Policy::default();
    let target =
        accept(Box::new(t), TargetLoginConfig::default(), Resources::default(), [2; 32], &policy).await;
    assert!(target.is_err());
    assert!(begun.elapsed() < Duration::from_secs(30));
    drop(i);
}

// The TSIH of a login that failed is free again.
#[tokio::test(start_paused = true)]
async fn a_reserved_tsih_is_released_when_the_login_fails() {
    let (i, t, wire) = pair(MemConfig::default());
    let policy = Policy::default();
    let config = InitiatorLoginConfig::new(name("iqn.2026-01.org.example:host"), goal(), InitiatorAuth::None);
    let start = LoginStart {
        isid: Isid::random([1, 2, 3], 4),
        cid: Cid(1),
        itt: Itt(0),
        cmd_sn: CmdSn(5),
        exp_stat_sn: StatSn(0),
        session: None,
    };
    let (initiator, target) = tokio::join!(
        connect(Box::new(i), config, start, Resources::default(), [1; 32]),
        accept(Box::new(t), TargetLoginConfig::default(), Resources::default(), [2; 32], &policy)
    );
    assert!(initiator.is_ok() && target.is_ok());
    assert!(policy.released.lock().unwrap().is_empty(), "not of one that succeeded");
    drop(wire);
}

/// The first request of an initiator that logs in as told.
async fn first_request(session: Option<ExistingSession>) -> iscsi_pdu::LoginRequest {
    let (i, mut t, _wire) = pair(MemConfig::default());
    let config = InitiatorLoginConfig::new(name("iqn.2026-01.org.example:host"), goal(), InitiatorAuth::None);
    let start = LoginStart {
        isid: Isid::random([9, 8, 7], 6),
        cid: Cid(3),
        itt: Itt(0),
        cmd_sn: CmdSn(5),
        exp_stat_sn: StatSn(40),
        session,
    };
    let login = connect(Box::new(i), config, start, Resources::default(), [1; 32]);
    let first = std::future::poll_fn(|cx| {
        let mut budget = Budget::new(tokio::time::Instant::now().into_std());
        let _ = t.poll_drive(cx, &mut budget);
        match t.poll_login() {
            Some(Ok(Pdu::LoginRequest(request))) => Poll::Ready(request),
            Some(other) => panic!("{other:?}"),
            None => Poll::Pending,
        }
    });
    tokio::select! {
        biased;
        request = first => request,
        end = login => panic!("{end:?}"),
    }
}

// req: 7143-6.3.5-1, 7143-6.3.4-1, 7143-4.4.3-1
#[tokio::test(start_paused = true)]
async fn reinstatement_names_the_old_session_or_connection() {
    let session = first_request(None).await;
    assert_eq!((session.tsih, session.isid), (Tsih(0), Isid::random([9, 8, 7], 6)));
    let existing = ExistingSession {
        tsih: Tsih(0x1234),
        session: SessionParams::default(),
        auth: AuthIdentity::None,
        exp_cmd_sn: CmdSn(0),
        max_cmd_sn: CmdSn(0),
    };
    let connection = first_request(Some(existing)).await;
    assert_eq!((connection.tsih, connection.cid, connection.isid), (Tsih(0x1234), Cid(3), session.isid));
}

// Security class 13: any other opcode before the login is over.
// req: 7143-7.1.4-2
#[tokio::test(start_paused = true)]
async fn a_snack_or_a_command_ends_a_login() {
    let snack = Pdu::Snack(iscsi_pdu::Snack { kind: iscsi_pdu::SnackType::Status, ..Default::default() });
    let command = Pdu::ScsiCommand(iscsi_pdu::ScsiCommand { final_pdu: true, ..Default::default() });
    for pdu in [snack, command, Pdu::NopOut(iscsi_pdu::NopOut::default())] {
        let (mut i, t, _wire) = pair(MemConfig::default());
        i.send_login(pdu);
        let policy = Policy::default();
        let target =
            accept(Box::new(t), TargetLoginConfig::default(), Resources::default(), [2; 32], &policy).await;
        assert!(target.is_err());
    }
}

/// As it would be if the second of two connections came when there was room for one, and the first had just got it.
#[tokio::test(start_paused = true)]
async fn a_login_may_be_refused_with_any_status_at_its_very_end() {
    for (denial, status) in [
        (Denial::TooManyConnections, LoginStatus { class: 2, detail: 6 }),
        (Denial::SessionDoesNotExist, LoginStatus { class: 2, detail: 0x0a }),
        (Denial::OutOfResources, LoginStatus { class: 3, detail: 2 }),
    ] {
        let policy = Policy { tsih: Err(denial), ..Policy::default() };
        let o = log_in(&policy, None, Preferences::default()).await;
        let Err(LoginError::Refused(failure)) = o.initiator else { panic!("{denial:?}") };
        assert_eq!(failure.status, Some(status));
        assert!(before(&o.calls[1], "allocate", "deallocate"), "{:?}", o.calls[1]);
        assert!(policy.released.lock().unwrap().is_empty(), "there was nothing to release");
    }
}
