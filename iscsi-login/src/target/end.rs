//! How a login ends at a target: resources and the final response, a redirection, or a refusal.

use super::*;

impl TargetLogin {
    /// The last request is answered: asks for resources before the final response goes out.
    // req: 5047-11.1-1, 7143-9.2-11, 7143-9.2-12, 7143-9.2-13
    pub(super) fn allocate(&mut self, final_text: Bytes) -> Result<(), Rule> {
        let (session, conn) = self.negotiate_mut()?.conclude()?;
        let joined = self.grant.as_ref().and_then(|g| g.session.as_ref());
        if joined.is_some_and(|s| s.auth != self.identity) {
            return Err(Rule::IdentityChanged);
        }
        let keys = Box::new(KeyValues { session, conn, agreed: true });
        self.outputs.push_back(LoginOutput::NoticeKeys(keys.clone()));
        self.outputs.push_back(LoginOutput::Allocate(keys));
        self.final_text = final_text;
        self.state = State::Resources;
        Ok(())
    }

    // req: 7143-6.3-16, 7143-6.3.2-3, 7143-11.13.3-1
    pub(super) fn enable(&mut self, tsih: Tsih) -> Result<(), Rule> {
        let text = core::mem::take(&mut self.final_text);
        let final_response =
            LoginResponse { tsih, ..self.response(text, false, Some(Stage::FullFeaturePhase)) };
        self.next_stat_sn = self.next_stat_sn.next();
        let negotiation = self.negotiation.as_ref().ok_or(Rule::OneOutstanding)?;
        let (session, conn) = negotiation.params();
        let initiator_name = self.peer.name.clone().ok_or(Rule::Missing(Key::InitiatorName))?;
        let negotiated = Box::new(Negotiated {
            session,
            conn,
            leading: self.leading(),
            initiator_name,
            initiator_alias: self.peer.alias.clone(),
            target_name: self.peer.target.clone(),
            target_alias: self.grant.as_ref().and_then(|g| g.alias.clone()),
            target_portal_group_tag: self.grant.as_ref().and_then(|g| g.portal_group_tag),
            peer_node_architecture: negotiation.peer_architecture().cloned(),
            auth: self.identity.clone(),
            isid: self.head.isid,
            tsih,
            cid: self.head.cid,
            itt: self.head.itt,
            cmd_sn: self.head.cmd_sn,
            exp_cmd_sn: final_response.exp_cmd_sn,
            max_cmd_sn: final_response.max_cmd_sn,
            next_stat_sn: self.next_stat_sn,
        });
        self.state = State::Over;
        self.outputs.push_back(LoginOutput::Enable { negotiated, final_response: Some(final_response) });
        Ok(())
    }

    pub(super) fn fail(&mut self, rule: Rule) {
        // An end that never began a login gets no answer (RFC 7143 section 4.2.4).
        match self.state {
            State::Start => self.end(rule, None),
            _ => self.refuse(rule, rule.status(), Bytes::new()),
        }
    }

    // req: 7143-11.13.5-1, 7143-11.13.5-2
    pub(super) fn redirect(&mut self, addresses: &[TargetAddress], permanently: bool) {
        let mut text = Answer::new(self.config.budget.normalized().answer, 0);
        let written = addresses
            .iter()
            .try_for_each(|a| text.push(Key::TargetAddress.name(), &a.without_tag().to_string()));
        let status =
            if permanently { LoginStatus::MOVED_PERMANENTLY } else { LoginStatus::MOVED_TEMPORARILY };
        match written.and_then(|()| text.finish()) {
            Ok(text) if !text.is_empty() && text.len() <= LOGIN_SEGMENT => {
                self.refuse(Rule::Access, status, text)
            }
            Ok(_) | Err(_) => self.refuse(Rule::Access, LoginStatus::SERVICE_UNAVAILABLE, Bytes::new()),
        }
    }

    /// Ends the login with a status.
    // req: 7143-6.3.1-3, 7143-11.13.5-5, 7143-7.12-1, 7143-6.3.2-4
    pub(super) fn refuse(&mut self, rule: Rule, status: LoginStatus, data: Bytes) {
        let response = LoginResponse {
            csg: Stage::default(),
            status_class: status.class,
            status_detail: status.detail,
            ..self.response(data, false, None)
        };
        self.outputs.push_back(LoginOutput::Send(response));
        self.end(rule, Some(status));
    }

    pub(super) fn end(&mut self, rule: Rule, status: Option<LoginStatus>) {
        if matches!(self.state, State::Resources) && rule != Rule::Resources {
            self.outputs.push_back(LoginOutput::Deallocate);
        }
        self.state = State::Over;
        self.outputs.push_back(LoginOutput::Failed(LoginFailure { rule, status }));
    }
}
