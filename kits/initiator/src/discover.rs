//! Which targets there are: [`discover`].

use crate::login::{Endpoint, address};
use crate::{ConnectOptions, Error, IscsiUrl};
use bytes::Bytes;
use iscsi_login::SessionGoal;
use iscsi_login::sendtargets::{RecordLimits, TargetAddress, TargetRecord, parse_records};
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
    complete(&mut records, &address(&url.host, url.port));
    Ok(records)
}

/// A target without addresses is at the portal that was asked (RFC 7143 appendix C).
// req: 7143-C-19
fn complete(records: &mut [TargetRecord], asked: &TargetAddress) {
    for record in records {
        record.addresses.dedup();
        if record.addresses.is_empty() {
            record.addresses.push(asked.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // req: 7143-C-19
    #[test]
    fn a_record_without_address_is_at_the_portal_that_was_asked() {
        let text = b"TargetName=iqn.2026-01.org.example:here\0TargetName=iqn.2026-01.org.example:there\0\
            TargetAddress=192.0.2.7:3260,1\0";
        let mut records = parse_records(text, RecordLimits::default()).unwrap();
        complete(&mut records, &address("192.0.2.1", 3261));
        let addresses: Vec<String> = records.iter().map(|r| r.addresses[0].to_string()).collect();
        assert_eq!(addresses, ["192.0.2.1:3261", "192.0.2.7:3260,1"]);
    }
}
