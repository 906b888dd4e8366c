//! Any text as names, addresses and values: what is accepted is in normal form and harmless, and reads back.
#![no_main]

use iscsi_login::{sendtargets::*, value::*, *};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(records) = parse_records(data, RecordLimits::default()) {
        let tagged = records.iter().all(|r| r.addresses.iter().all(|a| a.portal_group_tag.is_some()));
        if tagged {
            let text = write_records(&records, data.len() * 4 + 64).unwrap();
            assert_eq!(parse_records(&text, RecordLimits::default()).as_ref(), Ok(&records));
        }
    }
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(name) = IscsiName::new(text) {
        assert_eq!(IscsiName::new(name.as_str()).as_ref(), Ok(&name));
        assert!(name.as_str().len() <= MAX_NAME_LEN);
        assert!(!name.as_str().contains(|c: char| c.is_control() || c.is_whitespace() || "/\\\"'%$`".contains(c)));
    }
    if let Ok(name) = LocalName::new(text) {
        assert!(name.as_str().len() <= MAX_LOCAL_NAME_LEN && !name.as_str().contains(char::is_control));
    }
    if let Ok(address) = text.parse::<TargetAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(what) = SendTargets::parse(text) {
        assert_eq!(SendTargets::parse(&what.to_string()), Ok(what));
    }
    if let Ok(bytes) = parse_binary(text, 64) {
        assert!(bytes.len() <= 64);
        for encoding in [BinaryEncoding::Hex, BinaryEncoding::Base64] {
            let again = parse_binary(&encoding.encode(&bytes), 64);
            assert!(bytes.is_empty() || again == Ok(bytes.clone()));
        }
    }
    if let Ok((low, high)) = parse_range(text) {
        assert!(low <= high);
    }
    let _ = (parse_boolean(text), parse_number(text));
});
