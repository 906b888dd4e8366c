//! Authentication (RFC 7143 sections 9.2 and 12): policies, and the steps that a method takes inside a login.
//!
//! `None` is built in, CHAP comes with the features `chap*`. KRB5, SRP and private methods are not implemented; a
//! peer that offers nothing else is refused with status 0201. The crate's `Authenticator` trait is where another
//! method would go.

#[cfg(feature = "_chap")]
pub(crate) mod chap;
#[cfg(feature = "_chap")]
pub(crate) mod hash;
#[cfg(feature = "_chap")]
pub(crate) mod secret;

#[cfg(feature = "_chap")]
pub use chap::{ChapInitiator, ChapTarget};
#[cfg(feature = "_chap")]
pub use hash::{ChapAlgorithm, ChapAlgorithms};
#[cfg(feature = "_chap")]
pub use secret::{
    ChallengeKey, ChapAccount, ChapConfigError, ChapCredentials, Secret, SecretError, SecretRequest,
    check_roles, find_shared,
};

#[cfg(feature = "_chap")]
use crate::name::IscsiName;
use crate::{keys::Key, params::AuthIdentity, status::Rule};

/// How an initiator authenticates. There is no default: running without authentication is a choice that the
/// configuration makes in so many words (RFC 7143 section 9).
// req: 7143-9-1, 7143-9.1-2
// req: 7143-4.2.4-1
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum InitiatorAuth {
    /// Not at all: logins begin with operational negotiation.
    None,
    /// By CHAP, and no login without it.
    #[cfg(feature = "_chap")]
    Chap(Box<ChapInitiator>),
    /// By CHAP if the target asks for it: offers `CHAP,None`. Where the target is to be authenticated too, None is
    /// not offered: a target could choose it to avoid that.
    #[cfg(feature = "_chap")]
    ChapOrNone(Box<ChapInitiator>),
}

/// How a target authenticates one initiator. There is no default, as for [`InitiatorAuth`].
// req: 7143-9-1, 7143-9.1-2
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TargetAuth {
    /// Not at all.
    None,
    /// By CHAP, and no login without it.
    #[cfg(feature = "_chap")]
    Chap(Box<ChapTarget>),
    /// By CHAP or not, whichever the initiator puts first.
    #[cfg(feature = "_chap")]
    ChapOrNone(Box<ChapTarget>),
}

/// Authentication keys of one text, in the order received or to be sent.
pub(crate) type AuthPairs = Vec<(Key, String)>;

/// What a method wants next.
#[cfg_attr(not(feature = "_chap"), allow(dead_code))] // without CHAP there is no method with steps
#[derive(Debug)]
pub(crate) enum AuthStep {
    /// Send these keys and await the peer's; `last` if none of ours will follow, so that the stage may end.
    Reply { keys: AuthPairs, last: bool },
    /// Target: have the account looked up, then go on with `supply`.
    #[cfg(feature = "_chap")]
    NeedAccount { user: Box<str>, mutual: bool },
    /// Send these keys, if any: this end is content with the peer.
    Done { reply: AuthPairs, identity: AuthIdentity },
}

/// One authentication method in progress at one end: fed with the authentication keys of each text, it says what to
/// send. The first step is the initiator's (RFC 7143 section 12.1).
pub(crate) trait Authenticator: core::fmt::Debug + Send {
    /// The peer's keys have come (none, for the initiator's first step).
    fn step(&mut self, received: &AuthPairs) -> Result<AuthStep, Rule>;

    /// Target: the account that was asked for, `None` if there is none.
    #[cfg(feature = "_chap")]
    fn supply(&mut self, account: Option<&ChapAccount>, initiator: &IscsiName) -> Result<AuthStep, Rule>;
}

/// AuthMethod values that this implementation knows: none sends a password in the clear (RFC 7143 section 9.2), and
/// obsolete ones are not among them.
// req: 7143-9.2-2, 7143-15-3, 7143-12.1-4, 7143-12.1-7
// req: 7143-12.1-6, 7143-12.1-9, 7143-9.2.2-1, 7143-9.2.3-1
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Method {
    None,
    #[cfg(feature = "_chap")]
    Chap,
}

impl Method {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            #[cfg(feature = "_chap")]
            Self::Chap => "CHAP",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "None" => Some(Self::None),
            #[cfg(feature = "_chap")]
            "CHAP" => Some(Self::Chap),
            _ => None,
        }
    }
}

impl InitiatorAuth {
    /// What AuthMethod offers, in order; empty when logins go without a security stage.
    // req: 7143-12.1-5
    pub(crate) fn methods(&self) -> &'static [Method] {
        match self {
            Self::None => &[],
            #[cfg(feature = "_chap")]
            Self::ChapOrNone(chap) if !chap.is_mutual() => &[Method::Chap, Method::None],
            #[cfg(feature = "_chap")]
            Self::Chap(_) | Self::ChapOrNone(_) => &[Method::Chap],
        }
    }

    /// The chosen method, ready for its first step.
    #[cfg_attr(not(feature = "_chap"), allow(unused_variables))]
    pub(crate) fn start(&self, method: Method, seed: &[u8; 32]) -> Option<Box<dyn Authenticator>> {
        match (self, method) {
            #[cfg(feature = "_chap")]
            (Self::Chap(chap) | Self::ChapOrNone(chap), Method::Chap) => {
                Some(Box::new(chap::InitiatorExchange::new((**chap).clone(), seed)))
            }
            _ => None,
        }
    }
}

impl TargetAuth {
    /// The methods that this initiator may use, in the order in which the target proposes them.
    // req: 7143-12.1-10
    pub(crate) fn methods(&self) -> &'static [Method] {
        match self {
            Self::None => &[Method::None],
            #[cfg(feature = "_chap")]
            Self::Chap(_) => &[Method::Chap],
            #[cfg(feature = "_chap")]
            Self::ChapOrNone(_) => &[Method::Chap, Method::None],
        }
    }

    /// Whether a login may go without authentication.
    pub(crate) fn allows_none(&self) -> bool {
        self.methods().contains(&Method::None)
    }

    /// The first method of the initiator's list that it may use; unknown ones are skipped.
    // req: 7143-6.3.2-1, 7143-6.2.1-1, 7143-6.2.1-3
    pub(crate) fn choose(&self, list: &str) -> Option<Method> {
        crate::value::words(list).filter_map(Method::from_name).find(|m| self.methods().contains(m))
    }

    /// The chosen method, ready for the initiator's first step.
    #[cfg_attr(not(feature = "_chap"), allow(unused_variables))]
    pub(crate) fn start(&self, method: Method, seed: &[u8; 32]) -> Option<Box<dyn Authenticator>> {
        match (self, method) {
            #[cfg(feature = "_chap")]
            (Self::Chap(chap) | Self::ChapOrNone(chap), Method::Chap) => {
                Some(Box::new(chap::TargetExchange::new((**chap).clone(), seed)))
            }
            _ => None,
        }
    }
}

/// The offered methods as a list-of-values.
pub(crate) fn method_list(methods: &[Method]) -> String {
    methods.iter().map(|m| m.name()).collect::<Vec<_>>().join(",")
}
