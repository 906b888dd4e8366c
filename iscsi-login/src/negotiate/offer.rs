//! What an end proposes and declares of its own accord.

use super::*;

impl Negotiation {
    /// An initiator's offers and declarations: the full set at once, so that no target has to ask.
    // req: 7143-6.3.3-1, 7145-5.1-6, 7145-6.3-3, 7143-13.22-2
    pub(crate) fn offer_all(&mut self, text: &mut Answer) -> Result<(), Rule> {
        for key in Key::ALL.iter().copied() {
            if !self.initiator_offers(key) {
                continue;
            }
            let value = match key.def().result {
                ResultFunction::Declared => self.declaration(key),
                _ => Some(self.wish(key).text()),
            };
            if let Some(value) = value {
                self.offer(key, &value, text)?;
            }
        }
        Ok(())
    }

    pub(super) fn offer(&mut self, key: Key, value: &str, text: &mut Answer) -> Result<(), Rule> {
        text.push(key.name(), value)?;
        let offer = match self.wish(key) {
            Wish::Number(n) if key.def().result != ResultFunction::Declared => Some(n),
            _ => None,
        };
        self.slots.set(key, Slot { offered: true, offer, ..self.slot(key) });
        Ok(())
    }

    pub(super) fn initiator_offers(&self, key: Key) -> bool {
        let rdma = match self.place.joined {
            Some(session) => session.rdma_extensions,
            None => self.wants.rdma_extensions != RdmaPolicy::Never && !self.discovery(),
        };
        let iser_only = match self.place.joined {
            Some(session) => session.rdma_extensions,
            None => rdma && self.wants.rdma_extensions == RdmaPolicy::Require,
        };
        let here =
            check_use(key, self.role, Some(Stage::LoginOperationalNegotiation), self.leading()).is_ok();
        let relevant = key.def().irrelevant.iter().all(|condition| match condition {
            Irrelevant::Discovery => !self.discovery(),
            Irrelevant::WithoutRdma => rdma,
            Irrelevant::WithRdma => !iser_only,
            Irrelevant::NoUnsolicitedData => true,
        });
        let wanted = match key {
            Key::RdmaExtensions => rdma,
            Key::TaskReporting => !self.wants.task_reporting.is_empty(),
            Key::IscsiProtocolLevel => self.wants.iscsi_protocol_level > 1,
            Key::MaxRecvDataSegmentLength => !iser_only,
            _ => key.def().stage == StageUse::Operational && key.def().result != ResultFunction::Refused,
        };
        here && relevant && wanted
    }

    /// What this end declares for a declarative key, if anything.
    // req: 7145-6.7-1
    pub(super) fn declaration(&self, key: Key) -> Option<String> {
        let number = |n: Option<u32>| n.map(|n| n.to_string());
        let boolean = |b: Option<bool>| b.map(|b| boolean_text(b).to_owned());
        match key {
            Key::MaxRecvDataSegmentLength => Some(self.wants.max_recv_data_segment_length.to_string()),
            Key::MaxOutstandingUnexpectedPdus => number(self.wants.max_outstanding_unexpected_pdus),
            Key::MaxAhsLength => number(self.wants.max_ahs_length),
            Key::TaggedBufferForSolicitedDataOnly => {
                boolean(self.wants.tagged_buffer_for_solicited_data_only)
            }
            Key::IserHelloRequired => boolean(self.wants.iser_hello_required),
            Key::NodeArchitecture => self.wants.node_architecture.value().map(str::to_owned),
            _ => None,
        }
    }

    /// A target's declarations, and its offers for keys whose value in force it cannot live with. Offers wait until
    /// the initiator has `finished` with its own; RDMAExtensions cannot wait (RFC 7145 section 6.3).
    // req: 7145-6.3-4
    pub(crate) fn offer_needed(&mut self, finished: bool, text: &mut Answer) -> Result<(), Rule> {
        let rdma = self.slot(Key::RdmaExtensions);
        let may_need_rdma = self.leading() && !self.discovery() && !rdma.seen && !rdma.offered;
        if may_need_rdma && self.wants.rdma_extensions == RdmaPolicy::Require {
            self.offer(Key::RdmaExtensions, boolean_text(true), text)?;
        }
        if self.slot(Key::RdmaExtensions).offered && !self.slot(Key::RdmaExtensions).settled {
            return Ok(());
        }
        for key in Key::ALL.iter().copied() {
            let slot = self.slot(key);
            if slot.offered
                || check_use(key, self.role, Some(Stage::LoginOperationalNegotiation), true).is_err()
            {
                continue;
            }
            if key.def().result == ResultFunction::Declared {
                if let Some(value) = self.declaration(key).filter(|_| self.target_declares(key)) {
                    self.offer(key, &value, text)?;
                }
            } else if finished && self.target_needs(key) {
                self.offer(key, &self.wish(key).text(), text)?;
            }
        }
        Ok(())
    }

