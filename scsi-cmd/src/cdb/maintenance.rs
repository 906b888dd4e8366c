//! Service actions of MAINTENANCE IN and MAINTENANCE OUT (SPC-4).

use crate::layout::{bit, bits, bytes, cdbs};

cdbs! {
    /// REPORT IDENTIFYING INFORMATION (SPC-4 clause 6.32).
    ReportIdentifyingInformation = 0xa3 / 0x05, 12 {
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(6, 9),
        /// IDENTIFYING INFORMATION TYPE.
        information_type: u8 = bits(10, 1, 7),
    }

    /// REPORT TARGET PORT GROUPS (SPC-4 clause 6.37).
    ReportTargetPortGroups = 0xa3 / 0x0a, 12 {
        /// PARAMETER DATA FORMAT: 0 length only, 1 extended header.
        parameter_data_format: u8 = bits(1, 5, 3),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(6, 9),
    }

    /// REPORT SUPPORTED OPERATION CODES (SPC-4 clause 6.35).
    ReportSupportedOpCodes = 0xa3 / 0x0c, 12 {
        /// RCTD: return command timeouts descriptors.
        rctd: bool = bit(2, 7),
        /// REPORTING OPTIONS: 0 all, 1 one operation code, 2 one service action, 3 either.
        reporting_options: u8 = bits(2, 0, 3),
        /// REQUESTED OPERATION CODE.
        requested_op_code: u8 = bytes(3, 3),
        /// REQUESTED SERVICE ACTION.
        requested_service_action: u16 = bytes(4, 5),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(6, 9),
    }

    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 clause 6.36).
    ReportSupportedTmfs = 0xa3 / 0x0d, 12 {
        /// REPD: return the extended parameter data.
        repd: bool = bit(2, 7),
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(6, 9),
    }

    /// REPORT TIMESTAMP (SPC-4 clause 6.38).
    ReportTimestamp = 0xa3 / 0x0f, 12 {
        /// ALLOCATION LENGTH in bytes: the most parameter data to return.
        allocation_length: u32 = bytes(6, 9),
    }

    /// SET IDENTIFYING INFORMATION (SPC-4 clause 6.44).
    SetIdentifyingInformation = 0xa4 / 0x06, 12 {
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u32 = bytes(6, 9),
        /// IDENTIFYING INFORMATION TYPE.
        information_type: u8 = bits(10, 1, 7),
    }

    /// SET TARGET PORT GROUPS (SPC-4 clause 6.45).
    SetTargetPortGroups = 0xa4 / 0x0a, 12 {
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u32 = bytes(6, 9),
    }

    /// SET TIMESTAMP (SPC-4 clause 6.46).
    SetTimestamp = 0xa4 / 0x0f, 12 {
        /// PARAMETER LIST LENGTH in bytes: the length of the Data-Out buffer.
        parameter_list_length: u32 = bytes(6, 9),
    }
}
