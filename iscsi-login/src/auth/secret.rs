//! CHAP secrets and where they belong. Secrets are wiped when dropped, never printed, compared in constant time.

use crate::SessionType;
use crate::name::IscsiName;
use core::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Shortest secret without IPsec: 96 bits (RFC 7143 section 9.2.1).
const MIN_SECRET: usize = 12;
/// Longest secret; the RFC asks for at least 16 bytes.
const MAX_SECRET: usize = 256;
/// Longest CHAP_N: a simple-value (RFC 7143 section 6.1).
const MAX_CHAP_NAME: usize = 255;

/// A CHAP secret: a whole number of bytes (RFC 7143 section 9.2.1).
///
/// There is no way to make one from a passphrase by expansion: bytes are taken as they are, or drawn at random.
// req: 7143-9.2.1-3, 7143-9.2.1-4
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<[u8]>>);

/// Why bytes or text are no CHAP secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SecretError {
    /// Fewer than 96 bits; allowed only where IPsec encrypts the connection.
    TooShort,
    /// Empty, or more than 256 bytes.
    Length,
    /// `0x` and something other than pairs of hexadecimal digits.
    Hex,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "a CHAP secret has at least 12 bytes, unless IPsec encrypts the connection",
            Self::Length => "a CHAP secret has 1 to 256 bytes",
            Self::Hex => "0x is followed by an even number of hexadecimal digits",
        })
    }
}

impl core::error::Error for SecretError {}

impl Secret {
    /// A secret of these bytes.
    ///
    /// # Errors
    /// [`SecretError::TooShort`] below 12 bytes, [`SecretError::Length`] beyond 256.
    // req: 7143-9.2.1-2, 7143-9.2.1-5, 7143-9.2.1-16
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() < MIN_SECRET { Err(SecretError::TooShort) } else { Self::short_under_ipsec(bytes) }
    }

    /// A secret that may be shorter than 96 bits. The caller vouches that IPsec encrypts every connection on which it
    /// is used: without, a listener finds it by trying.
    ///
    /// # Errors
    /// [`SecretError::Length`] when empty or beyond 256 bytes.
    pub fn short_under_ipsec(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.is_empty() || bytes.len() > MAX_SECRET {
            return Err(SecretError::Length);
        }
        Ok(Self(Zeroizing::new(bytes.into())))
    }

    /// A secret as administrators write it: `0x` and hexadecimal digits for bytes, else the text itself.
    ///
    /// # Errors
    /// As [`Secret::new`], and [`SecretError::Hex`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) else {
            return Self::new(text.as_bytes());
        };
        if digits.len() > MAX_SECRET.saturating_mul(2) {
            return Err(SecretError::Length);
        }
        if !digits.len().is_multiple_of(2) {
            return Err(SecretError::Hex);
        }
        let bytes = crate::value::decode_hex(digits).map_err(|_| SecretError::Hex)?;
        Self::new(&Zeroizing::new(bytes))
    }

    /// A 128-bit secret of random bytes, which the caller draws from a cryptographic source.
    #[must_use]
    pub fn random(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(Box::new(bytes)))
    }

    /// The bytes, for storing.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether two secrets are equal; takes the same time for all secrets of one length.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A CHAP name and its secret: an authentication identity, which need not be the iSCSI name (RFC 7143 section 9.2).
// req: 7143-9.2-6, 7143-9.2-7
#[derive(Clone, Debug)]
pub struct ChapCredentials {
    name: Box<str>,
    secret: Secret,
}

impl ChapCredentials {
    /// `name` as CHAP_N, with its secret.
    ///
    /// # Errors
    /// [`ChapConfigError::Name`] for a name that CHAP_N cannot carry.
    pub fn new(name: &str, secret: Secret) -> Result<Self, ChapConfigError> {
        if name.is_empty() || name.len() > MAX_CHAP_NAME || name.contains(char::is_control) {
            return Err(ChapConfigError::Name);
        }
        Ok(Self { name: name.into(), secret })
    }

    /// CHAP_N.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The secret.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// Why a CHAP configuration is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ChapConfigError {
    /// A CHAP name has 1 to 255 bytes and no control characters.
    Name,
    /// One secret for both directions, or for both roles of a node (RFC 7143 section 9.2.1).
    SameSecret,
    /// One identity for both directions, or for both roles of a node (RFC 7143 section 9.2.1).
    SameName,
    /// No algorithm that this build has.
    NoAlgorithm,
}