    /// Keys of later RFCs are declared to those alone who have shown that they know them.
    pub(super) fn target_declares(&self, key: Key) -> bool {
        match key.def().origin {
            Origin::Rfc7143 => !self.rdma(),
            Origin::Rfc4850 => self.leading(),
            Origin::Rfc7144 | Origin::Rfc7145 => {
                self.slot(key).seen && !self.irrelevant(key) && self.leading()
            }
        }
    }

    pub(super) fn target_needs(&self, key: Key) -> bool {
        let def = key.def();
        let negotiable = def.stage == StageUse::Operational
            && matches!(
                def.result,
                ResultFunction::Minimum
                    | ResultFunction::Maximum
                    | ResultFunction::And
                    | ResultFunction::Or
                    | ResultFunction::First
            );
        let known_to_peer = def.origin == Origin::Rfc7143 || (def.origin == Origin::Rfc7145 && self.rdma());
        let allowed = self.leading() || def.usage != Usage::Lo;
        negotiable
            && known_to_peer
            && allowed
            && !self.slot(key).settled
            && !self.irrelevant(key)
            && !self.accepts(key, self.current(key))
    }

    /// Whether a target would have to offer something if the initiator ended the login now.
    pub(crate) fn needs_offers(&self) -> bool {
        let must_rdma =
            self.leading() && !self.discovery() && self.wants.rdma_extensions == RdmaPolicy::Require;
        (must_rdma && !self.slot(Key::RdmaExtensions).seen) || Key::ALL.iter().any(|k| self.target_needs(*k))
    }

    /// A key that this end has offered and whose answer is still to come, whether or not silence would do.
    pub(crate) fn open_offer(&self) -> Option<Key> {
        Key::ALL.iter().copied().find(|key| {
            let slot = self.slot(*key);
            slot.offered && !slot.settled && key.def().result != ResultFunction::Declared
        })
    }

    /// The peer will not answer any more: closes the offers whose result does not need an answer.
    ///
    /// # Errors
    /// [`Rule::Unanswered`] with the first key that does need one.
    // req: 7143-6.2.2-6, 7144-7.1.1-1
    pub(crate) fn close(&mut self) -> Result<(), Rule> {
        while let Some(key) = self.open_offer() {
            let value = match (key.def().result, self.wish(key)) {
                (ResultFunction::And, Wish::Bool(false)) => Some(Value::Bool(false)),
                (ResultFunction::Or, Wish::Bool(true)) => Some(Value::Bool(true)),
                _ if key.def().origin == Origin::Rfc7143 => return Err(Rule::Unanswered(key)),
                _ => None,
            };
            self.slots.set(key, Slot { settled: true, value, ..self.slot(key) });
        }
        Ok(())
    }

    /// The peer's last word: nothing can be answered any more, so all that may still be open are proposals whose result
    /// needs no answer.
    ///
    /// # Errors
    /// [`Rule::NotAllowedHere`] with the first key that would need one.
    // req: 7143-6.3-14, 7143-6.2.2-6
    pub(crate) fn settle_last(&mut self) -> Result<(), Rule> {
        for (key, proposal) in core::mem::take(&mut self.pending) {
            let value = match (key.def().result, proposal) {
                (ResultFunction::And, Proposal::Value(no @ Value::Bool(false))) => Some(no),
                (ResultFunction::Or, Proposal::Value(yes @ Value::Bool(true))) => Some(yes),
                (ResultFunction::Refused, _) => None,
                _ => return Err(Rule::NotAllowedHere(key)),
            };
            self.slots.set(key, Slot { settled: true, value, ..self.slot(key) });
        }
        Ok(())
    }
}
