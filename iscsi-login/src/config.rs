//! What a node wants from logins: preferences per key, budgets, and the configurations of the two machines.

use crate::{
    auth::InitiatorAuth,
    keys::{Key, MAX_LENGTH, MIN_LENGTH},
    name::{IscsiName, LocalName},
    params::{Digest, TaskReporting},
};
use core::fmt;
use std::time::Duration;

/// Which digests an end takes, in its order of preference (RFC 7143 section 13.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum DigestPolicy {
    /// None alone.
    #[default]
    Never,
    /// None rather than CRC32C: an initiator offers `None,CRC32C`.
    Avoid,
    /// CRC32C rather than none: an initiator offers `CRC32C,None`.
    Prefer,
    /// CRC32C alone; a login that cannot have it fails.
    Require,
}

impl DigestPolicy {
    /// The values in order of preference.
    // req: 7143-13.1-5, 7143-13.1-7, 7143-14-2
    // req: 7143-13.1-6, 7143-13.1-8
    #[must_use]
    pub const fn values(self) -> &'static [Digest] {
        match self {
            Self::Never => &[Digest::None],
            Self::Avoid => &[Digest::None, Digest::Crc32c],
            Self::Prefer => &[Digest::Crc32c, Digest::None],
            Self::Require => &[Digest::Crc32c],
        }
    }
}

/// Whether iSER-assisted mode is wanted (RDMAExtensions, RFC 7145 section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum RdmaPolicy {
    /// Plain iSCSI: the key is not offered, and answered No.
    #[default]
    Never,
    /// iSER if the peer agrees: an initiator offers the key, a target agrees when it is offered.
    Allow,
    /// iSER or no login. For connections that cannot carry anything else, such as those of an RDMA fabric.
    Require,
}

/// What this end would choose for each key if it had the choice. Lengths in bytes, times in seconds; names are those
/// of RFC 7143 section 13 and RFC 7145 section 6.
///
/// An initiator offers these values, a target answers with them as the result functions allow. The default is
/// conservative and interoperable. Machines bring values that a key does not admit to the nearest bound;
/// [`Preferences::check`] names them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preferences {
    /// HeaderDigest.
    pub header_digest: DigestPolicy,
    /// DataDigest.
    pub data_digest: DigestPolicy,
    /// MaxConnections, 1 to 65535.
    pub max_connections: u16,
    /// InitialR2T: true forbids unsolicited Data-Out PDUs.
    pub initial_r2t: bool,
    /// ImmediateData.
    pub immediate_data: bool,
    /// MaxRecvDataSegmentLength of this end, 512 to 2^24 - 1.
    pub max_recv_data_segment_length: u32,
    /// MaxBurstLength, 512 to 2^24 - 1.
    pub max_burst_length: u32,
    /// FirstBurstLength, 512 to 2^24 - 1 and not above `max_burst_length`.
    pub first_burst_length: u32,
    /// DefaultTime2Wait, 0 to 3600.
    pub default_time2wait: u16,
    /// DefaultTime2Retain, 0 to 3600.
    pub default_time2retain: u16,
    /// MaxOutstandingR2T, 1 to 65535.
    pub max_outstanding_r2t: u16,
    /// DataPDUInOrder.
    pub data_pdu_in_order: bool,
    /// DataSequenceInOrder.
    pub data_sequence_in_order: bool,
    /// ErrorRecoveryLevel, 0 to 2: the level this end implements in full.
    // req: 7143-7.1.5-1
    // req: 7143-7.1.5-3
    pub error_recovery_level: u8,
    /// TaskReporting values this end implements, in order of preference. An initiator offers the key only if the list
    /// is not empty, always with RFC3720 and ResponseFence in it; targets older than RFC 5048 answer NotUnderstood,
    /// which ends the login. A target chooses from the list, and RFC3720 is always in it.
    pub task_reporting: Vec<TaskReporting>,
    /// iSCSIProtocolLevel this end implements, 0 to 31. An initiator offers the key only above 1, its default.
    // req: 7143-13.24-1
    pub iscsi_protocol_level: u8,
    /// RDMAExtensions.
    pub rdma_extensions: RdmaPolicy,
    /// InitiatorRecvDataSegmentLength, 512 to 2^24 - 1: of an initiator's own buffers, of what a target would send.
    pub initiator_recv_data_segment_length: u32,
    /// TargetRecvDataSegmentLength, 512 to 2^24 - 1: of a target's own buffers, of what an initiator would send.
    pub target_recv_data_segment_length: u32,
    /// MaxOutstandingUnexpectedPDUs of this end, 0 (no limit) or 2 to 2^32 - 1; `None` does not declare it. A target
    /// declares it only to initiators that have declared theirs: others may fail on a key they do not know.
    pub max_outstanding_unexpected_pdus: Option<u32>,
    /// MaxAHSLength of this end, 0 (no limit) or 2 to 2^32 - 1 bytes; `None` does not declare it. As above, a target
    /// declares it only in return.
    pub max_ahs_length: Option<u32>,
    /// TaggedBufferForSolicitedDataOnly, declared by initiators.
    pub tagged_buffer_for_solicited_data_only: Option<bool>,
    /// iSERHelloRequired, declared by initiators.
    pub iser_hello_required: Option<bool>,
    /// What X#NodeArchitecture tells the peer.
    pub node_architecture: NodeArchitecture,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            header_digest: DigestPolicy::Avoid,
            data_digest: DigestPolicy::Avoid,
            max_connections: 1,
            initial_r2t: false,
            immediate_data: true,
            max_recv_data_segment_length: 262_144,
            max_burst_length: 1_048_576,
            first_burst_length: 262_144,
            default_time2wait: 2,
            default_time2retain: 20,
            max_outstanding_r2t: 1,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            error_recovery_level: 0,
            task_reporting: Vec::new(),
            iscsi_protocol_level: 1,
            rdma_extensions: RdmaPolicy::Never,
            initiator_recv_data_segment_length: 8192,
            target_recv_data_segment_length: 8192,
            max_outstanding_unexpected_pdus: Some(16),
            max_ahs_length: Some(256),
            tagged_buffer_for_solicited_data_only: Some(true),
            iser_hello_required: None,
            node_architecture: NodeArchitecture::Silent,
        }
    }
}

