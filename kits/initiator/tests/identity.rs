//! Who an initiator says it is: what a login says of names and ISIDs, as it is on the wire (RFC 7143 section 11.12).

mod common;

use common::{options, url};
use iscsi_initiator::{ConnectOptions, Disk};
use iscsi_login::IscsiName;
use iscsi_pdu::Isid;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// ISID, bytes 8 to 13, and the text of the first Login Request; there is no answer.
async fn first_request(options: &ConnectOptions) -> ([u8; 6], String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let from = url(listener.local_addr().unwrap(), 0);
    let (request, result) = tokio::join!(
        async {
            let mut stream = listener.accept().await.unwrap().0;
            drop(listener);
            let mut bhs = [0; 48];
            stream.read_exact(&mut bhs).await.unwrap();
            assert_eq!(bhs[0], 0x43, "a Login Request is immediate");
            let mut text = vec![0; usize::from(u16::from_be_bytes([bhs[6], bhs[7]]))];
            stream.read_exact(&mut text).await.unwrap();
            let isid: [u8; 6] = std::array::from_fn(|n| bhs[8 + n]);
            (isid, String::from_utf8(text).unwrap())
        },
        Disk::attach(&from, options)
    );
    assert!(result.is_err(), "nobody answers");
    request
}

// req: 7143-10.1.2-2, 7143-11.12.5-3, 7143-11.12.5-4
#[tokio::test]
async fn name_and_isid_are_those_that_are_configured() {
    let configured = || {
        let mut options = options();
        options.initiator_name = IscsiName::new("iqn.2026-01.org.example:configured").unwrap();
        options.isid = Some(Isid::oui(0x0000_023d, 0x0001_0203));
        options
    };
    // The second is as after a restart.
    for options in [configured(), configured()] {
        let (isid, text) = first_request(&options).await;
        assert_eq!(isid, [0x00, 0x02, 0x3d, 1, 2, 3], "type 00b: OUI, then a qualifier of 24 bits");
        let names: Vec<_> = text.split('\0').filter(|pair| pair.starts_with("InitiatorName=")).collect();
        assert_eq!(names, ["InitiatorName=iqn.2026-01.org.example:configured"]);
    }
}

// req: 7143-10.1.2-3
#[tokio::test]
async fn sessions_without_a_configured_isid_have_one_each() {
    let options = options();
    let (first, _) = first_request(&options).await;
    let (second, _) = first_request(&options).await;
    assert_eq!((first[0], second[0]), (0x80, 0x80), "type 10b, random");
    assert_ne!(first, second);
}
