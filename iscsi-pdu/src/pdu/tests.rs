//! What the encoder refuses, what it puts in place of reserved fields, and the PDUs made by constructors.
//! Byte vectors of all PDUs are in `tests/vectors.rs`, laws in `tests/laws.rs`.

use super::*;

fn header<D: DataLen>(pdu: impl Into<Pdu<D>>) -> Result<[u8; BHS_LEN], EncodeError> {
    let mut bhs = [0xff; BHS_LEN];
    pdu.into().encode_header(&mut bhs).map(|()| bhs)
}

fn refused(pdu: impl Into<Pdu<()>>) -> EncodeError {
    header(pdu).expect_err("refused")
}

#[test]
fn padding_is_zero_and_brings_every_segment_to_four_bytes() {
    // req: 7143-11.1-1, 7143-11.2-4, 7143-11.2-5, 7143-11.2.1.6-1
    for n in 0..=8_u8 {
        let data = Bytes::from(vec![0xff; n.into()]);
        let wire = Pdu::from(NopOut { itt: Itt(7), data, ..Default::default() }).to_bytes().unwrap();
        let n = usize::from(n);
        assert_eq!(wire.len(), BHS_LEN + n.div_ceil(4) * 4);
        assert_eq!(wire[5..8], [0, 0, n as u8]);
        assert!(wire[BHS_LEN + n..].iter().all(|b| *b == 0));
    }
}

#[test]
fn what_is_reserved_under_the_circumstances_does_not_travel() {
    // req: 7143-11-1
    let lun = Lun([0, 5, 0, 0, 0, 0, 0, 0]);
    let luns: [(Pdu<()>, Pdu<()>); 4] = [
        (
            DataOut { lun, ..Default::default() }.into(),
            DataOut { lun, ttt: Ttt(1), ..Default::default() }.into(),
        ),
        (NopIn { lun, ..Default::default() }.into(), NopIn { lun, ttt: Ttt(1), ..Default::default() }.into()),
        (
            TextRequest { lun, ..Default::default() }.into(),
            TextRequest { lun, ttt: Ttt(1), ..Default::default() }.into(),
        ),
        (
            TextResponse { lun, ..Default::default() }.into(),
            TextResponse { lun, ttt: Ttt(1), ..Default::default() }.into(),
        ),
    ];
    for (without_tag, with_tag) in luns {
        assert_eq!(header(without_tag).unwrap()[9], 0);
        assert_eq!(header(with_tag).unwrap()[9], 5);
    }
    let logout = |reason| LogoutRequest { reason, cid: Cid(5), ..Default::default() };
    assert_eq!(header::<()>(logout(LogoutReason::CloseSession)).unwrap()[21], 0);
    assert_eq!(header::<()>(logout(LogoutReason::CloseConnection)).unwrap()[21], 5);
    let data_in = DataIn::<()> {
        residual: Residual::Overflow(7),
        lun,
        ttt: Ttt(1),
        stat_sn: StatSn(9),
        final_pdu: true,
        ..Default::default()
    };
    let bhs = header(data_in.clone()).unwrap();
    assert_eq!((bhs[1], bhs[9], bhs[27], bhs[47]), (0x80, 0, 0, 0));
    assert_eq!(bhs[20..24], [0xff; 4]);
    let bhs = header(DataIn { status: Some(ScsiStatus::Good), acknowledge: true, ..data_in }).unwrap();
    assert_eq!((bhs[1], bhs[9], bhs[23], bhs[27], bhs[47]), (0xc5, 5, 1, 9, 7));
    let event = |event| AsyncMessage::<()> { event, lun, vendor_code: 6, ..Default::default() };
    for (code, [l, v]) in [(0, [5, 0]), (1, [0, 0]), (4, [0, 0]), (5, [5, 0]), (248, [5, 6]), (255, [5, 6])] {
        let bhs = header(event(AsyncEvent(code))).unwrap();
        assert_eq!((bhs[9], bhs[37]), (l, v), "event {code}");
    }
    // req: 7143-11.12.3-1
    let login = LoginRequest::<()> { nsg: Stage::FullFeaturePhase, ..Default::default() };
    assert_eq!(header(login).unwrap()[1], 0);
    let reject = LoginResponse::<()> {
        transit: true,
        csg: Stage(1),
        nsg: Stage(3),
        status_class: 2,
        ..Default::default()
    };
    assert_eq!(header(reject).unwrap()[1], 0);
}

