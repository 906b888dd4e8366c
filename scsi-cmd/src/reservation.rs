//! Persistent reservations (SPC-4 clauses 5.12, 6.15, 6.16).

use crate::codec::{Failure, Put, arr, be16, be32, be64, flag, has, records, run, take};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::layout::{bit, bits, bytes};
use crate::transport_id::TransportId;
use alloc::vec::Vec;

crate::codec::code! {
    /// SERVICE ACTION of PERSISTENT RESERVE IN.
    PrInAction(u8) {
        /// READ KEYS.
        0x00 => ReadKeys,
        /// READ RESERVATION.
        0x01 => ReadReservation,
        /// REPORT CAPABILITIES.
        0x02 => ReportCapabilities,
        /// READ FULL STATUS.
        0x03 => ReadFullStatus,
    }
}

crate::codec::code! {
    /// SERVICE ACTION of PERSISTENT RESERVE OUT.
    PrOutAction(u8) {
        /// REGISTER.
        0x00 => Register,
        /// RESERVE.
        0x01 => Reserve,
        /// RELEASE.
        0x02 => Release,
        /// CLEAR.
        0x03 => Clear,
        /// PREEMPT.
        0x04 => Preempt,
        /// PREEMPT AND ABORT.
        0x05 => PreemptAndAbort,
        /// REGISTER AND IGNORE EXISTING KEY.
        0x06 => RegisterAndIgnoreExistingKey,
        /// REGISTER AND MOVE.
        0x07 => RegisterAndMove,
    }
}

crate::codec::code! {
    /// TYPE of a persistent reservation, 4 bits.
    PrType(u8) {
        /// Write Exclusive.
        0x1 => WriteExclusive,
        /// Exclusive Access.
        0x3 => ExclusiveAccess,
        /// Write Exclusive – Registrants Only.
        0x5 => WriteExclusiveRegistrantsOnly,
        /// Exclusive Access – Registrants Only.
        0x6 => ExclusiveAccessRegistrantsOnly,
        /// Write Exclusive – All Registrants.
        0x7 => WriteExclusiveAllRegistrants,
        /// Exclusive Access – All Registrants.
        0x8 => ExclusiveAccessAllRegistrants,
    }
}

impl PrType {
    /// All types.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// Every registrant holds the reservation.
    #[must_use]
    pub const fn all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// Registered nexuses have the access of the holder.
    #[must_use]
    pub const fn registrants_have_access(self) -> bool {
        matches!(self.0, 0x5..=0x8)
    }

    /// Nexuses without access may not read either.
    #[must_use]
    pub const fn excludes_reads(self) -> bool {
        matches!(self.0, 0x3 | 0x6 | 0x8)
    }
}

/// READ KEYS parameter data (SPC-4 clause 6.15.2).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PrKeys {
    /// PRGENERATION.
    pub generation: u32,
    /// Reservation keys, one for each registered nexus.
    pub keys: Vec<u64>,
}

impl PrKeys {
    /// The data, ADDITIONAL LENGTH filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put32(self.generation);
        o.put32(0);
        self.keys.iter().for_each(|k| o.put64(*k));
        o.fill_len32(4);
        o
    }

    /// Decodes data that an allocation length may have cut: whole keys count.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] below 8 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, generation) = be32(i)?;
            let (i, len) = be32(i)?;
            let there = i.len().min(usize::try_from(len).unwrap_or(usize::MAX)) & !7;
            let (i, keys) = take(there)(i)?;
            let (_, keys) = records(keys, u64::from_be_bytes)?;
            Ok((i, Self { generation, keys }))
        })
    }
}

/// A reservation: READ RESERVATION parameter data (SPC-4 clause 6.15.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrReservation {
    /// RESERVATION KEY of the holder; 0 when all registrants hold it.
    pub key: u64,
    /// SCOPE; 0 is the logical unit.
    pub scope: u8,
    /// TYPE.
    pub pr_type: PrType,
}

/// READ RESERVATION parameter data: PRGENERATION and the reservation, if there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PrReservationData {
    /// PRGENERATION.
    pub generation: u32,
    /// The reservation.
    pub reservation: Option<PrReservation>,
}

