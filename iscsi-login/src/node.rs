//! An iSCSI node: one name, whichever roles it plays (RFC 7143 sections 4.2.7.1, 4.5).

use crate::{
    auth::InitiatorAuth,
    config::{InitiatorLoginConfig, SessionGoal},
    name::IscsiName,
    sendtargets::{TargetAddress, TargetRecord},
};

/// Which roles a node has; there is no node without any.
// req: 7143-4.5-1
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeRoles {
    /// It logs in.
    Initiator,
    /// It is logged in to.
    Target,
    /// Both, under one name.
    Both,
}

/// An iSCSI node.
///
/// What names it in a login or in a list of targets is made from here, so that a node with both roles cannot come to
/// have two names.
// req: 7143-4.2.7.1-1, 7143-4.2.7.1-2, 7143-4.5-2
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    name: IscsiName,
    roles: NodeRoles,
}

impl Node {
    /// A node of this name.
    #[must_use]
    pub const fn new(name: IscsiName, roles: NodeRoles) -> Self {
        Self { name, roles }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &IscsiName {
        &self.name
    }

    /// The configuration of its logins for `goal`; `None` if it is no initiator.
    #[must_use]
    pub fn login(&self, goal: SessionGoal, auth: InitiatorAuth) -> Option<InitiatorLoginConfig> {
        match self.roles {
            NodeRoles::Initiator | NodeRoles::Both => {
                Some(InitiatorLoginConfig::new(self.name.clone(), goal, auth))
            }
            NodeRoles::Target => None,
        }
    }

    /// How it is listed to initiators, with these addresses; `None` if it is no target.
    #[must_use]
    pub fn record(&self, addresses: Vec<TargetAddress>) -> Option<TargetRecord> {
        match self.roles {
            NodeRoles::Target | NodeRoles::Both => Some(TargetRecord { name: self.name.clone(), addresses }),
            NodeRoles::Initiator => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// InitiatorName sent equals TargetName reported.
    // req: 7143-4.2.7.1-1, 7143-4.2.7.1-2, 7143-4.5-1, 7143-4.5-2
    #[test]
    fn one_name_in_both_roles() {
        let name: IscsiName = "iqn.2001-04.com.example:gateway".parse().unwrap();
        for (roles, initiates, is_target) in [
            (NodeRoles::Initiator, true, false),
            (NodeRoles::Target, false, true),
            (NodeRoles::Both, true, true),
        ] {
            let node = Node::new(name.clone(), roles);
            let login = node.login(SessionGoal::Discovery(None), InitiatorAuth::None);
            assert_eq!(login.map(|l| l.initiator_name), initiates.then(|| name.clone()));
            assert_eq!(node.record(vec![]).map(|r| r.name), is_target.then(|| name.clone()));
        }
        assert!(IscsiName::new("").is_err(), "no name, no node");
    }
}
