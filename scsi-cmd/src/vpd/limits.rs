//! VPD pages of fixed layout: 86h, B0h, B1h, B2h. Offsets below count from the byte after PAGE LENGTH.

use crate::layout::{bit, bits, bytes, records};

records! {
    /// Extended INQUIRY Data (SPC-4 clause 7.8.7).
    ExtendedInquiry, 60 {
        /// ACTIVATE MICROCODE.
        activate_microcode: u8 = bits(0, 6, 2),
        /// SPT: the protection types that FORMAT UNIT can make.
        spt: u8 = bits(0, 3, 3),
        /// GRD_CHK: the guard is checked.
        grd_chk: bool = bit(0, 2),
        /// APP_CHK: the application tag is checked.
        app_chk: bool = bit(0, 1),
        /// REF_CHK: the reference tag is checked.
        ref_chk: bool = bit(0, 0),
        /// UASK_SUP: unit attention conditions may report other sense keys.
        uask_sup: bool = bit(1, 5),
        /// GROUP_SUP: GROUP NUMBER is used.
        group_sup: bool = bit(1, 4),
        /// PRIOR_SUP: task priority is used.
        prior_sup: bool = bit(1, 3),
        /// HEADSUP: HEAD OF QUEUE.
        head_sup: bool = bit(1, 2),
        /// ORDSUP: ORDERED.
        ord_sup: bool = bit(1, 1),
        /// SIMPSUP: SIMPLE.
        simp_sup: bool = bit(1, 0),
        /// WU_SUP: WRITE LONG with WR_UNCOR.
        wu_sup: bool = bit(2, 3),
        /// CRD_SUP: WRITE LONG with COR_DIS.
        crd_sup: bool = bit(2, 2),
        /// NV_SUP: there is a non-volatile cache.
        nv_sup: bool = bit(2, 1),
        /// V_SUP: there is a volatile cache.
        v_sup: bool = bit(2, 0),
        /// P_I_I_SUP: protection information intervals.
        p_i_i_sup: bool = bit(3, 4),
        /// LUICLR: I_T nexus loss clears the LUN inventory unit attention.
        luiclr: bool = bit(3, 0),
        /// R_SUP: referrals.
        r_sup: bool = bit(4, 4),
        /// CBCS: capability-based command security.
        cbcs: bool = bit(4, 0),
        /// MULTI I_T NEXUS MICROCODE DOWNLOAD.
        multi_it_nexus_microcode: u8 = bits(5, 0, 4),
        /// EXTENDED SELF-TEST COMPLETION MINUTES.
        extended_self_test_minutes: u16 = bytes(6, 7),
        /// POA_SUP: power on activation of microcode.
        poa_sup: bool = bit(8, 7),
        /// HRA_SUP: hard reset activation of microcode.
        hra_sup: bool = bit(8, 6),
        /// VSA_SUP: vendor specific activation of microcode.
        vsa_sup: bool = bit(8, 5),
        /// MAXIMUM SUPPORTED SENSE DATA LENGTH.
        max_sense_length: u8 = bytes(9, 9),
    }

    /// Block Limits (SBC-3 clause 6.6.4, SBC-4 for the atomic fields). Lengths are in logical blocks; 0 is "not
    /// reported".
    BlockLimits, 60 {
        /// WSNZ: WRITE SAME of 0 blocks is refused.
        wsnz: bool = bit(0, 0),
        /// MAXIMUM COMPARE AND WRITE LENGTH; 0 when there is no COMPARE AND WRITE.
        max_compare_and_write: u8 = bytes(1, 1),
        /// OPTIMAL TRANSFER LENGTH GRANULARITY.
        optimal_granularity: u16 = bytes(2, 3),
        /// MAXIMUM TRANSFER LENGTH.
        max_transfer: u32 = bytes(4, 7),
        /// OPTIMAL TRANSFER LENGTH.
        optimal_transfer: u32 = bytes(8, 11),
        /// MAXIMUM PREFETCH LENGTH.
        max_prefetch: u32 = bytes(12, 15),
        /// MAXIMUM UNMAP LBA COUNT.
        max_unmap_blocks: u32 = bytes(16, 19),
        /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
        max_unmap_descriptors: u32 = bytes(20, 23),
        /// OPTIMAL UNMAP GRANULARITY.
        optimal_unmap_granularity: u32 = bytes(24, 27),
        /// UGAVALID: `unmap_alignment` is valid.
        ugavalid: bool = bit(28, 7),
        /// UNMAP GRANULARITY ALIGNMENT, 31 bits.
        unmap_alignment: u32 = crate::layout::span(31, 31),
        /// MAXIMUM WRITE SAME LENGTH.
        max_write_same: u64 = bytes(32, 39),
        /// MAXIMUM ATOMIC TRANSFER LENGTH; 0 when there is no WRITE ATOMIC.
        max_atomic: u32 = bytes(40, 43),
        /// ATOMIC ALIGNMENT.
        atomic_alignment: u32 = bytes(44, 47),
        /// ATOMIC TRANSFER LENGTH GRANULARITY.
        atomic_granularity: u32 = bytes(48, 51),
        /// MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY.
        max_atomic_with_boundary: u32 = bytes(52, 55),
        /// MAXIMUM ATOMIC BOUNDARY SIZE.
        max_atomic_boundary: u32 = bytes(56, 59),
    }

    /// Block Device Characteristics (SBC-3 clause 6.6.3).
    BlockDeviceCharacteristics, 60 {
        /// MEDIUM ROTATION RATE: 0 not reported, 1 non-rotating, else rotations per minute.
        rotation_rate: u16 = bytes(0, 1),
        /// PRODUCT TYPE.
        product_type: u8 = bytes(2, 2),
        /// WABEREQ: what a read after a block erase sanitize returns.
        wabereq: u8 = bits(3, 6, 2),
        /// WACEREQ: what a read after a cryptographic erase returns.
        wacereq: u8 = bits(3, 4, 2),
        /// NOMINAL FORM FACTOR.
        form_factor: u8 = bits(3, 0, 4),
        /// FUAB: SYNCHRONIZE CACHE and FUA behave as SBC says.
        fuab: bool = bit(4, 1),
        /// VBULS: VERIFY of unmapped blocks with BYTCHK 1 is supported.
        vbuls: bool = bit(4, 0),
    }

    /// Logical Block Provisioning (SBC-3 clause 6.6.5) without the provisioning group descriptor.
    LogicalBlockProvisioning, 4 {
        /// THRESHOLD EXPONENT.
        threshold_exponent: u8 = bytes(0, 0),
        /// LBPU: UNMAP.
        lbpu: bool = bit(1, 7),
        /// LBPWS: WRITE SAME(16) with UNMAP.
        lbpws: bool = bit(1, 6),
        /// LBPWS10: WRITE SAME(10) with UNMAP.
        lbpws10: bool = bit(1, 5),
        /// LBPRZ: 1, unmapped blocks read as zeros; 2, as the provisioning initialization pattern.
        lbprz: u8 = bits(1, 2, 3),
        /// ANC_SUP: anchored blocks.
        anc_sup: bool = bit(1, 1),
        /// DP: a provisioning group descriptor follows.
        dp: bool = bit(1, 0),
        /// MINIMUM PERCENTAGE.
        minimum_percentage: u8 = bits(2, 3, 5),
        /// PROVISIONING TYPE: 0 full, 1 resource, 2 thin.
        provisioning_type: u8 = bits(2, 0, 3),
        /// THRESHOLD PERCENTAGE.
        threshold_percentage: u8 = bytes(3, 3),
    }
}
