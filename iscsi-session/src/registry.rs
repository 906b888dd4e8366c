//! Which sessions a target has: [`SessionRegistry`], the one thing that its logins share.

use iscsi_login::{AuthIdentity, IscsiName, Negotiated, SessionParams};
use iscsi_pdu::{Isid, Tsih};
use std::collections::HashMap;
use std::net::SocketAddr;

/// What makes a session unique at a target: the I_T nexus (RFC 7143 section 4.4.3, the ISID rule), or, for a
/// discovery session that named no target, its initiator port and the portal (section 7.4.2.1).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SessionKey {
    /// InitiatorName.
    pub initiator_name: IscsiName,
    /// ISID.
    pub isid: Isid,
    /// TargetName; `None` on a discovery session that named none.
    pub target_name: Option<IscsiName>,
    /// TargetPortalGroupTag.
    pub portal_group_tag: Option<u16>,
    /// The portal of a discovery session that named no target, else `None`.
    pub portal: Option<SocketAddr>,
}

impl SessionKey {
    /// The key of a session that was logged in through `portal`, our address of its leading connection.
    // req: 7143-4.4.3-2, 7143-7.4.2.1-1, 7143-7.4.2.1-3, 7143-7.4.2.1-4, 7143-7.4.2.2-1
    #[must_use]
    pub fn new(negotiated: &Negotiated, portal: Option<SocketAddr>) -> Self {
        let target_name = negotiated.target_name.clone();
        Self {
            initiator_name: negotiated.initiator_name.clone(),
            isid: negotiated.isid,
            portal_group_tag: negotiated.target_portal_group_tag.filter(|_| target_name.is_some()),
            portal: portal.filter(|_| target_name.is_none()),
            target_name,
        }
    }
}

/// One session.
#[derive(Debug)]
pub struct Entry<H> {
    /// What makes it unique.
    pub key: SessionKey,
    /// Parameters that further connections keep to.
    pub session: SessionParams,
    /// Who its leading connection authenticated as.
    pub auth: AuthIdentity,
    /// How to reach it.
    pub handle: H,
}

/// The sessions of a target process. A plain data structure: put a lock around it, it is used at connection rate.
#[derive(Debug)]
pub struct SessionRegistry<H> {
    sessions: HashMap<Tsih, Entry<H>>,
    by_key: HashMap<SessionKey, Tsih>,
    /// TSIHs given out to logins that have not ended yet.
    reserved: std::collections::HashSet<Tsih>,
    last: u16,
    limit: usize,
}

