//! Which targets there are: [`discover`].

use crate::login::Endpoint;
use crate::{ConnectOptions, Error, IscsiUrl};
use bytes::Bytes;
use iscsi_login::SessionGoal;
use iscsi_login::sendtargets::{RecordLimits, TargetRecord, parse_records};
use iscsi_session::driver::run_session;
use iscsi_session::initiator::{InitiatorConfig, InitiatorSession};

/// Asks a portal for its targets: a discovery session with SendTargets=All (RFC 7143 appendix C).
///
/// # Errors
/// Those of the connection and the login, and of an answer that cannot be read.
pub async fn discover(url: &IscsiUrl, options: &ConnectOptions) -> Result<Vec<TargetRecord>, Error> {
    let mut endpoint = Endpoint::new(&url.host, url.port, SessionGoal::Discovery(None), options)?;
    let (logged_in, _) = endpoint.log_in().await?;
    let now = tokio::time::Instant::now().into_std();
    let session = InitiatorSession::new(InitiatorConfig::default(), &logged_in.negotiated, now);
    let (handle, _events, run) = run_session(session, logged_in);
    let ask = async {
        let answer = handle.text(Bytes::from_static(b"SendTargets=All\0")).await;
        handle.logout();
        answer
    };
    let both = async { tokio::join!(ask, run).0 };
    let answer = tokio::time::timeout(options.timeout, both)
        .await
        .map_err(|_| Error::TimedOut(options.timeout.as_secs()))?;
    let text = answer.map_err(|_| Error::SessionLost("during discovery".into()))?.map_err(Error::Exchange)?;
    let mut records = parse_records(&text, RecordLimits::default()).map_err(Error::SendTargets)?;
    // A target without addresses is at the portal that was asked (RFC 7143 appendix C).
    records.iter_mut().for_each(|r| r.addresses.dedup());
    Ok(records)
}
