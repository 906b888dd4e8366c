//! The question a target asks before a login goes on, and the answers to it.

use crate::{
    auth::TargetAuth,
    config::Preferences,
    name::{IscsiName, LocalName},
    params::{ExistingSession, SessionType},
    sendtargets::TargetAddress,
    status::LoginStatus,
};
use iscsi_pdu::{Cid, Isid, Tsih};

/// What a target asks about a login before it goes on: may this initiator have this target?
///
/// Nothing in it has been authenticated yet.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AccessRequest {
    /// InitiatorName.
    pub initiator_name: IscsiName,
    /// TargetName; `None` on a discovery session that named none.
    pub target_name: Option<IscsiName>,
    /// SessionType.
    pub session_type: SessionType,
    /// ISID.
    pub isid: Isid,
    /// TSIH: 0 for a new session (or reinstatement of the one with this ISID), else the session to join.
    pub tsih: Tsih,
    /// CID.
    pub cid: Cid,
}

/// Answer to [`AccessRequest`].
#[derive(Clone, Debug)]
pub enum AccessDecision {
    /// Go on, under these conditions.
    Grant(Box<Grant>),
    /// Go elsewhere (RFC 7143 section 11.13.5). At least one address; portal group tags in them are not sent.
    Redirect {
        /// Where to.
        addresses: Vec<TargetAddress>,
        /// For good, not for a while.
        permanently: bool,
    },
    /// Go away.
    Deny(Denial),
}

/// Conditions of access to a target.
#[derive(Clone, Debug)]
pub struct Grant {
    /// TargetPortalGroupTag of the portal on that target; `None` if no target was named.
    pub portal_group_tag: Option<u16>,
    /// TargetAlias, sent on normal sessions (RFC 7143 section 13.6).
    pub alias: Option<LocalName>,
    /// Authentication of this initiator at this target.
    pub auth: TargetAuth,
    /// Preferences in place of the portal's.
    pub preferences: Option<Preferences>,
    /// The session that the connection joins; required when the request's TSIH is not 0.
    pub session: Option<ExistingSession>,
}

/// Why access is denied: each is a status of RFC 7143 section 11.13.5.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Denial {
    /// 0202: not for this initiator.
    NotAuthorized,
    /// 0203: no such target here.
    NotFound,
    /// 0204: removed, no forwarding address.
    Removed,
    /// 0206: no more connections in this session.
    TooManyConnections,
    /// 0208: the session does not span to this portal.
    CannotIncludeInSession,
    /// 0209: no such session type here, or not for this initiator.
    SessionTypeNotSupported,
    /// 020a: TSIH of no session.
    SessionDoesNotExist,
    /// 0300: hardware or software error.
    TargetError,
    /// 0301: not operational now.
    ServiceUnavailable,
    /// 0302: no resources.
    OutOfResources,
}

impl Denial {
    /// The status that says so.
    #[must_use]
    pub const fn status(self) -> LoginStatus {
        use LoginStatus as S;
        match self {
            Self::NotAuthorized => S::AUTHORIZATION_FAILURE,
            Self::NotFound => S::NOT_FOUND,
            Self::Removed => S::TARGET_REMOVED,
            Self::TooManyConnections => S::TOO_MANY_CONNECTIONS,
            Self::CannotIncludeInSession => S::CANNOT_INCLUDE_IN_SESSION,
            Self::SessionTypeNotSupported => S::SESSION_TYPE_NOT_SUPPORTED,
            Self::SessionDoesNotExist => S::SESSION_DOES_NOT_EXIST,
            Self::TargetError => S::TARGET_ERROR,
            Self::ServiceUnavailable => S::SERVICE_UNAVAILABLE,
            Self::OutOfResources => S::OUT_OF_RESOURCES,
        }
    }
}
