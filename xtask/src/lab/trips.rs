//! Who meets whom, over what, and what they go through together.

/// A peer over a transport, and the scenarios they go through.
pub(super) struct Trip {
    pub(super) peer: &'static str,
    pub(super) transport: &'static str,
    /// Trips of the same boot share a guest, one after the other.
    pub(super) boot: &'static str,
    /// Script in `xtask/lab/`; its arguments are the transport and the scenarios.
    pub(super) script: &'static str,
    scenarios: &'static [&'static str],
    /// Those of them that this transport has not.
    without: &'static [&'static str],
}

impl Trip {
    pub(super) fn scenarios(&self) -> impl Iterator<Item = &'static str> {
        let &Self { without, transport, .. } = self;
        let has = move |s: &&str| !without.contains(s) && (transport == "tcp" || !s.starts_with(LEVEL));
        self.scenarios.iter().copied().filter(has)
    }
}

/// RFC 7145 has no digests, a connection over soft RoCE is no socket that could be reset, and what delays packets, and what
/// is offered in a login, is proved over TCP.
const NOT_RXE: &[&str] = &["digests", "connection-reset", "packets-delayed", "recovery-offered"];
/// As for [`NOT_RXE`], but a connection over siw is a socket.
const NOT_SIW: &[&str] = &["digests", "packets-delayed", "recovery-offered"];
/// LIO over siw hangs when its portal group is disabled under load, and every other time when packets were lost.
const NOT_LIO_SIW: &[&str] = &["digests", "packets-lost", "packets-delayed", "target-restarted"];

/// What scenarios at ErrorRecoveryLevel 1 and, with four connections, 2 begin with: with digests, which are TCP's.
const LEVEL: &str = "level-";

const SERVE: &[&str] = &[
    "login-plain",
    "login-chap",
    "login-mutual-chap",
    "wrong-secret",
    "digests",
    "recovery-offered",
    "bursts",
    "filesystem",
    "fio-verify",
    "aborts",
    "cable-pulled",
    "packets-lost",
    "packets-delayed",
    "connection-reset",
    "target-restarted",
    "target-killed",
];

const ATTACH: &[&str] = &[
    "discover",
    "ls",
    "inquiry",
    "capacity",
    "read-write",
    "copy",
    "login-chap",
    "login-mutual-chap",
    "digests",
    "bench",
    "aborts",
    "cable-pulled",
    "packets-lost",
    "packets-delayed",
    "connection-reset",
    "level-2",
    "level-2-packets-delayed",
    "level-1-cable-pulled",
    "level-1-packets-lost",
    "level-1-connection-reset",
    "target-restarted",
    "target-unproven",
];

/// Both ends are ours, the device between them is the kernel's.
const PAIR_RXE: &[&str] = &[
    "login-plain",
    "login-chap",
    "login-mutual-chap",
    "wrong-secret",
    "copy",
    "bench",
    "aborts",
    "cable-pulled",
    "packets-lost",
    "target-restarted",
    "target-killed",
];

/// Kernel against kernel: what fails here is no fault of ours.
const CONTROL: &[&str] = &["login-plain", "fio-verify"];

/// The datamover's scenarios on the verbs provider, each build of it.
const CONFORMANCE: &[&str] = &["verbs", "ibverbs"];

/// `iscsi-conform` as the target of the kernel's initiator, by area of its cases.
const INITIATOR_JUDGED: &[&str] =
    &["initiator-logins", "initiator-requests", "initiator-events", "initiator-data", "initiator-discovery"];

/// sg3_utils through the kernel's initiator.
const TOOLS: &[&str] = &["looks", "reservations", "writes", "copies"];