impl<H> SessionRegistry<H> {
    /// A registry that takes at most `limit` sessions (and never more than 65535, the number of TSIHs).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            sessions: HashMap::new(),
            by_key: HashMap::new(),
            reserved: std::collections::HashSet::new(),
            last: 0,
            limit: limit.min(usize::from(u16::MAX)),
        }
    }

    /// A TSIH for a new session, reserved until [`insert`](Self::insert) or [`release`](Self::release); `None` when
    /// there are too many sessions.
    // req: 7143-4.4.3-3
    pub fn reserve(&mut self) -> Option<Tsih> {
        if self.sessions.len().saturating_add(self.reserved.len()) >= self.limit {
            return None;
        }
        for _ in 0..=u16::MAX {
            // 0 is "no session". Going round makes a TSIH come back as late as possible.
            self.last = self.last.checked_add(1).unwrap_or(1);
            let tsih = Tsih(self.last);
            if !self.sessions.contains_key(&tsih) && self.reserved.insert(tsih) {
                return Some(tsih);
            }
        }
        None
    }

    /// Gives a reserved TSIH back: the login failed.
    pub fn release(&mut self, tsih: Tsih) {
        self.reserved.remove(&tsih);
    }

    /// Enters a session under its reserved TSIH. Returns the session of the same key that it reinstates, if any: that
    /// one is to be closed as by an implicit logout (RFC 7143 section 6.3.5).
    // req: 7143-6.3.1-2, 7143-6.3.5-3
    pub fn insert(&mut self, tsih: Tsih, entry: Entry<H>) -> Option<(Tsih, Entry<H>)> {
        self.reserved.remove(&tsih);
        let old = self.by_key.insert(entry.key.clone(), tsih);
        self.sessions.insert(tsih, entry);
        let old = old.filter(|o| *o != tsih)?;
        self.sessions.remove(&old).map(|entry| (old, entry))
    }

    /// The session that a connection with this TSIH wants to join, if it is the one that its other names say.
    // req: 7143-6.3.1-2
    #[must_use]
    pub fn find(&self, tsih: Tsih, initiator_name: &IscsiName, isid: Isid) -> Option<&Entry<H>> {
        let entry = self.sessions.get(&tsih)?;
        (entry.key.initiator_name == *initiator_name && entry.key.isid == isid).then_some(entry)
    }

    /// Takes a session out that has ended. One that has been reinstated meanwhile is not found under its TSIH any more.
    pub fn remove(&mut self, tsih: Tsih) -> Option<Entry<H>> {
        let entry = self.sessions.remove(&tsih)?;
        if self.by_key.get(&entry.key) == Some(&tsih) {
            self.by_key.remove(&entry.key);
        }
        Some(entry)
    }

    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = (Tsih, &Entry<H>)> {
        self.sessions.iter().map(|(tsih, entry)| (*tsih, entry))
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(isid: u16, handle: u32) -> Entry<u32> {
        Entry {
            key: SessionKey {
                initiator_name: IscsiName::new("iqn.2026-01.org.example:host").unwrap(),
                isid: Isid::random([1, 2, 3], isid),
                target_name: Some(IscsiName::new("iqn.2026-01.org.example:disk").unwrap()),
                portal_group_tag: Some(1),
                portal: None,
            },
            session: SessionParams::default(),
            auth: AuthIdentity::None,
            handle,
        }
    }

    // req: 7143-7.4.2.1-1, 7143-7.4.2.1-2, 7143-7.4.2.1-3, 7143-7.4.2.1-4, 7143-7.4.2.2-1
    #[test]
    fn unnamed_discovery_sessions_are_unique_by_portal_and_named_ones_by_target() {
        let portal = |n: u8| Some(SocketAddr::from(([192, 0, 2, n], 3260)));
        let unnamed = |n| {
            let mut e = entry(1, u32::from(n));
            (e.key.target_name, e.key.portal_group_tag, e.key.portal) = (None, None, portal(n));
            e
        };
        let mut registry = SessionRegistry::new(10);
        let mut insert = |e: Entry<u32>| {
            let tsih = registry.reserve().unwrap();
            registry.insert(tsih, e).map(|(_, old)| old.handle)
        };
        assert_eq!(insert(unnamed(1)), None);
        assert_eq!(insert(unnamed(2)), None, "another portal, another session");
        assert_eq!(insert(unnamed(1)), Some(1), "the same portal reinstates");
        assert_eq!(insert(entry(1, 9)), None, "a named session reinstates no unnamed one");
        assert_eq!(insert(entry(1, 10)), Some(9));
    }

    // req: 7143-6.3.1-2, 7143-6.3.5-3, 7143-4.4.3-2
    #[test]
    fn the_same_nexus_reinstates_and_another_isid_does_not() {
        let mut registry = SessionRegistry::new(10);
        let (a, b, c) =
            (registry.reserve().unwrap(), registry.reserve().unwrap(), registry.reserve().unwrap());
        assert!(registry.insert(a, entry(1, 10)).is_none());
        assert!(registry.insert(b, entry(2, 20)).is_none());
        let (old, ended) = registry.insert(c, entry(1, 30)).unwrap();
        assert_eq!((old, ended.handle), (a, 10));
        // The old session's own end comes later and must not take the new one out.
        assert!(registry.remove(a).is_none());
        let key = entry(1, 0).key;
        assert_eq!(registry.find(c, &key.initiator_name, key.isid).unwrap().handle, 30);
        assert_eq!(registry.len(), 2);
    }

    // The qualifier has 16 bits (40 with the rest), all of which tell sessions apart.
    #[test]
    fn every_isid_bit_counts() {
        let mut registry = SessionRegistry::new(1000);
        for n in 0..300 {
            let tsih = registry.reserve().unwrap();
            assert!(registry.insert(tsih, entry(n, u32::from(n))).is_none());
        }
        assert_eq!(registry.len(), 300);
    }

    // req: 7143-4.4.3-3, 7143-4.4.3-1
    #[test]
    fn a_tsih_is_never_zero_nor_in_use() {
        let mut registry = SessionRegistry::<u32>::new(3);
        registry.last = u16::MAX;
        let a = registry.reserve().unwrap();
        assert_eq!(a, Tsih(1));
        registry.last = 0;
        assert_eq!(registry.reserve(), Some(Tsih(2)));
        assert_eq!(registry.reserve(), Some(Tsih(3)));
        assert_eq!(registry.reserve(), None, "no more than the limit");
        registry.release(a);
        assert!(registry.reserve().is_some());
    }

    // req: 7143-6.3.1-2
    #[test]
    fn a_tsih_is_only_found_by_its_own_initiator() {
        let mut registry = SessionRegistry::new(3);
        let tsih = registry.reserve().unwrap();
        registry.insert(tsih, entry(1, 1));
        let key = entry(1, 0).key;
        let other = IscsiName::new("iqn.2026-01.org.example:thief").unwrap();
        assert!(registry.find(tsih, &other, key.isid).is_none());
        assert!(registry.find(tsih, &key.initiator_name, entry(2, 0).key.isid).is_none());
        assert!(registry.find(tsih, &key.initiator_name, key.isid).is_some());
    }
}
