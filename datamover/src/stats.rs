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

impl std::iter::Sum for Stats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            pdus_in: a.pdus_in.saturating_add(b.pdus_in),
            pdus_out: a.pdus_out.saturating_add(b.pdus_out),
            data_in: a.data_in.saturating_add(b.data_in),
            data_out: a.data_out.saturating_add(b.data_out),
            copied_bytes: a.copied_bytes.saturating_add(b.copied_bytes),
            bounced_bytes: a.bounced_bytes.saturating_add(b.bounced_bytes),
            syscalls: a.syscalls.saturating_add(b.syscalls),
        })
    }
}
