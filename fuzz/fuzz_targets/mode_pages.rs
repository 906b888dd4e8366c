//! A mode parameter list that decodes encodes to one that decodes to the same.
//!
//! Input: a byte whose lowest bit chooses the 10-byte header, then the list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scsi_cmd::mode::{ModeForm, ModeParameters};

fuzz_target!(|bytes: &[u8]| {
    let Some((form, list)) = bytes.split_first() else { return };
    let form = if form & 1 == 1 { ModeForm::Ten } else { ModeForm::Six };
    let Ok(list) = ModeParameters::decode(list, form) else { return };
    // BLOCK DESCRIPTOR LENGTH of the 6-byte header can say no more than 31 short descriptors.
    assert_eq!(ModeParameters::decode(&list.encode(form, true), form).as_ref(), Ok(&list));
    assert_eq!(ModeParameters::decode(&list.encode(form, false), form), Ok(list));
});
