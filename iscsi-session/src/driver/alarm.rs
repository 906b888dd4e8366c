//! The one timer of a driver.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Instant;
use tokio::time::Sleep;

/// A timer that is set anew in every turn. Its registration is moved only to an earlier time: times that move on with
/// every PDU cost nothing, and a wake that was too early finds out.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Wakes the task at the earliest of these times; `true` when that is now.
    pub(super) fn arm<const N: usize>(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        due: [Option<Instant>; N],
    ) -> bool {
        let Some(at) = due.into_iter().flatten().min() else {
            self.0 = None;
            return false;
        };
        if at <= now {
            return true;
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if at < sleep.deadline().into_std() {
            sleep.as_mut().reset(at.into());
        } else if sleep.as_mut().poll(cx).is_pending() {
            return false;
        } else if sleep.deadline() != at.into() {
            sleep.as_mut().reset(at.into());
        } else {
            return true;
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}
