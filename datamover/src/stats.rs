//! Counters of a connection.

/// What a datamover moved, and what it had to copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// PDUs (or RDMA messages) received.
    pub pdus_in: u64,
    /// PDUs (or RDMA messages) sent.
    pub pdus_out: u64,
    /// Bytes of task data received, immediate and unsolicited data included.
    pub data_in: u64,
    /// Bytes of task data sent, immediate and unsolicited data included.
    pub data_out: u64,
    /// Bytes of task data copied in user space because they arrived together with other PDUs.
    pub copied_bytes: u64,
    /// Bytes of task data copied in user space because their memory was not the transport's own.
    pub bounced_bytes: u64,
    /// System calls (or doorbells and completion polls) made to move bytes.
    pub syscalls: u64,
}