const PAIR: &str = "our initiator -> our target";
const FROM_KERNEL: &str = "open-iscsi -> our target";
const TO_KERNEL: &str = "our initiator -> LIO";
const REFERENCE: &str = "open-iscsi -> LIO";
const SG3_UTILS: &str = "sg3_utils -> our target";
const LIBISCSI: &str = "libiscsi -> our target";
const TO_TGT: &str = "our initiator -> tgt";
const SIDE_BY_SIDE: &str = "open-iscsi -> ours, LIO, tgt";
const SUITE: &str = "datamover's conformance";
const LIBRDMACM: &str = "librdmacm, our iwarp";
const KERNEL_JUDGED: &str = "open-iscsi -> iscsi-conform";
const LIO_JUDGED: &str = "iscsi-conform -> LIO";

/// The order of the table, and of the boots.
pub(super) const TRIPS: &[Trip] = &[
    Trip {
        peer: FROM_KERNEL,
        transport: "tcp",
        boot: "served, tcp",
        script: "serve.sh",
        scenarios: SERVE,
        without: &[],
    },
    Trip {
        peer: FROM_KERNEL,
        transport: "rxe",
        boot: "served, rxe",
        script: "serve.sh",
        scenarios: SERVE,
        without: NOT_RXE,
    },
    Trip {
        peer: FROM_KERNEL,
        transport: "siw",
        boot: "served, siw",
        script: "serve.sh",
        scenarios: SERVE,
        without: NOT_SIW,
    },
    Trip {
        peer: TO_KERNEL,
        transport: "tcp",
        boot: "attached, tcp",
        script: "attach.sh",
        scenarios: ATTACH,
        without: &[],
    },
    // LIO frees a command twice there: a guest of its own.
    Trip {
        peer: TO_KERNEL,
        transport: "tcp",
        boot: "spoiled, tcp",
        script: "attach.sh",
        scenarios: &["level-1-data-spoiled"],
        without: &[],
    },
    Trip {
        peer: TO_KERNEL,
        transport: "rxe",
        boot: "attached, rxe",
        script: "attach.sh",
        scenarios: ATTACH,
        without: NOT_RXE,
    },
    Trip {
        peer: TO_KERNEL,
        transport: "siw",
        boot: "attached, siw",
        script: "attach.sh",
        scenarios: ATTACH,
        without: NOT_LIO_SIW,
    },
    Trip {
        peer: PAIR,
        transport: "rxe",
        boot: "paired",
        script: "pair.sh",
        scenarios: PAIR_RXE,
        without: &[],
    },
    Trip {
        peer: SIDE_BY_SIDE,
        transport: "rxe",
        boot: "compared",
        script: "compare.sh",
        scenarios: &["compared"],
        without: &[],
    },
    Trip {
        peer: SG3_UTILS,
        transport: "tcp",
        boot: "served, tcp",
        script: "tools.sh",
        scenarios: TOOLS,
        without: &[],
    },
    Trip {
        peer: LIBISCSI,
        transport: "rxe",
        boot: "paired",
        script: "foreign.sh",
        scenarios: &["libiscsi-looks"],
        without: &[],
    },
    Trip {
        peer: TO_TGT,
        transport: "rxe",
        boot: "paired",
        script: "foreign.sh",
        scenarios: &["tgt-attached"],
        without: &[],
    },
    Trip {
        peer: SUITE,
        transport: "rxe",
        boot: "paired",
        script: "conformance.sh",
        scenarios: CONFORMANCE,
        without: &[],
    },
    Trip {
        peer: LIBRDMACM,
        transport: "siw",
        boot: "served, siw",
        script: "iwarp.sh",
        scenarios: &["our-client", "one-message", "our-server"],
        without: &[],
    },
    Trip {
        peer: KERNEL_JUDGED,
        transport: "tcp",
        boot: "served, tcp",
        script: "conform.sh",
        scenarios: INITIATOR_JUDGED,
        without: &[],
    },
    Trip {
        peer: LIO_JUDGED,
        transport: "tcp",
        boot: "attached, tcp",
        script: "conform.sh",
        scenarios: &["target-judged"],
        without: &[],
    },
    Trip {
        peer: REFERENCE,
        transport: "tcp",
        boot: "attached, tcp",
        script: "control.sh",
        scenarios: CONTROL,
        without: &[],
    },
    Trip {
        peer: REFERENCE,
        transport: "rxe",
        boot: "attached, rxe",
        script: "control.sh",
        scenarios: CONTROL,
        without: &[],
    },
    Trip {
        peer: REFERENCE,
        transport: "siw",
        boot: "attached, siw",
        script: "control.sh",
        scenarios: CONTROL,
        without: &[],
    },
];

