//! One boot of the guest: a job goes in, lines and an exit status come out.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::prepare::Prepared;
use crate::workspace::root;

/// What the guest's kernel is told. No check of the timer: on a busy machine the emulator's ticks are late, and the kernel
/// panics ("IO-APIC + timer doesn't work"), or finds its clock unstable. No mitigations and no audit: an emulator pays for
/// each indirect branch.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=7 panic=1 oops=panic no_timer_check mitigations=off audit=0 \
                            nowatchdog tsc=reliable random.trust_cpu=on";

/// A virtual machine that has this machine's root filesystem, under a layer of memory that takes all
/// that is written, and its own kernel, devices and network.
pub(super) struct Guest<'a> {
    prepared: &'a Prepared,
    /// Keep the kernel's log.
    pub(super) keep: bool,
}

/// What a guest is to do.
pub(super) struct Job {
    pub(super) command: Vec<String>,
    pub(super) limit: Duration,
    /// The guest's clock counts its instructions, 4 ns each: what it measures does not depend on what else this machine
    /// does.
    pub(super) counted: bool,
}

/// The directory the guest reads its job from and leaves its status in.
struct RunDir(PathBuf);

impl RunDir {
    fn new(prepared: &Prepared, command: &[String], interactive: bool) -> Result<Self> {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let dir = prepared.dir.join(format!("run-{}-{run}", std::process::id()));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        let job = format!(
            "interactive={}\ndirectory={}\ncommand=({})\n",
            u8::from(interactive),
            quoted(&root().display().to_string()),
            words.join(" ")
        );
        fs::write(dir.join("job"), job)?;
        fs::copy(root().join("xtask/lab/guest-init"), dir.join("guest-init"))?;
        Ok(Self(dir))
    }

    fn log(&self) -> PathBuf {
        self.0.join("kernel.log")
    }

    /// The job's exit status, once the guest left it.
    fn status(&self) -> Option<i32> {
        fs::read_to_string(self.0.join("status")).ok()?.trim().parse().ok()
    }
}

/// A word for bash.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl<'a> Guest<'a> {
    pub(super) fn new(prepared: &'a Prepared) -> Self {
        Self { prepared, keep: false }
    }

    /// Runs the job as root and hands over its output line by line. Returns its exit status.
    pub(super) fn run(&self, job: &Job, each: &mut dyn FnMut(&str)) -> Result<i32> {
        let dir = RunDir::new(self.prepared, &job.command, false)?;
        let mut qemu = self.qemu(&dir.0, &dir.log(), job.counted);
        let mut child =
            qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("qemu-system-x86_64")?;
        let output = child.stdout.take().context("no output")?;
        let (send, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let _ = send.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        });
        let end = Instant::now() + job.limit;
        let timed_out = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => each(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break false,
                Err(mpsc::RecvTimeoutError::Timeout) => break true,
            }
        };
        if timed_out {
            child.kill()?;
        }
        child.wait()?;
        reader.join().ok();
        let status = dir.status();
        let log = fs::read_to_string(dir.log()).unwrap_or_default();
        if self.keep {
            eprintln!("kernel log: {}", dir.log().display());
        } else {
            fs::remove_dir_all(&dir.0)?;
        }
        if let Some(status) = status {
            return Ok(status);
        }
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        if timed_out {
            bail!("the guest was not done within {} s; end of its kernel log:\n{tail}", job.limit.as_secs());
        }
        bail!("the guest died; end of its kernel log:\n{tail}");
    }

    /// A root shell in the guest, on this terminal.
    pub(super) fn shell(&self) -> Result<()> {
        let dir = RunDir::new(self.prepared, &["bash".to_owned(), "-i".to_owned()], true)?;
        self.qemu(&dir.0, &dir.log(), false).status().context("qemu-system-x86_64")?;
        fs::remove_dir_all(&dir.0).context("cannot tidy up")
    }

    fn qemu(&self, job: &Path, log: &Path, counted: bool) -> Command {
        // `LAB_ACCEL=kvm` is for machines where a stock kernel boots under KVM; emulation works everywhere.
        let kvm = std::env::var("LAB_ACCEL").is_ok_and(|accel| accel == "kvm");
        let accel = match (kvm, counted) {
            (true, _) => ["kvm", "host"],
            (false, true) => ["tcg,thread=single", "max,la57=off"],
            (false, false) => ["tcg,thread=multi", "max,la57=off"],
        };
        let share = |tag: &str, path: &Path, options: &str| {
            format!(
                "local,mount_tag={tag},path={},security_model=none,multidevs=remap{options}",
                path.display()
            )
        };
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", accel[0], "-cpu", accel[1], "-smp", "1", "-m", "3072"])
            .arg("-kernel")
            .arg(self.prepared.kernel())
            .arg("-initrd")
            .arg(self.prepared.initramfs())
            .args(["-append", COMMAND_LINE])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
            .args(["-serial", &format!("file:{}", log.display())])
            .args(["-device", "virtio-serial", "-device", "virtconsole,chardev=console"])
            .args(["-chardev", "stdio,id=console,signal=off"])
            .args(["-virtfs", &share("hostroot", Path::new("/"), ",readonly=on")])
            .args(["-virtfs", &share("modules", &self.prepared.modules(), ",readonly=on")])
            .args(["-virtfs", &share("job", job, "")]);
        if counted && !kvm {
            command.args(["-icount", "shift=2"]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_bash_unchanged() {
        let words = ["plain", "two words", "it's", "$HOME `x` \"y\" \\"];
        let line = format!("printf '%s\\n' {}", words.map(quoted).join(" "));
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words.map(|w| format!("{w}\n")).concat());
    }
}
