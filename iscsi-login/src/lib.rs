#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod access;
pub mod auth;
mod config;
mod initiator;
pub mod keys;
mod name;
mod negotiate;
mod node;
mod output;
mod params;
mod redirect;
pub mod sendtargets;
pub mod stage;
mod status;
mod target;
mod text;
pub mod text_exchange;
pub mod value;

pub use access::{AccessDecision, AccessRequest, Denial, Grant};
pub use auth::{InitiatorAuth, TargetAuth};
pub use config::{
    DigestPolicy, InitiatorLoginConfig, LoginBudget, NodeArchitecture, PreferenceError, Preferences,
    RdmaPolicy, SessionGoal, TargetLoginConfig,
};
pub use initiator::{InitiatorLogin, LoginStart};
pub use keys::Key;
pub use name::{IscsiName, LocalName, MAX_LOCAL_NAME_LEN, MAX_NAME_LEN, NameError, NameType};
pub use node::{Node, NodeRoles};
pub use output::{InitiatorOutput, KeyValues, LoginOutput, Redirection, TargetOutput};
pub use params::{
    AuthIdentity, ConnParams, Digest, ExistingSession, LoginFailure, Negotiated, Role, SessionParams,
    SessionType, TaskReporting,
};
pub use redirect::{RedirectError, RedirectGuard};
pub use status::{Bound, LoginStatus, Rule};
pub use target::TargetLogin;
pub use text_exchange::{TextBudget, TextInitiator, TextResult, TextTarget};
