use super::*;
use alloc::vec;
use proptest::prelude::*;

fn disk() -> StandardInquiry {
    StandardInquiry {
        flags: InquiryFlags {
            version: 6,
            hi_sup: true,
            response_data_format: 2,
            additional_length: 91,
            tpgs: 3,
            third_party_copy: true,
            cmd_que: true,
            ..InquiryFlags::default()
        },
        vendor: Ascii::new("VENDOR"),
        product: Ascii::new("Product"),
        revision: Ascii::new("1.2"),
        versions: vec![VersionDescriptor::SAM_5, VersionDescriptor::iscsi(1)],
    }
}

// SPC-4 table 175.
#[test]
fn standard_data_by_hand() {
    let bytes = disk().encode();
    assert_eq!(bytes.len(), 96);
    assert_eq!(bytes[..8], [0, 0, 6, 0x12, 91, 0x38, 0, 0x02]);
    assert_eq!(&bytes[8..36], b"VENDOR  Product         1.2 ");
    assert_eq!(bytes[58..62], [0x00, 0xa0, 0x09, 0x61]);
    assert_eq!(StandardInquiry::decode(&bytes), Ok(disk()));
}

// req: 7144-4.2-1
#[test]
fn version_descriptor_of_a_protocol_level() {
    assert_eq!(VersionDescriptor::iscsi(1), VersionDescriptor(0x0961));
    assert_eq!(VersionDescriptor::iscsi(2), VersionDescriptor(0x0962));
    assert_eq!(VersionDescriptor::iscsi(255), VersionDescriptor(0x097f));
}

#[test]
fn short_data_of_old_devices() {
    let mut bytes = disk().encode();
    bytes.truncate(36);
    bytes[4] = 31;
    let old = StandardInquiry::decode(&bytes).unwrap();
    assert_eq!((old.versions.len(), old.revision), (0, Ascii::new("1.2")));
    // Cut within the product.
    let cut = StandardInquiry::decode(&bytes[..20]).unwrap();
    assert_eq!((cut.product, cut.revision), (Ascii::new("Prod"), Ascii::default()));
    assert!(StandardInquiry::decode(&bytes[..4]).is_err());
}

#[test]
fn text_is_ascii() {
    assert_eq!(Ascii::<8>::new("größe!\u{7f}12345").0, *b"gr??e!?1");
    assert_eq!(alloc::format!("{} {:?}", Ascii::<8>::new("ab"), Ascii::<4>::new("c d")), "ab \"c d\"");
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(data) = StandardInquiry::decode(&bytes) {
            let again = StandardInquiry::decode(&data.encode()).unwrap();
            prop_assert_eq!(again.vendor, data.vendor);
            prop_assert_eq!(again.versions, data.versions);
        }
    }
}
