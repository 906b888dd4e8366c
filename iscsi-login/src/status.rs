//! Status-Class and Status-Detail of Login Responses (RFC 7143 section 11.13.5), and the rules that logins break.

use crate::keys::Key;
use core::fmt;
use iscsi_pdu::Opcode;

/// Status-Class and Status-Detail of a Login Response (RFC 7143 section 11.13.5). Unknown values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LoginStatus {
    /// Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub class: u8,
    /// Status-Detail.
    pub detail: u8,
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $class:literal, $detail:literal, $text:literal;)*) => {
        // req: 7143-11.13.5-7
        impl LoginStatus {
            $( $(#[$doc])* pub const $name: Self = Self { class: $class, detail: $detail }; )*

            /// The RFC's words for an allocated code.
            #[must_use]
            pub const fn text(self) -> Option<&'static str> {
                match (self.class, self.detail) { $( ($class, $detail) => Some($text), )* _ => None }
            }
        }
    };
}

statuses! {
    /// Login is proceeding.
    SUCCESS = 0x00, 0x00, "success";
    /// The target has moved for the time being.
    MOVED_TEMPORARILY = 0x01, 0x01, "target moved temporarily";
    /// The target has moved for good.
    MOVED_PERMANENTLY = 0x01, 0x02, "target moved permanently";
    /// Miscellaneous initiator errors, protocol errors among them.
    INITIATOR_ERROR = 0x02, 0x00, "initiator error";
    /// The initiator could not be authenticated, or target authentication is not supported.
    AUTHENTICATION_FAILURE = 0x02, 0x01, "authentication failure";
    /// The initiator is not allowed access to the target.
    AUTHORIZATION_FAILURE = 0x02, 0x02, "authorization failure";
    /// No such target at this address.
    NOT_FOUND = 0x02, 0x03, "not found";
    /// The target has been removed and left no forwarding address.
    TARGET_REMOVED = 0x02, 0x04, "target removed";
    /// No version of the offered range is supported.
    UNSUPPORTED_VERSION = 0x02, 0x05, "unsupported version";
    /// Too many connections in the session.
    TOO_MANY_CONNECTIONS = 0x02, 0x06, "too many connections";
    /// A mandatory key is missing.
    MISSING_PARAMETER = 0x02, 0x07, "missing parameter";
    /// The session does not span to this address.
    CANNOT_INCLUDE_IN_SESSION = 0x02, 0x08, "can't include in session";
    /// This type of session is not supported, or not for this initiator.
    SESSION_TYPE_NOT_SUPPORTED = 0x02, 0x09, "session type not supported";
    /// A connection for a session that does not exist.
    SESSION_DOES_NOT_EXIST = 0x02, 0x0a, "session does not exist";
    /// A request other than a Login Request in the login phase.
    INVALID_DURING_LOGIN = 0x02, 0x0b, "invalid during login";
    /// Hardware or software error of the target.
    TARGET_ERROR = 0x03, 0x00, "target error";
    /// The service or the target is not operational at present.
    SERVICE_UNAVAILABLE = 0x03, 0x01, "service unavailable";
    /// Resources are insufficient.
    OUT_OF_RESOURCES = 0x03, 0x02, "out of resources";
}

impl LoginStatus {
    /// Whether the login goes on.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class == 0
    }

    /// Whether the response redirects; it then carries TargetAddress.
    #[must_use]
    pub const fn is_redirection(self) -> bool {
        self.class == 1
    }

    /// Whether the same request may succeed later: class 3. Details that are not allocated are judged by the class.
    // req: 7143-11.13.5-6
    #[must_use]
    pub const fn may_retry(self) -> bool {
        self.class == 3
    }
}

impl fmt::Debug for LoginStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginStatus({self})")
    }
}

/// The code in hexadecimal as the RFC prints it, and its words.
impl fmt::Display for LoginStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}", self.class, self.detail)?;
        match self.text() {
            Some(text) => write!(f, " {text}"),
            None => Ok(()),
        }
    }
}

/// The bound of a [`crate::LoginBudget`] that a peer has hit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Bound {
    /// PDUs in one login.
    Pdus,
    /// Text bytes in one login.
    Bytes,
    /// Keys in one login.
    Keys,
    /// Answer bytes to one text: NotUnderstood would amplify.
    Answer,
}