impl Preferences {
    /// The first key whose value is out of bounds or contradicts another.
    ///
    /// # Errors
    /// That key.
    // req: 7143-13.14-1, 7143-13.19-2
    pub fn check(&self) -> Result<(), PreferenceError> {
        let fixed = self.normalized();
        let differs: [(Key, bool); 13] = [
            (Key::MaxConnections, self.max_connections != fixed.max_connections),
            (Key::MaxRecvDataSegmentLength, {
                self.max_recv_data_segment_length != fixed.max_recv_data_segment_length
            }),
            (Key::MaxBurstLength, self.max_burst_length != fixed.max_burst_length),
            (Key::FirstBurstLength, self.first_burst_length != fixed.first_burst_length),
            (Key::DefaultTime2Wait, self.default_time2wait != fixed.default_time2wait),
            (Key::DefaultTime2Retain, self.default_time2retain != fixed.default_time2retain),
            (Key::MaxOutstandingR2t, self.max_outstanding_r2t != fixed.max_outstanding_r2t),
            (Key::ErrorRecoveryLevel, self.error_recovery_level != fixed.error_recovery_level),
            (Key::IscsiProtocolLevel, self.iscsi_protocol_level != fixed.iscsi_protocol_level),
            (Key::InitiatorRecvDataSegmentLength, {
                self.initiator_recv_data_segment_length != fixed.initiator_recv_data_segment_length
            }),
            (Key::TargetRecvDataSegmentLength, {
                self.target_recv_data_segment_length != fixed.target_recv_data_segment_length
            }),
            (Key::MaxOutstandingUnexpectedPdus, {
                self.max_outstanding_unexpected_pdus != fixed.max_outstanding_unexpected_pdus
            }),
            (Key::MaxAhsLength, self.max_ahs_length != fixed.max_ahs_length),
        ];
        match differs.iter().find(|(_, wrong)| *wrong) {
            Some((key, _)) => Err(PreferenceError(*key)),
            None => Ok(()),
        }
    }

    /// The same with every value brought to the nearest admissible one.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let length = |n: u32| n.clamp(MIN_LENGTH, MAX_LENGTH);
        let not_one = |n: Option<u32>| n.map(|n| if n == 1 { 2 } else { n });
        let mut p = self.clone();
        p.max_connections = p.max_connections.max(1);
        p.max_recv_data_segment_length = length(p.max_recv_data_segment_length);
        p.max_burst_length = length(p.max_burst_length);
        p.first_burst_length = length(p.first_burst_length).min(p.max_burst_length);
        p.default_time2wait = p.default_time2wait.min(3600);
        p.default_time2retain = p.default_time2retain.min(3600);
        p.error_recovery_level = p.error_recovery_level.min(2);
        p.max_outstanding_r2t = if p.error_recovery_level > 0 && p.data_sequence_in_order {
            1
        } else {
            p.max_outstanding_r2t.max(1)
        };
        p.iscsi_protocol_level = p.iscsi_protocol_level.min(31);
        p.initiator_recv_data_segment_length = length(p.initiator_recv_data_segment_length);
        p.target_recv_data_segment_length = length(p.target_recv_data_segment_length);
        p.max_outstanding_unexpected_pdus = not_one(p.max_outstanding_unexpected_pdus);
        p.max_ahs_length = not_one(p.max_ahs_length);
        p
    }
}

/// A preference that its key does not admit, or that contradicts another (RFC 7143 section 13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PreferenceError(pub Key);