/// What `--quick` takes: each peer over each transport, a login with CHAP each way that iSER goes, data compared, one
/// fault. Left out are above all fio and the targets side by side. Peer, transport, scenarios.
const QUICK: &[(&str, &str, &[&str])] = &[
    (FROM_KERNEL, "tcp", &["digests"]),
    (FROM_KERNEL, "rxe", &["login-chap", "target-killed"]),
    (FROM_KERNEL, "siw", &["login-chap"]),
    (TO_KERNEL, "tcp", &["read-write"]),
    (TO_KERNEL, "rxe", &["read-write", "login-chap"]),
    (TO_KERNEL, "siw", &["read-write", "login-chap"]),
    (PAIR, "rxe", &["login-plain"]),
    (SG3_UTILS, "tcp", &["looks"]),
    (LIBISCSI, "rxe", &["libiscsi-looks"]),
    (TO_TGT, "rxe", &["tgt-attached"]),
    (SUITE, "rxe", &["verbs"]),
    (LIBRDMACM, "siw", &["one-message", "our-server"]),
    (KERNEL_JUDGED, "tcp", &["initiator-discovery"]),
    (LIO_JUDGED, "tcp", &["target-judged"]),
    (REFERENCE, "tcp", &["login-plain"]),
    (REFERENCE, "rxe", &["login-plain"]),
    (REFERENCE, "siw", &["login-plain"]),
];

/// Whether `--quick` takes it.
pub(super) fn is_quick(trip: &Trip, scenario: &str) -> bool {
    QUICK.iter().any(|(peer, transport, scenarios)| {
        (*peer, *transport) == (trip.peer, trip.transport) && scenarios.contains(&scenario)
    })
}

/// What a peer cannot do, whoever is at the other end: rows of the table that are not run.
pub(super) struct Limit {
    pub(super) peer: &'static str,
    pub(super) transport: &'static str,
    pub(super) scenario: &'static str,
    /// What was seen.
    pub(super) evidence: &'static str,
}

