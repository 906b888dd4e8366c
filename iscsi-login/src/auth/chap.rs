//! CHAP (RFC 7143 section 12.1.3, RFC 1994), one way and mutual.
//!
//! ```text
//!   initiator                              target
//!   CHAP_A=8,7,6,5                   ->
//!                                    <-    CHAP_A=8 CHAP_I=i CHAP_C=c
//!   CHAP_N=n CHAP_R=H(i,secret,c)    ->    is there such an account, does R fit?
//!   [CHAP_I=j CHAP_C=d]              ->
//!                                    <-    [CHAP_N=m CHAP_R=H(j,secret',d)]
//! ```
// req: 7143-9.2.1-1, 7143-12.1-2, 7143-12.1-3, 7143-9.1-1

use super::{
    AuthPairs, AuthStep, Authenticator,
    hash::{ChapAlgorithm, ChapAlgorithms, Response},
    secret::{ChallengeKey, ChapAccount, ChapConfigError, ChapCredentials, check_distinct},
};
use crate::{
    keys::Key,
    name::IscsiName,
    params::AuthIdentity,
    status::Rule,
    value::{BinaryEncoding, ValueError, parse_binary, parse_number, words},
};
use subtle::ConstantTimeEq;

/// Longest CHAP_C and CHAP_R in binary (RFC 7143 section 12.1.3).
// req: 7143-12.1.3-7
const MAX_BINARY: usize = 1024;
/// Random half of a challenge; the other half tells the node its own.
const NONCE_LEN: usize = 16;

/// CHAP at an initiator.
#[derive(Clone, Debug)]
pub struct ChapInitiator {
    own: ChapCredentials,
    target: Option<ChapCredentials>,
    algorithms: ChapAlgorithms,
    key: ChallengeKey,
    encoding: BinaryEncoding,
}

impl ChapInitiator {
    /// Authenticates as `own`; with `target`, the target must prove that identity too.
    ///
    /// # Errors
    /// When both directions share a secret or a name (RFC 7143 section 9.2.1).
    // req: 7143-9.2.1-6, 7143-9.2-1
    pub fn new(
        own: ChapCredentials,
        target: Option<ChapCredentials>,
        key: ChallengeKey,
    ) -> Result<Self, ChapConfigError> {
        if let Some(target) = &target {
            check_distinct(&own, target)?;
        }
        Ok(Self {
            own,
            target,
            key,
            algorithms: ChapAlgorithms::default(),
            encoding: BinaryEncoding::default(),
        })
    }

    /// With these algorithms in this order.
    #[must_use]
    pub fn with_algorithms(self, algorithms: ChapAlgorithms) -> Self {
        Self { algorithms, ..self }
    }

    /// With binary values written this way.
    #[must_use]
    pub fn with_encoding(self, encoding: BinaryEncoding) -> Self {
        Self { encoding, ..self }
    }

    /// Whether the target is authenticated too.
    #[must_use]
    pub const fn is_mutual(&self) -> bool {
        self.target.is_some()
    }
}

/// CHAP at a target. Accounts are asked for in each login, see [`crate::LoginOutput::NeedSecret`].
#[derive(Clone, Debug)]
pub struct ChapTarget {
    algorithms: ChapAlgorithms,
    key: ChallengeKey,
    encoding: BinaryEncoding,
}

impl ChapTarget {
    /// Accepts every algorithm of the build.
    #[must_use]
    pub fn new(key: ChallengeKey) -> Self {
        Self { key, algorithms: ChapAlgorithms::default(), encoding: BinaryEncoding::default() }
    }

    /// Accepts these algorithms; the initiator's order decides.
    #[must_use]
    pub fn with_algorithms(self, algorithms: ChapAlgorithms) -> Self {
        Self { algorithms, ..self }
    }

    /// With binary values written this way.
    #[must_use]
    pub fn with_encoding(self, encoding: BinaryEncoding) -> Self {
        Self { encoding, ..self }
    }
}

/// A challenge of this end: identifier and 32 bytes, half of them random, half their keyed hash.
#[derive(Clone, Debug)]
struct Challenge {
    identifier: u8,
    bytes: Vec<u8>,
}

