//! Commands of several steps, written as async functions.
//!
//! A step is asked of the nexus through a [`Co`]: fetch output, do an operation on the device, send input. The nexus
//! polls the function, takes what it asks for, and polls again with the answer. There is no runtime: the function is
//! a coroutine, the waker only says that a lock has become free. READ and WRITE do not come here; they have no time
//! for a box.

use crate::block::{Action, BlockError, Payload};
use crate::mailbox::Hold;
use crate::ranges::{Acquire, RangeGuard};
use crate::unit::LogicalUnit;
use bytes::Bytes;
use datamover::{DataError, SgList};
use scsi_cmd::{Asc, Sense, SenseKey, Status};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How a command ends that does not end GOOD.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// CHECK CONDITION.
    Check(Sense),
    /// A status without sense data.
    Status(Status),
    /// BUSY: nothing was done, and may be asked for again after this time.
    Busy(Duration),
}

impl From<Sense> for Ending {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

/// How a command ends well.
#[derive(Debug, Default)]
pub(crate) struct Finish {
    /// GOOD, or CONDITION MET.
    pub(crate) status: Status,
    /// Input, from offset 0 on.
    pub(crate) input: SgList,
    /// The response must keep its place among the others.
    pub(crate) fence: bool,
}

impl Finish {
    /// GOOD, with nothing to send.
    pub(crate) fn good() -> Self {
        Self { status: Status::Good, ..Self::default() }
    }

    /// GOOD, with as much of `data` as the allocation length allows.
    pub(crate) fn data(mut data: Vec<u8>, allocation_length: impl TryInto<usize>) -> Self {
        data.truncate(allocation_length.try_into().unwrap_or(usize::MAX));
        Self { input: Bytes::from(data).into(), ..Self::good() }
    }
}

pub(crate) type Ended = Result<Finish, Ending>;

/// A command in progress.
pub(crate) type Sequence = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// What a sequence asks of its nexus.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Part of the `total` bytes of output that the command takes, or as much as the initiator has of it.
    Output { total: u32, offset: u32, len: u32 },
    /// An operation on the logical unit's device.
    Operation(Action),
    /// An operation on another logical unit's device, by its LUN in this nexus.
    Elsewhere(Arc<LogicalUnit>, Action),
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Output(Result<SgList, DataError>),
    Operation(Result<Payload, BlockError>),
}

#[derive(Default)]
struct Exchange {
    ask: Option<Ask>,
    answer: Option<Answer>,
}

/// A sequence's way to ask, and the nexus's to answer.
#[derive(Clone, Default)]
pub(crate) struct Co(Arc<Mutex<Exchange>>);

impl Co {
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the sequence asks now, if anything. For the nexus.
    pub(crate) fn take_ask(&self) -> Option<Ask> {
        self.exchange().ask.take()
    }

    /// The answer to what was asked. For the nexus.
    pub(crate) fn answer(&self, answer: Answer) {
        self.exchange().answer = Some(answer);
    }

    fn ask(&self, ask: Ask) -> Asking<'_> {
        Asking { co: self, ask: Some(ask) }
    }

    /// All `len` bytes of output.
    ///
    /// Fails with INVALID FIELD IN COMMAND INFORMATION UNIT when the initiator has announced less.
    pub(crate) async fn output(&self, len: u32) -> Result<SgList, Ending> {
        self.output_part(len, 0, len).await
    }

    /// `len` bytes from `offset` on of the `total` bytes of output. Fails as [`output`](Self::output) does.
    pub(crate) async fn output_part(&self, total: u32, offset: u32, len: u32) -> Result<SgList, Ending> {
        match self.ask(Ask::Output { total, offset, len }).await {
            Answer::Output(Ok(data)) if data.len() < len as usize => {
                Err(Sense::illegal(Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT).into())
            }
            Answer::Output(Ok(data)) => Ok(data),
            Answer::Output(Err(error)) => Err(data_error(error).into()),
            Answer::Operation(_) => Err(out_of_step()),
        }
    }

    /// A parameter list: output in one piece.
    pub(crate) async fn parameters(&self, len: u32) -> Result<Bytes, Ending> {
        Ok(self.output(len).await?.to_bytes())
    }

    /// An operation on the device of the logical unit.
    pub(crate) async fn run(&self, action: Action) -> Result<Payload, BlockError> {
        match self.ask(Ask::Operation(action)).await {
            Answer::Operation(result) => result,
            Answer::Output(_) => Err(BlockError::Device),
        }
    }

    /// An operation on the device of another logical unit.
    pub(crate) async fn run_on(&self, unit: Arc<LogicalUnit>, action: Action) -> Result<Payload, BlockError> {
        match self.ask(Ask::Elsewhere(unit, action)).await {
            Answer::Operation(result) => result,
            Answer::Output(_) => Err(BlockError::Device),
        }
    }
}

/// A sequence asks one thing at a time, so an answer of the wrong kind cannot come.
fn out_of_step() -> Ending {
    Sense::new(SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE).into()
}

struct Asking<'a> {
    co: &'a Co,
    ask: Option<Ask>,
}

impl Future for Asking<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        let mut exchange = self.co.exchange();
        match self.ask.take() {
            Some(ask) => {
                exchange.ask = Some(ask);
                Poll::Pending
            }
            None => exchange.answer.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

/// Waits for a lock.
pub(crate) async fn locked(acquire: Acquire) -> RangeGuard {
    acquire.await
}

/// Waits until nobody else holds on.
pub(crate) async fn released(hold: Hold) {
    std::future::poll_fn(|_| if hold.is_last() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Sense data of a failed transfer of output (RFC 7143 section 11.4.7.2).
pub(crate) fn data_error(error: DataError) -> Sense {
    // req: 7143-11.4.7.2-1
    let asc = match error {
        DataError::Digest => Asc::PROTOCOL_SERVICE_CRC_ERROR,
        DataError::Sequence => Asc::WRITE_ERROR_NOT_ENOUGH_UNSOLICITED_DATA,
        DataError::TimedOut => Asc::INITIATOR_RESPONSE_TIMEOUT,
        _ => Asc::DATA_PHASE_ERROR,
    };
    Sense::new(SenseKey::AbortedCommand, asc)
}