impl fmt::Display for ChapConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a CHAP name has 1 to 255 bytes and no control characters",
            Self::SameSecret => "one CHAP secret must not serve both directions",
            Self::SameName => "one CHAP name must not serve both directions",
            Self::NoAlgorithm => "no CHAP algorithm of the list is in this build",
        })
    }
}

impl core::error::Error for ChapConfigError {}

/// Refuses two identities of opposite directions that share their secret or name.
// req: 7143-9.2.1-6
pub(crate) fn check_distinct(a: &ChapCredentials, b: &ChapCredentials) -> Result<(), ChapConfigError> {
    if a.secret.same_as(&b.secret) {
        return Err(ChapConfigError::SameSecret);
    }
    if a.name == b.name { Err(ChapConfigError::SameName) } else { Ok(()) }
}

/// For a node that is both initiator and target: none of the identities of one role may share its secret or name with
/// one of the other (RFC 7143 section 9.2.1).
///
/// # Errors
/// [`ChapConfigError::SameSecret`] or [`ChapConfigError::SameName`].
// req: 7143-9.2.1-8
pub fn check_roles(
    as_initiator: &[ChapCredentials],
    as_target: &[ChapCredentials],
) -> Result<(), ChapConfigError> {
    as_initiator.iter().try_for_each(|a| as_target.iter().try_for_each(|b| check_distinct(a, b)))
}

/// The first two entries, by index, that share one secret: each of them could pose as the other, which an
/// administrator should be warned of (RFC 7143 section 9.2.1).
// req: 7143-9.2.1-11, 7143-9.2.1-13, 7143-9.2.1-15
#[must_use]
pub fn find_shared(credentials: &[ChapCredentials]) -> Option<(usize, usize)> {
    credentials.iter().enumerate().find_map(|(j, b)| {
        credentials.iter().take(j).position(|a| a.secret.same_as(&b.secret)).map(|i| (i, j))
    })
}

/// What a target knows of the CHAP_N that an initiator gave: the answer to
/// [`crate::LoginOutput::NeedSecret`].
#[derive(Clone, Debug)]
pub struct ChapAccount {
    pub(crate) initiator: ChapCredentials,
    pub(crate) initiator_name: Option<IscsiName>,
    pub(crate) target: Option<ChapCredentials>,
}

impl ChapAccount {
    /// An account of `initiator`, with the identity that the target shows it in return, if any. With `bound_to`, only
    /// the node of that iSCSI name may use it.
    ///
    /// # Errors
    /// When both directions share a secret or a name.
    // req: 7143-9.2-8, 7143-9.2-9
    pub fn new(
        initiator: ChapCredentials,
        bound_to: Option<IscsiName>,
        target: Option<ChapCredentials>,
    ) -> Result<Self, ChapConfigError> {
        if let Some(target) = &target {
            check_distinct(&initiator, target)?;
        }
        Ok(Self { initiator, initiator_name: bound_to, target })
    }
}

/// What a target asks about a CHAP_N: its account at this target.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SecretRequest {
    /// CHAP_N as the initiator sent it.
    pub user: Box<str>,
    /// InitiatorName.
    pub initiator_name: IscsiName,
    /// TargetName; `None` on a discovery session that named none.
    pub target_name: Option<IscsiName>,
    /// SessionType: the accounts for discovery need not be those of the target that a discovery session names.
    pub session_type: SessionType,
    /// Whether the initiator wants the target authenticated too.
    pub mutual: bool,
}

/// A random key of the node, one for all its logins in both roles, by which it knows its own challenges again: a
/// challenge that comes back, on whatever connection, is refused (RFC 7143 section 9.2.1).
///
/// Draw it from a cryptographic source when the process starts; processes of one node may share it.
#[derive(Clone)]
pub struct ChallengeKey(pub(crate) Zeroizing<[u8; 32]>);

impl ChallengeKey {
    /// A key of these random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random))
    }
}

impl fmt::Debug for ChallengeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChallengeKey(..)")
    }
}

#[cfg(test)]
mod tests;