impl Challenge {
    fn new(key: &ChallengeKey, seed: &[u8; 32]) -> Self {
        let (nonce, rest) = seed.split_at(NONCE_LEN);
        let mut bytes = nonce.to_vec();
        if let Some(tag) = tag(key, nonce) {
            bytes.extend(tag.as_bytes().iter().take(NONCE_LEN));
        }
        Self { identifier: rest.first().copied().unwrap_or_default(), bytes }
    }
}

/// Keyed hash of a nonce. Key and nonce have fixed lengths, so a plain hash of both is a sound tag.
fn tag(key: &ChallengeKey, nonce: &[u8]) -> Option<Response> {
    ChapAlgorithm::BUILT_IN.first().and_then(|a| a.hash(&[key.0.as_slice(), nonce]))
}

/// Whether this node made the challenge, on this connection or any other.
// req: 7143-9.2.1-9, 7143-9.2.1-10
fn is_own(key: &ChallengeKey, challenge: &[u8]) -> bool {
    let Some((nonce, theirs)) = challenge.split_at_checked(NONCE_LEN) else { return false };
    tag(key, nonce).is_some_and(|t| t.as_bytes().get(..NONCE_LEN).is_some_and(|t| t.ct_eq(theirs).into()))
}

/// The keys that one step may hold, each at most once (repetition is refused before they come here).
struct StepKeys<'a>(&'a AuthPairs);

impl<'a> StepKeys<'a> {
    /// Checks that nothing but `allowed` is there.
    // req: 7143-9.2-3, 7143-9.2-4
    fn of(received: &'a AuthPairs, allowed: &[Key]) -> Result<Self, Rule> {
        if received.iter().all(|(key, _)| allowed.contains(key)) {
            Ok(Self(received))
        } else {
            Err(Rule::AuthStep)
        }
    }

    fn find(&self, key: Key) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    }

    fn need(&self, key: Key) -> Result<&'a str, Rule> {
        self.find(key).ok_or(Rule::Missing(key))
    }

    fn binary(&self, key: Key) -> Result<Vec<u8>, Rule> {
        match parse_binary(self.need(key)?, MAX_BINARY) {
            Ok(bytes) if !bytes.is_empty() => Ok(bytes),
            Ok(_) | Err(ValueError::Syntax | ValueError::TooLong) => Err(Rule::Value(key)),
        }
    }

    fn identifier(&self) -> Result<u8, Rule> {
        let n = parse_number(self.need(Key::ChapI)?).map_err(|_| Rule::Value(Key::ChapI))?;
        u8::try_from(n).map_err(|_| Rule::Value(Key::ChapI))
    }

    /// CHAP_I and CHAP_C of the peer; a challenge of our own is refused.
    fn challenge(&self, key: &ChallengeKey) -> Result<Challenge, Rule> {
        let challenge = Challenge { identifier: self.identifier()?, bytes: self.binary(Key::ChapC)? };
        if is_own(key, &challenge.bytes) { Err(Rule::AuthReflected) } else { Ok(challenge) }
    }
}

/// Checks `theirs` as the answer to our `challenge` by who holds `peer`; `own` is what this end answers challenges
/// with, and its answer to this one betrays a reflection.
// req: 7143-9.2.1-7
fn verify(
    algorithm: ChapAlgorithm,
    challenge: &Challenge,
    theirs: &[u8],
    peer: &ChapCredentials,
    own: Option<&ChapCredentials>,
) -> Result<(), Rule> {
    let answer = |c: &ChapCredentials| algorithm.response(challenge.identifier, c.secret(), &challenge.bytes);
    if own.and_then(answer).is_some_and(|r| r.matches(theirs).into()) {
        return Err(Rule::AuthReflected);
    }
    if answer(peer).is_some_and(|r| r.matches(theirs).into()) { Ok(()) } else { Err(Rule::AuthFailed) }
}

/// Our CHAP_N and CHAP_R to a challenge.
fn answer(
    algorithm: ChapAlgorithm,
    challenge: &Challenge,
    own: &ChapCredentials,
    encoding: BinaryEncoding,
) -> Result<AuthPairs, Rule> {
    let response =
        algorithm.response(challenge.identifier, own.secret(), &challenge.bytes).ok_or(Rule::AuthMethod)?;
    Ok(vec![(Key::ChapN, own.name().into()), (Key::ChapR, encoding.encode(response.as_bytes()))])
}

