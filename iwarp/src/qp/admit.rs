//! What an incoming segment must be before any of it is placed (RFC 5041 section 7.1, RFC 5040 section 7.2).

use super::QueuePair;
use super::rx::Target;
use crate::ddp::{Header, Model};
use crate::rdmap::{Opcode, ReadRequest};
use crate::stag::{Kind, Stag};
use crate::{Memory, Terminate, TerminateCode};

/// A rule an incoming segment breaks.
pub(super) struct Broken {
    pub(super) code: TerminateCode,
    pub(super) request: Option<ReadRequest>,
}

impl From<TerminateCode> for Broken {
    fn from(code: TerminateCode) -> Self {
        Self { code, request: None }
    }
}

impl<M: Memory> QueuePair<M> {
    /// Validates a segment before any of it is placed (RFC 5041 section 7.1, RFC 5040 section 7.2), and says where its
    /// payload goes.
    pub(super) fn admit(&self, header: &Header, payload: usize) -> Result<Target, Broken> {
        match header.model {
            Model::Tagged { stag, offset } => self.admit_tagged(header, stag, offset, payload),
            Model::Untagged { invalidate, queue, msn, offset } => {
                self.admit_untagged(header, invalidate, queue, msn, offset, payload)
            }
        }
    }

    fn admit_tagged(
        &self,
        header: &Header,
        stag: Stag,
        offset: u64,
        payload: usize,
    ) -> Result<Target, Broken> {
        use TerminateCode as T;
        if header.version != crate::ddp::VERSION {
            return Err(T::DDP_TAGGED_VERSION.into());
        }
        if header.control.version != crate::rdmap::VERSION {
            return Err(T::RDMAP_VERSION.into());
        }
        match header.control.opcode {
            // STag and offset of no octets are not looked at (RFC 5041 section 5.2).
            Opcode::WRITE if payload == 0 => Ok(Target::Nothing),
            Opcode::WRITE => {
                self.table.check(stag, offset, payload as u64, Kind::Write)?;
                Ok(Target::Tagged { stag, offset })
            }
            Opcode::READ_RESPONSE => {
                let Some(read) = self.tx.reads.front() else { return Err(T::RDMAP_UNEXPECTED_OPCODE.into()) };
                let after = (payload as u64).saturating_add(u64::from(read.received));
                // Response and request belong together octet by octet (RFC 5040 section 5.2.2).
                if payload > 0 && stag != read.stag {
                    return Err(T::DDP_INVALID_STAG.into());
                }
                if after > u64::from(read.len) || (payload > 0 && offset != u64::from(read.received)) {
                    return Err(T::DDP_BOUNDS.into());
                }
                if header.last && after < u64::from(read.len) {
                    return Err(T::RDMAP_STREAM_CATASTROPHIC.into());
                }
                Ok(if payload == 0 { Target::Nothing } else { Target::Sink { offset: read.received } })
            }
            _ => Err(T::RDMAP_UNEXPECTED_OPCODE.into()),
        }
    }

    fn admit_untagged(
        &self,
        header: &Header,
        invalidate: Stag,
        queue: u32,
        msn: u32,
        offset: u32,
        payload: usize,
    ) -> Result<Target, Broken> {
        use TerminateCode as T;
        if header.version != crate::ddp::VERSION {
            return Err(T::DDP_UNTAGGED_VERSION.into());
        }
        let Some(state) = usize::try_from(queue).ok().and_then(|q| self.rx.queues.get(q)) else {
            return Err(T::DDP_INVALID_QN.into());
        };
        if msn != state.msn {
            return Err(T::DDP_INVALID_MSN.into());
        }
        let capacity = match queue {
            0 => self.recvs.front().map(|(_, m)| m.len()),
            // No more requests than were agreed on are taken (RFC 5040 section 6.1).
            1 => (self.tx.unanswered() < self.ird).then_some(ReadRequest::LEN),
            _ => Some(Terminate::MAX_LEN),
        };
        let Some(capacity) = capacity else { return Err(T::DDP_NO_BUFFER.into()) };
        // TCP delivers in order and a sender segments in order (RFC 5041 section 5.3): a gap would deliver octets that
        // nobody sent.
        if offset != state.partial.map_or(0, |p| p.offset) {
            return Err(T::DDP_INVALID_MO.into());
        }
        let end = u64::from(offset).saturating_add(payload as u64);
        if end > capacity as u64 || end > u64::from(u32::MAX) {
            return Err(T::DDP_TOO_LONG.into());
        }
        if header.control.version != crate::rdmap::VERSION {
            return Err(T::RDMAP_VERSION.into());
        }
        let opcode = header.control.opcode;
        let same = state.partial.is_none_or(|p| p.opcode == opcode && p.invalidate == invalidate);
        if opcode.queue() != Some(queue) || !same {
            return Err(T::RDMAP_UNEXPECTED_OPCODE.into());
        }
        Ok(match queue {
            _ if payload == 0 => Target::Nothing,
            0 => Target::Recv { offset },
            _ => Target::Control { queue, offset },
        })
    }
}