/// The rule whose violation ended a login or a text negotiation. `Copy`, no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Rule {
    /// The peer ended the login with a status; nothing was violated at this end.
    PeerStatus,
    /// A decision of this end's administrator: access denied, redirected.
    Access,
    /// The login took longer than its budget allows.
    Timeout,
    /// A bound of the budget.
    Budget(Bound),
    /// A PDU that is no login PDU (RFC 7143 section 4.2.4).
    NotLogin(Opcode),
    /// A login PDU that cannot be decoded, or is longer than login allows (RFC 7143 sections 6.3, 11.12).
    Malformed,
    /// A request while the one before is still being answered, or any PDU after the end (RFC 7143 section 6.3).
    OneOutstanding,
    /// A stage transition outside the table, or a reserved stage (RFC 7143 section 6.3).
    Stage,
    /// The C bit together with the T or F bit (RFC 7143 section 6.2).
    ContinueWithTransit,
    /// Text where an empty PDU must answer the C bit (RFC 7143 section 6.2).
    DataWhileContinuing,
    /// A data segment longer than the receiver takes, in login 8192 bytes (RFC 7143 section 6.3).
    SegmentLength,
    /// Version range without version 0 (RFC 7143 section 11.12.4).
    Version,
    /// A header field that must stay the same through the login has changed (RFC 7143 sections 11.12, 11.13).
    HeaderChanged,
    /// StatSN did not count up by one (RFC 7143 section 11.13.4).
    StatSn,
    /// TSIH 0 in a final response, or another one than expected (RFC 7143 section 11.13.3).
    Tsih,
    /// Text that is no sequence of `key=value` pairs each ended by NUL (RFC 7143 section 6.1).
    TextFormat,
    /// A mandatory key is missing (RFC 7143 section 6.3).
    Missing(Key),
    /// A key twice in one negotiation (RFC 7143 section 6.3).
    Repeated(Key),
    /// A key outside its stage, use or senders (RFC 7143 sections 6.3, 12, 13).
    NotAllowedHere(Key),
    /// A value that the key does not admit (RFC 7143 section 6.2.2).
    Value(Key),
    /// Reject, Irrelevant or NotUnderstood proposed as a value (RFC 7143 section 6.2).
    ReservedWord,
    /// An answer that the result function or the offered list excludes (RFC 7143 sections 6.2.1, 6.2.2).
    Answer(Key),
    /// NotUnderstood for a key that every implementation must understand (RFC 7143 section 6.2).
    NotUnderstood(Key),
    /// A proposal that was not answered (RFC 7143 section 6.2.2).
    Unanswered(Key),
    /// A rule between keys (RFC 7143 sections 13.14, 13.19).
    Integrity(Key),
    /// Security is required or ended without the required method (RFC 7143 section 6.3.1).
    AuthRequired,
    /// No offered authentication method, algorithm or target authentication is acceptable (RFC 7143 section 12.1).
    AuthMethod,
    /// Keys or values that do not belong to this step of the method (RFC 7143 section 9.2).
    AuthStep,
    /// The peer could not be authenticated (RFC 7143 section 12.1).
    AuthFailed,
    /// A challenge or response of ours came back (RFC 7143 section 9.2.1).
    AuthReflected,
    /// Another identity or method than on the session's first connection (RFC 7143 section 9.2).
    IdentityChanged,
    /// A redirection without TargetAddress (RFC 7143 section 11.13.5).
    RedirectWithoutAddress,
    /// TargetPortalGroupTag is not the expected one (RFC 7143 section 6.3.1).
    PortalGroup,
    /// iSER-assisted mode is required here and was not agreed (RFC 7145 section 5.1).
    RdmaRequired,
    /// The connection's resources could not be allocated (RFC 7145 section 10.1.3.1).
    Resources,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerStatus => f.write_str("the peer ended it"),
            Self::Access => f.write_str("access decision"),
            Self::Timeout => f.write_str("timed out"),
            Self::Budget(bound) => write!(f, "budget exceeded: {bound:?}"),
            Self::NotLogin(opcode) => write!(f, "{opcode:?} is no login PDU"),
            Self::Malformed => f.write_str("malformed login PDU"),
            Self::OneOutstanding => f.write_str("a login PDU while another is outstanding"),
            Self::Stage => f.write_str("illegal stage transition"),
            Self::ContinueWithTransit => f.write_str("C bit together with T or F"),
            Self::DataWhileContinuing => f.write_str("text in answer to the C bit"),
            Self::SegmentLength => f.write_str("data segment too long"),
            Self::Version => f.write_str("no common version"),
            Self::HeaderChanged => f.write_str("header field changed during login"),
            Self::StatSn => f.write_str("StatSN out of order"),
            Self::Tsih => f.write_str("wrong TSIH"),
            Self::TextFormat => f.write_str("malformed text"),
            Self::Missing(key) => write!(f, "{} is missing", key.name()),
            Self::Repeated(key) => write!(f, "{} repeated", key.name()),
            Self::NotAllowedHere(key) => write!(f, "{} is not allowed here", key.name()),
            Self::Value(key) => write!(f, "inadmissible value of {}", key.name()),
            Self::ReservedWord => f.write_str("reserved word proposed as a value"),
            Self::Answer(key) => write!(f, "impossible answer to {}", key.name()),
            Self::NotUnderstood(key) => write!(f, "{} not understood by the peer", key.name()),
            Self::Unanswered(key) => write!(f, "{} was not answered", key.name()),
            Self::Integrity(key) => write!(f, "{} contradicts other keys", key.name()),
            Self::AuthRequired => f.write_str("authentication is required"),
            Self::AuthMethod => f.write_str("no acceptable authentication method"),
            Self::AuthStep => f.write_str("wrong step of the authentication method"),
            Self::AuthFailed => f.write_str("authentication failed"),
            Self::AuthReflected => f.write_str("own challenge or response came back"),
            Self::IdentityChanged => f.write_str("identity differs from the session's"),
            Self::RedirectWithoutAddress => f.write_str("redirection without TargetAddress"),
            Self::PortalGroup => f.write_str("unexpected portal group"),
            Self::RdmaRequired => f.write_str("iSER was not agreed"),
            Self::Resources => f.write_str("no resources for the connection"),
        }
    }
}

impl core::error::Error for Rule {}

impl Rule {
    /// The status with which a target answers the violation (RFC 7143 sections 6.3, 9.2, 11.13.5).
    // req: 7143-9.2-4, 7143-9.2-5, 7143-7.12-1, 7143-6.3-18
    #[must_use]
    pub const fn status(self) -> LoginStatus {
        match self {
            Self::Version => LoginStatus::UNSUPPORTED_VERSION,
            Self::NotLogin(_) => LoginStatus::INVALID_DURING_LOGIN,
            Self::Missing(_) => LoginStatus::MISSING_PARAMETER,
            Self::AuthRequired
            | Self::AuthMethod
            | Self::AuthFailed
            | Self::AuthReflected
            | Self::IdentityChanged => LoginStatus::AUTHENTICATION_FAILURE,
            Self::Resources => LoginStatus::OUT_OF_RESOURCES,
            _ => LoginStatus::INITIATOR_ERROR,
        }
    }
}
