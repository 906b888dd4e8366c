//! Following redirections without being led in circles.

use crate::{output::Redirection, sendtargets::TargetAddress};
use core::fmt;

/// Remembers where one attempt to log in has been: no address twice, and not too many (RFC 7143 section 11.13.5 sets
/// no bound, peers have looped for ever).
#[derive(Clone, Debug)]
pub struct RedirectGuard {
    visited: Vec<TargetAddress>,
    left: u8,
}

/// Why a redirection is not followed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RedirectError {
    /// Every address has been visited in this attempt.
    Loop,
    /// More redirections than allowed.
    TooMany,
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loop => "redirected in a circle",
            Self::TooMany => "redirected too often",
        })
    }
}

impl core::error::Error for RedirectError {}

impl RedirectGuard {
    /// An attempt that begins at `first` and follows at most `max` redirections.
    #[must_use]
    pub fn new(first: &TargetAddress, max: u8) -> Self {
        Self { visited: vec![normal(first)], left: max }
    }

    /// The address to go to next: the first of the redirection that has not been visited.
    ///
    /// # Errors
    /// [`RedirectError`]; the attempt has then failed.
    pub fn follow(&mut self, redirection: &Redirection) -> Result<TargetAddress, RedirectError> {
        self.left = self.left.checked_sub(1).ok_or(RedirectError::TooMany)?;
        let next = redirection.addresses.iter().map(normal).find(|a| !self.visited.contains(a));
        let next = next.ok_or(RedirectError::Loop)?;
        self.visited.push(next.clone());
        Ok(next)
    }
}

/// One spelling for one place: with port, without tag.
fn normal(address: &TargetAddress) -> TargetAddress {
    TargetAddress {
        port: Some(address.port_or_default()),
        portal_group_tag: None,
        host: address.host.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(addresses: &[&str]) -> Redirection {
        Redirection { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), permanently: false }
    }

    #[test]
    fn circles_end() {
        let mut guard = RedirectGuard::new(&"10.0.0.1".parse().unwrap(), 8);
        assert_eq!(guard.follow(&to(&["10.0.0.2:3260"])).unwrap().to_string(), "10.0.0.2:3260");
        // 10.0.0.1 without a port is 10.0.0.1:3260, where it all began.
        assert_eq!(guard.follow(&to(&["10.0.0.1:3260"])), Err(RedirectError::Loop));
        assert_eq!(guard.follow(&to(&["10.0.0.2", "[::1]:99"])).unwrap().to_string(), "[::1]:99");
    }

    #[test]
    fn chains_end() {
        let mut guard = RedirectGuard::new(&"10.0.0.1".parse().unwrap(), 2);
        assert!(guard.follow(&to(&["10.0.0.2"])).is_ok());
        assert!(guard.follow(&to(&["10.0.0.3"])).is_ok());
        assert_eq!(guard.follow(&to(&["10.0.0.4"])), Err(RedirectError::TooMany));
    }
}
