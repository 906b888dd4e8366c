//! What commands answer: expected values from SPC-4 and SBC-3, and from what libiscsi's test suite asks for.

mod any_input;
mod bad_input;
mod behind;
mod blocks;
mod busy;
mod erasing;
mod every_command;
mod logs;
mod pages;
mod protection;
mod reserving;
mod sam;
mod sharing;

use crate::block::RamDisk;
use crate::nexus::tests::{Engine, Reply, ready, target_over};
use crate::unit::UnitConfig;
use scsi_cmd::cdb::*;
use scsi_cmd::{Asc, Sense, SenseKey};
