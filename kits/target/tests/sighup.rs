//! The program reads its configuration again when it is told to.
#![cfg(unix)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// The program, and what it logs.
struct Program {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_iscsi-target"))
            .arg("serve")
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("listening on 127.0.0.1:"), "{ready}");
        Self { child, log }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it logs from a SIGHUP on until a line has these words.
    fn reload(&mut self, until: &str) -> String {
        self.signal(Signal::HUP);
        let mut text = String::new();
        loop {
            let before = text.len();
            assert_ne!(self.log.read_line(&mut text).unwrap(), 0, "it ended: {text}");
            if text[before..].contains(until) {
                return text;
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, luns: &str) {
    let text = format!(
        "portals = [\"127.0.0.1:0\"]\n\n[[target]]\niqn = \"iqn.2026-01.org.example:hup\"\n\n\
         [[target.lun]]\nram = \"1M\"\n{luns}"
    );
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_configuration_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target.toml");
    write(&path, "");
    let mut program = Program::start(&["--cores", "1", "--config", path.to_str().unwrap()]);
    write(&path, "[[target.lun]]\nram = \"2M\"\n");
    let log = program.reload("configuration reloaded");
    assert!(log.contains("target iqn.2026-01.org.example:hup: LUN 1 added"), "{log}");
    // A mistake is told with its place; what was served is served on.
    write(&path, "[[target.lun]]\nram = \"two\"\n");
    let log = program.reload("nothing has changed");
    assert!(log.contains("target.toml:9:7: ram: 'two' is no size"), "{log}");
    write(&path, "[[target.lun]]\npath = \"/nonexistent/disk\"\n");
    let log = program.reload("nothing has changed");
    assert!(log.contains("iqn.2026-01.org.example:hup, LUN 1: /nonexistent/disk"), "{log}");
    write(&path, "[[target.lun]]\nram = \"3M\"\n");
    let log = program.reload("configuration reloaded");
    assert!(log.contains("LUN 1 has 6144 blocks now"), "{log}");
    program.signal(Signal::TERM);
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn without_a_file_sizes_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).and_then(|f| f.set_len(1 << 20)).unwrap();
    let lun = path.to_str().unwrap();
    let iqn = "iqn.2026-01.org.example:hup";
    let mut program =
        Program::start(&["--cores", "1", "--portal", "127.0.0.1:0", "--iqn", iqn, "--lun", lun]);
    std::fs::File::options().write(true).open(&path).and_then(|f| f.set_len(2 << 20)).unwrap();
    let log = program.reload("configuration reloaded");
    assert!(log.contains("LUN 0 has 4096 blocks now"), "{log}");
}
