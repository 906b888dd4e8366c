//! What happens to an initiator, or occurs to it.

use super::{Host, State, Up};
use crate::plan::Fault;
use crate::rng::Rng;
use bytes::Bytes;
use iscsi_pdu::Lun;
use iscsi_session::initiator::TaskFunction;
use std::time::{Duration, Instant};

/// What pings carry.
pub(super) const PING: &[u8] = b"are you there";

impl Host {
    /// A fault of the plan that is about one initiator. `false` when it changes nothing as things stand.
    pub(crate) fn disturb(&mut self, now: Instant, fault: Fault, rng: &mut Rng) -> bool {
        match &mut self.state {
            // At level 2 the session would only go on without it, at the target that it knows.
            State::Up(up) if fault == Fault::Impostor => {
                self.impostors += 1;
                if up.params.error_recovery_level < 2 {
                    up.cut();
                } else {
                    self.crash(now, false, Duration::ZERO);
                }
                true
            }
            State::Up(up) => up.disturb(now, fault, rng),
            _ => false,
        }
    }
}

impl Up {
    fn disturb(&mut self, now: Instant, fault: Fault, rng: &mut Rng) -> bool {
        self.waiting = false;
        if self.conns.0.is_empty() {
            return false;
        }
        let conn = &self.conns.0[rng.index(self.conns.0.len())];
        let task = || {
            let place = self.ops.keys().copied().collect::<Vec<_>>();
            (!place.is_empty()).then(|| place[0])
        };
        let function = match fault {
            Fault::Cut => {
                conn.wire.cut();
                return true;
            }
            Fault::Stall => return conn.wire.stall(now + Duration::from_millis(rng.below(60_000))),
            Fault::HalfClose => {
                let pipe = conn.wire.pipe();
                return pipe.inspect(|p| p.half_close(rng.index(2))).is_some();
            }
            // Before the first PDU came, bytes of the login may be on their way, which nothing protects.
            Fault::Corrupt => {
                let pipe = conn.wire.pipe().filter(|_| conn.protected && conn.heard > 0);
                return pipe.is_some_and(crate::net::Pipe::corrupt);
            }
            Fault::Ping => {
                let id = conn.id;
                let sent = self.engine.ping(now, id, &Bytes::from_static(PING)).is_ok();
                self.exchanges += usize::from(sent);
                return sent;
            }
            Fault::Text => {
                let text = Bytes::from_static(b"SendTargets=\0X-org.example.sim=1\0");
                let sent = self.engine.text(now, text).is_ok();
                self.exchanges += usize::from(sent);
                return sent;
            }
            Fault::Declare => {
                let length = rng.pick(&[512, 1000, 4096, 8192, 262_144]);
                let id = conn.id;
                let sent = self.engine.declare_max_recv_data_segment_length(now, id, length).is_ok();
                self.exchanges += usize::from(sent);
                return sent;
            }
            Fault::Logout => {
                self.logging_out = true;
                self.engine.logout(now);
                return true;
            }
            Fault::LogoutConnection => {
                let id = conn.id;
                self.engine.logout_connection(now, id);
                return true;
            }
            Fault::AbortTaskSet => TaskFunction::AbortTaskSet(Lun::ZERO),
            Fault::ClearTaskSet => TaskFunction::ClearTaskSet(Lun::ZERO),
            Fault::LogicalUnitReset => TaskFunction::LogicalUnitReset(Lun::ZERO),
            Fault::ClearAca => TaskFunction::ClearAca(Lun::ZERO),
            Fault::WarmReset => TaskFunction::TargetWarmReset,
            Fault::ColdReset => TaskFunction::TargetColdReset,
            Fault::NexusReset => TaskFunction::ItNexusReset,
            Fault::QueryTaskSet => TaskFunction::QueryTaskSet(Lun::ZERO),
            Fault::QueryEvent => TaskFunction::QueryAsynchronousEvent(Lun::ZERO),
            Fault::QueryTask => match task() {
                Some(tag) => TaskFunction::QueryTask(tag),
                None => return false,
            },
            _ => return false,
        };
        let before = self.functions;
        self.function(now, function);
        self.functions > before
    }
}