impl PrReservationData {
    /// The data, ADDITIONAL LENGTH filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put32(self.generation);
        o.put32(0);
        if let Some(held) = self.reservation {
            o.put64(held.key);
            o.put_zeros(5);
            o.put8((held.scope << 4) | (held.pr_type.0 & 0x0f));
            o.put16(0);
        }
        o.fill_len32(4);
        o
    }

    /// Decodes the data.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when shorter than ADDITIONAL LENGTH says.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, generation) = be32(i)?;
            let (i, len) = be32(i)?;
            if len < 16 {
                return Ok((i, Self { generation, reservation: None }));
            }
            let (i, key) = be64(i)?;
            let (i, [_, _, _, _, _, scope_type, _, _]) = arr(i)?;
            let reservation =
                PrReservation { key, scope: scope_type >> 4, pr_type: PrType(scope_type & 0x0f) };
            Ok((i, Self { generation, reservation: Some(reservation) }))
        })
    }
}

crate::layout::records! {
    /// REPORT CAPABILITIES parameter data (SPC-4 clause 6.15.4).
    PrCapabilities, 8 {
        /// LENGTH; 8.
        length: u16 = bytes(0, 1),
        /// RLR_C: REPLACE LOST RESERVATION.
        rlr_c: bool = bit(2, 7),
        /// CRH: RESERVE and RELEASE are compatible with persistent reservations.
        crh: bool = bit(2, 4),
        /// SIP_C: SPEC_I_PT.
        sip_c: bool = bit(2, 3),
        /// ATP_C: ALL_TG_PT.
        atp_c: bool = bit(2, 2),
        /// PTPL_C: persistence through power loss.
        ptpl_c: bool = bit(2, 0),
        /// TMV: the type mask is valid.
        tmv: bool = bit(3, 7),
        /// ALLOW COMMANDS.
        allow_commands: u8 = bits(3, 4, 3),
        /// PTPL_A: persistence through power loss is on.
        ptpl_a: bool = bit(3, 0),
        /// PERSISTENT RESERVATION TYPE MASK; [`PrCapabilities::ALL_TYPES`] is all types.
        type_mask: u16 = bytes(4, 5),
    }
}

impl PrCapabilities {
    /// The mask of all six types.
    pub const ALL_TYPES: u16 = 0xea01;
}

/// Full status of one registration (SPC-4 clause 6.15.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrFullStatus {
    /// RESERVATION KEY.
    pub key: u64,
    /// ALL_TG_PT: the registration counts for all target ports.
    pub all_tg_pt: bool,
    /// R_HOLDER with SCOPE and TYPE: the nexus holds the reservation.
    pub held: Option<(u8, PrType)>,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_target_port: u16,
    /// The initiator port.
    pub transport_id: TransportId,
}

/// READ FULL STATUS parameter data.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PrFullStatusList {
    /// PRGENERATION.
    pub generation: u32,
    /// One for each registration.
    pub all: Vec<PrFullStatus>,
}

impl PrFullStatusList {
    /// The data, ADDITIONAL LENGTH filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put32(self.generation);
        o.put32(0);
        for status in &self.all {
            o.put64(status.key);
            o.put32(0);
            o.put8(flag(status.all_tg_pt, 1) | flag(status.held.is_some(), 0));
            o.put8(status.held.map_or(0, |(scope, pr_type)| (scope << 4) | (pr_type.0 & 0x0f)));
            o.put32(0);
            o.put16(status.relative_target_port);
            let at = o.len();
            o.put32(0);
            o.put_bytes(&status.transport_id.encode());
            o.fill_len32(at);
        }
        o.fill_len32(4);
        o
    }

    /// Decodes the data.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when shorter than a length says, and those of [`TransportId::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, generation) = be32(i)?;
            let (i, len) = be32(i)?;
            let (rest, mut i) = take(usize::try_from(len).unwrap_or(usize::MAX))(i)?;
            let mut all = Vec::new();
            while !i.is_empty() {
                let (after, key) = be64(i)?;
                let (after, [_, _, _, _, flags, scope_type, _, _, _, _]) = arr(after)?;
                let (after, relative_target_port) = be16(after)?;
                let (after, len) = be32(after)?;
                let (after, id) = take(usize::try_from(len).unwrap_or(usize::MAX))(after)?;
                let held = (scope_type >> 4, PrType(scope_type & 0x0f));
                all.push(PrFullStatus {
                    key,
                    all_tg_pt: has(flags, 1),
                    held: has(flags, 0).then_some(held),
                    relative_target_port,
                    transport_id: TransportId::parse(id)?.1,
                });
                i = after;
            }
            Ok((rest, Self { generation, all }))
        })
    }
}

