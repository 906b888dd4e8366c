//! The security stage at a target (RFC 7143 section 6.3.2): a method is chosen, then run.

use super::*;

impl TargetLogin {
    /// The security stage: a method is chosen, then run.
    // req: 7143-6.3.2-2, 7143-12.1-1, 7143-6.2-13
    pub(super) fn secure(&mut self, method: Option<&str>, auth: &AuthPairs) -> Result<(), Rule> {
        match method {
            Some(list) => self.choose_method(list, auth),
            None => match &mut self.security {
                Security::Open if !auth.is_empty() => Err(Rule::AuthStep),
                Security::Open => self.go_without_or_propose(),
                Security::Proposed => Err(Rule::Missing(Key::AuthMethod)),
                Security::Running(running) => {
                    let step = running.step(auth)?;
                    self.take_step(step)
                }
                Security::Done if auth.is_empty() => Ok(()),
                Security::Done => Err(Rule::AuthStep),
            },
        }
    }

    pub(super) fn choose_method(&mut self, list: &str, auth: &AuthPairs) -> Result<(), Rule> {
        let proposed = matches!(self.security, Security::Proposed);
        if words(list).any(is_answer_word) {
            return Err(if proposed { Rule::AuthMethod } else { Rule::ReservedWord });
        }
        let chosen = self.grant.as_ref().and_then(|g| g.auth.choose(list)).ok_or(Rule::AuthMethod)?;
        match self.security {
            Security::Open => self.answer_mut()?.push(Key::AuthMethod.name(), chosen.name())?,
            Security::Proposed if list == chosen.name() => {}
            Security::Proposed | Security::Running(_) | Security::Done => return Err(Rule::AuthStep),
        }
        self.start_method(chosen, auth)
    }

    /// The initiator proposes no method. It may do without if it wants to and the policy lets it; else this end
    /// proposes (RFC 7143 sections 6.3.1, 6.3.2).
    pub(super) fn go_without_or_propose(&mut self) -> Result<(), Rule> {
        let Some(grant) = &self.grant else { return Err(Rule::AuthStep) };
        if !grant.auth.allows_none() {
            let list = method_list(grant.auth.methods());
            self.security = Security::Proposed;
            return self.answer_mut()?.push(Key::AuthMethod.name(), &list);
        }
        if self.request.transit {
            self.security = Security::Done;
        }
        Ok(())
    }

    pub(super) fn start_method(&mut self, chosen: Method, auth: &AuthPairs) -> Result<(), Rule> {
        let started = self.grant.as_ref().and_then(|g| g.auth.start(chosen, &self.seed));
        match started {
            None if !auth.is_empty() => Err(Rule::AuthStep),
            None => {
                self.security = Security::Done;
                Ok(())
            }
            Some(mut running) => {
                // With the selection of a method that we proposed comes its first step.
                let step = if auth.is_empty() { None } else { Some(running.step(auth)?) };
                if step.is_none() && matches!(self.security, Security::Proposed) {
                    return Err(Rule::AuthStep);
                }
                self.security = Security::Running(running);
                step.map_or(Ok(()), |step| self.take_step(step))
            }
        }
    }

    pub(super) fn take_step(&mut self, step: AuthStep) -> Result<(), Rule> {
        // Each step has keys of its own: CHAP_N and CHAP_R travel both ways, once each.
        match step {
            AuthStep::Reply { keys, .. } => self.push_auth(&keys),
            #[cfg(feature = "_chap")]
            AuthStep::NeedAccount { user, mutual } => {
                let name = self.peer.name.clone().ok_or(Rule::Missing(Key::InitiatorName))?;
                self.state = State::Account;
                self.outputs.push_back(LoginOutput::NeedSecret(Box::new(crate::auth::SecretRequest {
                    user,
                    initiator_name: name,
                    target_name: self.peer.target.clone(),
                    session_type: self.peer.session_type,
                    mutual,
                })));
                Ok(())
            }
            AuthStep::Done { reply, identity } => {
                self.security = Security::Done;
                self.identity = identity;
                self.push_auth(&reply)
            }
        }
    }

    pub(super) fn push_auth(&mut self, reply: &AuthPairs) -> Result<(), Rule> {
        let answer = self.answer_mut()?;
        reply.iter().try_for_each(|(key, value)| answer.push(key.name(), value))
    }
}
