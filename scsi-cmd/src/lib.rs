//! SCSI CDBs, sense data, VPD and mode pages (SAM, SPC, SBC); no_std.
