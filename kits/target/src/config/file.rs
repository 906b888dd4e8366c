//! The TOML form of [`Config`]: every mistake is told with its line, column and key.

use super::lun::parse_size;
use super::{
    Backing, Chap, Config, ISCSI_PORT, LunConfig, MAX_CONNECTIONS, Redirect, TargetConfig, read_secret,
};
use crate::block::IoEngine;
use crate::nodes::PORTAL_GROUP;
use iscsi_connect::Policy;
use iscsi_login::IscsiName;
use iscsi_login::sendtargets::TargetAddress;
use scsi_cmd::protection::ProtectionType;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// A mistake in the file and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key concerned, empty when the text is no TOML at that place.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for FileError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawConfig {
    portals: Option<Vec<Spanned<String>>>,
    transport: Option<Spanned<String>>,
    discovery_chap: Option<Spanned<RawChap>>,
    ping_after: Option<u32>,
    error_recovery_level: Option<Spanned<u8>>,
    #[serde(default)]
    target: Vec<Spanned<RawTarget>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawTarget {
    iqn: Spanned<String>,
    alias: Option<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    chap: Option<Spanned<RawChap>>,
    max_connections: Option<Spanned<u16>>,
    #[serde(default)]
    redirect: Vec<Spanned<RawRedirect>>,
    #[serde(default)]
    lun: Vec<Spanned<RawLun>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRedirect {
    #[serde(default)]
    portals: Vec<Spanned<String>>,
    to: Vec<Spanned<String>>,
    #[serde(default)]
    permanently: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawChap {
    user: Spanned<String>,
    secret: Option<Spanned<String>>,
    secret_file: Option<Spanned<PathBuf>>,
    mutual_user: Option<Spanned<String>>,
    mutual_secret: Option<Spanned<String>>,
    mutual_secret_file: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLun {
    lun: Option<u16>,
    path: Option<PathBuf>,
    create: Option<Spanned<String>>,
    ram: Option<Spanned<String>>,
    null: Option<Spanned<String>>,
    nbd: Option<Spanned<String>>,
    block_size: Option<u32>,
    #[serde(default)]
    read_only: bool,
    thin: Option<bool>,
    physical_block_size: Option<u32>,
    #[serde(default)]
    removable: bool,
    #[serde(default)]
    direct: bool,
    pi: Option<Spanned<u8>>,
    tags: Option<PathBuf>,
    io: Option<Spanned<String>>,
    registered: Option<Spanned<String>>,
    #[serde(default)]
    write_through: bool,
    reservations: Option<PathBuf>,
    serial: Option<String>,
    erase_rate: Option<Spanned<String>>,
}

/// The text, to turn byte offsets into lines.
struct Text<'a>(&'a str);

impl Text<'_> {
    fn error(&self, at: std::ops::Range<usize>, key: &'static str, what: impl Into<String>) -> FileError {
        let before = self.0.get(..at.start).unwrap_or(self.0);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        FileError { line, column, key, what: what.into() }
    }
}

pub(super) fn parse(source: &str) -> Result<Config, FileError> {
    let text = Text(source);
    let raw: RawConfig = toml::from_str(source)
        .map_err(|e| text.error(e.span().unwrap_or(0..0), "", e.message().to_owned()))?;
    let (portals, portal_groups) = match raw.portals {
        None => (Config::default_portals(), Vec::new()),
        Some(list) => {
            let portals = list.iter().map(|p| grouped_portal(&text, p)).collect::<Result<Vec<_>, _>>()?;
            portals.into_iter().unzip()
        }
    };
    let transport = match raw.transport {
        None => Policy::default(),
        Some(t) => t.get_ref().parse().map_err(|e| text.error(t.span(), "transport", format!("{e}")))?,
    };
    let discovery_chap = raw.discovery_chap.map(|c| chap(&text, c)).transpose()?;
    if raw.target.is_empty() {
        return Err(text.error(
            0..0,
            "target",
            "there is none: add a [[target]] with an iqn and a [[target.lun]]",
        ));
    }
    let mut names = BTreeSet::new();
    let mut targets = Vec::new();
    for t in raw.target {
        let target = target(&text, t.into_inner(), &mut names)?;
        targets.push(target);
    }
    let ping_after = raw.ping_after.map(|seconds| Duration::from_secs(seconds.into()));
    let error_recovery_level = match raw.error_recovery_level {
        Some(level) if *level.get_ref() > 2 => {
            return Err(text.error(level.span(), "error-recovery-level", "is 0, 1 or 2"));
        }
        level => level.map(Spanned::into_inner),
    };
    Ok(Config {
        portals,
        portal_groups,
        transport,
        discovery_chap,
        ping_after,
        error_recovery_level,
        targets,
        ..Config::default()
    })
}

/// A portal as people write it: `ADDRESS`, `ADDRESS:PORT` or `[V6]:PORT`; the well-known port where none is given.
#[must_use]
pub fn parse_portal(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let host = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, ISCSI_PORT))
    })
}

