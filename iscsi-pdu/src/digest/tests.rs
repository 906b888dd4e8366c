//! Vectors of RFC 3720 appendix B.4, which RFC 7143 keeps, and one whole header from there.

use super::*;

const READ_10: [u8; BHS_LEN] = [
    0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0x14, 0, 0,
    0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
];

fn vectors() -> [([u8; 32], [u8; 4]); 4] {
    let up: [u8; 32] = core::array::from_fn(|i| i as u8);
    let down: [u8; 32] = core::array::from_fn(|i| 31 - i as u8);
    [
        ([0; 32], [0xaa, 0x36, 0x91, 0x8a]),
        ([0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
        (up, [0x4e, 0x79, 0xdd, 0x46]),
        (down, [0x5c, 0xdb, 0x3f, 0x11]),
    ]
}

#[test]
fn vectors_of_the_rfc() {
    // req: 7143-11.2-1, 7143-11.2-2
    for (input, wire) in vectors() {
        assert_eq!(data_digest([&input[..]]), wire);
        assert_eq!(soft::append(0, &input).to_le_bytes(), wire);
    }
    assert_eq!(header_digest(&READ_10, &[]), [0x56, 0x3a, 0x96, 0xd9]);
    assert_eq!(soft::append(0, &READ_10).to_le_bytes(), [0x56, 0x3a, 0x96, 0xd9]);
    assert_eq!(Crc32c::new().update(b"123456789").finish(), 0xe306_9283);
}

#[test]
fn pieces_do_not_matter() {
    for (input, wire) in vectors() {
        for cut in 0..=32 {
            let (a, b) = input.split_at(cut);
            assert_eq!(data_digest([a, b]), wire);
            assert_eq!(soft::append(soft::append(0, a), b).to_le_bytes(), wire);
        }
    }
}

#[test]
fn padding_and_ahs_are_covered() {
    // req: 7143-11.2-1, 7143-11.2-2
    for n in 0..=8 {
        let data = [0xa5; 8];
        let mut padded = data[..n].to_vec();
        padded.resize(n.div_ceil(4) * 4, 0);
        assert_eq!(data_digest([&data[..n]]), Crc32c::new().update(&padded).to_wire());
    }
    let whole = [&READ_10[..], &[0, 5, 2, 0, 0, 0, 16, 0]].concat();
    assert_eq!(header_digest(&READ_10, &whole[48..]), Crc32c::new().update(&whole).to_wire());
}

#[test]
fn an_empty_data_segment_has_no_digest() {
    assert_eq!((Digests::BOTH.data_len(0), Digests::BOTH.data_len(1), Digests::NONE.data_len(1)), (0, 4, 0));
    assert_eq!((Digests::BOTH.header_len(), Digests::NONE.header_len()), (4, 0));
}
