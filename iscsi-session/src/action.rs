//! The calls of the Datamover Interface as values: what a session wants done on its connections.

use datamover::{
    ConnKeys, Control, Datamover, Full, GetData, InputProgress, PutData, Reclaimed, Terminated, Window,
};
use iscsi_pdu::{Itt, Pdu};

/// Names a connection within one session object. Unlike a CID it is never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u32);

/// One call, and the connection to make it on. Actions are to be carried out in their order.
#[derive(Debug)]
pub struct Action {
    /// The connection.
    pub conn: ConnId,
    /// The call.
    pub call: DownCall,
}

/// A downward call of the Datamover Interface (RFC 5047 section 8).
#[derive(Debug)]
#[allow(missing_docs)] // each is the method of `Datamover` that bears its name
pub enum DownCall {
    SendControl(Control),
    PutData(PutData),
    GetData(GetData),
    DeallocateTaskResources(Itt),
    ConnectionTerminate,
    NoticeKeyValues(Box<ConnKeys>),
    SetWindow(Window),
}

impl DownCall {
    /// Makes the call.
    ///
    /// # Errors
    /// The call itself, when the datamover is full: to be made again, before any later one of that connection.
    pub fn invoke(self, datamover: &mut dyn Datamover) -> Result<(), Self> {
        match self {
            Self::SendControl(c) => datamover.send_control(c).map_err(|Full(c)| Self::SendControl(c)),
            Self::PutData(p) => datamover.put_data(p).map_err(|Full(p)| Self::PutData(p)),
            Self::GetData(g) => datamover.get_data(g).map_err(|Full(g)| Self::GetData(g)),
            Self::DeallocateTaskResources(itt) => {
                datamover.deallocate_task_resources(itt);
                Ok(())
            }
            Self::ConnectionTerminate => {
                datamover.connection_terminate();
                Ok(())
            }
            Self::NoticeKeyValues(keys) => {
                datamover.notice_key_values(&keys);
                Ok(())
            }
            Self::SetWindow(window) => {
                datamover.set_window(window);
                Ok(())
            }
        }
    }

    /// Gives the buffers of a call that was never made to the end of its connection: a driver does so with all calls
    /// that it still holds when [`Event::Terminated`](datamover::Event::Terminated) comes, before it hands that on.
    // req: 5047-5.4-1
    pub fn reclaim(self, terminated: &mut Terminated) {
        let mut input = InputProgress::default();
        let (itt, buffers, gets) = match self {
            Self::SendControl(c) if !c.buffers.is_none() => {
                // A TASK REASSIGN has the buffers of another task, which has got as far as it says.
                let itt = match &c.pdu {
                    Pdu::TaskMgmtRequest(reassign) => {
                        input.next = reassign.exp_data_sn;
                        reassign.referenced_task_tag
                    }
                    other => other.itt(),
                };
                (itt, c.buffers, Vec::new())
            }
            Self::GetData(g) => (g.itt, datamover::TaskBuffers::none(), vec![(g.offset, g.into)]),
            _ => return,
        };
        match terminated.reclaimed.iter_mut().find(|(other, _)| *other == itt) {
            Some((_, reclaimed)) => {
                if !buffers.is_none() {
                    reclaimed.buffers = buffers;
                }
                reclaimed.gets.extend(gets);
            }
            None => terminated.reclaimed.push((itt, Reclaimed { buffers, gets, input })),
        }
    }
}
