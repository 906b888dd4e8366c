//! CHAP algorithms: numbers of the IANA registry "PPP Authentication Algorithms" and the response of RFC 1994.

use super::secret::{ChapConfigError, Secret};
use core::fmt;
use subtle::{Choice, ConstantTimeEq};

/// A CHAP algorithm by its IANA number. Unknown numbers are values too: they are skipped in a peer's list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChapAlgorithm(pub u32);

impl ChapAlgorithm {
    /// MD5 (RFC 1994), which initiators must always offer (RFC 7143 section 12.1.3).
    pub const MD5: Self = Self(5);
    /// SHA-1.
    pub const SHA1: Self = Self(6);
    /// SHA-256.
    pub const SHA256: Self = Self(7);
    /// SHA3-256.
    pub const SHA3_256: Self = Self(8);

    /// Algorithms of this build, the strongest first.
    pub const BUILT_IN: &'static [Self] = &[
        #[cfg(feature = "chap-sha3-256")]
        Self::SHA3_256,
        #[cfg(feature = "chap-sha256")]
        Self::SHA256,
        #[cfg(feature = "chap-sha1")]
        Self::SHA1,
        #[cfg(feature = "chap-md5")]
        Self::MD5,
    ];

    /// The hash of the joined `parts`; `None` for algorithms that this build does not have.
    #[cfg_attr(
        not(any(
            feature = "chap-md5",
            feature = "chap-sha1",
            feature = "chap-sha256",
            feature = "chap-sha3-256"
        )),
        allow(unused_variables)
    )]
    pub(crate) fn hash(self, parts: &[&[u8]]) -> Option<Response> {
        match self {
            #[cfg(feature = "chap-md5")]
            Self::MD5 => Some(digest::<md5::Md5>(parts)),
            #[cfg(feature = "chap-sha1")]
            Self::SHA1 => Some(digest::<sha1::Sha1>(parts)),
            #[cfg(feature = "chap-sha256")]
            Self::SHA256 => Some(digest::<sha2::Sha256>(parts)),
            #[cfg(feature = "chap-sha3-256")]
            Self::SHA3_256 => Some(digest::<sha3::Sha3_256>(parts)),
            _ => None,
        }
    }

    /// The response of RFC 1994 section 4.1: the hash of identifier, secret and challenge in this order.
    // req: 7143-12.1.3-9
    pub(crate) fn response(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Option<Response> {
        self.hash(&[&[identifier], secret.expose(), challenge])
    }
}

/// The name, or the number in parentheses.
impl fmt::Debug for ChapAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::MD5 => "MD5",
            Self::SHA1 => "SHA1",
            Self::SHA256 => "SHA-256",
            Self::SHA3_256 => "SHA3-256",
            Self(n) => return write!(f, "ChapAlgorithm({n})"),
        })
    }
}

/// A CHAP response, or a hash: at most 32 bytes.
#[derive(Clone)]
pub(crate) struct Response {
    bytes: [u8; 32],
    len: usize,
}

impl Response {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// Constant time for equal lengths; of another length, never equal.
    pub(crate) fn matches(&self, other: &[u8]) -> Choice {
        self.as_bytes().ct_eq(other)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Response(..)")
    }
}

#[cfg(any(feature = "chap-md5", feature = "chap-sha1", feature = "chap-sha256", feature = "chap-sha3-256"))]
fn digest<D: sha_like::Digest>(parts: &[&[u8]]) -> Response {
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    let mut out = Response { bytes: [0; 32], len: 0 };
    let sum = hash.finalize();
    for (to, from) in out.bytes.iter_mut().zip(sum.iter()) {
        *to = *from;
        out.len = out.len.saturating_add(1);
    }
    out
}

/// The one `Digest` trait that all four hash crates share, by way of whichever is there.
mod sha_like {
    #[cfg(feature = "chap-md5")]
    pub(super) use md5::Digest;
    #[cfg(all(feature = "chap-sha1", not(feature = "chap-md5")))]
    pub(super) use sha1::Digest;
    #[cfg(all(feature = "chap-sha256", not(any(feature = "chap-md5", feature = "chap-sha1"))))]
    pub(super) use sha2::Digest;
    #[cfg(all(
        feature = "chap-sha3-256",
        not(any(feature = "chap-md5", feature = "chap-sha1", feature = "chap-sha256"))
    ))]
    pub(super) use sha3::Digest;
}

/// An ordered list of CHAP algorithms: an initiator's offer, or what a target accepts.
///
/// The default is all of the build, the strongest first and MD5 last. Some targets choose from such a list what they
/// cannot do: tgt takes number 7 for SHA-1 and then refuses every response; leave SHA-256 out for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChapAlgorithms(Vec<ChapAlgorithm>);

impl Default for ChapAlgorithms {
    fn default() -> Self {
        Self(ChapAlgorithm::BUILT_IN.to_vec())
    }
}

impl ChapAlgorithms {
    /// These algorithms in this order, those that the build does not have left out. MD5 is put last if the list lacks
    /// it and the build has it: RFC 7143 section 12.1.3 wants it in every offer.
    ///
    /// # Errors
    /// [`ChapConfigError::NoAlgorithm`] if nothing is left.
    // req: 7143-12.1.3-8
    pub fn ordered(list: &[ChapAlgorithm]) -> Result<Self, ChapConfigError> {
        let with_md5 = list.iter().copied().chain([ChapAlgorithm::MD5]);
        Self::from_iter(with_md5)
    }

    /// Exactly these algorithms in this order, even without MD5: for sites that forbid it. Peers that know MD5 alone
    /// are then refused.
    ///
    /// # Errors
    /// [`ChapConfigError::NoAlgorithm`] if nothing is left.
    pub fn exactly(list: &[ChapAlgorithm]) -> Result<Self, ChapConfigError> {
        Self::from_iter(list.iter().copied())
    }

    fn from_iter(list: impl Iterator<Item = ChapAlgorithm>) -> Result<Self, ChapConfigError> {
        let mut out: Vec<ChapAlgorithm> = Vec::new();
        for a in list {
            if ChapAlgorithm::BUILT_IN.contains(&a) && !out.contains(&a) {
                out.push(a);
            }
        }
        if out.is_empty() { Err(ChapConfigError::NoAlgorithm) } else { Ok(Self(out)) }
    }

    /// The list in order.
    #[must_use]
    pub fn as_slice(&self) -> &[ChapAlgorithm] {
        &self.0
    }

    /// CHAP_A.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|a| a.0.to_string()).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests;
