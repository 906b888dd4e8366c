//! What the initiator has under way, by Initiator Task Tag.

use super::{exchange, function, task};
use crate::action::ConnId;
use crate::slab::Key;
use iscsi_pdu::{CmdSn, DataSn};
use std::time::Instant;

/// Whatever has an Initiator Task Tag.
#[derive(Debug)]
pub(super) enum Entry {
    Task(task::InitiatorTask),
    Function(function::Running),
    Text(exchange::TextExchange),
    Ping {
        conn: ConnId,
        wanted: bool,
        /// What was sent before it has a lower turn.
        turn: u64,
        /// The connection that was logged out by the login of this one.
        recovers: Option<ConnId>,
        /// Its own number, if it has one.
        cmd_sn: Option<CmdSn>,
    },
    Logout {
        conn: ConnId,
        session: bool,
        /// The lost connection that it is for.
        recovers: Option<ConnId>,
        /// What sending it again takes, if it is numbered.
        numbered: Option<exchange::Numbered>,
    },
    /// A Logout Request for a connection that was lost.
    Cleanup {
        conn: ConnId,
        lost: ConnId,
    },
    /// A NOP-Out that fills a gap in CmdSN: after a Reject, or after the loss of a connection.
    Plug {
        conn: ConnId,
        cmd_sn: CmdSn,
        turn: u64,
    },
    /// A TASK REASSIGN.
    Reassign {
        conn: ConnId,
        task: Key,
        /// The first DataSN of the task that has not come.
        next: DataSn,
        /// Until when it is sent again, should the target have no room for it.
        until: Instant,
        /// The target had none: it is not under way.
        held: bool,
    },
}

impl Entry {
    pub(super) fn conn(&self) -> ConnId {
        match self {
            Self::Task(t) => t.conn,
            Self::Function(f) => f.conn,
            Self::Text(t) => t.conn,
            Self::Ping { conn, .. }
            | Self::Logout { conn, .. }
            | Self::Cleanup { conn, .. }
            | Self::Plug { conn, .. }
            | Self::Reassign { conn, .. } => *conn,
        }
    }

    /// The number that it holds, and that the target waits for until it has it.
    pub(super) fn cmd_sn(&self) -> Option<CmdSn> {
        match self {
            Self::Task(t) if !t.immediate => Some(t.cmd_sn),
            Self::Plug { cmd_sn, .. } => Some(*cmd_sn),
            Self::Ping { cmd_sn, .. } => *cmd_sn,
            Self::Text(t) => t.numbered.as_ref().map(|n| n.cmd_sn),
            Self::Logout { numbered, .. } => numbered.as_ref().map(|n| n.cmd_sn),
            _ => None,
        }
    }

    /// Whether all is there that sending it again takes. After a ping there is another one.
    pub(super) fn can_be_repeated(&self) -> bool {
        match self {
            Self::Task(_) => true,
            Self::Ping { .. } => false,
            other => other.cmd_sn().is_some(),
        }
    }

    /// Pings sent before it was sent last.
    pub(super) fn turn(&self) -> u64 {
        match self {
            Self::Task(t) => t.turn,
            Self::Plug { turn, .. } => *turn,
            Self::Text(t) => t.numbered.as_ref().map_or(0, |n| n.turn),
            _ => 0,
        }
    }
}