#[test]
fn lengths_that_do_not_fit() {
    let long = SegmentLen { ahs_words: 0, data: MAX_DATA_SEGMENT_LEN };
    assert!(header(DataIn { data: long, ..Default::default() }).is_ok());
    let longer = SegmentLen { ahs_words: 0, data: MAX_DATA_SEGMENT_LEN + 1 };
    assert_eq!(
        header(DataIn { data: longer, ..Default::default() }),
        Err(EncodeError::DataTooLong { len: 1 << 24 })
    );
    let cdb = |n| ScsiCommand {
        final_pdu: true,
        ahs: alloc::vec![Ahs::ExtendedCdb(Bytes::from(vec![0; n]))],
        ..Default::default()
    };
    assert_eq!(header(cdb(1016)).unwrap()[4], 255);
    assert_eq!(refused(cdb(1017)), EncodeError::AhsTooLong { len: 1024 });
}

#[test]
fn flags_that_exclude_each_other() {
    // req: 7143-11.3.1-1, 7143-11.3.1-3, 7143-11.3.1-4, 7143-11.3.4-1, 7143-11.7.3-4, 7143-11.10.2-1
    // req: 7143-11.11.2-1, 7143-11.12.2-1, 7143-11.13.7-1, 7143-11.18.1-4
    let command = ScsiCommand { final_pdu: true, ..Default::default() };
    let rule = |r| EncodeError::Rule(r);
    assert_eq!(refused(ScsiCommand { final_pdu: false, ..command.clone() }), rule(Rule::FinalOrWrite));
    let directionless = ScsiCommand { expected_data_transfer_length: 512, ..command.clone() };
    assert_eq!(refused(directionless), rule(Rule::LengthWithoutDirection));
    assert_eq!(refused(ScsiCommand { attr: TaskAttr(5), ..command.clone() }), rule(Rule::TaskAttr));
    let both = ScsiCommand { read: true, write: true, ..command.clone() };
    assert_eq!(refused(both.clone()), rule(Rule::BidirectionalAhs));
    let cdb_only = alloc::vec![Ahs::ExtendedCdb(Bytes::from_static(&[1]))];
    assert_eq!(refused(ScsiCommand { ahs: cdb_only, ..both.clone() }), rule(Rule::BidirectionalAhs));
    assert!(header::<()>(ScsiCommand { ahs: alloc::vec![Ahs::BidirectionalReadLength(0)], ..both }).is_ok());
    assert_eq!(refused(ScsiCommand { priority: 16, ..command }), rule(Rule::FieldWidth));

    let status = DataIn { status: Some(ScsiStatus::Good), ..Default::default() };
    assert_eq!(refused(status), rule(Rule::StatusWithoutFinal));
    let text = TextRequest { final_pdu: true, continue_text: true, ..Default::default() };
    assert_eq!(refused(text), rule(Rule::ContinueExcludesFinal));
    let text = TextResponse { final_pdu: true, continue_text: true, ..Default::default() };
    assert_eq!(refused(text), rule(Rule::ContinueExcludesFinal));
    let login = LoginRequest { transit: true, continue_text: true, ..Default::default() };
    assert_eq!(refused(login), rule(Rule::ContinueExcludesFinal));
    let login = LoginResponse { transit: true, continue_text: true, ..Default::default() };
    assert_eq!(refused(login), rule(Rule::ContinueExcludesFinal));
    assert_eq!(refused(NopOut::default()), rule(Rule::NopOutImmediate));
    assert_eq!(refused(NopIn { itt: Itt(1), ttt: Ttt(1), ..Default::default() }), rule(Rule::NopInTags));
}

