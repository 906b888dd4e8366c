//! Commands of SBC that move no user data between initiator and medium.

use crate::layout::{bit, bits, bytes, cdbs};

cdbs! {
    /// FORMAT UNIT (SBC-3 clause 5.3).
    FormatUnit = 0x04, 6 {
        /// FMTPINFO: protection information, with the list's PROTECTION FIELD USAGE.
        fmt_pinfo: u8 = bits(1, 6, 2),
        /// LONGLIST: the list has a long header.
        long_list: bool = bit(1, 5),
        /// FMTDATA: there is a parameter list.
        fmt_data: bool = bit(1, 4),
        /// CMPLST: the defect list is complete.
        cmp_lst: bool = bit(1, 3),
        /// DEFECT LIST FORMAT.
        defect_list_format: u8 = bits(1, 0, 3),
        /// FFMT: fast format (SBC-4).
        ffmt: u8 = bits(4, 0, 2),
    }

    /// START STOP UNIT (SBC-3 clause 5.25).
    StartStopUnit = 0x1b, 6 {
        /// IMMED: status before the work is done.
        immed: bool = bit(1, 0),
        /// POWER CONDITION MODIFIER.
        power_condition_modifier: u8 = bits(3, 0, 4),
        /// POWER CONDITION; 0 means that START and LOEJ count.
        power_condition: u8 = bits(4, 4, 4),
        /// NO_FLUSH: do not write caches to the medium first.
        no_flush: bool = bit(4, 2),
        /// LOEJ: load or eject the medium.
        loej: bool = bit(4, 1),
        /// START.
        start: bool = bit(4, 0),
    }

    /// PREVENT ALLOW MEDIUM REMOVAL (SBC-3 clause 5.10).
    PreventAllowMediumRemoval = 0x1e, 6 {
        /// PREVENT: 0 allow, 1 prevent.
        prevent: u8 = bits(4, 0, 2),
    }

    /// READ CAPACITY(10) (SBC-3 clause 5.15).
    ReadCapacity10 = 0x25, 10 {
        /// LOGICAL BLOCK ADDRESS, obsolete.
        lba: u32 = bytes(2, 5),
        /// PMI, obsolete.
        pmi: bool = bit(8, 0),
    }

    /// READ CAPACITY(16) (SBC-3 clause 5.16).
    ReadCapacity16 = 0x9e / 0x10, 16 {
        /// LOGICAL BLOCK ADDRESS, obsolete.
        lba: u64 = bytes(2, 9),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(10, 13),
        /// PMI, obsolete.
        pmi: bool = bit(14, 0),
    }

    /// GET LBA STATUS(16) (SBC-3 clause 5.4).
    GetLbaStatus = 0x9e / 0x12, 16 {
        /// STARTING LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(10, 13),
    }

    /// PRE-FETCH(10) (SBC-3 clause 5.8).
    PreFetch10 = 0x34, 10 {
        /// IMMED: status before the work is done.
        immed: bool = bit(1, 1),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// PREFETCH LENGTH in blocks; 0 is up to the last block.
        blocks: u16 = bytes(7, 8),
    }

    /// PRE-FETCH(16) (SBC-3 clause 5.9).
    PreFetch16 = 0x90, 16 {
        /// IMMED: status before the work is done.
        immed: bool = bit(1, 1),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// PREFETCH LENGTH in blocks; 0 is up to the last block.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// SYNCHRONIZE CACHE(10) (SBC-3 clause 5.26).
    SynchronizeCache10 = 0x35, 10 {
        /// IMMED: status before the work is done.
        immed: bool = bit(1, 1),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// NUMBER OF LOGICAL BLOCKS; 0 is up to the last block.
        blocks: u16 = bytes(7, 8),
    }

    /// SYNCHRONIZE CACHE(16) (SBC-3 clause 5.27).
    SynchronizeCache16 = 0x91, 16 {
        /// IMMED: status before the work is done.
        immed: bool = bit(1, 1),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// NUMBER OF LOGICAL BLOCKS; 0 is up to the last block.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// READ DEFECT DATA(10) (SBC-3 clause 5.17).
    ReadDefectData10 = 0x37, 10 {
        /// REQ_PLIST: the primary list is wanted.
        req_plist: bool = bit(2, 4),
        /// REQ_GLIST: the grown list is wanted.
        req_glist: bool = bit(2, 3),
        /// DEFECT LIST FORMAT.
        defect_list_format: u8 = bits(2, 0, 3),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u16 = bytes(7, 8),
    }

    /// READ DEFECT DATA(12) (SBC-3 clause 5.18).
    ReadDefectData12 = 0xb7, 12 {
        /// REQ_PLIST: the primary list is wanted.
        req_plist: bool = bit(1, 4),
        /// REQ_GLIST: the grown list is wanted.
        req_glist: bool = bit(1, 3),
        /// DEFECT LIST FORMAT.
        defect_list_format: u8 = bits(1, 0, 3),
        /// ADDRESS DESCRIPTOR INDEX.
        address_descriptor_index: u32 = bytes(2, 5),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(6, 9),
    }

    /// UNMAP (SBC-3 clause 5.28).
    Unmap = 0x42, 10 {
        /// ANCHOR: anchor instead of deallocate.
        anchor: bool = bit(1, 0),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u16 = bytes(7, 8),
    }

    /// SANITIZE (SBC-3 clause 5.24).
    Sanitize = 0x48, 10 {
        /// IMMED: status before the work is done.
        immed: bool = bit(1, 7),
        /// ZNR: zoned no reset (SBC-4).
        znr: bool = bit(1, 6),
        /// AUSE: allow an unrestricted sanitize exit.
        ause: bool = bit(1, 5),
        /// SERVICE ACTION: 0x01 overwrite, 0x02 block erase, 0x03 cryptographic erase, 0x1f exit failure mode.
        service_action: u8 = bits(1, 0, 5),
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u16 = bytes(7, 8),
    }
}
