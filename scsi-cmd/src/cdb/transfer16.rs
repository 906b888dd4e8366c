//! Reads, writes and verifies with CDBs of 16 and 32 bytes (SBC-3 clause 5, SBC-4).

use crate::layout::{bit, bits, bytes, cdbs};

cdbs! {
    /// READ(16) (SBC-3 clause 5.13).
    Read16 = 0x88, 16 {
        /// RDPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// RARC: rebuild assist.
        rarc: bool = bit(1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// COMPARE AND WRITE (SBC-3 clause 5.2).
    CompareAndWrite = 0x89, 16 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// NUMBER OF LOGICAL BLOCKS; the Data-Out buffer holds twice as many.
        blocks: u8 = bytes(13, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// WRITE(16) (SBC-3 clause 5.35).
    Write16 = 0x8a, 16 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// ORWRITE(16) (SBC-3 clause 5.5).
    OrWrite16 = 0x8b, 16 {
        /// ORPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// WRITE AND VERIFY(16) (SBC-3 clause 5.39).
    WriteAndVerify16 = 0x8e, 16 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(1, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// VERIFY(16) (SBC-3 clause 5.31).
    Verify16 = 0x8f, 16 {
        /// VRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(1, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// VERIFICATION LENGTH in blocks.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// WRITE SAME(16) (SBC-3 clause 5.44).
    WriteSame16 = 0x93, 16 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// ANCHOR: anchor instead of deallocate.
        anchor: bool = bit(1, 4),
        /// UNMAP: deallocate instead of writing, where the data allow.
        unmap: bool = bit(1, 3),
        /// NDOB: there is no Data-Out buffer, zeros are written.
        ndob: bool = bit(1, 0),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// NUMBER OF LOGICAL BLOCKS; 0 is up to the last block.
        blocks: u32 = bytes(10, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// WRITE ATOMIC(16) (SBC-4).
    WriteAtomic16 = 0x9c, 16 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(2, 9),
        /// ATOMIC BOUNDARY in blocks; 0 is none.
        atomic_boundary: u16 = bytes(10, 11),
        /// TRANSFER LENGTH in blocks.
        blocks: u16 = bytes(12, 13),
        /// GROUP NUMBER.
        group: u8 = bits(14, 0, 5),
    }

    /// READ(32) (SBC-3 clause 5.14).
    Read32 = 0x7f / 0x0009, 32 {
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// RDPROTECT: what to do with protection information.
        protect: u8 = bits(10, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(10, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(10, 3),
        /// RARC: rebuild assist.
        rarc: bool = bit(10, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(12, 19),
        /// EXPECTED INITIAL LOGICAL BLOCK REFERENCE TAG.
        expected_reference_tag: u32 = bytes(20, 23),
        /// EXPECTED LOGICAL BLOCK APPLICATION TAG.
        expected_application_tag: u16 = bytes(24, 25),
        /// LOGICAL BLOCK APPLICATION TAG MASK.
        application_tag_mask: u16 = bytes(26, 27),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(28, 31),
    }

    /// VERIFY(32) (SBC-3 clause 5.32).
    Verify32 = 0x7f / 0x000a, 32 {
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// VRPROTECT: what to do with protection information.
        protect: u8 = bits(10, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(10, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(10, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(12, 19),
        /// EXPECTED INITIAL LOGICAL BLOCK REFERENCE TAG.
        expected_reference_tag: u32 = bytes(20, 23),
        /// EXPECTED LOGICAL BLOCK APPLICATION TAG.
        expected_application_tag: u16 = bytes(24, 25),
        /// LOGICAL BLOCK APPLICATION TAG MASK.
        application_tag_mask: u16 = bytes(26, 27),
        /// VERIFICATION LENGTH in blocks.
        blocks: u32 = bytes(28, 31),
    }

    /// WRITE(32) (SBC-3 clause 5.36).
    Write32 = 0x7f / 0x000b, 32 {
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(10, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(10, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(10, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(12, 19),
        /// EXPECTED INITIAL LOGICAL BLOCK REFERENCE TAG.
        expected_reference_tag: u32 = bytes(20, 23),
        /// EXPECTED LOGICAL BLOCK APPLICATION TAG.
        expected_application_tag: u16 = bytes(24, 25),
        /// LOGICAL BLOCK APPLICATION TAG MASK.
        application_tag_mask: u16 = bytes(26, 27),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(28, 31),
    }

    /// WRITE AND VERIFY(32) (SBC-3 clause 5.40).
    WriteAndVerify32 = 0x7f / 0x000c, 32 {
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(10, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(10, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(10, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(12, 19),
        /// EXPECTED INITIAL LOGICAL BLOCK REFERENCE TAG.
        expected_reference_tag: u32 = bytes(20, 23),
        /// EXPECTED LOGICAL BLOCK APPLICATION TAG.
        expected_application_tag: u16 = bytes(24, 25),
        /// LOGICAL BLOCK APPLICATION TAG MASK.
        application_tag_mask: u16 = bytes(26, 27),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(28, 31),
    }

    /// WRITE SAME(32) (SBC-3 clause 5.45).
    WriteSame32 = 0x7f / 0x000d, 32 {
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(10, 5, 3),
        /// ANCHOR: anchor instead of deallocate.
        anchor: bool = bit(10, 4),
        /// UNMAP: deallocate instead of writing, where the data allow.
        unmap: bool = bit(10, 3),
        /// NDOB: there is no Data-Out buffer, zeros are written.
        ndob: bool = bit(10, 0),
        /// LOGICAL BLOCK ADDRESS.
        lba: u64 = bytes(12, 19),
        /// EXPECTED INITIAL LOGICAL BLOCK REFERENCE TAG.
        expected_reference_tag: u32 = bytes(20, 23),
        /// EXPECTED LOGICAL BLOCK APPLICATION TAG.
        expected_application_tag: u16 = bytes(24, 25),
        /// LOGICAL BLOCK APPLICATION TAG MASK.
        application_tag_mask: u16 = bytes(26, 27),
        /// NUMBER OF LOGICAL BLOCKS; 0 is up to the last block.
        blocks: u32 = bytes(28, 31),
    }
}