/// Our CHAP_I and CHAP_C.
fn ask(challenge: &Challenge, encoding: BinaryEncoding) -> AuthPairs {
    vec![(Key::ChapI, challenge.identifier.to_string()), (Key::ChapC, encoding.encode(&challenge.bytes))]
}

#[derive(Debug)]
enum InitiatorState {
    Start,
    AwaitChallenge,
    AwaitResponse(ChapAlgorithm),
    Done,
}

/// The exchange at an initiator.
#[derive(Debug)]
pub(crate) struct InitiatorExchange {
    config: ChapInitiator,
    challenge: Challenge,
    state: InitiatorState,
}

impl InitiatorExchange {
    pub(crate) fn new(config: ChapInitiator, seed: &[u8; 32]) -> Self {
        Self { challenge: Challenge::new(&config.key, seed), config, state: InitiatorState::Start }
    }

    fn identity(&self) -> AuthIdentity {
        AuthIdentity::Chap {
            initiator: self.config.own.name().into(),
            target: self.config.target.as_ref().map(|t| t.name().into()),
        }
    }

    /// CHAP_N and CHAP_R, and the challenge to the target.
    // req: 7143-12.1.3-3, 7143-9.2.1-5
    fn respond(&mut self, received: &AuthPairs) -> Result<AuthStep, Rule> {
        let keys = StepKeys::of(received, &[Key::ChapA, Key::ChapI, Key::ChapC])?;
        let number = parse_number(keys.need(Key::ChapA)?).map_err(|_| Rule::Value(Key::ChapA))?;
        let algorithm = u32::try_from(number).map(ChapAlgorithm).map_err(|_| Rule::Answer(Key::ChapA))?;
        if !self.config.algorithms.as_slice().contains(&algorithm) {
            return Err(Rule::Answer(Key::ChapA));
        }
        let theirs = keys.challenge(&self.config.key)?;
        let mut reply = answer(algorithm, &theirs, &self.config.own, self.config.encoding)?;
        if self.config.target.is_none() {
            self.state = InitiatorState::Done;
            return Ok(AuthStep::Done { reply, identity: self.identity() });
        }
        reply.extend(ask(&self.challenge, self.config.encoding));
        self.state = InitiatorState::AwaitResponse(algorithm);
        Ok(AuthStep::Reply { keys: reply, last: true })
    }

    // req: 7143-12.1.3-6
    fn check(&mut self, algorithm: ChapAlgorithm, received: &AuthPairs) -> Result<AuthStep, Rule> {
        let keys = StepKeys::of(received, &[Key::ChapN, Key::ChapR])?;
        let (name, response) = (keys.need(Key::ChapN)?, keys.binary(Key::ChapR)?);
        let target = self.config.target.as_ref().ok_or(Rule::AuthStep)?;
        verify(algorithm, &self.challenge, &response, target, Some(&self.config.own))?;
        if name != target.name() {
            return Err(Rule::AuthFailed);
        }
        self.state = InitiatorState::Done;
        Ok(AuthStep::Done { reply: Vec::new(), identity: self.identity() })
    }
}

impl Authenticator for InitiatorExchange {
    fn step(&mut self, received: &AuthPairs) -> Result<AuthStep, Rule> {
        match self.state {
            // req: 7143-12.1.3-1
            InitiatorState::Start => {
                StepKeys::of(received, &[])?;
                self.state = InitiatorState::AwaitChallenge;
                Ok(AuthStep::Reply { keys: vec![(Key::ChapA, self.config.algorithms.text())], last: false })
            }
            InitiatorState::AwaitChallenge => self.respond(received),
            InitiatorState::AwaitResponse(algorithm) => self.check(algorithm, received),
            InitiatorState::Done => Err(Rule::AuthStep),
        }
    }

    fn supply(&mut self, _: Option<&ChapAccount>, _: &IscsiName) -> Result<AuthStep, Rule> {
        Err(Rule::AuthStep)
    }
}

