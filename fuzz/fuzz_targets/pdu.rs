//! Any bytes as one PDU: what decodes encodes, to the same length, and decodes to the same again.
#![no_main]

use bytes::Bytes;
use iscsi_pdu::{BHS_LEN, DecodeErrorKind, EncodeError, Pdu, RejectReason, Rule};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    match Pdu::decode(frame.clone()) {
        Ok(pdu) => {
            let Ok(again) = pdu.to_bytes() else {
                // The one thing that is understood and must not be said.
                let Pdu::Reject(reject) = &pdu else { panic!("decoded, not encoded: {pdu:?}") };
                assert_eq!(reject.reason, RejectReason::NegotiationReset);
                assert_eq!(pdu.to_bytes(), Err(EncodeError::Rule(Rule::RejectReason)));
                return;
            };
            assert_eq!(again.len(), data.len());
            assert_eq!(again.len(), pdu.encoded_len());
            let twice = Pdu::decode(again.clone()).expect("what is encoded decodes");
            assert_eq!(twice, pdu);
            assert_eq!(twice.to_bytes().as_ref(), Ok(&again));
            for n in [0, 1, BHS_LEN - 1, BHS_LEN, data.len() - 1] {
                if n < data.len() {
                    let e = Pdu::decode(frame.slice(..n)).expect_err("a part of a PDU is none");
                    assert!(matches!(e.kind, DecodeErrorKind::Incomplete { .. }), "{e:?}");
                }
            }
            if let Pdu::ScsiResponse(p) = &pdu {
                let _ = p.sense_data();
            }
        }
        Err(e) => {
            if let DecodeErrorKind::Incomplete { needed } = e.kind {
                assert!(needed > 0);
            }
            assert!(!e.to_string().is_empty());
        }
    }
});
