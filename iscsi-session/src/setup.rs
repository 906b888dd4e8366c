//! What a session needs to know of a connection whose login is over.

use crate::login::conn_keys;
use datamover::{BufPool, ConnKeys, Role};
use iscsi_login::Negotiated;
use iscsi_pdu::{Cid, StatSn};
use std::sync::Arc;

/// A connection that has finished its login.
#[derive(Clone)]
pub struct ConnSetup {
    /// CID.
    pub cid: Cid,
    /// The values that its datamover was told.
    pub keys: ConnKeys,
    /// Its datamover's memory.
    pub pool: Arc<dyn BufPool>,
    /// Target: StatSN of the next response. Initiator: the StatSN it expects.
    pub stat_sn: StatSn,
}

impl ConnSetup {
    /// The connection that ended its login with `negotiated`, seen from the end `role`.
    #[must_use]
    pub fn new(role: Role, negotiated: &Negotiated, pool: Arc<dyn BufPool>) -> Self {
        Self {
            cid: negotiated.cid,
            keys: conn_keys(role, &negotiated.session, &negotiated.conn),
            pool,
            stat_sn: negotiated.next_stat_sn,
        }
    }
}
