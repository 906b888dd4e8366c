//! What a datamover needs of what a login agreed on.

use datamover::{ConnKeys, Role};
use iscsi_login::{ConnParams, Digest, SessionParams};

/// The key values for Notice_Key_Values (RFC 5047 section 8.8), as the end `role` sees them.
#[must_use]
pub fn conn_keys(role: Role, session: &SessionParams, conn: &ConnParams) -> ConnKeys {
    let (own_unexpected, peer_unexpected, own_ahs) = match role {
        Role::Initiator => (
            session.initiator_max_outstanding_unexpected_pdus,
            session.target_max_outstanding_unexpected_pdus,
            session.initiator_max_ahs_length,
        ),
        Role::Target => (
            session.target_max_outstanding_unexpected_pdus,
            session.initiator_max_outstanding_unexpected_pdus,
            session.target_max_ahs_length,
        ),
    };
    // Nothing survives from an earlier connection.
    // req: 7143-4.2.8-1
    let mut keys = ConnKeys::default();
    keys.header_digest = conn.header_digest == Digest::Crc32c;
    keys.data_digest = conn.data_digest == Digest::Crc32c;
    keys.max_recv_data_segment_length = conn.max_recv_data_segment_length;
    keys.max_send_data_segment_length = conn.max_send_data_segment_length;
    keys.max_burst_length = session.max_burst_length;
    keys.first_burst_length = session.first_burst_length;
    keys.max_outstanding_r2t = session.max_outstanding_r2t;
    keys.data_pdu_in_order = session.data_pdu_in_order;
    keys.data_sequence_in_order = session.data_sequence_in_order;
    keys.error_recovery_level = session.error_recovery_level;
    keys.iscsi_protocol_level = session.iscsi_protocol_level;
    keys.rdma_extensions = session.rdma_extensions;
    keys.initiator_recv_data_segment_length = conn.initiator_recv_data_segment_length;
    keys.target_recv_data_segment_length = conn.target_recv_data_segment_length;
    // 0 is "no limit" (RFC 7145 section 6.8).
    keys.max_ahs_length = Some(own_ahs).filter(|n| *n != 0);
    keys.tagged_buffer_for_solicited_data_only = session.tagged_buffer_for_solicited_data_only;
    keys.iser_hello_required = session.iser_hello_required;
    keys.max_outstanding_unexpected_pdus = own_unexpected;
    keys.peer_max_outstanding_unexpected_pdus = peer_unexpected;
    keys
}
