//! What a disk does against the project's own target; foreign targets are met by `cargo xtask interop`.

mod common;

use bytes::Bytes;
use common::{attach, options, pattern, ram, serve, url};
use iscsi_initiator::{Disk, Error, discover};
use iscsi_target::config::{Backing, LunConfig};

#[tokio::test]
async fn unmapped_blocks_read_as_zeros_and_their_neighbours_stay() {
    let server = serve(vec![ram(4)]).await;
    let disk = attach(server.local_addrs()[0], &options()).await;
    let data = pattern(0, 1 << 20, 1);
    disk.write(0, data.clone().into()).await.unwrap();
    disk.unmap(&[(8, 16), (100, 1)]).await.unwrap();
    disk.flush().await.unwrap();
    let mut expected = data.to_vec();
    expected[8 * 512..24 * 512].fill(0);
    expected[100 * 512..101 * 512].fill(0);
    assert!(disk.read(0, 2048).await.unwrap().to_bytes() == expected);
    disk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn a_file_keeps_what_was_flushed_when_the_target_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let lun = LunConfig::new(Backing::Path { path: dir.path().join("disk"), create: Some(4 << 20) });
    let data = pattern(0, 256 << 10, 7);
    let server = serve(vec![lun.clone()]).await;
    let disk = attach(server.local_addrs()[0], &options()).await;
    disk.write(64, data.clone().into()).await.unwrap();
    disk.write_fua(4096, Bytes::from(vec![0x5a; 512]).into()).await.unwrap();
    disk.flush().await.unwrap();
    disk.close().await.unwrap();
    server.shutdown().await;

    let server = serve(vec![lun]).await;
    let disk = attach(server.local_addrs()[0], &options()).await;
    assert!(disk.read(64, 512).await.unwrap().to_bytes() == data);
    assert!(disk.read(4096, 1).await.unwrap().to_bytes() == vec![0x5a; 512]);
    disk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn mistakes_are_told_before_or_by_the_target() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let disk = attach(portal, &options()).await;
    let odd = disk.write(0, Bytes::from_static(b"odd").into()).await;
    assert!(matches!(odd, Err(Error::Unaligned { len: 3, block: 512 })));
    let beyond = disk.read(2048, 1).await.unwrap_err();
    assert!(beyond.to_string().contains("LOGICAL BLOCK ADDRESS OUT OF RANGE"), "{beyond}");
    let missing = Disk::attach(&url(portal, 5), &options()).await.unwrap_err();
    assert!(matches!(missing, Error::NoSuchLun(5) | Error::Scsi(_)), "{missing}");
    let mut other = url(portal, 0);
    other.target = Some("iqn.2026-01.org.example:other".parse().unwrap());
    let refused = Disk::attach(&other, &options()).await.unwrap_err();
    assert!(refused.is_login_refused() && refused.to_string().contains("0203"), "{refused}");
    // The session is none the worse for it.
    assert_eq!(disk.read(0, 1).await.unwrap().len(), 512);
    disk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn discovery_names_the_target_and_an_address_that_works() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let found = discover(&url(portal, 0), &options()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name.to_string(), common::IQN);
    assert_eq!(found[0].addresses[0].to_string(), format!("{portal},1"));
    server.shutdown().await;
}
