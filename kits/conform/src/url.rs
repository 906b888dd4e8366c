//! `iscsi://[user%secret@]host[:port]/iqn…/lun[?target_user=…&target_password=…]`, as libiscsi writes it.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use percent_encoding::percent_decode_str;

/// CHAP name and secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// CHAP_N.
    pub name: String,
    /// The secret of the side that gives this name.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A target and one of its logical units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUrl {
    /// Where the target listens.
    pub address: SocketAddr,
    /// iSCSI name of the target.
    pub name: String,
    /// Number of the logical unit that commands go to.
    pub lun: u16,
    /// How the initiator proves itself.
    pub initiator: Option<Credentials>,
    /// How the target proves itself.
    pub target: Option<Credentials>,
}

impl TargetUrl {
    /// The LUN field of a PDU (SAM-5 4.7): peripheral device addressing, from 256 on flat space addressing.
    pub fn lun_field(&self) -> [u8; 8] {
        let [high, low] = self.lun.to_be_bytes();
        if self.lun < 256 { [0, low, 0, 0, 0, 0, 0, 0] } else { [0x40 | high, low, 0, 0, 0, 0, 0, 0] }
    }
}

impl FromStr for TargetUrl {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let rest = text.strip_prefix("iscsi://").context("a URL begins with iscsi://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parts = rest.splitn(2, '/');
        let authority = parts.next().unwrap_or_default();
        let (name, lun) =
            parts.next().and_then(|path| path.split_once('/')).context("…/NAME/LUN is missing in the URL")?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let initiator = match user {
            None => None,
            Some(user) => {
                let (name, secret) = user.split_once(['%', ':']).context("user%secret@ lacks its secret")?;
                Some(Credentials { name: decoded(name)?, secret: decoded(secret)? })
            }
        };
        let (mut target_name, mut target_secret) = (None, None);
        for (key, value) in query.split('&').filter(|q| !q.is_empty()).filter_map(|q| q.split_once('=')) {
            match key {
                "target_user" => target_name = Some(decoded(value)?),
                "target_password" => target_secret = Some(decoded(value)?),
                _ => bail!("{key}: not known in a URL"),
            }
        }
        let target = match (target_name, target_secret) {
            (None, None) => None,
            (Some(name), Some(secret)) => Some(Credentials { name, secret }),
            _ => bail!("target_user and target_password go together"),
        };
        let lun: u16 = lun.parse().with_context(|| format!("LUN '{lun}'"))?;
        ensure!(lun < 0x4000, "LUN {lun} is out of range");
        Ok(Self { address: address(host)?, name: decoded(name)?, lun, initiator, target })
    }
}

fn decoded(text: &str) -> anyhow::Result<String> {
    Ok(percent_decode_str(text).decode_utf8().with_context(|| text.to_owned())?.into_owned())
}

/// Host and port; the default port is 3260 (RFC 7143 section 15).
fn address(host: &str) -> anyhow::Result<SocketAddr> {
    let has_port =
        host.rsplit_once(':').is_some_and(|(before, _)| !before.contains(':') || before.ends_with(']'));
    let with_port = if has_port { host.to_owned() } else { format!("{host}:3260") };
    let mut found = with_port.to_socket_addrs().with_context(|| format!("host '{host}'"))?;
    found.next().with_context(|| format!("host '{host}' has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_libiscsi() {
        let url: TargetUrl = "iscsi://me%a%25b@127.0.0.1:3261/iqn.2026-01.org.example:t/300".parse().unwrap();
        assert_eq!(url.address, "127.0.0.1:3261".parse().unwrap());
        assert_eq!(url.name, "iqn.2026-01.org.example:t");
        assert_eq!(url.initiator, Some(Credentials { name: "me".into(), secret: "a%b".into() }));
        assert_eq!(url.lun_field(), [0x41, 0x2c, 0, 0, 0, 0, 0, 0]);
        let url: TargetUrl = "iscsi://[::1]/iqn.x:y/1?target_user=t&target_password=p".parse().unwrap();
        assert_eq!((url.address.port(), url.lun_field()[1]), (3260, 1));
        assert_eq!(url.target, Some(Credentials { name: "t".into(), secret: "p".into() }));
        for bad in [
            "http://a/b/0",
            "iscsi://127.0.0.1/iqn.x",
            "iscsi://127.0.0.1/iqn.x/z",
            "iscsi://u@127.0.0.1/n/0",
        ] {
            assert!(bad.parse::<TargetUrl>().is_err(), "{bad}");
        }
    }
}
