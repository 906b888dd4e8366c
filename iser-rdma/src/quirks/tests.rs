use super::*;

use iscsi_pdu::{AsyncMessage, NopIn, ScsiResponse, TextResponse};

fn keyed(mut keys: ConnKeys, f: impl FnOnce(&mut ConnKeys)) -> ConnKeys {
    f(&mut keys);
    keys
}

#[test]
fn the_write_base_follows_the_key_and_the_field() {
    let quirks = Quirks::default();
    let keys = |v| {
        keyed(ConnKeys::default(), |k| {
            k.tagged_buffer_for_solicited_data_only = v;
        })
    };
    // RFC 7145 section 6.9 for an explicit value; ib_iser and libiscsi for none.
    assert_eq!(quirks.write_base(&keys(Some(true))), WriteBase::Solicited);
    assert_eq!(quirks.write_base(&keys(Some(false))), WriteBase::Whole);
    assert_eq!(quirks.write_base(&keys(None)), WriteBase::Solicited);
    let forced = Quirks { write_base: Some(WriteBase::Whole), ..Quirks::default() };
    assert_eq!(forced.write_base(&keys(None)), WriteBase::Whole);
}

#[test]
fn initiators_of_the_field_get_128_bytes() {
    let quirks = Quirks::default();
    // The kernel's initiator declares 262144 and none of the newer keys.
    let kernel = keyed(ConnKeys::default(), |k| {
        k.initiator_recv_data_segment_length = 262_144;
    });
    assert_eq!(quirks.response_data(&kernel), 128);
    let honest = keyed(kernel.clone(), |k| {
        k.tagged_buffer_for_solicited_data_only = Some(true);
    });
    assert_eq!(quirks.response_data(&honest), 262_144);
    let known = Quirks { max_response_data: Some(512), ..Quirks::default() };
    assert_eq!(known.response_data(&kernel), 512);
}

#[test]
fn sense_data_is_cut_with_its_length() {
    let mut data = vec![0, 252];
    data.extend((0..252).map(|n| n as u8));
    let data = Bytes::from(data);
    let Pdu::ScsiResponse(cut) = fit(ScsiResponse { data: data.clone(), ..Default::default() }.into(), 128)
    else {
        panic!("another PDU")
    };
    assert_eq!(cut.data.len(), 128);
    assert_eq!(cut.data[..2], [0, 126]);
    assert_eq!(cut.data[2..], data[2..128]);
    let Pdu::AsyncMessage(cut) = fit(AsyncMessage { data, ..Default::default() }.into(), 128) else {
        panic!("another PDU")
    };
    assert_eq!(cut.data[..2], [0, 126]);
}

#[test]
fn response_data_behind_the_sense_data_goes_first() {
    let mut data = vec![0, 18];
    data.extend([7; 18]);
    data.extend([9; 200]);
    let Pdu::ScsiResponse(cut) = fit(ScsiResponse { data: data.into(), ..Default::default() }.into(), 128)
    else {
        panic!("another PDU")
    };
    assert_eq!(cut.data[..2], [0, 18]);
    assert_eq!(cut.data[2..], [7; 18]);
}

#[test]
fn a_ping_is_cut_and_text_is_not() {
    let data = Bytes::from(vec![1; 300]);
    let ping = NopIn { itt: Itt(1), data: data.clone(), ..Default::default() };
    assert_eq!(fit(ping.into(), 128).data().map(Bytes::len), Some(128));
    let text = TextResponse { data, ..Default::default() };
    assert_eq!(fit(text.into(), 128).data().map(Bytes::len), Some(300));
    let short = NopIn { itt: Itt(1), data: Bytes::from_static(b"abc"), ..Default::default() };
    assert_eq!(fit(short.clone().into(), 128), Pdu::NopIn(short));
}

#[test]
fn private_data_of_the_field() {
    // ib_iser and ib_isert over RoCEv2 and siw: 0x80 and three zeros; InfiniBand pads REQ to 56 bytes.
    let mut padded = [0u8; 56];
    padded[0] = 0x80;
    let usual = CmHeader { no_zero_based_va: true, no_send_invalidate: false };
    assert_eq!(CmHeader::decode(&padded), usual);
    assert_eq!(usual.encode(), [0x80, 0, 0, 0]);
    // libiscsi.
    assert_eq!(CmHeader { no_send_invalidate: true, ..usual }.encode(), [0xc0, 0, 0, 0]);
    // tgt sends none.
    assert_eq!(CmHeader::decode(&[]), CmHeader::default());
}
