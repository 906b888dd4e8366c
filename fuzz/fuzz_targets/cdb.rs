//! A CDB that decodes encodes to one that decodes to the same; so do the parameter lists of commands.
//!
//! Input: the bytes of a CDB, or of a parameter list, as an initiator sends them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scsi_cmd::copy::CopyList;
use scsi_cmd::format::FormatHeader;
use scsi_cmd::ports::SetPortGroups;
use scsi_cmd::provisioning::UnmapList;
use scsi_cmd::reservation::{PrMoveParameters, PrOutParameters};
use scsi_cmd::{Cdb, Lun};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(cdb) = Cdb::decode(bytes) {
        assert_eq!(Cdb::decode(&cdb.encode()).as_ref(), Ok(&cdb));
        if let Some(io) = cdb.command.block_io() {
            let smallest = io.command().expect("what a CDB said, a CDB can say");
            let again = smallest.block_io().expect("still blocks");
            assert_eq!((again.kind, again.lba, again.blocks), (io.kind, io.lba, io.blocks));
        }
    }
    if let Some(lun) = bytes.first_chunk::<8>() {
        let lun = Lun(*lun);
        if let Some(n) = lun.to_single_level() {
            assert_eq!(Lun::single_level(n).and_then(Lun::to_single_level), Some(n));
        }
    }
    if let Ok(list) = UnmapList::decode(bytes) {
        assert_eq!(UnmapList::decode(&list.encode()), Ok(list));
    }
    if let Ok(list) = PrOutParameters::decode(bytes) {
        assert_eq!(PrOutParameters::decode(&list.encode()), Ok(list));
    }
    if let Ok(list) = PrMoveParameters::decode(bytes) {
        assert_eq!(PrMoveParameters::decode(&list.encode()), Ok(list));
    }
    if let Ok(list) = CopyList::decode(bytes) {
        assert_eq!(CopyList::decode(&list.encode()), Ok(list));
    }
    if let Ok(list) = SetPortGroups::decode(bytes) {
        assert_eq!(SetPortGroups::decode(&list.encode()), Ok(list));
    }
    let _ = FormatHeader::decode(bytes, true);
});