pub(super) const LIMITS: &[Limit] = &[
    Limit {
        peer: TO_KERNEL,
        transport: "tcp",
        scenario: "level-2-connection-reset",
        evidence: "LIO 6.1 panicked in 6 of 6 runs where a connection broke at level 2: NULL pointer in \
                   target_release_cmd_kref, from iscsit_free_connection_recovery_entries (5), or, at the logout that \
                   removes the lost connection for recovery, from iscsit_discard_cr_cmds_by_expstatsn (1)",
    },
    Limit {
        peer: TO_KERNEL,
        transport: "tcp",
        scenario: "level-2-data-spoiled",
        evidence: "LIO 6.1 panicked in 1 of 1 runs, at the logout for recovery as above: what it does to the last Data-In at \
                   level 1 (next row) breaks a connection",
    },
    Limit {
        peer: TO_KERNEL,
        transport: "tcp",
        scenario: "level-1-data-spoiled, last Data-In",
        evidence: "LIO 6.1 rejects the SNACK for it ('greater than maximum DataSN'), frees the command twice \
                   ('refcount_t: underflow; use-after-free', iscsit_add_reject_from_cmd) and closes the connection; the \
                   session goes on over a new one",
    },
    Limit {
        peer: TO_KERNEL,
        transport: "tcp",
        scenario: "level-1-packets-lost, four connections",
        evidence: "LIO 6.1 panicked in 1 of 3 runs where four connections of a session broke at level 1: _raw_spin_lock_bh on \
                   freed memory",
    },
    Limit {
        peer: TO_KERNEL,
        transport: "siw",
        scenario: "target-restarted",
        evidence: "LIO hangs when its portal group is disabled under load, with the kernel's initiator too",
    },
    Limit {
        peer: TO_KERNEL,
        transport: "siw",
        scenario: "packets-lost",
        evidence: "every other time LIO answers no login any more: its login thread waits in \
                   iscsit_cause_connection_reinstatement for the lost connection's, which waits in target_wait_for_cmds \
                   (isert_wait_conn) though its socket is long gone; else 25 s",
    },
    Limit {
        peer: LIO_JUDGED,
        transport: "tcp",
        scenario: "target-judged, level 2",
        evidence: "recovery-12, -13 and -15 to -17 are excluded: LIO 6.1 panics when a connection breaks at level 2, see above",
    },
    Limit {
        peer: LIO_JUDGED,
        transport: "tcp",
        scenario: "target-judged, connections-09",
        evidence: "LIO 6.1 panics when the CID of a live connection logs in: NULL pointer in iscsit_get_rx_pdu",
    },
    Limit {
        peer: FROM_KERNEL,
        transport: "rxe",
        scenario: "cable-pulled, neighbour lost",
        evidence: "Linux 6.1's ib_iser takes RDMA_CM_EVENT_UNREACHABLE, which a lost neighbour entry brings, for a failed \
                   connect: it leaves the connection as it is, and panics at the next response there (NULL pointer in \
                   iscsi_verify_itt, from iser_task_rsp); the event comes with LIO, too. The lab's entries are permanent",
    },
    Limit {
        peer: PAIR,
        transport: "rxe",
        scenario: "device-removed",
        evidence: "`rdma link delete` hangs in this kernel while a process has the device open, whoever it is",
    },
    Limit {
        peer: "QEMU -> our target",
        transport: "rxe",
        scenario: "copy",
        evidence: "qemu-img 7.2 at iser:// aborts in libiscsi ('Cannot allocate memory', 'free(): invalid pointer'), at LIO too",
    },
    Limit {
        peer: LIBISCSI,
        transport: "rxe",
        scenario: "test-cu",
        evidence: "iscsi-test-cu 1.19 does not log in over iSER ('CQ handle Failed'), at LIO either",
    },
    Limit {
        peer: TO_TGT,
        transport: "siw",
        scenario: "tgt-attached",
        evidence: "tgtd 1.0.85 aborts on an assertion when rdma_accept fails over siw, with the kernel's initiator too",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    /// `--quick` asks for scenarios that there are.
    #[test]
    fn quick_is_a_part() {
        for (peer, transport, scenarios) in QUICK {
            let trip = |t: &&Trip, s: &str| {
                (t.peer, t.transport) == (*peer, *transport) && t.scenarios().any(|has| has == s)
            };
            for scenario in *scenarios {
                let count = TRIPS.iter().filter(|t| trip(t, scenario)).count();
                assert_eq!(count, 1, "{peer} {transport} {scenario}");
            }
        }
    }

    /// No peer over no transport is left out of it, but what only measures.
    #[test]
    fn quick_meets_everybody() {
        for trip in TRIPS.iter().filter(|t| t.peer != SIDE_BY_SIDE) {
            let met = |t: &&Trip| (t.peer, t.transport) == (trip.peer, trip.transport);
            let quick = TRIPS.iter().filter(met).any(|t| t.scenarios().any(|s| is_quick(t, s)));
            assert!(quick, "{} {}", trip.peer, trip.transport);
        }
    }

    /// Each scenario in the table has a function of its name in its script.
    #[test]
    fn scenarios_exist() {
        for trip in TRIPS {
            let script = std::fs::read_to_string(root().join("xtask/lab").join(trip.script)).unwrap();
            for scenario in trip.scenarios() {
                let function = if scenario == "ls" { "ls_luns".into() } else { scenario.replace('-', "_") };
                assert!(script.contains(&format!("\n{function}() {{")), "{} {scenario}", trip.script);
            }
        }
    }
}
