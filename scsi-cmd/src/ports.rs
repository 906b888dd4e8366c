//! Asymmetric logical unit access: REPORT and SET TARGET PORT GROUPS (SPC-4 clauses 5.15, 6.37, 6.45).

use crate::codec::{Put, arr, be16, be32, records, run, take};
use crate::error::DecodeError;
use crate::layout::{bit, bits, bytes};
use alloc::vec::Vec;

crate::codec::code! {
    /// ASYMMETRIC ACCESS STATE, 4 bits.
    AccessState(u8) {
        /// Active/optimized.
        0x0 => ActiveOptimized,
        /// Active/non-optimized.
        0x1 => ActiveNonOptimized,
        /// Standby.
        0x2 => Standby,
        /// Unavailable.
        0x3 => Unavailable,
        /// Logical block dependent.
        0x4 => LbaDependent,
        /// Offline.
        0xe => Offline,
        /// Transitioning.
        0xf => Transitioning,
    }
}

crate::layout::records! {
    /// Target port group descriptor without its target ports (SPC-4 clause 6.37.2).
    PortGroupState, 8 {
        /// PREF: the preferred group.
        pref: bool = bit(0, 7),
        /// ASYMMETRIC ACCESS STATE; see [`AccessState`].
        state: u8 = bits(0, 0, 4),
        /// T_SUP: transitioning is supported.
        t_sup: bool = bit(1, 7),
        /// O_SUP: offline.
        o_sup: bool = bit(1, 6),
        /// LBD_SUP: logical block dependent.
        lbd_sup: bool = bit(1, 4),
        /// U_SUP: unavailable.
        u_sup: bool = bit(1, 3),
        /// S_SUP: standby.
        s_sup: bool = bit(1, 2),
        /// AN_SUP: active/non-optimized.
        an_sup: bool = bit(1, 1),
        /// AO_SUP: active/optimized.
        ao_sup: bool = bit(1, 0),
        /// TARGET PORT GROUP.
        group: u16 = bytes(2, 3),
        /// STATUS CODE: 0 none, 1 by SET TARGET PORT GROUPS, 2 implicitly.
        status_code: u8 = bytes(5, 5),
        /// VENDOR SPECIFIC.
        vendor: u8 = bytes(6, 6),
        /// TARGET PORT COUNT; [`PortGroups::encode`] fills it in.
        port_count: u8 = bytes(7, 7),
    }
}

/// A target port group and its ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortGroup {
    /// State and abilities; the port count is that of `ports`.
    pub state: PortGroupState,
    /// RELATIVE TARGET PORT IDENTIFIERs; at most 255.
    pub ports: Vec<u16>,
}

/// REPORT TARGET PORT GROUPS parameter data.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortGroups {
    /// IMPLICIT TRANSITION TIME in seconds, in the extended header alone.
    pub transition_time: Option<u8>,
    /// The groups.
    pub groups: Vec<PortGroup>,
}

impl PortGroups {
    /// The data with the length-only header, or with the extended one when there is a transition time.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put32(0);
        if let Some(seconds) = self.transition_time {
            o.put_bytes(&[0x10, seconds, 0, 0]);
        }
        for group in &self.groups {
            let port_count = u8::try_from(group.ports.len()).unwrap_or(u8::MAX);
            o.put_bytes(&PortGroupState { port_count, ..group.state }.encode());
            for port in group.ports.iter().take(255) {
                o.put16(0);
                o.put16(*port);
            }
        }
        o.fill_len32(0);
        o
    }

    /// Decodes the data.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] when a descriptor is not whole.
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        run(data, |i| {
            let (i, len) = be32(i)?;
            let (rest, mut i) = take(usize::try_from(len).unwrap_or(usize::MAX))(i)?;
            let mut transition_time = None;
            // FORMAT TYPE 001b: no group descriptor begins with these bits.
            if let Ok((after, [0x10, seconds, _, _])) = arr(i) {
                transition_time = Some(seconds);
                i = after;
            }
            let mut groups = Vec::new();
            while !i.is_empty() {
                let (after, state) = arr::<8>(i)?;
                let state = PortGroupState::decode(&state);
                let (after, ports) = take(usize::from(state.port_count).saturating_mul(4))(after)?;
                let (_, ports) = records(ports, |[_, _, p0, p1]| u16::from_be_bytes([p0, p1]))?;
                groups.push(PortGroup { state, ports });
                i = after;
            }
            Ok((rest, Self { transition_time, groups }))
        })
    }
}

/// SET TARGET PORT GROUPS parameter list: groups and the states wanted of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SetPortGroups(pub Vec<(u16, AccessState)>);

impl SetPortGroups {
    /// The list.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put32(0);
        for (group, state) in &self.0 {
            o.put_bytes(&[state.0 & 0x0f, 0]);
            o.put16(*group);
        }
        o
    }

    /// Decodes a list.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] when a descriptor is not whole.
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        run(data, |i| {
            let (mut i, _) = arr::<4>(i)?;
            let mut all = Vec::new();
            while !i.is_empty() {
                let (after, [state, _]) = arr(i)?;
                let (after, group) = be16(after)?;
                all.push((group, AccessState(state & 0x0f)));
                i = after;
            }
            Ok((i, Self(all)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    // SPC-4 tables 263 and 264.
    #[test]
    fn two_groups_by_hand() {
        let state = PortGroupState { ao_sup: true, an_sup: true, group: 1, ..PortGroupState::default() };
        let standby =
            PortGroupState { state: 2, group: 2, s_sup: true, status_code: 1, ..PortGroupState::default() };
        let groups = PortGroups {
            transition_time: None,
            groups: vec![
                PortGroup { state: PortGroupState { port_count: 1, ..state }, ports: vec![1] },
                PortGroup { state: PortGroupState { port_count: 2, ..standby }, ports: vec![2, 3] },
            ],
        };
        let bytes = hex::decode(
            "0000001c 0003000100000001 00000001 0204000200010002 00000002 00000003".replace(' ', ""),
        )
        .unwrap();
        assert_eq!(groups.encode(), bytes);
        assert_eq!(PortGroups::decode(&bytes).as_ref(), Ok(&groups));
        let extended = PortGroups { transition_time: Some(5), ..groups };
        assert_eq!(extended.encode()[..8], [0, 0, 0, 0x20, 0x10, 5, 0, 0]);
        assert_eq!(PortGroups::decode(&extended.encode()), Ok(extended));
    }

    proptest! {
        #[test]
        fn set_survives(all in prop::collection::vec(any::<(u16, u8)>(), 0..8)) {
            let list = SetPortGroups(all.into_iter().map(|(g, s)| (g, AccessState(s & 0x0f))).collect());
            let bytes = list.encode();
            prop_assert_eq!(SetPortGroups::decode(&bytes), Ok(list));
            if bytes.len() > 4 {
                prop_assert!(SetPortGroups::decode(&bytes[..bytes.len() - 1]).is_err());
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = PortGroups::decode(&bytes);
            let _ = SetPortGroups::decode(&bytes);
        }
    }
}