#[test]
fn codes_that_are_reserved_or_too_wide() {
    // req: 7143-11-3, 7143-11.12.3-1, 7143-11.12.5-5, 7143-11.14.1-1, 7143-11.16.4-2, 7143-11.16.5-1
    let rule = |r| EncodeError::Rule(r);
    for stage in [2, 4, 7] {
        assert_eq!(refused(LoginRequest { csg: Stage(stage), ..Default::default() }), rule(Rule::LoginStage));
        let nsg = LoginResponse { transit: true, nsg: Stage(stage), ..Default::default() };
        assert_eq!(refused(nsg), rule(Rule::LoginStage));
    }
    assert_eq!(refused(LoginRequest { isid: Isid([0xc0; 6]), ..Default::default() }), rule(Rule::IsidType));
    assert_eq!(
        refused(LogoutRequest { reason: LogoutReason(3), ..Default::default() }),
        rule(Rule::LogoutReason)
    );
    assert_eq!(refused(Snack { kind: SnackType(4), ..Default::default() }), rule(Rule::SnackType));
    assert_eq!(refused(Snack::data_r2t(Itt::NONE, 0, 0)), rule(Rule::SnackTask));
    assert_eq!(refused(Snack::r_data(Itt::NONE, SnackTag(1))), rule(Rule::SnackTask));
    assert_eq!(refused(Snack::r_data(Itt(1), SnackTag(0))), rule(Rule::SnackTag));
    assert_eq!(refused(Snack::r_data(Itt(1), SnackTag(u32::MAX))), rule(Rule::SnackTag));
    let function = TaskMgmtRequest { function: TaskMgmtFunction(0x80), ..Default::default() };
    assert_eq!(refused(function), rule(Rule::FieldWidth));
}

#[test]
fn negotiation_reset_is_received_but_never_sent() {
    // req: 7143-11.17.1-1
    for reason in 0..=255 {
        let sent = header::<()>(Reject { reason: RejectReason(reason), ..Default::default() });
        assert_eq!(sent.is_err(), reason == 0x0b);
    }
    let mut bhs = header::<()>(Reject::default()).unwrap();
    bhs[2] = 0x0b;
    let Ok(Pdu::Reject(received)) = Pdu::decode_header(&bhs) else { panic!("a Reject") };
    assert_eq!(received.reason, RejectReason::NegotiationReset);
}

#[test]
fn sense_length_of_an_event_that_is_no_scsi_event() {
    // req: 7143-11.9.4.1-1
    let data = Bytes::from_static(&[0, 1, 0x70]);
    let event = |event| Pdu::from(AsyncMessage { event, data: data.clone(), ..Default::default() });
    assert!(event(AsyncEvent::ScsiEvent).to_bytes().is_ok());
    for other in [AsyncEvent::LogoutRequest, AsyncEvent::TasksTerminated, AsyncEvent::VendorSpecific] {
        assert_eq!(event(other).to_bytes(), Err(EncodeError::Rule(Rule::SenseLength)));
    }
}

#[test]
fn task_management_functions_and_their_fields() {
    // req: 7143-11.5.2-1, 7143-11.5.3-1, 7143-11.5.4-1, 7144-6.3.1-1, 7144-6.3.2-1
    for function in 1..=12 {
        let request = TaskMgmtRequest {
            function: TaskMgmtFunction(function),
            lun: Lun([0, 2, 0, 0, 0, 0, 0, 0]),
            referenced_task_tag: Itt(0x1234),
            ref_cmd_sn: CmdSn(5),
            exp_data_sn: DataSn(6),
            ..Default::default()
        };
        let bhs = header::<()>(request).unwrap();
        assert_eq!(bhs[4..8], [0; 4]);
        assert_eq!(bhs[9], if [1, 2, 3, 4, 5, 9, 10, 12].contains(&function) { 2 } else { 0 }, "{function}");
        let tag = if [1, 8, 9].contains(&function) { [0, 0, 0x12, 0x34] } else { [0xff; 4] };
        assert_eq!(bhs[20..24], tag, "{function}");
        assert_eq!(bhs[35], if [1, 9].contains(&function) { 5 } else { 0 }, "{function}");
        assert_eq!(bhs[39], if function == 8 { 6 } else { 0 }, "{function}");
    }
}

