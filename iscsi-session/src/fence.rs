//! The response fence (RFC 7143 section 4.2.2.3): on a session with several connections, a fenced response goes out
//! after all earlier responses have been acknowledged, and holds all later ones of its logical unit back until it has
//! been acknowledged itself.

use crate::action::ConnId;
use crate::target::TaskState;
use bytes::Bytes;
use iscsi_pdu::{CmdSn, Itt, Lun, Pdu, StatSn};
use std::collections::VecDeque;

/// A response without its numbers.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) conn: ConnId,
    /// The logical unit it is about; `None` for all of them.
    pub(crate) lun: Option<Lun>,
    pub(crate) pdu: Pdu<Bytes>,
    pub(crate) fenced: bool,
    /// The request was numbered: its credit comes back when the response is sent, so that the command window bounds what
    /// is held back.
    pub(crate) numbered: bool,
    /// Of a function that ended tasks of the logical unit: all commands before this one are over with it.
    pub(crate) ends: Option<CmdSn>,
    /// What a reassignment of the task needs, should the response not be acknowledged.
    pub(crate) state: Option<Box<TaskState>>,
}

impl Response {
    /// Whether it is the SCSI Response of this task, on this connection.
    fn answers(&self, conn: ConnId, itt: Itt) -> bool {
        self.conn == conn && matches!(&self.pdu, Pdu::ScsiResponse(r) if r.itt == itt)
    }
}

#[derive(Debug)]
enum Phase {
    /// Earlier responses, the last of each connection, are not all acknowledged.
    Before(Vec<(ConnId, StatSn)>),
    /// The fenced response is on its way.
    After(ConnId, StatSn),
}

#[derive(Debug)]
struct Fence {
    lun: Option<Lun>,
    phase: Phase,
    /// Responses to send, in order; while in `Before` the first is the fenced one.
    held: VecDeque<Response>,
}

/// The fences that are up.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    up: Vec<Fence>,
}

fn meets(a: Option<Lun>, b: Option<Lun>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

impl Fences {
    pub(crate) fn is_empty(&self) -> bool {
        self.up.is_empty()
    }

    /// Holds the response back if a fence of its logical unit is up; else gives it back.
    // req: 7143-4.2.2.3.3-5
    pub(crate) fn hold(&mut self, response: Response) -> Option<Response> {
        match self.up.iter_mut().rev().find(|f| meets(f.lun, response.lun)) {
            Some(fence) => {
                fence.held.push_back(response);
                None
            }
            None => Some(response),
        }
    }

    /// The response of a task that is held back, if it is.
    pub(crate) fn held(&mut self, conn: ConnId, itt: Itt) -> Option<&mut Response> {
        self.up.iter_mut().flat_map(|f| &mut f.held).find(|r| r.answers(conn, itt))
    }

    /// Whether the response of a task is held back.
    pub(crate) fn holds(&self, conn: ConnId, itt: Itt) -> bool {
        self.up.iter().flat_map(|f| &f.held).any(|r| r.answers(conn, itt))
    }

    /// How many responses of a connection are held back whose requests were immediate: to SCSI commands, and to others.
    pub(crate) fn held_immediates(&self, conn: ConnId) -> (usize, usize) {
        let theirs = self.up.iter().flat_map(|f| &f.held).filter(|r| r.conn == conn && !r.numbered);
        theirs.fold((0, 0), |(commands, others), r| match r.pdu {
            Pdu::ScsiResponse(_) => (commands.saturating_add(1), others),
            _ => (commands, others.saturating_add(1)),
        })
    }

    /// Whether the response of a task of the logical unit is held back.
    pub(crate) fn hold_any_of(&self, lun: Lun) -> bool {
        let is_one = |r: &Response| matches!(r.pdu, Pdu::ScsiResponse(_)) && r.lun == Some(lun);
        self.up.iter().any(|f| f.held.iter().any(is_one))
    }

    /// Puts a fence up for a response that waits for the acknowledgments named.
    // req: 7143-4.2.2.3.2-2, 7143-4.2.2.3.3-3
    pub(crate) fn raise(&mut self, response: Response, waits_for: Vec<(ConnId, StatSn)>) {
        self.up.push(Fence {
            lun: response.lun,
            phase: Phase::Before(waits_for),
            held: VecDeque::from([response]),
        });
    }

    /// Puts a fence up for a response that has just been sent.
    // req: 7143-4.2.2.3.2-3, 7143-4.2.2.3.3-4
    pub(crate) fn raise_sent(&mut self, lun: Option<Lun>, conn: ConnId, stat_sn: StatSn) {
        self.up.push(Fence { lun, phase: Phase::After(conn, stat_sn), held: VecDeque::new() });
    }

    /// A response that was ready before any fence of its logical unit has just been sent: it is to be acknowledged, too,
    /// before a fenced one that waits. Whether one does.
    // req: 7143-4.2.2.3.2-2
    pub(crate) fn wait_also(&mut self, lun: Lun, conn: ConnId, stat_sn: StatSn) -> bool {
        let mut waits = false;
        for fence in self.up.iter_mut().filter(|f| meets(f.lun, Some(lun))) {
            if let Phase::Before(waits_for) = &mut fence.phase {
                waits_for.push((conn, stat_sn));
                waits = true;
            }
        }
        waits
    }

    /// The StatSNs of a connection that fences wait for.
    pub(crate) fn awaited(&self, conn: ConnId) -> impl Iterator<Item = StatSn> {
        let of = |fence: &Fence| match &fence.phase {
            Phase::Before(waits_for) => waits_for.clone(),
            Phase::After(conn, stat_sn) => vec![(*conn, *stat_sn)],
        };
        self.up.iter().flat_map(of).filter(move |(of, _)| *of == conn).map(|(_, stat_sn)| stat_sn)
    }

    /// Looks at the fences in turn; `acknowledged` says whether the StatSN of the connection is acknowledged (or the
    /// connection gone). Returns what may be sent now.
    pub(crate) fn advance(&mut self, acknowledged: impl Fn(ConnId, StatSn) -> bool) -> Option<Released> {
        for index in 0..self.up.len() {
            let fence = self.up.get_mut(index)?;
            match &mut fence.phase {
                Phase::Before(waits_for) => {
                    waits_for.retain(|(conn, sn)| !acknowledged(*conn, *sn));
                    if waits_for.is_empty() {
                        let fence = self.up.remove(index);
                        return Some(Released { fenced_first: true, responses: fence.held });
                    }
                }
                Phase::After(conn, stat_sn) if acknowledged(*conn, *stat_sn) => {
                    let fence = self.up.remove(index);
                    return Some(Released { fenced_first: false, responses: fence.held });
                }
                Phase::After(..) => {}
            }
        }
        None
    }
}

/// Responses that a fence let go.
#[derive(Debug)]
pub(crate) struct Released {
    /// Whether the first is a fenced one whose wait is over: it is sent, and the rest held behind it.
    pub(crate) fenced_first: bool,
    pub(crate) responses: VecDeque<Response>,
}
