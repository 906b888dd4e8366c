//! What a login ends with: session and connection parameters, and who the peer is.

use crate::{
    name::{IscsiName, LocalName},
    status::Rule,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, StatSn, Tsih};

/// Which of the two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The end that sends Login Requests.
    Initiator,
    /// The end that sends Login Responses.
    Target,
}

impl Role {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Target,
            Self::Target => Self::Initiator,
        }
    }
}

/// SessionType (RFC 7143 section 13.21).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum SessionType {
    /// A session that carries SCSI tasks.
    #[default]
    Normal,
    /// A session for SendTargets alone.
    Discovery,
}

/// HeaderDigest or DataDigest (RFC 7143 section 13.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Digest {
    /// No digest.
    #[default]
    None,
    /// CRC32C.
    Crc32c,
}

/// TaskReporting (RFC 7143 section 13.23).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum TaskReporting {
    /// As RFC 3720 left it: no response fence.
    #[default]
    Rfc3720,
    /// Response Fence (RFC 7143 section 4.2.2.3.3).
    ResponseFence,
    /// Fast multi-task abort (RFC 7143 section 4.2.3.4), the fence included.
    FastAbort,
}

/// Parameters of a session, agreed in the login of its leading connection. Lengths in bytes, times in seconds; names
/// are those of RFC 7143 section 13 and RFC 7145 section 6.
///
/// The default is the RFC's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SessionParams {
    /// SessionType.
    pub session_type: SessionType,
    /// MaxConnections; 1 on discovery sessions.
    pub max_connections: u16,
    /// InitialR2T: whether unsolicited Data-Out PDUs are forbidden.
    pub initial_r2t: bool,
    /// ImmediateData: whether commands may carry data.
    pub immediate_data: bool,
    /// MaxBurstLength.
    pub max_burst_length: u32,
    /// FirstBurstLength, never above `max_burst_length`.
    pub first_burst_length: u32,
    /// DefaultTime2Wait.
    pub default_time2wait: u16,
    /// DefaultTime2Retain.
    pub default_time2retain: u16,
    /// MaxOutstandingR2T.
    pub max_outstanding_r2t: u16,
    /// DataPDUInOrder.
    pub data_pdu_in_order: bool,
    /// DataSequenceInOrder.
    pub data_sequence_in_order: bool,
    /// ErrorRecoveryLevel, 0 to 2; 0 on discovery sessions.
    pub error_recovery_level: u8,
    /// TaskReporting.
    pub task_reporting: TaskReporting,
    /// iSCSIProtocolLevel; features of RFC 7144 are on from 2.
    // req: 7144-4.1-1
    pub iscsi_protocol_level: u8,
    /// RDMAExtensions: whether the session is iSER-assisted.
    pub rdma_extensions: bool,
    /// iSERHelloRequired as the initiator declared it; `None` when it said nothing (the default is No, and a Hello
    /// may then still be answered).
    // req: 7145-6.10-1, 7145-6.10-2
    pub iser_hello_required: Option<bool>,
    /// TaggedBufferForSolicitedDataOnly as the initiator declared it; `None` when it said nothing, which peers in the
    /// field take for Yes although the default is No.
    pub tagged_buffer_for_solicited_data_only: Option<bool>,
    /// MaxAHSLength the initiator declared, in bytes; 0 is "no limit".
    pub initiator_max_ahs_length: u32,
    /// MaxAHSLength the target declared, in bytes; 0 is "no limit".
    pub target_max_ahs_length: u32,
    /// MaxOutstandingUnexpectedPDUs the initiator declared: how many it takes from the target. `None` when it said
    /// nothing; 0 is "no limit".
    pub initiator_max_outstanding_unexpected_pdus: Option<u32>,
    /// MaxOutstandingUnexpectedPDUs the target declared: how many it takes from the initiator. `None` when it said
    /// nothing; 0 is "no limit".
    pub target_max_outstanding_unexpected_pdus: Option<u32>,
}

impl SessionParams {
    /// How many connections of the session a target should have room for: MaxConnections, and at ErrorRecoveryLevel 2 one
    /// more. Over that the initiator cleans up after one that it has lost (RFC 7143 section 6.3.4), of which the target may
    /// not have heard yet.
    // req: 7143-6.3.4-2
    #[must_use]
    pub const fn connection_room(&self) -> u16 {
        let spare = if self.error_recovery_level >= 2 { 1 } else { 0 };
        self.max_connections.saturating_add(spare)
    }
}

impl Default for SessionParams {
    fn default() -> Self {
        Self {
            session_type: SessionType::Normal,
            max_connections: 1,
            initial_r2t: true,
            immediate_data: true,
            max_burst_length: 262_144,
            first_burst_length: 65_536,
            default_time2wait: 2,
            default_time2retain: 20,
            max_outstanding_r2t: 1,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            error_recovery_level: 0,
            task_reporting: TaskReporting::Rfc3720,
            iscsi_protocol_level: 1,
            rdma_extensions: false,
            iser_hello_required: None,
            tagged_buffer_for_solicited_data_only: None,
            initiator_max_ahs_length: 256,
            target_max_ahs_length: 256,
            initiator_max_outstanding_unexpected_pdus: None,
            target_max_outstanding_unexpected_pdus: None,
        }
    }
}

