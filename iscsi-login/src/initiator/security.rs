//! The security stage at an initiator (RFC 7143 section 6.3.2): the target chooses a method, which is then run.

use super::*;

impl InitiatorLogin {
    /// The security stage: the target has chosen a method, or has taken its next step.
    // req: 7143-12.1-1, 7143-9.2-3, 7143-6.3.2-5
    pub(super) fn secure(
        &mut self,
        method: Option<&str>,
        auth: &AuthPairs,
        transit: bool,
        mut text: Answer,
    ) -> Result<(), Rule> {
        let step = match (method, &mut self.security) {
            (Some(REJECT), Security::Offered) => return Err(Rule::AuthMethod),
            (Some(word), Security::Offered) => self.start_method(word, auth)?,
            (None, Security::Offered) => return Err(Rule::Unanswered(Key::AuthMethod)),
            (None, Security::Running(running)) => Some(running.step(auth)?),
            (None, Security::Done) if auth.is_empty() => None,
            (Some(_), _) | (None, Security::Done) => return Err(Rule::AuthStep),
        };
        self.take_step(step, &mut text)?;
        if !transit {
            return self.launch(text);
        }
        // The target may not end the stage before this end is content, and cannot before it has asked.
        if !matches!(self.security, Security::Done) {
            return Err(Rule::AuthRequired);
        }
        self.stage = Stage::LoginOperationalNegotiation;
        self.operate(text)
    }

    // req: 7143-6.2.1-4
    pub(super) fn start_method(&mut self, word: &str, auth: &AuthPairs) -> Result<Option<AuthStep>, Rule> {
        let offered = self.config.auth.methods();
        let chosen = offered.iter().find(|m| m.name() == word).ok_or(Rule::Answer(Key::AuthMethod))?;
        if !auth.is_empty() {
            return Err(Rule::AuthStep);
        }
        self.ready = false;
        match self.config.auth.start(*chosen, &self.seed) {
            Some(mut running) => {
                let step = running.step(auth)?;
                self.security = Security::Running(running);
                Ok(Some(step))
            }
            None => {
                self.security = Security::Done;
                self.ready = true;
                Ok(None)
            }
        }
    }

    pub(super) fn take_step(&mut self, step: Option<AuthStep>, text: &mut Answer) -> Result<(), Rule> {
        let keys = match step {
            None => return Ok(()),
            Some(AuthStep::Reply { keys, last }) => {
                self.ready = last;
                keys
            }
            Some(AuthStep::Done { reply, identity }) => {
                self.security = Security::Done;
                self.identity = identity;
                self.ready = true;
                // The target's part of the exchange is over: what it may still send is none of it.
                reply
            }
            #[cfg(feature = "_chap")]
            Some(AuthStep::NeedAccount { .. }) => return Err(Rule::AuthStep),
        };
        keys.iter().try_for_each(|(key, value)| text.push(key.name(), value))
    }
}
