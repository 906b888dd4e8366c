//! The calls of the Datamover Interface as values: what a session wants done on its connections.

use datamover::{ConnKeys, Control, Datamover, Full, GetData, PutData, Window};
use iscsi_pdu::Itt;

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
}
