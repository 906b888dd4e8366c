//! Mode pages (SPC-4 clause 7.5, SBC-3 clause 6.5). Offsets count from byte 2 of a page_0 format page and from byte
//! 4 of a sub_page format page: the first byte after PAGE LENGTH.

use crate::codec::{Parsed, Put, arr, flag, has, take};
use crate::layout::{bit, bits, bytes, records};
use alloc::vec::Vec;

records! {
    /// Read-Write Error Recovery, 01h (SBC-3 clause 6.5.8).
    ReadWriteErrorRecovery, 10 {
        /// AWRE: automatic write reallocation.
        awre: bool = bit(0, 7),
        /// ARRE: automatic read reallocation.
        arre: bool = bit(0, 6),
        /// TB: transfer the block that could not be recovered.
        tb: bool = bit(0, 5),
        /// RC: read continuous.
        rc: bool = bit(0, 4),
        /// EER: enable early recovery.
        eer: bool = bit(0, 3),
        /// PER: post errors that were recovered.
        per: bool = bit(0, 2),
        /// DTE: terminate on the first error that was recovered.
        dte: bool = bit(0, 1),
        /// DCR: do not use error correction.
        dcr: bool = bit(0, 0),
        /// READ RETRY COUNT.
        read_retry_count: u8 = bytes(1, 1),
        /// LBPERE: report logical block provisioning errors.
        lbpere: bool = bit(5, 7),
        /// WRITE RETRY COUNT.
        write_retry_count: u8 = bytes(6, 6),
        /// RECOVERY TIME LIMIT in milliseconds.
        recovery_time_limit: u16 = bytes(8, 9),
    }

    /// Verify Error Recovery, 07h (SBC-3 clause 6.5.9).
    VerifyErrorRecovery, 10 {
        /// EER: enable early recovery.
        eer: bool = bit(0, 3),
        /// PER: post errors that were recovered.
        per: bool = bit(0, 2),
        /// DTE: terminate on the first error that was recovered.
        dte: bool = bit(0, 1),
        /// DCR: do not use error correction.
        dcr: bool = bit(0, 0),
        /// VERIFY RETRY COUNT.
        verify_retry_count: u8 = bytes(1, 1),
        /// VERIFY RECOVERY TIME LIMIT in milliseconds.
        recovery_time_limit: u16 = bytes(8, 9),
    }

    /// Caching, 08h (SBC-3 clause 6.5.6).
    Caching, 18 {
        /// IC: the initiator controls the cache.
        ic: bool = bit(0, 7),
        /// ABPF: abort pre-fetch.
        abpf: bool = bit(0, 6),
        /// CAP: caching analysis permitted.
        cap: bool = bit(0, 5),
        /// DISC: pre-fetch across discontinuities.
        disc: bool = bit(0, 4),
        /// SIZE: the cache segment size counts.
        size: bool = bit(0, 3),
        /// WCE: a write may end when its data are in a volatile cache.
        wce: bool = bit(0, 2),
        /// MF: multiplication factor.
        mf: bool = bit(0, 1),
        /// RCD: reads do not come from the cache.
        rcd: bool = bit(0, 0),
        /// DEMAND READ RETENTION PRIORITY.
        read_retention: u8 = bits(1, 4, 4),
        /// WRITE RETENTION PRIORITY.
        write_retention: u8 = bits(1, 0, 4),
        /// DISABLE PRE-FETCH TRANSFER LENGTH.
        disable_prefetch: u16 = bytes(2, 3),
        /// MINIMUM PRE-FETCH.
        min_prefetch: u16 = bytes(4, 5),
        /// MAXIMUM PRE-FETCH.
        max_prefetch: u16 = bytes(6, 7),
        /// MAXIMUM PRE-FETCH CEILING.
        max_prefetch_ceiling: u16 = bytes(8, 9),
        /// FSW: force sequential write.
        fsw: bool = bit(10, 7),
        /// LBCSS: the cache segment size is in blocks.
        lbcss: bool = bit(10, 6),
        /// DRA: disable read-ahead.
        dra: bool = bit(10, 5),
        /// SYNC_PROG.
        sync_prog: u8 = bits(10, 1, 2),
        /// NV_DIS: do not use a non-volatile cache.
        nv_dis: bool = bit(10, 0),
        /// NUMBER OF CACHE SEGMENTS.
        cache_segments: u8 = bytes(11, 11),
        /// CACHE SEGMENT SIZE.
        cache_segment_size: u16 = bytes(12, 13),
    }

    /// Control, 0Ah (SPC-4 clause 7.5.8).
    Control, 10 {
        /// TST: 0 one task set for all I_T nexuses, 1 one for each.
        tst: u8 = bits(0, 5, 3),
        /// TMF_ONLY.
        tmf_only: bool = bit(0, 4),
        /// DPICZ: protection information checks are off with RDPROTECT and WRPROTECT 0.
        dpicz: bool = bit(0, 3),
        /// D_SENSE: sense data in descriptor format.
        d_sense: bool = bit(0, 2),
        /// GLTSD: log parameters are not saved implicitly.
        gltsd: bool = bit(0, 1),
        /// RLEC: report log exception conditions.
        rlec: bool = bit(0, 0),
        /// QUEUE ALGORITHM MODIFIER: 1 lets SIMPLE tasks be reordered.
        queue_algorithm: u8 = bits(1, 4, 4),
        /// NUAR: no unit attention on release.
        nuar: bool = bit(1, 3),
        /// QERR: 0 other tasks go on after CHECK CONDITION.
        qerr: u8 = bits(1, 1, 2),
        /// RAC: report a check.
        rac: bool = bit(2, 6),
        /// UA_INTLCK_CTRL.
        ua_intlck_ctrl: u8 = bits(2, 4, 2),
        /// SWP: software write protect.
        swp: bool = bit(2, 3),
        /// ATO: the application tag belongs to the initiator.
        ato: bool = bit(3, 7),
        /// TAS: tasks aborted by another I_T nexus end with TASK ABORTED status.
        tas: bool = bit(3, 6),
        /// ATMPE: the Application Tag mode page counts.
        atmpe: bool = bit(3, 5),
        /// RWWP: reject writes without protection.
        rwwp: bool = bit(3, 4),
        /// AUTOLOAD MODE.
        autoload_mode: u8 = bits(3, 0, 3),
        /// BUSY TIMEOUT PERIOD in 100 milliseconds.
        busy_timeout: u16 = bytes(6, 7),
        /// EXTENDED SELF-TEST COMPLETION TIME in seconds.
        extended_self_test_seconds: u16 = bytes(8, 9),
    }

    /// Control Extension, 0Ah/01h (SPC-4 clause 7.5.9).
    ControlExtension, 28 {
        /// TCMOS: the timestamp can be set by other means.
        tcmos: bool = bit(0, 2),
        /// SCSIP: SET TIMESTAMP takes precedence.
        scsip: bool = bit(0, 1),
        /// IALUAE: implicit asymmetric access.
        ialuae: bool = bit(0, 0),
        /// INITIAL COMMAND PRIORITY.
        initial_command_priority: u8 = bits(1, 0, 4),
        /// MAXIMUM SENSE DATA LENGTH.
        max_sense_length: u8 = bytes(2, 2),
    }

    /// A descriptor of the Application Tag page (SBC-3).
    ApplicationTagDescriptor, 24 {
        /// LAST: no descriptor after this one is valid.
        last: bool = bit(0, 7),
        /// LOGICAL BLOCK APPLICATION TAG: that of the blocks.
        application_tag: u16 = bytes(6, 7),
        /// LOGICAL BLOCK ADDRESS: the first of the blocks, which follow those of the descriptor before.
        lba: u64 = bytes(8, 15),
        /// LOGICAL BLOCK COUNT.
        blocks: u64 = bytes(16, 23),
    }

    /// Informational Exceptions Control, 1Ch (SPC-4 clause 7.5.12).
    InformationalExceptions, 10 {
        /// PERF: exceptions must not delay commands.
        perf: bool = bit(0, 7),
        /// EBF: enable background functions.
        ebf: bool = bit(0, 5),
        /// EWASC: report warnings.
        ewasc: bool = bit(0, 4),
        /// DEXCPT: disable exception control.
        dexcpt: bool = bit(0, 3),
        /// TEST: make a false failure prediction.
        test: bool = bit(0, 2),
        /// EBACKERR: report background errors.
        ebackerr: bool = bit(0, 1),
        /// LOGERR: log exceptions.
        logerr: bool = bit(0, 0),
        /// MRIE: method of reporting.
        mrie: u8 = bits(1, 0, 4),
        /// INTERVAL TIMER in 100 milliseconds.
        interval_timer: u32 = bytes(2, 5),
        /// REPORT COUNT.
        report_count: u32 = bytes(6, 9),
    }
}

