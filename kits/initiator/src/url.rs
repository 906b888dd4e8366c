//! Where a LUN is: URLs as libiscsi, QEMU and fio write them.
//!
//! ```text
//! iscsi://[user[%password]@]host[:port]/target-iqn/lun[?option&option=value]
//! ```

use iscsi_connect::Policy;
use iscsi_login::IscsiName;
use std::fmt;
use std::str::FromStr;

/// The well-known iSCSI port (RFC 7143 section 4.1).
pub const ISCSI_PORT: u16 = 3260;

/// Most connections that a URL may ask for.
pub const MAX_CONNECTIONS: u16 = 64;

/// Name and secret out of a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlCredentials {
    /// User.
    pub user: String,
    /// Secret, when given.
    pub password: Option<String>,
}

/// Shows the user, never the password.
impl fmt::Debug for UrlCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlCredentials({:?})", self.user)
    }
}

/// A parsed URL: a portal, with a target and a LUN or without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IscsiUrl {
    /// Host name or address; IPv6 without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Target name, when the URL goes that far.
    pub target: Option<IscsiName>,
    /// LUN, when the URL goes that far.
    pub lun: Option<u16>,
    /// CHAP by which we prove ourselves.
    pub chap: Option<UrlCredentials>,
    /// CHAP by which the target must prove itself (`target_user`, `target_password`).
    pub target_chap: Option<UrlCredentials>,
    /// Offer HeaderDigest=CRC32C only (`header_digest=crc32c`).
    pub header_digest: bool,
    /// Offer DataDigest=CRC32C only (`data_digest=crc32c`).
    pub data_digest: bool,
    /// Connections of the session (`connections=4`), 1 to [`MAX_CONNECTIONS`].
    pub connections: u16,
    /// ErrorRecoveryLevel to offer (`erl=2`), 0 to 2: at 2 commands outlive their connection.
    pub error_recovery_level: u8,
    /// `iser://`, `?iser` or `transport=`.
    pub transport: Policy,
}

/// What is wrong with a URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It does not start as it must.
    #[error("'{0}' is no iSCSI URL: expected iscsi://[user[%password]@]host[:port]/target-iqn/lun")]
    Scheme(String),
    /// No host.
    #[error("the URL names no host")]
    Host,
    /// The port is not 1 to 65535.
    #[error("'{0}' is no port number")]
    Port(String),
    /// The target's name breaks a rule of RFC 7143 section 4.2.7.
    #[error("'{name}' is no iSCSI name: {why}")]
    Target {
        /// The text.
        name: String,
        /// The rule.
        why: String,
    },
    /// The LUN is not 0 to 16383.
    #[error("'{0}' is no LUN: expected 0 to 16383")]
    Lun(String),
    /// More path than target and LUN.
    #[error("'{0}' follows the LUN: expected the end of the URL or ?options")]
    Path(String),
    /// An unknown option, or an unknown value of one.
    #[error(
        "unknown option '{0}': expected header_digest=crc32c, data_digest=crc32c, target_user=, \
         target_password=, connections=1..64, erl=0..2, iser or transport=auto|tcp|iser|LIST"
    )]
    Option(String),
    /// The URL ends before the target or the LUN.
    #[error("the URL names no {0}: expected iscsi://host[:port]/target-iqn/lun")]
    Missing(&'static str),
}

impl IscsiUrl {
    /// Target and LUN, for what needs both.
    ///
    /// # Errors
    /// [`UrlError::Missing`] names which is missing.
    pub fn target_and_lun(&self) -> Result<(&IscsiName, u16), UrlError> {
        let target = self.target.as_ref().ok_or(UrlError::Missing("target"))?;
        Ok((target, self.lun.ok_or(UrlError::Missing("LUN"))?))
    }
}

impl FromStr for IscsiUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let (transport, rest) = match url.split_once("://") {
            Some(("iscsi", rest)) => (Policy::auto(), rest),
            Some(("iser", rest)) => (Policy::iser(), rest),
            _ => return Err(UrlError::Scheme(url.into())),
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last '@': a password may hold one, a host cannot.
        let (chap, host_port) = match authority.rsplit_once('@') {
            Some((who, host_port)) => (Some(credentials(who)), host_port),
            None => (None, authority),
        };
        let (host, port) = host_and_port(host_port)?;
        let (target, lun) = target_and_lun(path)?;
        let mut this = Self {
            host,
            port,
            target,
            lun,
            chap,
            target_chap: None,
            header_digest: false,
            data_digest: false,
            connections: 1,
            error_recovery_level: 0,
            transport,
        };
        for option in options.split('&').filter(|o| !o.is_empty()) {
            this.option(option)?;
        }
        Ok(this)
    }
}