fn portal(text: &Text<'_>, key: &'static str, raw: &Spanned<String>) -> Result<SocketAddr, FileError> {
    parse_portal(raw.get_ref()).ok_or_else(|| {
        text.error(raw.span(), key, format!("'{}' is no ADDRESS or ADDRESS:PORT", raw.get_ref()))
    })
}

/// A portal with its portal group, 1 if none is given: `ADDRESS:PORT,GROUP`.
#[must_use]
pub fn parse_grouped_portal(text: &str) -> Option<(SocketAddr, u16)> {
    let (address, group) = match text.rsplit_once(',') {
        Some((address, group)) => (address, group.trim().parse().ok()),
        None => (text, Some(PORTAL_GROUP)),
    };
    parse_portal(address.trim()).zip(group)
}

fn grouped_portal(text: &Text<'_>, raw: &Spanned<String>) -> Result<(SocketAddr, u16), FileError> {
    parse_grouped_portal(raw.get_ref()).ok_or_else(|| {
        let what = format!("'{}' is no ADDRESS or ADDRESS:PORT, nor one with ,GROUP", raw.get_ref());
        text.error(raw.span(), "portals", what)
    })
}

fn redirect(text: &Text<'_>, raw: Spanned<RawRedirect>) -> Result<Redirect, FileError> {
    let span = raw.span();
    let raw = raw.into_inner();
    if raw.to.is_empty() {
        return Err(text.error(span, "to", "names no address"));
    }
    let address = |a: &Spanned<String>| -> Result<TargetAddress, FileError> {
        a.get_ref()
            .parse()
            .map_err(|_| text.error(a.span(), "to", format!("'{}' is no HOST or HOST:PORT", a.get_ref())))
    };
    Ok(Redirect {
        portals: raw.portals.iter().map(|p| portal(text, "portals", p)).collect::<Result<_, _>>()?,
        to: raw.to.iter().map(address).collect::<Result<_, _>>()?,
        permanently: raw.permanently,
    })
}

fn name(text: &Text<'_>, key: &'static str, raw: &Spanned<String>) -> Result<IscsiName, FileError> {
    IscsiName::new(raw.get_ref())
        .map_err(|e| text.error(raw.span(), key, format!("'{}': {e}", raw.get_ref())))
}

fn target(text: &Text<'_>, raw: RawTarget, names: &mut BTreeSet<String>) -> Result<TargetConfig, FileError> {
    let iqn = name(text, "iqn", &raw.iqn)?;
    if !names.insert(iqn.to_string()) {
        return Err(text.error(raw.iqn.span(), "iqn", format!("'{iqn}' is given to two targets")));
    }
    let alias = match raw.alias {
        Some(a) if a.get_ref().len() > 255 => {
            return Err(text.error(a.span(), "alias", "longer than 255 bytes"));
        }
        a => a.map(Spanned::into_inner),
    };
    let allow = raw.allow.iter().map(|a| name(text, "allow", a)).collect::<Result<_, _>>()?;
    let chap = raw.chap.map(|c| chap(text, c)).transpose()?;
    if raw.lun.is_empty() {
        return Err(text.error(raw.iqn.span(), "lun", format!("'{iqn}' has none: add a [[target.lun]]")));
    }
    let mut numbers = BTreeSet::new();
    let mut luns = Vec::new();
    for l in raw.lun {
        let span = l.span();
        let lun = lun(text, l)?;
        if let Some(n) = lun.lun
            && !numbers.insert(n)
        {
            return Err(text.error(span, "lun", format!("number {n} is given to two units of '{iqn}'")));
        }
        luns.push(lun);
    }
    let max_connections = match raw.max_connections {
        Some(n) if *n.get_ref() == 0 => {
            return Err(text.error(n.span(), "max-connections", "is at least 1"));
        }
        n => n.map_or(MAX_CONNECTIONS, Spanned::into_inner),
    };
    let redirects = raw.redirect.into_iter().map(|r| redirect(text, r)).collect::<Result<_, _>>()?;
    Ok(TargetConfig { name: iqn, alias, allow, chap, max_connections, redirects, luns })
}