#[test]
fn snacks_of_each_type() {
    // req: 7143-11.16.4-1, 7143-11.16.4-2, 7143-11.16.5-1, 7143-11.16.5-3, 7143-11.16.5-4, 7143-11.16.6-1
    // req: 7143-11.16.7-1
    let last = DataIn::<()> {
        acknowledge: true,
        lun: Lun([0, 3, 0, 0, 0, 0, 0, 0]),
        ttt: Ttt(0x77),
        data_sn: DataSn(8),
        ..Default::default()
    };
    let words = |snack: Snack| {
        let bhs = header::<()>(snack).unwrap();
        [16, 20, 40, 44].map(|i| u32::from_be_bytes(bhs[i..i + 4].try_into().unwrap()))
    };
    let none = u32::MAX;
    assert_eq!(words(Snack::data_r2t(Itt(5), 3, 2)), [5, none, 3, 2]);
    assert_eq!(words(Snack::status(StatSn(9), 1)), [none, none, 9, 1]);
    assert_eq!(words(Snack::data_ack(&last)), [none, 0x77, 9, 0]);
    assert_eq!(header::<()>(Snack::data_ack(&last)).unwrap()[8..16], last.lun.0);
    assert_eq!(words(Snack::r_data(Itt(5), SnackTag(4))), [5, 4, 0, 0]);
    // What a caller sets by hand in a field that the type reserves does not travel.
    let careless =
        Snack { itt: Itt(5), ttt_or_snack_tag: Ttt(6), beg_run: 7, run_length: 8, ..Snack::default() };
    let of = |kind| words(Snack { kind, ..careless.clone() });
    assert_eq!(of(SnackType::DataR2t), [5, none, 7, 8]);
    assert_eq!(of(SnackType::Status), [none, none, 7, 8]);
    assert_eq!(of(SnackType::DataAck), [none, 6, 7, 0]);
    assert_eq!(of(SnackType::RData), [5, 6, 0, 0]);
}

#[test]
fn nop_outs_of_each_use() {
    // req: 7143-11.18.1-1, 7143-11.18.1-2, 7143-11.18.1-4, 7143-11.18.2-1, 7143-11.18.2-2, 7143-11.18.2-3
    let fields = |nop: NopOut| {
        let bhs = header(nop).unwrap();
        (bhs[0], bhs[9], bhs[16..20].to_vec(), bhs[20..24].to_vec())
    };
    let none = vec![0xff; 4];
    assert_eq!(fields(NopOut::ping(Itt(5), Bytes::new())), (0, 0, vec![0, 0, 0, 5], none.clone()));
    let ping = NopIn::<()> { ttt: Ttt(6), lun: Lun([0, 4, 0, 0, 0, 0, 0, 0]), ..Default::default() };
    assert_eq!(fields(NopOut::answer(&ping)), (0x40, 4, none.clone(), vec![0, 0, 0, 6]));
    assert_eq!(fields(NopOut::confirmation(Lun::ZERO)), (0x40, 0, none.clone(), none));
}

