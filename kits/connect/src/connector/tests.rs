use super::*;
use crate::Policy;

fn kinds(connector: &Connector, portal: SocketAddr) -> Vec<Kind> {
    connector.ways(portal).iter().map(Way::kind).collect()
}

#[tokio::test(start_paused = true)]
async fn what_worked_is_tried_first_and_what_failed_last() {
    let policy = Policy::of(&[Kind::Iwarp, Kind::Upgrade, Kind::Tcp]);
    let connector = Connector::new(Settings::new(policy));
    let portal: SocketAddr = "192.0.2.1:3260".parse().unwrap();
    let other: SocketAddr = "192.0.2.2:3260".parse().unwrap();
    assert_eq!(kinds(&connector, portal), [Kind::Iwarp, Kind::Upgrade, Kind::Tcp]);
    connector.failed(portal, Kind::Iwarp);
    assert_eq!(kinds(&connector, portal), [Kind::Upgrade, Kind::Tcp, Kind::Iwarp]);
    connector.worked(portal, Kind::Tcp);
    assert_eq!(kinds(&connector.clone(), portal), [Kind::Tcp, Kind::Upgrade, Kind::Iwarp]);
    assert_eq!(kinds(&connector, other), [Kind::Iwarp, Kind::Upgrade, Kind::Tcp], "another portal");
    // The device is lost, and is forgiven after a while.
    connector.failed(portal, Kind::Tcp);
    assert_eq!(kinds(&connector, portal), [Kind::Upgrade, Kind::Iwarp, Kind::Tcp]);
    tokio::time::advance(GRUDGE).await;
    assert_eq!(kinds(&connector, portal), [Kind::Iwarp, Kind::Upgrade, Kind::Tcp]);
}

#[tokio::test]
async fn a_way_of_the_callers_own_comes_first() {
    let connector = Connector::new(Settings::new(Policy::tcp()));
    let connector = connector.with_way(Kind::Rdma, Arc::new(TcpFabric::default()));
    let portal: SocketAddr = "192.0.2.1:3260".parse().unwrap();
    assert_eq!(kinds(&connector, portal), [Kind::Rdma, Kind::Tcp]);
}
