//! Logins between our two ends.

mod common;
use common::*;
use iscsi_login::*;

#[test]
fn one_exchange_without_security() {
    let mut caller = Caller::new(grant(TargetAuth::None));
    let login = run(normal(InitiatorAuth::None), TargetLoginConfig::default(), &mut caller);
    assert_eq!(login.requests.len(), 1, "{:?}", login.initiator);
    let (i, t) = (login.initiator.enabled(), login.target.as_ref().unwrap().enabled());
    assert_eq!(i.session, t.session);
    assert_eq!(lines(&login.requests[0].data)[0], format!("InitiatorName={INITIATOR}"));
}
