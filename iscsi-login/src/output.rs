//! What the login machines ask their caller to do.

use crate::{
    access::AccessRequest,
    params::{ConnParams, LoginFailure, Negotiated, SessionParams},
    sendtargets::TargetAddress,
};
use bytes::Bytes;
use iscsi_pdu::{LoginRequest, LoginResponse};

/// One thing to do. The order of outputs is that of RFC 5047 section 13 (figures 2 to 6); `P` is the PDU that this
/// end sends.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoginOutput<P> {
    /// Send this PDU.
    Send(P),
    /// Target only: decide on access and call `handle_access`.
    NeedAccess(Box<AccessRequest>),
    /// Target only: look the CHAP account up and call `handle_secret`.
    #[cfg(feature = "_chap")]
    NeedSecret(Box<crate::auth::SecretRequest>),
    /// Notice_Key_Values (RFC 5047 section 8.8): these values are agreed.
    NoticeKeys(Box<KeyValues>),
    /// Allocate_Connection_Resources (RFC 5047 section 8.4), then call `handle_resources`. Never before
    /// authentication is over (RFC 7145 section 5.1.2).
    Allocate(Box<KeyValues>),
    /// Deallocate_Connection_Resources (RFC 5047 section 8.5): what was allocated is not needed.
    Deallocate,
    /// The login has succeeded: Enable_Datamover (RFC 5047 section 8.6).
    // req: 7145-5.1-1
    Enable {
        /// What was agreed.
        negotiated: Box<Negotiated>,
        /// Target only: the final response, to be sent as part of enabling.
        final_response: Option<P>,
    },
    /// Initiator only: close the connection and log in elsewhere. The machine is done.
    Redirected(Box<Redirection>),
    /// Close the connection, after what was to be sent before. The machine is done.
    Failed(LoginFailure),
}

/// Outputs of [`crate::InitiatorLogin`].
pub type InitiatorOutput = LoginOutput<LoginRequest<Bytes>>;
/// Outputs of [`crate::TargetLogin`].
pub type TargetOutput = LoginOutput<LoginResponse<Bytes>>;

/// Key values for the datamover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyValues {
    /// Of the session.
    pub session: SessionParams,
    /// Of this connection.
    pub conn: ConnParams,
    /// Whether both ends have agreed on them; an initiator that has not heard the target's answers yet allocates for
    /// what it offers.
    pub agreed: bool,
}

/// Where a target sends an initiator (RFC 7143 section 11.13.5, status class 1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirection {
    /// Addresses, at least one, in the target's order.
    pub addresses: Vec<TargetAddress>,
    /// Whether the target has moved for good.
    pub permanently: bool,
}