#[derive(Debug)]
enum TargetState {
    AwaitAlgorithms,
    AwaitResponse(ChapAlgorithm),
    AwaitAccount { algorithm: ChapAlgorithm, user: Box<str>, response: Vec<u8>, theirs: Option<Challenge> },
    Done,
}

/// The exchange at a target.
#[derive(Debug)]
pub(crate) struct TargetExchange {
    config: ChapTarget,
    challenge: Challenge,
    state: TargetState,
}

impl TargetExchange {
    pub(crate) fn new(config: ChapTarget, seed: &[u8; 32]) -> Self {
        Self { challenge: Challenge::new(&config.key, seed), config, state: TargetState::AwaitAlgorithms }
    }

    // req: 7143-12.1.3-2
    fn challenge(&mut self, received: &AuthPairs) -> Result<AuthStep, Rule> {
        let keys = StepKeys::of(received, &[Key::ChapA])?;
        let mut chosen = None;
        for word in words(keys.need(Key::ChapA)?) {
            let number = parse_number(word).map_err(|_| Rule::Value(Key::ChapA))?;
            let known = u32::try_from(number).map(ChapAlgorithm).ok();
            chosen = chosen.or(known.filter(|a| self.config.algorithms.as_slice().contains(a)));
        }
        let algorithm = chosen.ok_or(Rule::AuthMethod)?;
        let mut reply = vec![(Key::ChapA, algorithm.0.to_string())];
        reply.extend(ask(&self.challenge, self.config.encoding));
        self.state = TargetState::AwaitResponse(algorithm);
        Ok(AuthStep::Reply { keys: reply, last: false })
    }

    fn accept(&mut self, algorithm: ChapAlgorithm, received: &AuthPairs) -> Result<AuthStep, Rule> {
        let keys = StepKeys::of(received, &[Key::ChapN, Key::ChapR, Key::ChapI, Key::ChapC])?;
        let (user, response) = (keys.need(Key::ChapN)?, keys.binary(Key::ChapR)?);
        let mutual = keys.find(Key::ChapI).is_some() || keys.find(Key::ChapC).is_some();
        let theirs = if mutual { Some(keys.challenge(&self.config.key)?) } else { None };
        let user: Box<str> = user.into();
        self.state = TargetState::AwaitAccount { algorithm, user: user.clone(), response, theirs };
        Ok(AuthStep::NeedAccount { user, mutual })
    }
}

impl Authenticator for TargetExchange {
    fn step(&mut self, received: &AuthPairs) -> Result<AuthStep, Rule> {
        match self.state {
            TargetState::AwaitAlgorithms => self.challenge(received),
            TargetState::AwaitResponse(algorithm) => self.accept(algorithm, received),
            TargetState::AwaitAccount { .. } | TargetState::Done => Err(Rule::AuthStep),
        }
    }

    // req: 7143-12.1.3-4, 7143-12.1.3-5, 7143-9.2-10
    fn supply(&mut self, account: Option<&ChapAccount>, initiator: &IscsiName) -> Result<AuthStep, Rule> {
        let TargetState::AwaitAccount { algorithm, user, response, theirs } =
            core::mem::replace(&mut self.state, TargetState::Done)
        else {
            return Err(Rule::AuthStep);
        };
        let account = account.ok_or(Rule::AuthFailed)?;
        verify(algorithm, &self.challenge, &response, &account.initiator, account.target.as_ref())?;
        // The whole name counts, and so does the node that uses it.
        let bound_elsewhere = account.initiator_name.as_ref().is_some_and(|n| n != initiator);
        if *user != *account.initiator.name() || bound_elsewhere {
            return Err(Rule::AuthFailed);
        }
        let (reply, target) = match theirs {
            None => (Vec::new(), None),
            Some(theirs) => {
                let own = account.target.as_ref().ok_or(Rule::AuthMethod)?;
                (answer(algorithm, &theirs, own, self.config.encoding)?, Some(own.name().into()))
            }
        };
        Ok(AuthStep::Done { reply, identity: AuthIdentity::Chap { initiator: user, target } })
    }
}

#[cfg(test)]
mod tests;