/// Parameters of one connection, seen from one end ("receive" is what this end takes, "send" what the peer takes).
/// Lengths in bytes. The default is the RFC's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConnParams {
    /// HeaderDigest; None on iSER-assisted sessions.
    pub header_digest: Digest,
    /// DataDigest; None on iSER-assisted sessions.
    pub data_digest: Digest,
    /// The longest data segment that the peer may send: our MaxRecvDataSegmentLength, or our end's
    /// `*RecvDataSegmentLength` on iSER-assisted sessions.
    pub max_recv_data_segment_length: u32,
    /// The longest data segment that we may send: the peer's MaxRecvDataSegmentLength, or its
    /// `*RecvDataSegmentLength` on iSER-assisted sessions.
    pub max_send_data_segment_length: u32,
    /// InitiatorRecvDataSegmentLength; of use on iSER-assisted sessions alone.
    pub initiator_recv_data_segment_length: u32,
    /// TargetRecvDataSegmentLength; of use on iSER-assisted sessions alone.
    pub target_recv_data_segment_length: u32,
}

impl Default for ConnParams {
    fn default() -> Self {
        Self {
            header_digest: Digest::None,
            data_digest: Digest::None,
            max_recv_data_segment_length: 8192,
            max_send_data_segment_length: 8192,
            initiator_recv_data_segment_length: 8192,
            target_recv_data_segment_length: 8192,
        }
    }
}

/// How a connection was authenticated, and as whom (RFC 7143 section 9.2).
///
/// Connections of one session have equal identities; the target checks it (RFC 7143 section 9.2).
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum AuthIdentity {
    /// Not at all.
    #[default]
    None,
    /// By CHAP.
    Chap {
        /// The initiator's CHAP_N.
        initiator: Box<str>,
        /// The target's CHAP_N, if the target was authenticated too.
        target: Option<Box<str>>,
    },
}

impl AuthIdentity {
    /// Whether the initiator proved who it is.
    #[must_use]
    pub const fn is_authenticated(&self) -> bool {
        !matches!(self, Self::None)
    }
}

/// What is known of a session that a further connection joins, or whose connection is reinstated: needed by both
/// roles before they log in with a TSIH other than 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExistingSession {
    /// TSIH of the session.
    pub tsih: Tsih,
    /// Parameters agreed on its leading connection.
    pub session: SessionParams,
    /// Identity proved on its leading connection.
    pub auth: AuthIdentity,
    /// ExpCmdSN to put into Login Responses (target); not used by the initiator.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN to put into Login Responses (target); not used by the initiator.
    pub max_cmd_sn: CmdSn,
}

/// The outcome of a successful login.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Negotiated {
    /// Parameters of the session; those of the leading connection when this one joined.
    pub session: SessionParams,
    /// Parameters of this connection.
    pub conn: ConnParams,
    /// Whether this is the leading connection of a new session.
    pub leading: bool,
    /// InitiatorName.
    pub initiator_name: IscsiName,
    /// InitiatorAlias: ours at the initiator, as received at the target. For display, never for decisions.
    pub initiator_alias: Option<LocalName>,
    /// TargetName; absent on discovery sessions that named none.
    pub target_name: Option<IscsiName>,
    /// TargetAlias: ours at the target, as received at the initiator. For display, never for decisions.
    pub target_alias: Option<LocalName>,
    /// TargetPortalGroupTag, if it was sent.
    pub target_portal_group_tag: Option<u16>,
    /// X#NodeArchitecture of the peer. For logs, which only administrators read; never for decisions.
    pub peer_node_architecture: Option<LocalName>,
    /// Who authenticated as whom.
    pub auth: AuthIdentity,
    /// ISID.
    pub isid: Isid,
    /// TSIH of the session, not 0.
    pub tsih: Tsih,
    /// CID.
    pub cid: Cid,
    /// Initiator Task Tag of the login, free again now.
    pub itt: Itt,
    /// CmdSN of the login: on a leading connection that of the first non-immediate command.
    pub cmd_sn: CmdSn,
    /// ExpCmdSN of the final response.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN of the final response.
    pub max_cmd_sn: CmdSn,
    /// StatSN that follows the final response: the next to send at a target, ExpStatSN at an initiator.
    pub next_stat_sn: StatSn,
}

/// Why a login failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LoginFailure {
    /// The violated rule.
    pub rule: Rule,
    /// Status of the Login Response: sent by the target, received by the initiator. `None` when the connection is
    /// closed without one.
    pub status: Option<crate::status::LoginStatus>,
}

impl LoginFailure {
    /// Whether the same login may be tried again later (RFC 7143 section 11.13.5: class 3 only), or could not be
    /// judged for lack of an answer.
    // req: 7143-11.13.5-6
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self.status {
            Some(status) => status.may_retry(),
            None => matches!(self.rule, Rule::Timeout),
        }
    }
}

impl core::fmt::Display for LoginFailure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.status {
            Some(status) => write!(f, "login failed: {} ({status})", self.rule),
            None => write!(f, "login failed: {}", self.rule),
        }
    }
}

impl core::error::Error for LoginFailure {}
