//! One turn of a login: wait until the link brings something or time is up.

use datamover::{Budget, LinkError, LoginLink};
use iscsi_login::{Preferences, RdmaPolicy};
use iscsi_pdu::Pdu;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long the last words of a failed login may take to get out.
const PARTING: Duration = Duration::from_secs(2);

/// What a turn ended with.
pub(super) enum Turn {
    Pdu(Pdu),
    Failed(LinkError),
    TimeOut(Instant),
}

/// The time as tokio tells it, which its tests may hold still.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Drives the link until it brings a PDU, fails, or `deadline` passes.
pub(super) async fn turn(link: &mut dyn LoginLink, deadline: Option<Instant>) -> Turn {
    loop {
        let due = [deadline, link.poll_timeout()].into_iter().flatten().min();
        let mut timer = pin!(sleep_until(due));
        let result = poll_fn(|cx| {
            let mut budget = Budget::new(now());
            let driven = link.poll_drive(cx, &mut budget);
            match link.poll_login() {
                Some(Ok(pdu)) => return Poll::Ready(Some(Turn::Pdu(pdu))),
                Some(Err(e)) => return Poll::Ready(Some(Turn::Failed(e))),
                None => (),
            }
            match driven {
                Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
                Poll::Ready(Err(e)) => {
                    return Poll::Ready(Some(Turn::Failed(LinkError::Transport(e.kind()))));
                }
                Poll::Pending => (),
            }
            timer.as_mut().poll(cx).map(|()| None)
        })
        .await;
        if let Some(turn) = result {
            return turn;
        }
        let now = now();
        link.handle_timeout(now);
        if deadline.is_some_and(|d| now >= d) {
            return Turn::TimeOut(now);
        }
    }
}

/// The login failed: what was allocated for it is not needed. The link, dropped after this, closes.
// req: 7145-10.1.1.1-1, 7145-10.1.4.6-1, 7145-10.1.4.6-2, 7145-10.1.4.6-3, 7145-10.1.4.6-4, 7145-10.1.4.6-5
// req: 7145-10.1.4.6-6
pub(super) fn give_back(link: &mut dyn LoginLink, allocated: bool) {
    if allocated {
        link.deallocate_connection_resources();
    }
}

/// Sends what is still queued, for a while. What the peer says meanwhile does not matter any more.
pub(super) async fn flush(link: &mut dyn LoginLink) {
    let mut timer = pin!(tokio::time::sleep(PARTING));
    poll_fn(|cx| {
        let driven = link.poll_drive(cx, &mut Budget::new(now()));
        while let Some(Ok(_)) = link.poll_login() {}
        match driven {
            _ if link.is_flushed() => return Poll::Ready(()),
            Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => (),
        }
        timer.as_mut().poll(cx)
    })
    .await;
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Makes RDMAExtensions follow from what the link can become (RFC 7145 section 6.3).
pub(super) fn apply_offer(preferences: &mut Preferences, link: &dyn LoginLink) {
    preferences.rdma_extensions = match link.rdma_offer() {
        datamover::RdmaOffer::Never => RdmaPolicy::Never,
        datamover::RdmaOffer::Negotiable => RdmaPolicy::Allow,
        datamover::RdmaOffer::Always => RdmaPolicy::Require,
    };
}
