//! REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4 clauses 6.35, 6.36).

use crate::codec::{Put, arr, be16, be32, flag, has, run, take};
use crate::error::DecodeError;
use crate::layout::{bit, bytes, records};
use alloc::vec::Vec;

/// Command timeouts descriptor (SPC-4 clause 6.35.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CommandTimeouts {
    /// COMMAND SPECIFIC.
    pub command_specific: u8,
    /// NOMINAL COMMAND PROCESSING TIMEOUT in seconds; 0 is none.
    pub nominal: u32,
    /// RECOMMENDED COMMAND TIMEOUT in seconds; 0 is none.
    pub recommended: u32,
}

impl CommandTimeouts {
    fn put(&self, o: &mut Vec<u8>) {
        o.put16(0x000a);
        o.put_bytes(&[0, self.command_specific]);
        o.put32(self.nominal);
        o.put32(self.recommended);
    }

    fn decode(i: &[u8]) -> crate::codec::Parsed<'_, Self> {
        let (i, [_, _, _, command_specific, n0, n1, n2, n3, r0, r1, r2, r3]) = arr(i)?;
        let nominal = u32::from_be_bytes([n0, n1, n2, n3]);
        let recommended = u32::from_be_bytes([r0, r1, r2, r3]);
        Ok((i, Self { command_specific, nominal, recommended }))
    }
}

/// Command descriptor of the all_commands format (SPC-4 clause 6.35.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommandDescriptor {
    /// OPERATION CODE.
    pub op_code: u8,
    /// SERVICE ACTION with SERVACTV.
    pub service_action: Option<u16>,
    /// CDB LENGTH.
    pub cdb_length: u16,
    /// Command timeouts descriptor with CTDP.
    pub timeouts: Option<CommandTimeouts>,
}

/// Parameter data of the all_commands format.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllCommands(pub Vec<CommandDescriptor>);

impl AllCommands {
    /// The data, COMMAND DATA LENGTH filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put32(0);
        for command in &self.0 {
            o.put_bytes(&[command.op_code, 0]);
            o.put16(command.service_action.unwrap_or(0));
            o.put8(0);
            o.put8(flag(command.timeouts.is_some(), 1) | flag(command.service_action.is_some(), 0));
            o.put16(command.cdb_length);
            command.timeouts.iter().for_each(|t| t.put(&mut o));
        }
        o.fill_len32(0);
        o
    }

    /// Decodes data that may have been cut by an allocation length: whole descriptors count.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] below 4 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, len) = be32(i)?;
            let (rest, mut i) = take(i.len().min(usize::try_from(len).unwrap_or(usize::MAX)))(i)?;
            let mut all = Vec::new();
            while let Ok((after, [op_code, _, s0, s1, _, flags, l0, l1])) = arr(i) {
                let (after, timeouts) = match (has(flags, 1), CommandTimeouts::decode(after)) {
                    (false, _) => (after, None),
                    (true, Ok((after, timeouts))) => (after, Some(timeouts)),
                    (true, Err(_)) => break,
                };
                all.push(CommandDescriptor {
                    op_code,
                    service_action: has(flags, 0).then(|| u16::from_be_bytes([s0, s1])),
                    cdb_length: u16::from_be_bytes([l0, l1]),
                    timeouts,
                });
                i = after;
            }
            Ok((rest, Self(all)))
        })
    }
}

crate::codec::code! {
    /// SUPPORT of the one_command format, 3 bits.
    Support(u8) {
        /// Data are not available now.
        0 => NotAvailable,
        /// The command is not supported.
        1 => NotSupported,
        /// Supported in conformance with a standard.
        3 => Supported,
        /// Supported in a vendor specific manner.
        5 => VendorSpecific,
    }
}

/// Parameter data of the one_command format (SPC-4 clause 6.35.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OneCommand {
    /// SUPPORT.
    pub support: Support,
    /// CDB USAGE DATA; empty when the command is not supported.
    pub usage: Vec<u8>,
    /// Command timeouts descriptor with CTDP.
    pub timeouts: Option<CommandTimeouts>,
}

