//! How a login ends at an initiator: the final response, a redirection, or a failure.

use super::*;

/// Keys that a redirection may hold.
const MAX_REDIRECT_KEYS: usize = 64;

impl InitiatorLogin {
    /// The final response: everything must be answered, agreed and in order.
    // req: 7143-6.3-14, 7143-6.3-16, 7143-9.2-11
    pub(super) fn finish(&mut self, response: &LoginResponse<Bytes>) -> Result<(), Rule> {
        self.negotiation.settle_last()?;
        let (session, conn) = self.negotiation.conclude()?;
        let tsih_ok = match &self.start.session {
            Some(existing) => response.tsih == existing.tsih,
            None => response.tsih != Tsih::NEW,
        };
        if !tsih_ok {
            return Err(Rule::Tsih);
        }
        if self.start.session.as_ref().is_some_and(|existing| existing.auth != self.identity) {
            return Err(Rule::IdentityChanged);
        }
        let for_rdma = self.allocated.is_some_and(|keys| keys.session.rdma_extensions);
        if for_rdma == session.rdma_extensions {
            self.enable(response);
            return Ok(());
        }
        let keys = KeyValues { session, conn, agreed: true };
        self.outputs.push_back(LoginOutput::Deallocate);
        self.allocated = Some(keys);
        self.outputs.push_back(LoginOutput::Allocate(Box::new(keys)));
        self.state = State::Plain(response.clone());
        Ok(())
    }

    pub(super) fn enable(&mut self, response: &LoginResponse<Bytes>) {
        let (session, conn) = self.negotiation.params();
        let target_name: Option<&IscsiName> = match &self.config.goal {
            SessionGoal::Discovery(target) => target.as_ref(),
            SessionGoal::Normal(target) => Some(target),
        };
        let negotiated = Box::new(Negotiated {
            session,
            conn,
            leading: self.start.session.is_none(),
            initiator_name: self.config.initiator_name.clone(),
            initiator_alias: self.config.initiator_alias.clone(),
            target_name: target_name.cloned(),
            target_alias: self.peer.alias.clone(),
            target_portal_group_tag: self.peer.portal_group_tag,
            peer_node_architecture: self.negotiation.peer_architecture().cloned(),
            auth: self.identity.clone(),
            isid: self.start.isid,
            tsih: response.tsih,
            cid: self.start.cid,
            itt: self.start.itt,
            cmd_sn: self.start.cmd_sn,
            exp_cmd_sn: response.exp_cmd_sn,
            max_cmd_sn: response.max_cmd_sn,
            next_stat_sn: self.start.exp_stat_sn,
        });
        self.conclude(LoginOutput::Enable { negotiated, final_response: None }, false);
    }

    /// The target ends the login: elsewhere, or not at all.
    // req: 7143-11.13.5-1, 7143-11.13.5-3, 7143-11.13.5-4, 7143-11.13.5-5, 7143-11.13.5-6
    pub(super) fn take_status(&mut self, status: LoginStatus, data: &[u8]) -> Result<(), Rule> {
        if !status.is_redirection() {
            self.end(LoginFailure { rule: Rule::PeerStatus, status: Some(status) });
            return Ok(());
        }
        let addresses: Vec<TargetAddress> = crate::text::read(data, MAX_REDIRECT_KEYS)?
            .iter()
            .filter(|pair| pair.key == KeyName::Known(Key::TargetAddress))
            .filter_map(|pair| pair.value.parse::<TargetAddress>().ok())
            .map(|a| a.without_tag())
            .collect();
        if addresses.is_empty() {
            return Err(Rule::RedirectWithoutAddress);
        }
        let permanently = status == LoginStatus::MOVED_PERMANENTLY;
        self.conclude(LoginOutput::Redirected(Box::new(Redirection { addresses, permanently })), true);
        Ok(())
    }

    // req: 7143-7.12-1, 7143-6.3-19, 7143-6.3.2-5
    pub(super) fn fail(&mut self, rule: Rule) {
        self.end(LoginFailure { rule, status: None });
    }

    pub(super) fn end(&mut self, failure: LoginFailure) {
        self.conclude(LoginOutput::Failed(failure), true);
    }

    /// The last output; what was allocated goes first if it is not to be used.
    pub(super) fn conclude(&mut self, last: InitiatorOutput, deallocate: bool) {
        if deallocate && self.allocated.take().is_some() {
            self.outputs.push_back(LoginOutput::Deallocate);
        }
        self.state = State::Over;
        self.outputs.push_back(last);
    }
}
