//! Operations whose instructions `cargo xtask instructions` counts under callgrind.
//!
//! Each is set up and warmed up first. What is counted is what [`counted`] does, which callgrind is told to watch
//! (`--zero-before`, `--dump-after`): one dump an operation, in the order that this program prints their names in.
//! Nothing here depends on time, threads, random numbers or addresses, so that a count is the same in each run.

mod login;
mod pdu;
mod scsi;
mod session;
mod tcp;

use std::process::ExitCode;

/// Something to do over and over.
struct Operation {
    name: String,
    /// How often to do it: once may not show what happens only now and then.
    times: u32,
    run: Box<dyn FnMut()>,
}

impl Operation {
    fn new(name: impl Into<String>, times: u32, run: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), times, run: Box::new(run) }
    }
}

/// The function that callgrind watches.
#[inline(never)]
fn counted(operation: &mut Operation) {
    for _ in 0..operation.times {
        (operation.run)();
    }
}

fn main() -> ExitCode {
    let parts = [pdu::operations, login::operations, scsi::operations, tcp::operations, session::operations];
    for mut operation in parts.into_iter().flat_map(|part| part()) {
        // Tables grow, free lists fill, the processor's features are looked up.
        for _ in 0..operation.times {
            (operation.run)();
        }
        counted(&mut operation);
        println!("{}\t{}", operation.times, operation.name);
    }
    ExitCode::SUCCESS
}