impl fmt::Display for PreferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: value out of bounds", self.0.name())
    }
}

impl core::error::Error for PreferenceError {}

/// What X#NodeArchitecture says of this node. There is no free text (RFC 7143 section 13.26.2).
// req: 7143-9.4-1, 7143-9.4-2, 7143-13.26.2-3, 7143-13.26.2-4
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum NodeArchitecture {
    /// The key is not sent.
    #[default]
    Silent,
    /// The name of this implementation.
    Product,
    /// Its name and version.
    Version,
}

impl NodeArchitecture {
    /// The value to send.
    #[must_use]
    pub const fn value(self) -> Option<&'static str> {
        match self {
            Self::Silent => None,
            Self::Product => Some("iscsi-rs"),
            Self::Version => Some(concat!("iscsi-rs/", env!("CARGO_PKG_VERSION"))),
        }
    }
}

/// What a login may cost this end before it is over (RFC 7143 sections 6.2, 10.3). A peer that asks for more is shown
/// the door; memory for a login is bounded by `text` and `answer`.
// req: 7143-6.2-22, 7143-10.3-1
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginBudget {
    /// PDUs that the peer may send, at least 6 (RFC 7143 section 6.2). The default leaves room for every key in an
    /// exchange of its own (RFC 7143 section 10.3).
    // req: 7143-10.3-2
    pub pdus: u16,
    /// Text bytes in all PDUs of the login, at least 8192 (RFC 7143 section 6.1).
    pub text: u32,
    /// Keys in all PDUs of the login, at least 64.
    pub keys: u16,
    /// Bytes of one answer, which may span several PDUs; at least 4096. An answer to unknown keys is moreover bounded
    /// by 1024 bytes more than the text that holds them.
    pub answer: u32,
    /// Time from the first moment to the last.
    pub time: Duration,
}

impl Default for LoginBudget {
    fn default() -> Self {
        Self { pdus: 96, text: 32_768, keys: 512, answer: 16_384, time: Duration::from_secs(15) }
    }
}

impl LoginBudget {
    /// The same with every bound at least where the RFC wants it.
    // req: 7143-6.1-4, 7143-6.2-23
    #[must_use]
    pub fn normalized(self) -> Self {
        Self {
            pdus: self.pdus.max(6),
            text: self.text.max(8192),
            keys: self.keys.max(64),
            answer: self.answer.max(4096),
            time: self.time,
        }
    }
}

/// What an initiator logs in for: the type of session and its target in one, so that a normal session without a
/// target cannot be said (RFC 7143 section 6.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionGoal {
    /// A discovery session, with the node that offers it or with one target.
    Discovery(Option<IscsiName>),
    /// A session with this target.
    Normal(IscsiName),
}

/// Configuration of an initiator's logins: one for all connections to a target.
#[derive(Clone, Debug)]
pub struct InitiatorLoginConfig {
    /// InitiatorName.
    pub initiator_name: IscsiName,
    /// InitiatorAlias: a name for people, else the host name (RFC 7143 section 13.7).
    pub initiator_alias: Option<LocalName>,
    /// Session type and target.
    pub goal: SessionGoal,
    /// Authentication.
    pub auth: InitiatorAuth,
    /// Preferences for the keys.
    pub preferences: Preferences,
    /// Bounds.
    pub budget: LoginBudget,
    /// The portal group that must answer; any if `None` (RFC 7143 section 6.3.1).
    pub expected_portal_group_tag: Option<u16>,
}

impl InitiatorLoginConfig {
    /// A configuration with default preferences and budget.
    #[must_use]
    pub fn new(initiator_name: IscsiName, goal: SessionGoal, auth: InitiatorAuth) -> Self {
        Self {
            initiator_name,
            initiator_alias: None,
            goal,
            auth,
            preferences: Preferences::default(),
            budget: LoginBudget::default(),
            expected_portal_group_tag: None,
        }
    }
}

/// Configuration of a target portal's logins. What depends on initiator and target comes with the answer to
/// [`crate::LoginOutput::NeedAccess`].
#[derive(Clone, Debug)]
pub struct TargetLoginConfig {
    /// Preferences for the keys; a grant may replace them.
    pub preferences: Preferences,
    /// Bounds.
    pub budget: LoginBudget,
    /// Commands that MaxCmdSN lets a new session's initiator send at first, at least 1.
    pub command_window: u32,
}

impl Default for TargetLoginConfig {
    fn default() -> Self {
        Self {
            preferences: Preferences {
                task_reporting: vec![
                    TaskReporting::FastAbort,
                    TaskReporting::ResponseFence,
                    TaskReporting::Rfc3720,
                ],
                ..Preferences::default()
            },
            budget: LoginBudget::default(),
            command_window: 32,
        }
    }
}

#[cfg(test)]
mod tests;