/// Application Tag, 0Ah/02h (SBC-3): what application tags the blocks have while ATO and ATMPE of the Control page are
/// set. The standard leaves the number of descriptors to the device server; this is a page of four.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ApplicationTags {
    /// In the order of their blocks, up to the first with LAST.
    pub descriptors: [ApplicationTagDescriptor; 4],
}

/// Reserved bytes before the first descriptor.
const BEFORE_DESCRIPTORS: usize = 12;

impl ApplicationTags {
    /// Length of the page after PAGE LENGTH.
    pub const LEN: usize = 108;

    /// Where a descriptor begins in the page with its header.
    #[must_use]
    pub const fn position(descriptor: usize) -> usize {
        (4 + BEFORE_DESCRIPTORS).saturating_add(descriptor.saturating_mul(ApplicationTagDescriptor::LEN))
    }

    /// From what follows PAGE LENGTH; missing bytes count as zero.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let mut page = Self::default();
        let rest = bytes.get(BEFORE_DESCRIPTORS..).unwrap_or_default();
        for (descriptor, bytes) in page.descriptors.iter_mut().zip(rest.chunks(ApplicationTagDescriptor::LEN))
        {
            *descriptor = ApplicationTagDescriptor::decode(bytes);
        }
        page
    }

    /// What follows PAGE LENGTH, reserved bits zero.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let descriptors = self.descriptors.iter().flat_map(ApplicationTagDescriptor::encode);
        bytes.iter_mut().skip(BEFORE_DESCRIPTORS).zip(descriptors).for_each(|(to, from)| *to = from);
        bytes
    }

    /// The valid descriptors: up to the one with LAST, none if there is no such one.
    #[must_use]
    pub fn valid(&self) -> &[ApplicationTagDescriptor] {
        let last = self.descriptors.iter().position(|d| d.last);
        last.and_then(|last| self.descriptors.get(..=last)).unwrap_or_default()
    }
}

