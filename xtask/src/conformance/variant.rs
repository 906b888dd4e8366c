//! The shapes of a unit that our target is judged in.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::DISK;
use super::suite::Test;
use crate::interop::process::Background;

const IQN: &str = "iqn.2026-01.org.example:conformance";

/// A kind of unit.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The unit, as on the command line; `DISK` is its size, `DIR` a directory of its own.
    lun: &'static str,
    /// More of the command line.
    extra: &'static [&'static str],
    /// Tests whose names begin so; empty means all. Of what does not depend on the kind of unit, one run is enough.
    only: &'static [&'static str],
}

/// What the blocks of a medium have to do with.
const BLOCKS: &[&str] = &[
    "SCSI.CompareAndWrite",
    "SCSI.ExtendedCopy",
    "SCSI.GetLBAStatus",
    "SCSI.Inquiry",
    "SCSI.Mandatory",
    "SCSI.ModeSense6",
    "SCSI.NoMedia",
    "SCSI.OrWrite",
    "SCSI.Prefetch",
    "SCSI.PreventAllow",
    "SCSI.Prout",
    "SCSI.Read",
    "SCSI.Sanitize",
    "SCSI.StartStopUnit",
    "SCSI.TestUnitReady",
    "SCSI.Unmap",
    "SCSI.Verify",
    "SCSI.Write",
    "iSCSI.iSCSIResiduals",
];

pub(crate) const VARIANTS: &[Variant] = &[
    Variant {
        name: "ram",
        what: "memory, thin, 512 bytes: every test",
        lun: "ram:DISK",
        extra: &[],
        only: &[],
    },
    Variant {
        name: "write-back",
        what: "a file, cached, reservations that survive: every test",
        lun: "DIR/disk,create=DISK,reservations=DIR/reservations",
        extra: &[],
        only: &[],
    },
    Variant {
        name: "write-through",
        what: "a file, no write is acknowledged before it is on the medium",
        lun: "DIR/disk,create=DISK,write-through",
        extra: &[],
        only: BLOCKS,
    },
    Variant {
        name: "thick",
        what: "memory, fully provisioned",
        lun: "ram:DISK,thick",
        extra: &[],
        only: BLOCKS,
    },
    Variant {
        name: "512e",
        what: "logical blocks of 512 in physical ones of 4096 bytes",
        lun: "ram:DISK,pbs=4096",
        extra: &[],
        only: BLOCKS,
    },
    Variant {
        name: "4kn",
        what: "logical blocks of 4096 bytes",
        lun: "ram:DISK,bs=4096",
        extra: &[],
        only: BLOCKS,
    },
    Variant {
        name: "protected",
        what: "a file with protection information of type 1",
        lun: "DIR/disk,create=DISK,pi=1",
        extra: &[],
        only: BLOCKS,
    },
    Variant {
        name: "removable",
        what: "a medium that can be ejected",
        lun: "ram:DISK,removable",
        extra: &[],
        only: &[
            "SCSI.Inquiry",
            "SCSI.NoMedia",
            "SCSI.PreventAllow",
            "SCSI.StartStopUnit",
            "SCSI.TestUnitReady",
        ],
    },
    Variant {
        name: "read-only",
        what: "a unit that refuses writes",
        lun: "ram:DISK,ro",
        extra: &[],
        only: &["SCSI.ReadOnly", "SCSI.Inquiry", "SCSI.Mandatory", "SCSI.ReadCapacity", "SCSI.Read1"],
    },
    Variant {
        name: "slow-erase",
        what: "memory that takes its time to be erased",
        lun: "ram:DISK,erase-rate=8M",
        // The test sleeps for a minute and does not look at its connection.
        extra: &["--ping-after", "0"],
        only: &["SCSI.Sanitize.Reset"],
    },
];

impl Variant {
    pub(crate) fn has(&self, test: &Test) -> bool {
        // Elsewhere it is over before the test looks.
        let slow = self.name == "slow-erase" || test.name != "SCSI.Sanitize.Reset";
        slow && (self.only.is_empty() || self.only.iter().any(|prefix| test.name.starts_with(prefix)))
    }

    /// A target with such a unit and two target ports.
    pub(crate) fn start(&self, program: &Path, dir: &Path) -> Result<OurTarget> {
        let lun = self.lun.replace("DISK", &DISK.to_string()).replace("DIR", &dir.to_string_lossy());
        let mut command = Command::new(program);
        command.args([
            "serve",
            "--portal",
            "127.0.0.1:0,1",
            "--portal",
            "127.0.0.1:0,2",
            "--iqn",
            IQN,
            "--lun",
        ]);
        command.args([lun.as_str(), "--cores", "1"]).args(self.extra);
        let mut process = Background::start(&mut command, dir.join("iscsi-target.log"))?;
        let portals = process.until(|text| {
            let all: Vec<SocketAddr> = text
                .lines()
                .filter_map(|line| line.strip_prefix("listening on ")?.trim().parse().ok())
                .collect();
            <[SocketAddr; 2]>::try_from(all).ok()
        });
        Ok(OurTarget { process, portals: portals.context(self.name)? })
    }
}

/// Our target, running.
pub(crate) struct OurTarget {
    process: Background,
    portals: [SocketAddr; 2],
}

impl OurTarget {
    pub(crate) fn urls(&self) -> [String; 2] {
        self.portals.map(|portal| format!("iscsi://{portal}/{IQN}/0"))
    }

    pub(crate) fn alive(&mut self) -> bool {
        self.process.running().is_ok()
    }
}