impl OneCommand {
    /// The data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        o.put_bytes(&[0, flag(self.timeouts.is_some(), 7) | (self.support.0 & 0x07)]);
        o.put16(u16::try_from(self.usage.len()).unwrap_or(u16::MAX));
        o.put_bytes(&self.usage);
        self.timeouts.iter().for_each(|t| t.put(&mut o));
        o
    }

    /// Decodes the data.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] when they end early.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, [_, flags]) = arr(i)?;
            let (i, len) = be16(i)?;
            let (i, usage) = take(usize::from(len))(i)?;
            let (i, timeouts) = if has(flags, 7) {
                let (i, timeouts) = CommandTimeouts::decode(i)?;
                (i, Some(timeouts))
            } else {
                (i, None)
            };
            Ok((i, Self { support: Support(flags & 0x07), usage: usage.to_vec(), timeouts }))
        })
    }
}

records! {
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS basic parameter data (SPC-4 clause 6.36.2).
    SupportedTmfs, 4 {
        /// ATS: ABORT TASK.
        abort_task: bool = bit(0, 7),
        /// ATSS: ABORT TASK SET.
        abort_task_set: bool = bit(0, 6),
        /// CACAS: CLEAR ACA.
        clear_aca: bool = bit(0, 5),
        /// CTSS: CLEAR TASK SET.
        clear_task_set: bool = bit(0, 4),
        /// LURS: LOGICAL UNIT RESET.
        logical_unit_reset: bool = bit(0, 3),
        /// QTS: QUERY TASK.
        query_task: bool = bit(0, 2),
        /// TRS: TARGET RESET.
        target_reset: bool = bit(0, 1),
        /// WAKES: WAKEUP.
        wakeup: bool = bit(0, 0),
        /// QAES: QUERY ASYNCHRONOUS EVENT.
        query_asynchronous_event: bool = bit(1, 2),
        /// QTSS: QUERY TASK SET.
        query_task_set: bool = bit(1, 1),
        /// ITNRS: I_T NEXUS RESET.
        it_nexus_reset: bool = bit(1, 0),
        /// ADDITIONAL DATA LENGTH: 0, or 12 for the extended parameter data.
        additional_length: u8 = bytes(3, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    // SPC-4 tables 245 and 246.
    #[test]
    fn formats_by_hand() {
        let timeouts = Some(CommandTimeouts { command_specific: 0, nominal: 1, recommended: 30 });
        let all = AllCommands(vec![
            CommandDescriptor { op_code: 0, service_action: None, cdb_length: 6, timeouts: None },
            CommandDescriptor { op_code: 0x9e, service_action: Some(0x10), cdb_length: 16, timeouts },
        ]);
        let bytes = hex::decode(
            "0000001c 0000000000000006 9e00001000030010 000a00000000000100 00001e".replace(' ', ""),
        )
        .unwrap();
        assert_eq!(all.encode(), bytes);
        assert_eq!(AllCommands::decode(&bytes).as_ref(), Ok(&all));
        assert_eq!(AllCommands::decode(&bytes[..20]).unwrap().0.len(), 1);
        let one = OneCommand { support: Support::Supported, usage: vec![0, 0, 0, 0, 0, 0], timeouts: None };
        assert_eq!(one.encode(), [0, 3, 0, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(OneCommand::decode(&one.encode()), Ok(one));
        let tmfs = SupportedTmfs {
            abort_task: true,
            logical_unit_reset: true,
            it_nexus_reset: true,
            ..Default::default()
        };
        assert_eq!(tmfs.encode(), [0x88, 0x01, 0, 0]);
    }

    proptest! {
        #[test]
        fn survive(all in prop::collection::vec(any::<(u8, Option<u16>, u16, Option<(u8, u32, u32)>)>(), 0..20),
                   usage in prop::collection::vec(any::<u8>(), 0..40)) {
            let timeouts = |t: Option<(u8, u32, u32)>| t.map(|(command_specific, nominal, recommended)|
                CommandTimeouts { command_specific, nominal, recommended });
            let all = AllCommands(all.into_iter().map(|(op_code, service_action, cdb_length, t)|
                CommandDescriptor { op_code, service_action, cdb_length, timeouts: timeouts(t) }).collect());
            let one = OneCommand { support: Support(3), usage, timeouts: all.0.first().and_then(|c| c.timeouts) };
            prop_assert_eq!(AllCommands::decode(&all.encode()), Ok(all));
            prop_assert_eq!(OneCommand::decode(&one.encode()), Ok(one));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = AllCommands::decode(&bytes);
            let _ = OneCommand::decode(&bytes);
        }
    }
}