macro_rules! pages {
    ($($name:ident = $page:literal / $sub:literal;)*) => {
        /// A mode page without its header; PS is not kept.
        #[derive(Clone, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum ModePage {
            $(
                #[doc = concat!("See [`", stringify!($name), "`].")]
                $name($name),
            )*
            /// A page that this crate does not know.
            Unknown {
                /// PAGE CODE, 6 bits.
                page_code: u8,
                /// SUBPAGE CODE of a sub_page format page (SPF 1).
                subpage_code: Option<u8>,
                /// What follows PAGE LENGTH.
                data: Vec<u8>,
            },
        }

        impl ModePage {
            /// PAGE CODE.
            #[must_use]
            pub fn page_code(&self) -> u8 {
                match self {
                    $( Self::$name(_) => $page, )*
                    Self::Unknown { page_code, .. } => *page_code,
                }
            }

            /// SUBPAGE CODE; 0 for a page_0 format page.
            #[must_use]
            pub fn subpage_code(&self) -> u8 {
                match self {
                    $( Self::$name(_) => $sub, )*
                    Self::Unknown { subpage_code, .. } => subpage_code.unwrap_or(0),
                }
            }

            /// Appends the page with its header; PS, which MODE SELECT reserves, is 0.
            pub fn encode(&self, o: &mut Vec<u8>) {
                let mut put = |sub: Option<u8>, page: u8, data: &[u8]| {
                    match sub {
                        None => {
                            o.put_bytes(&[page & 0x3f, u8::try_from(data.len()).unwrap_or(u8::MAX)]);
                            o.extend(data.iter().take(255));
                        }
                        Some(sub) => {
                            o.put_bytes(&[flag(true, 6) | (page & 0x3f), sub]);
                            let at = o.len();
                            o.put16(0);
                            o.put_bytes(data);
                            o.fill_len16(at);
                        }
                    }
                };
                match self {
                    $( Self::$name(page) => put(if $sub == 0 { None } else { Some($sub) }, $page, &page.encode()), )*
                    Self::Unknown { page_code, subpage_code, data } => put(*subpage_code, *page_code, data),
                }
            }

            pub(super) fn decode(i: &[u8]) -> Parsed<'_, Self> {
                let (i, [code, second]) = arr(i)?;
                let (i, sub, len) = if has(code, 6) {
                    let (i, [l0, l1]) = arr(i)?;
                    (i, Some(second), usize::from(u16::from_be_bytes([l0, l1])))
                } else {
                    (i, None, usize::from(second))
                };
                let (i, data) = take(len)(i)?;
                let page_code = code & 0x3f;
                let page = match (page_code, sub.unwrap_or(0), sub.is_some()) {
                    // A known page of another length is not known.
                    $( ($page, $sub, spf) if spf == ($sub != 0) && data.len() == $name::LEN => {
                        Self::$name($name::decode(data))
                    } )*
                    _ => Self::Unknown { page_code, subpage_code: sub, data: data.to_vec() },
                };
                Ok((i, page))
            }
        }
    };
}

pages! {
    ReadWriteErrorRecovery = 0x01 / 0x00;
    VerifyErrorRecovery = 0x07 / 0x00;
    Caching = 0x08 / 0x00;
    Control = 0x0a / 0x00;
    ControlExtension = 0x0a / 0x01;
    ApplicationTags = 0x0a / 0x02;
    InformationalExceptions = 0x1c / 0x00;
}