/// Parameter list of PERSISTENT RESERVE OUT but for REGISTER AND MOVE (SPC-4 clause 6.16.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PrOutParameters {
    /// RESERVATION KEY.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub service_action_key: u64,
    /// SPEC_I_PT with the TransportIDs to register too.
    pub transport_ids: Option<Vec<TransportId>>,
    /// ALL_TG_PT.
    pub all_tg_pt: bool,
    /// APTPL: persist through power loss.
    pub aptpl: bool,
}

impl PrOutParameters {
    /// The list: 24 bytes without SPEC_I_PT.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put64(self.key);
        o.put64(self.service_action_key);
        o.put32(0);
        o.put8(flag(self.transport_ids.is_some(), 3) | flag(self.all_tg_pt, 2) | flag(self.aptpl, 0));
        o.put_zeros(3);
        if let Some(ids) = &self.transport_ids {
            let at = o.len();
            o.put32(0);
            ids.iter().for_each(|id| o.put_bytes(&id.encode()));
            o.fill_len32(at);
        }
        o
    }

    /// Decodes a list.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Length`] when it is not 24 bytes long and SPEC_I_PT is zero, [`DecodeErrorKind::Truncated`]
    /// when it ends early, and those of [`TransportId::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, key) = be64(i)?;
            let (i, service_action_key) = be64(i)?;
            let (i, [_, _, _, _, flags, _, _, _]) = arr(i)?;
            let (i, transport_ids) = if has(flags, 3) {
                let (i, len) = be32(i)?;
                let (rest, mut i) = take(usize::try_from(len).unwrap_or(usize::MAX))(i)?;
                let mut ids = Vec::new();
                while !i.is_empty() {
                    let (after, id) = TransportId::parse(i)?;
                    ids.push(id);
                    i = after;
                }
                (rest, Some(ids))
            } else if i.is_empty() {
                (i, None)
            } else {
                return Err(Failure::at(i, DecodeErrorKind::Length));
            };
            let list = Self {
                key,
                service_action_key,
                transport_ids,
                all_tg_pt: has(flags, 2),
                aptpl: has(flags, 0),
            };
            Ok((i, list))
        })
    }
}

/// Parameter list of REGISTER AND MOVE (SPC-4 clause 6.16.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrMoveParameters {
    /// RESERVATION KEY.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY: the new holder's.
    pub service_action_key: u64,
    /// UNREG: the old holder's registration is removed.
    pub unreg: bool,
    /// APTPL: persist through power loss.
    pub aptpl: bool,
    /// RELATIVE TARGET PORT IDENTIFIER of the new holder's nexus.
    pub relative_target_port: u16,
    /// Initiator port of the new holder's nexus.
    pub transport_id: TransportId,
}

impl PrMoveParameters {
    /// The list.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put64(self.key);
        o.put64(self.service_action_key);
        o.put_bytes(&[0, flag(self.unreg, 1) | flag(self.aptpl, 0)]);
        o.put16(self.relative_target_port);
        let at = o.len();
        o.put32(0);
        o.put_bytes(&self.transport_id.encode());
        o.fill_len32(at);
        o
    }

    /// Decodes a list.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when it ends early, and those of [`TransportId::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, key) = be64(i)?;
            let (i, service_action_key) = be64(i)?;
            let (i, [_, flags]) = arr(i)?;
            let (i, relative_target_port) = be16(i)?;
            let (i, len) = be32(i)?;
            // The field pointer of a wrong TransportID counts from the beginning of the list.
            if usize::try_from(len).is_ok_and(|len| len > i.len()) {
                return Err(Failure::at(&[], DecodeErrorKind::Truncated));
            }
            let (i, transport_id) = TransportId::parse(i)?;
            let (unreg, aptpl) = (has(flags, 1), has(flags, 0));
            Ok((i, Self { key, service_action_key, unreg, aptpl, relative_target_port, transport_id }))
        })
    }
}

#[cfg(test)]
mod tests;
