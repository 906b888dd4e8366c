//! Commands of SPC but for MAINTENANCE IN and OUT.

use crate::layout::{bit, bits, bytes, cdbs};

cdbs! {
    /// TEST UNIT READY (SPC-4 clause 6.47).
    TestUnitReady = 0x00, 6 {
    }

    /// REQUEST SENSE (SPC-4 clause 6.39).
    RequestSense = 0x03, 6 {
        /// DESC: descriptor format sense data is wanted.
        desc: bool = bit(1, 0),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u8 = bytes(4, 4),
    }

    /// INQUIRY (SPC-4 clause 6.6).
    Inquiry = 0x12, 6 {
        /// EVPD: a vital product data page is wanted.
        evpd: bool = bit(1, 0),
        /// PAGE CODE of the VPD page; 0 without EVPD.
        page_code: u8 = bytes(2, 2),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u16 = bytes(3, 4),
    }

    /// MODE SELECT(6) (SPC-4 clause 6.11).
    ModeSelect6 = 0x15, 6 {
        /// PF: the list holds pages as SPC defines them.
        pf: bool = bit(1, 4),
        /// SP: save the pages.
        sp: bool = bit(1, 0),
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u8 = bytes(4, 4),
    }

    /// MODE SELECT(10) (SPC-4 clause 6.12).
    ModeSelect10 = 0x55, 10 {
        /// PF: the list holds pages as SPC defines them.
        pf: bool = bit(1, 4),
        /// SP: save the pages.
        sp: bool = bit(1, 0),
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u16 = bytes(7, 8),
    }

    /// RESERVE(6) (SPC-2 clause 7.21). Third-party and extent fields are obsolete and not decoded.
    Reserve6 = 0x16, 6 {
    }

    /// RELEASE(6) (SPC-2 clause 7.16). Third-party and extent fields are obsolete and not decoded.
    Release6 = 0x17, 6 {
    }

    /// RESERVE(10) (SPC-2 clause 7.22) without third-party fields.
    Reserve10 = 0x56, 10 {
    }

    /// RELEASE(10) (SPC-2 clause 7.17) without third-party fields.
    Release10 = 0x57, 10 {
    }

    /// MODE SENSE(6) (SPC-4 clause 6.13).
    ModeSense6 = 0x1a, 6 {
        /// DBD: leave out block descriptors.
        dbd: bool = bit(1, 3),
        /// PC: 0 current, 1 changeable, 2 default, 3 saved values.
        page_control: u8 = bits(2, 6, 2),
        /// PAGE CODE; 0x3f is all pages.
        page_code: u8 = bits(2, 0, 6),
        /// SUBPAGE CODE; 0xff is all subpages.
        subpage_code: u8 = bytes(3, 3),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u8 = bytes(4, 4),
    }

    /// MODE SENSE(10) (SPC-4 clause 6.14).
    ModeSense10 = 0x5a, 10 {
        /// LLBAA: long LBA block descriptors are accepted.
        llbaa: bool = bit(1, 4),
        /// DBD: leave out block descriptors.
        dbd: bool = bit(1, 3),
        /// PC: 0 current, 1 changeable, 2 default, 3 saved values.
        page_control: u8 = bits(2, 6, 2),
        /// PAGE CODE; 0x3f is all pages.
        page_code: u8 = bits(2, 0, 6),
        /// SUBPAGE CODE; 0xff is all subpages.
        subpage_code: u8 = bytes(3, 3),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u16 = bytes(7, 8),
    }

    /// RECEIVE DIAGNOSTIC RESULTS (SPC-4 clause 6.26).
    ReceiveDiagnosticResults = 0x1c, 6 {
        /// PCV: PAGE CODE is valid.
        pcv: bool = bit(1, 0),
        /// PAGE CODE.
        page_code: u8 = bytes(2, 2),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u16 = bytes(3, 4),
    }

    /// SEND DIAGNOSTIC (SPC-4 clause 6.42).
    SendDiagnostic = 0x1d, 6 {
        /// SELF-TEST CODE: 0 none, 1 background short, 2 background extended, 4 abort, 5 foreground short, 6 foreground
        /// extended.
        self_test_code: u8 = bits(1, 5, 3),
        /// PF: the list is a diagnostic page.
        pf: bool = bit(1, 4),
        /// SELFTEST: run the default self-test.
        self_test: bool = bit(1, 2),
        /// DEVOFFL: the test may affect the device's other logical units.
        dev_offl: bool = bit(1, 1),
        /// UNITOFFL: the test may affect the medium.
        unit_offl: bool = bit(1, 0),
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u16 = bytes(3, 4),
    }

    /// WRITE BUFFER (SPC-4 clause 6.49).
    WriteBuffer = 0x3b, 10 {
        /// MODE SPECIFIC.
        mode_specific: u8 = bits(1, 5, 3),
        /// MODE.
        mode: u8 = bits(1, 0, 5),
        /// BUFFER ID.
        buffer_id: u8 = bytes(2, 2),
        /// BUFFER OFFSET, 24 bits.
        buffer_offset: u32 = bytes(3, 5),
        /// PARAMETER LIST LENGTH in bytes, 24 bits.
        parameter_list_length: u32 = bytes(6, 8),
    }

    /// READ BUFFER(10) (SPC-4 clause 6.18).
    ReadBuffer = 0x3c, 10 {
        /// MODE SPECIFIC.
        mode_specific: u8 = bits(1, 5, 3),
        /// MODE.
        mode: u8 = bits(1, 0, 5),
        /// BUFFER ID.
        buffer_id: u8 = bytes(2, 2),
        /// BUFFER OFFSET, 24 bits.
        buffer_offset: u32 = bytes(3, 5),
        /// ALLOCATION LENGTH in bytes, 24 bits.
        allocation_length: u32 = bytes(6, 8),
    }

    /// LOG SELECT (SPC-4 clause 6.7).
    LogSelect = 0x4c, 10 {
        /// PCR: reset parameters.
        pcr: bool = bit(1, 1),
        /// SP: save parameters.
        sp: bool = bit(1, 0),
        /// PC: 0 threshold, 1 cumulative, 2 default threshold, 3 default cumulative values.
        page_control: u8 = bits(2, 6, 2),
        /// PAGE CODE.
        page_code: u8 = bits(2, 0, 6),
        /// SUBPAGE CODE.
        subpage_code: u8 = bytes(3, 3),
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u16 = bytes(7, 8),
    }

    /// LOG SENSE (SPC-4 clause 6.8).
    LogSense = 0x4d, 10 {
        /// SP: save parameters.
        sp: bool = bit(1, 0),
        /// PC: 0 threshold, 1 cumulative, 2 default threshold, 3 default cumulative values.
        page_control: u8 = bits(2, 6, 2),
        /// PAGE CODE.
        page_code: u8 = bits(2, 0, 6),
        /// SUBPAGE CODE.
        subpage_code: u8 = bytes(3, 3),
        /// PARAMETER POINTER: the lowest parameter code wanted.
        parameter_pointer: u16 = bytes(5, 6),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u16 = bytes(7, 8),
    }

    /// PERSISTENT RESERVE IN (SPC-4 clause 6.15).
    PersistentReserveIn = 0x5e, 10 {
        /// SERVICE ACTION; see [`crate::reservation::PrInAction`].
        service_action: u8 = bits(1, 0, 5),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u16 = bytes(7, 8),
    }

    /// PERSISTENT RESERVE OUT (SPC-4 clause 6.16).
    PersistentReserveOut = 0x5f, 10 {
        /// SERVICE ACTION; see [`crate::reservation::PrOutAction`].
        service_action: u8 = bits(1, 0, 5),
        /// SCOPE; 0 is the logical unit.
        scope: u8 = bits(2, 4, 4),
        /// TYPE; see [`crate::reservation::PrType`].
        pr_type: u8 = bits(2, 0, 4),
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u32 = bytes(5, 8),
    }

    /// EXTENDED COPY(LID1) (SPC-4 clause 6.4).
    ExtendedCopyLid1 = 0x83 / 0x00, 16 {
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u32 = bytes(10, 13),
    }

    /// RECEIVE COPY STATUS, DATA, OPERATING PARAMETERS and FAILED SEGMENT DETAILS (LID1) (SPC-4 clauses 6.17 to
    /// 6.23).
    ReceiveCopyResults = 0x84, 16 {
        /// SERVICE ACTION: 0 copy status, 1 receive data, 3 operating parameters, 4 failed segment details.
        service_action: u8 = bits(1, 0, 5),
        /// LIST IDENTIFIER.
        list_identifier: u8 = bytes(2, 2),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(10, 13),
    }

    /// REPORT LUNS (SPC-4 clause 6.33).
    ReportLuns = 0xa0, 12 {
        /// SELECT REPORT: 0 all but well-known, 1 well-known, 2 all logical units.
        select_report: u8 = bytes(2, 2),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(6, 9),
    }
}
