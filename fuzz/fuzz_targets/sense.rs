//! Sense data that decode keep their meaning in descriptor format.
//!
//! Input: sense data in either format, as a target sends them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scsi_cmd::Sense;

fuzz_target!(|bytes: &[u8]| {
    let Ok(sense) = Sense::decode(bytes) else { return };
    let again = Sense::decode(&sense.encode_descriptor()).expect("what was encoded decodes");
    assert_eq!((again.key, again.asc, again.information), (sense.key, sense.asc, sense.information));
    if again.other.len() == sense.other.len() {
        assert_eq!(again, sense);
    } else {
        assert!(again.sdat_ovfl, "descriptors that did not fit are announced");
    }
    assert!(Sense::decode(&sense.encode_fixed()).is_ok());
    let _ = (sense.field_pointer(), sense.progress(), sense.retry_count(), sense.asc.to_string());
});
