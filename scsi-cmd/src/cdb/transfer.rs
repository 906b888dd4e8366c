//! Reads, writes and verifies with CDBs of 6, 10 and 12 bytes (SBC-3 clause 5).

use crate::layout::{bit, bits, bytes, cdbs, span};

cdbs! {
    /// READ(6) (SBC-2).
    Read6 = 0x08, 6 {
        /// LOGICAL BLOCK ADDRESS, 21 bits.
        lba: u32 = span(3, 21),
        /// TRANSFER LENGTH in blocks; 0 is 256.
        blocks: u8 = bytes(4, 4),
    }

    /// WRITE(6) (SBC-2).
    Write6 = 0x0a, 6 {
        /// LOGICAL BLOCK ADDRESS, 21 bits.
        lba: u32 = span(3, 21),
        /// TRANSFER LENGTH in blocks; 0 is 256.
        blocks: u8 = bytes(4, 4),
    }

    /// READ(10) (SBC-3 clause 5.11).
    Read10 = 0x28, 10 {
        /// RDPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// RARC: rebuild assist.
        rarc: bool = bit(1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// TRANSFER LENGTH in blocks.
        blocks: u16 = bytes(7, 8),
    }

    /// WRITE(10) (SBC-3 clause 5.33).
    Write10 = 0x2a, 10 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// TRANSFER LENGTH in blocks.
        blocks: u16 = bytes(7, 8),
    }

    /// WRITE AND VERIFY(10) (SBC-3 clause 5.37).
    WriteAndVerify10 = 0x2e, 10 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(1, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// TRANSFER LENGTH in blocks.
        blocks: u16 = bytes(7, 8),
    }

    /// VERIFY(10) (SBC-3 clause 5.29).
    Verify10 = 0x2f, 10 {
        /// VRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(1, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// VERIFICATION LENGTH in blocks.
        blocks: u16 = bytes(7, 8),
    }

    /// WRITE SAME(10) (SBC-3 clause 5.43).
    WriteSame10 = 0x41, 10 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// ANCHOR: anchor instead of deallocate.
        anchor: bool = bit(1, 4),
        /// UNMAP: deallocate instead of writing, where the data allow.
        unmap: bool = bit(1, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// GROUP NUMBER.
        group: u8 = bits(6, 0, 5),
        /// NUMBER OF LOGICAL BLOCKS; 0 is up to the last block.
        blocks: u16 = bytes(7, 8),
    }

    /// READ(12) (SBC-3 clause 5.12).
    Read12 = 0xa8, 12 {
        /// RDPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// RARC: rebuild assist.
        rarc: bool = bit(1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(6, 9),
        /// GROUP NUMBER.
        group: u8 = bits(10, 0, 5),
    }

    /// WRITE(12) (SBC-3 clause 5.34).
    Write12 = 0xaa, 12 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// FUA: the medium, not a volatile cache, is read or written.
        fua: bool = bit(1, 3),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(6, 9),
        /// GROUP NUMBER.
        group: u8 = bits(10, 0, 5),
    }

    /// WRITE AND VERIFY(12) (SBC-3 clause 5.38).
    WriteAndVerify12 = 0xae, 12 {
        /// WRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(1, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// TRANSFER LENGTH in blocks.
        blocks: u32 = bytes(6, 9),
        /// GROUP NUMBER.
        group: u8 = bits(10, 0, 5),
    }

    /// VERIFY(12) (SBC-3 clause 5.30).
    Verify12 = 0xaf, 12 {
        /// VRPROTECT: what to do with protection information.
        protect: u8 = bits(1, 5, 3),
        /// DPO: the blocks will not be needed soon.
        dpo: bool = bit(1, 4),
        /// BYTCHK: 0 medium only, 1 compare with the Data-Out buffer, 3 compare each block with its one block.
        bytchk: u8 = bits(1, 1, 2),
        /// LOGICAL BLOCK ADDRESS.
        lba: u32 = bytes(2, 5),
        /// VERIFICATION LENGTH in blocks.
        blocks: u32 = bytes(6, 9),
        /// GROUP NUMBER.
        group: u8 = bits(10, 0, 5),
    }
}