#[test]
fn isids_of_each_format() {
    // req: 7143-11.12.5-1, 7143-11.12.5-2, 7143-11.12.5-5
    for (isid, kind, bytes) in [
        (Isid::oui(0x3f_1234, 0xab_cdef), IsidKind::Oui, [0x3f, 0x12, 0x34, 0xab, 0xcd, 0xef]),
        (Isid::enterprise(1, 2), IsidKind::Enterprise, [0x40, 0, 0, 1, 0, 2]),
        (Isid::random([0xaa, 0xbb, 0xcc], 3), IsidKind::Random, [0x80, 0xaa, 0xbb, 0xcc, 0, 3]),
        (Isid([0xc0, 0, 0, 0, 0, 0]), IsidKind::Reserved, [0xc0, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!((isid.0, isid.kind()), (bytes, kind));
        let login = LoginRequest { isid, ..Default::default() };
        assert_eq!(header::<()>(login).is_ok(), kind != IsidKind::Reserved);
    }
}

#[test]
fn luns_as_they_travel() {
    // req: 7143-11.2.1.7-1
    for (n, bytes) in [(0, [0, 0]), (1, [0, 1]), (255, [0, 255]), (256, [0x41, 0]), (0x3fff, [0x7f, 0xff])] {
        let lun = Lun::single_level(n).unwrap();
        assert_eq!(lun.0, [bytes[0], bytes[1], 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun.to_single_level(), Some(n));
        let r2t = R2t { lun, ..Default::default() };
        assert_eq!(header::<()>(r2t).unwrap()[8..10], bytes);
    }
    assert_eq!(Lun::single_level(0x4000), None);
    assert_eq!(Lun([0, 1, 0, 1, 0, 0, 0, 0]).to_single_level(), None);
    assert_eq!(Lun([0xc1, 1, 0, 0, 0, 0, 0, 0]).to_single_level(), None);
}

#[test]
fn data_must_be_as_long_as_announced() {
    let ping = Pdu::from(NopOut { itt: Itt(7), data: Bytes::from_static(b"hello"), ..Default::default() });
    let wire = ping.to_bytes().unwrap();
    let header = Pdu::decode_header(wire.first_chunk().unwrap()).unwrap();
    let with = |ahs: &[u8], data: &'static [u8]| header.clone().with_data(ahs, Bytes::from_static(data));
    assert_eq!(with(&[], b"hello"), Ok(ping));
    assert_eq!(with(&[], b"hell").unwrap_err(), DecodeError::incomplete(1, 52));
    let kind = |r: Result<Pdu, DecodeError>| r.unwrap_err().kind;
    assert_eq!(kind(with(&[], b"hello\0\0\0")), DecodeErrorKind::TrailingBytes { extra: 3 });
    assert_eq!(kind(with(&[0; 4], b"hello")), DecodeErrorKind::TrailingBytes { extra: 4 });
}

#[test]
fn unknown_codes_survive() {
    let pdu = Pdu::from(ScsiResponse { status: ScsiStatus(0x77), data: Bytes::new(), ..Default::default() });
    let wire = pdu.to_bytes().unwrap();
    assert_eq!(Pdu::decode(wire), Ok(pdu));
    assert_eq!(alloc::format!("{} {}", ScsiStatus(0x77), ScsiStatus::Busy), "ScsiStatus(0x77) Busy");
    assert_eq!(alloc::format!("{} {:?}", Opcode::DataOut, Opcode(0x1f)), "DataOut Opcode(0x1f)");
}

#[test]
fn common_fields_of_all() {
    let command = Pdu::<()>::from(ScsiCommand { cmd_sn: CmdSn(5), itt: Itt(6), ..Default::default() });
    assert_eq!((command.cmd_sn(), command.exp_stat_sn()), (Some(CmdSn(5)), Some(StatSn(0))));
    assert_eq!((command.stat_sn(), command.exp_cmd_sn(), command.max_cmd_sn()), (None, None, None));
    assert_eq!((command.itt(), command.lun(), command.immediate()), (Itt(6), Some(Lun::ZERO), false));
    assert!(Pdu::<()>::from(LoginRequest::default()).immediate());
    let data_in = |status| Pdu::<()>::from(DataIn { status, stat_sn: StatSn(9), ..Default::default() });
    assert_eq!(data_in(None).stat_sn(), None);
    assert_eq!(data_in(Some(ScsiStatus::Good)).stat_sn(), Some(StatSn(9)));
    assert_eq!(Pdu::<()>::from(Reject::default()).itt(), Itt::NONE);
    assert_eq!(Pdu::<()>::from(R2t::default()).data(), None);
    assert_eq!(Pdu::<()>::from(LogoutRequest::default()).lun(), None);
}