fn chap(text: &Text<'_>, raw: Spanned<RawChap>) -> Result<Chap, FileError> {
    let span = raw.span();
    let raw = raw.into_inner();
    let secret = secret(text, "secret", &span, raw.secret, raw.secret_file)?
        .ok_or_else(|| text.error(span.clone(), "secret", "missing: give secret or secret-file"))?;
    let mutual_secret =
        self::secret(text, "mutual-secret", &span, raw.mutual_secret, raw.mutual_secret_file)?;
    let mutual = match (&raw.mutual_user, &mutual_secret) {
        (None, None) => None,
        (Some(user), Some(secret)) => Some((user.get_ref().as_str(), secret.as_str())),
        (Some(user), None) => {
            return Err(text.error(
                user.span(),
                "mutual-user",
                "needs mutual-secret or mutual-secret-file beside it",
            ));
        }
        (None, Some(_)) => return Err(text.error(span, "mutual-secret", "needs mutual-user beside it")),
    };
    Chap::new(raw.user.get_ref(), &secret, mutual).map_err(|e| text.error(span, "chap", e.to_string()))
}

fn secret(
    text: &Text<'_>,
    key: &'static str,
    span: &std::ops::Range<usize>,
    plain: Option<Spanned<String>>,
    file: Option<Spanned<PathBuf>>,
) -> Result<Option<String>, FileError> {
    match (plain, file) {
        (None, None) => Ok(None),
        (Some(s), None) => Ok(Some(s.into_inner())),
        (None, Some(f)) => match read_secret(f.get_ref()) {
            Ok(secret) => Ok(Some(secret)),
            Err(e) => Err(text.error(f.span(), key, format!("cannot read {}: {e}", f.get_ref().display()))),
        },
        (Some(_), Some(_)) => Err(text.error(span.clone(), key, "give the secret or its file, not both")),
    }
}

fn lun(text: &Text<'_>, raw: Spanned<RawLun>) -> Result<LunConfig, FileError> {
    let span = raw.span();
    let raw = raw.into_inner();
    let size = |key, s: &Spanned<String>| {
        parse_size(s.get_ref()).map_err(|e| text.error(s.span(), key, e.to_string()))
    };
    let backing = match (&raw.path, &raw.ram, &raw.null, &raw.nbd) {
        (Some(path), None, None, None) => Backing::Path {
            path: path.clone(),
            create: raw.create.as_ref().map(|s| size("create", s)).transpose()?,
        },
        (None, Some(s), None, None) => Backing::Ram { size: size("ram", s)? },
        (None, None, Some(s), None) => Backing::Null { size: size("null", s)? },
        (None, None, None, Some(s)) => {
            Backing::Nbd(s.get_ref().parse().map_err(|e| text.error(s.span(), "nbd", format!("{e}")))?)
        }
        _ => return Err(text.error(span, "lun", "give exactly one of path, ram, nbd and null")),
    };
    if let (Some(create), None) = (&raw.create, &raw.path) {
        return Err(text.error(create.span(), "create", "goes with path"));
    }
    let protection = raw.pi.map(|n| {
        ProtectionType::from_number(*n.get_ref())
            .ok_or_else(|| text.error(n.span(), "pi", "is 1 or 3, a protection type"))
    });
    let lun = LunConfig {
        lun: raw.lun,
        backing,
        block_size: raw.block_size.unwrap_or(512),
        read_only: raw.read_only,
        thin: raw.thin.unwrap_or(true),
        physical_block_size: raw.physical_block_size,
        removable: raw.removable,
        direct: raw.direct,
        protection: protection.transpose()?,
        tags: raw.tags,
        io: match &raw.io {
            None => IoEngine::Auto,
            Some(s) => super::lun::parse_engine(s.get_ref())
                .map_err(|e| text.error(s.span(), "io", e.to_string()))?,
        },
        registered: raw.registered.as_ref().map(|s| size("registered", s)).transpose()?,
        write_through: raw.write_through,
        erase_rate: raw.erase_rate.as_ref().map(|s| size("erase-rate", s)).transpose()?,
        reservations: raw.reservations,
        serial: raw.serial,
    };
    lun.check().map_err(|e| text.error(span, "lun", e.to_string()))?;
    Ok(lun)
}

#[cfg(test)]
mod tests;
