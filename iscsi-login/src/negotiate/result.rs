//! What comes of a negotiation.

use super::*;

impl Negotiation {
    pub(crate) fn peer_architecture(&self) -> Option<&crate::name::LocalName> {
        self.peer_architecture.as_ref()
    }

    /// The parameters as they stand.
    // req: 7143-6.2-19
    pub(crate) fn params(&self) -> (SessionParams, ConnParams) {
        (self.session_params(), self.conn_params())
    }

    pub(super) fn session_params(&self) -> SessionParams {
        if let Some(session) = self.place.joined {
            return session;
        }
        let number = |key| self.number(key);
        let short = |key| u16::try_from(self.number(key)).unwrap_or(u16::MAX);
        let byte = |key| u8::try_from(self.number(key)).unwrap_or(u8::MAX);
        let (initiator_ahs, target_ahs) = self.both(Key::MaxAhsLength, self.wants.max_ahs_length);
        let (initiator_unexpected, target_unexpected) =
            self.both(Key::MaxOutstandingUnexpectedPdus, self.wants.max_outstanding_unexpected_pdus);
        let max_burst_length = number(Key::MaxBurstLength);
        let rdma = self.rdma();
        SessionParams {
            session_type: self.place.session_type,
            max_connections: short(Key::MaxConnections),
            initial_r2t: self.yes(Key::InitialR2t),
            immediate_data: self.yes(Key::ImmediateData),
            max_burst_length,
            // An initiator that holds on to less does no harm; a target has made sure already.
            first_burst_length: number(Key::FirstBurstLength).min(max_burst_length),
            default_time2wait: short(Key::DefaultTime2Wait),
            default_time2retain: short(Key::DefaultTime2Retain),
            max_outstanding_r2t: short(Key::MaxOutstandingR2t),
            data_pdu_in_order: self.yes(Key::DataPduInOrder),
            data_sequence_in_order: self.yes(Key::DataSequenceInOrder),
            error_recovery_level: byte(Key::ErrorRecoveryLevel),
            task_reporting: task_reporting(self.current(Key::TaskReporting)),
            iscsi_protocol_level: byte(Key::IscsiProtocolLevel),
            rdma_extensions: rdma,
            iser_hello_required: self.initiator_says(Key::IserHelloRequired, self.wants.iser_hello_required),
            tagged_buffer_for_solicited_data_only: self.initiator_says(
                Key::TaggedBufferForSolicitedDataOnly,
                self.wants.tagged_buffer_for_solicited_data_only,
            ),
            initiator_max_ahs_length: initiator_ahs.unwrap_or(256),
            target_max_ahs_length: target_ahs.unwrap_or(256),
            initiator_max_outstanding_unexpected_pdus: initiator_unexpected,
            target_max_outstanding_unexpected_pdus: target_unexpected,
        }
    }

    /// The parameters as they will be if the peer agrees to everything that is still open.
    pub(crate) fn prospects(&self) -> (SessionParams, ConnParams) {
        let mut hoped = self.clone();
        while let Some(key) = hoped.open_offer() {
            let value = match hoped.wish(key) {
                Wish::Bool(b) => Some(Value::Bool(b)),
                Wish::Number(n) => Some(Value::Number(n)),
                Wish::Words(list) => list.first().map(|w| Value::Word(w)),
            };
            hoped.slots.set(key, Slot { settled: true, value, ..hoped.slot(key) });
        }
        hoped.params()
    }

    /// What this end declared and the peer understood.
    pub(super) fn ours<T>(&self, key: Key, wanted: Option<T>) -> Option<T> {
        let slot = self.slot(key);
        wanted.filter(|_| slot.offered && !slot.disowned && self.rdma())
    }

    /// What the peer declared.
    pub(super) fn theirs(&self, key: Key) -> Option<Value> {
        self.slot(key).value.filter(|_| self.rdma())
    }

    /// Declarations of a number by initiator and target, in this order.
    pub(super) fn both(&self, key: Key, wanted: Option<u32>) -> (Option<u32>, Option<u32>) {
        let ours = self.ours(key, wanted);
        let theirs = self.theirs(key).map(|_| self.number(key));
        match self.role {
            Role::Initiator => (ours, theirs),
            Role::Target => (theirs, ours),
        }
    }

    /// A declaration that is the initiator's alone.
    pub(super) fn initiator_says(&self, key: Key, wanted: Option<bool>) -> Option<bool> {
        match self.role {
            Role::Initiator => self.ours(key, wanted),
            Role::Target => self.theirs(key).map(|_| self.yes(key)),
        }
    }

    // req: 7145-6.2-1, 7145-6.2-2, 7145-6.2-3, 7145-3.3-10
    pub(super) fn conn_params(&self) -> ConnParams {
        let initiator_recv = self.number(Key::InitiatorRecvDataSegmentLength);
        let target_recv = self.number(Key::TargetRecvDataSegmentLength);
        let (receive, send) = match (self.rdma(), self.role) {
            (true, Role::Initiator) => (initiator_recv, target_recv),
            (true, Role::Target) => (target_recv, initiator_recv),
            (false, _) => {
                let declared = self.slot(Key::MaxRecvDataSegmentLength).offered;
                let ours = if declared { self.wants.max_recv_data_segment_length } else { 8192 };
                (ours, self.number(Key::MaxRecvDataSegmentLength))
            }
        };
        let digest = |key| if self.rdma() { Digest::None } else { digest(self.current(key)) };
        ConnParams {
            header_digest: digest(Key::HeaderDigest),
            data_digest: digest(Key::DataDigest),
            max_recv_data_segment_length: receive,
            max_send_data_segment_length: send,
            initiator_recv_data_segment_length: initiator_recv,
            target_recv_data_segment_length: target_recv,
        }
    }

    /// Checks the rules between keys, now that all values are known, and gives the result.
    ///
    /// # Errors
    /// [`Rule::Integrity`], [`Rule::RdmaRequired`], [`Rule::Answer`] for a digest that this end insists on.
    // req: 7143-6.2-20, 7143-6.2-21, 7143-6.2-25
    pub(crate) fn conclude(&mut self) -> Result<(SessionParams, ConnParams), Rule> {
        self.close()?;
        let (session, conn) = self.params();
        if session.error_recovery_level > 0
            && session.data_sequence_in_order
            && session.max_outstanding_r2t > 1
        {
            return Err(Rule::Integrity(Key::MaxOutstandingR2t));
        }
        if !self.discovery() && !session.rdma_extensions && self.wants.rdma_extensions == RdmaPolicy::Require
        {
            return Err(Rule::RdmaRequired);
        }
        let digests =
            [(Key::HeaderDigest, self.wants.header_digest), (Key::DataDigest, self.wants.data_digest)];
        for (key, policy) in digests {
            if !session.rdma_extensions && !policy.values().contains(&digest(self.current(key))) {
                return Err(Rule::Answer(key));
            }
        }
        Ok((session, conn))
    }
}

fn digest(value: Value) -> Digest {
    if value == Value::Word("CRC32C") { Digest::Crc32c } else { Digest::None }
}

fn task_reporting(value: Value) -> TaskReporting {
    match value {
        Value::Word("ResponseFence") => TaskReporting::ResponseFence,
        Value::Word("FastAbort") => TaskReporting::FastAbort,
        _ => TaskReporting::Rfc3720,
    }
}