impl IscsiUrl {
    fn option(&mut self, option: &str) -> Result<(), UrlError> {
        let unknown = || UrlError::Option(option.into());
        match option.split_once('=').unwrap_or((option, "")) {
            ("iser", "") => self.transport = Policy::iser(),
            ("transport", value) => self.transport = value.parse().map_err(|_| unknown())?,
            ("header_digest", value) => self.header_digest = digest(value).ok_or_else(unknown)?,
            ("data_digest", value) => self.data_digest = digest(value).ok_or_else(unknown)?,
            ("connections", value) => {
                let n = value.parse().ok().filter(|n| (1..=MAX_CONNECTIONS).contains(n));
                self.connections = n.ok_or_else(unknown)?;
            }
            ("erl", value) => {
                let level = value.parse().ok().filter(|level| *level <= 2);
                self.error_recovery_level = level.ok_or_else(unknown)?;
            }
            ("target_user", user) if !user.is_empty() => self.target_chap_mut().user = user.into(),
            ("target_password", password) => self.target_chap_mut().password = Some(password.into()),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn target_chap_mut(&mut self) -> &mut UrlCredentials {
        self.target_chap.get_or_insert(UrlCredentials { user: String::new(), password: None })
    }
}

fn digest(value: &str) -> Option<bool> {
    match value {
        "crc32c" => Some(true),
        "none" => Some(false),
        _ => None,
    }
}

/// `user` or `user%password`.
fn credentials(who: &str) -> UrlCredentials {
    match who.split_once('%') {
        Some((user, password)) => UrlCredentials { user: user.into(), password: Some(password.into()) },
        None => UrlCredentials { user: who.into(), password: None },
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or(UrlError::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(UrlError::Port(after.into())),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(UrlError::Host);
    }
    let port = match port {
        None => ISCSI_PORT,
        Some(p) => p.parse().ok().filter(|n| *n != 0).ok_or_else(|| UrlError::Port(p.into()))?,
    };
    Ok((host.into(), port))
}

fn target_and_lun(path: &str) -> Result<(Option<IscsiName>, Option<u16>), UrlError> {
    if path.is_empty() {
        return Ok((None, None));
    }
    let mut parts = path.splitn(3, '/');
    let name = parts.next().unwrap_or_default();
    let target =
        IscsiName::new(name).map_err(|e| UrlError::Target { name: name.into(), why: e.to_string() })?;
    let lun = match parts.next() {
        None | Some("") => None,
        Some(n) => {
            Some(n.parse().ok().filter(|n: &u16| *n < 1 << 14).ok_or_else(|| UrlError::Lun(n.into()))?)
        }
    };
    match parts.next() {
        None | Some("") => Ok((Some(target), lun)),
        Some(more) => Err(UrlError::Path(more.into())),
    }
}

/// The URL without its secrets.
impl fmt::Display for IscsiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.transport == Policy::iser() { "iser" } else { "iscsi" };
        write!(f, "{scheme}://")?;
        if let Some(chap) = &self.chap {
            write!(f, "{}@", chap.user)?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port != ISCSI_PORT {
            write!(f, ":{}", self.port)?;
        }
        if let Some(target) = &self.target {
            write!(f, "/{target}")?;
            if let Some(lun) = self.lun {
                write!(f, "/{lun}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> IscsiUrl {
        text.parse().unwrap()
    }

    // The examples of libiscsi's manual pages.
    #[test]
    fn as_libiscsi_writes_them() {
        let u = url("iscsi://192.0.2.1");
        assert_eq!((u.host.as_str(), u.port, &u.target), ("192.0.2.1", 3260, &None));
        let u = url("iscsi://[2001:DB8::1]:3261");
        assert_eq!((u.host.as_str(), u.port), ("2001:DB8::1", 3261));
        let u = url("iscsi://ronnie%password@iscsi.example.com/iqn.2010-11.ronnie:demo/1");
        let chap = u.chap.clone().unwrap();
        assert_eq!((chap.user.as_str(), chap.password.as_deref()), ("ronnie", Some("password")));
        assert_eq!(u.target_and_lun().unwrap().1, 1);
        let u = url("iscsi://127.0.0.1/iqn.2010-11.ronnie:demo/0?header_digest=crc32c&data_digest=crc32c");
        assert!(u.header_digest && u.data_digest);
        let u = url("iscsi://a%b@127.0.0.1/iqn.2010-11.ronnie:demo/0?target_user=t&target_password=s");
        assert_eq!(u.target_chap.unwrap().password.as_deref(), Some("s"));
        assert_eq!(url("iscsi://h/iqn.2010-11.ronnie:demo/0?erl=2").error_recovery_level, 2);
        assert_eq!(url("iser://h/iqn.2010-11.ronnie:demo/0").transport, Policy::iser());
        assert_eq!(url("iscsi://h/iqn.2010-11.ronnie:demo/0?iser").transport, Policy::iser());
    }

    #[test]
    fn a_password_may_hold_anything_but_a_slash() {
        let u = url("iscsi://user%p@ss%w0rd@host/iqn.2010-11.ronnie:demo/0");
        assert_eq!(u.chap.unwrap().password.as_deref(), Some("p@ss%w0rd"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let u =
            url("iscsi://user%hunter2@host/iqn.2010-11.ronnie:demo/0?target_user=t&target_password=hunter3");
        assert!(!format!("{u} {u:?}").contains("hunter"));
    }

    #[test]
    fn mistakes() {
        for (text, error) in [
            ("http://h", UrlError::Scheme("http://h".into())),
            ("iscsi://", UrlError::Host),
            ("iscsi://h:0", UrlError::Port("0".into())),
            ("iscsi://h:x", UrlError::Port("x".into())),
            ("iscsi://h/iqn.2010-11.ronnie:demo/16384", UrlError::Lun("16384".into())),
            ("iscsi://h/iqn.2010-11.ronnie:demo/0/x", UrlError::Path("x".into())),
            ("iscsi://h?erl=3", UrlError::Option("erl=3".into())),
            ("iscsi://h?header_digest=md5", UrlError::Option("header_digest=md5".into())),
        ] {
            assert_eq!(text.parse::<IscsiUrl>(), Err(error), "{text}");
        }
        assert!(matches!("iscsi://h/disk/0".parse::<IscsiUrl>(), Err(UrlError::Target { .. })));
        assert_eq!(url("iscsi://h").target_and_lun(), Err(UrlError::Missing("target")));
    }
}
