//! A flame graph of our target under a workload: `cargo xtask flame`. perf (Debian: linux-perf) records, the graph is
//! drawn here. (The crate that is known for it has a licence that this repository does not take.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{WORKLOADS, Workload, lean, servers, side_by_side};
use crate::tools::{output, run as run_command, succeeds};

/// Options of `cargo xtask flame`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A workload of `cargo xtask bench`.
    #[arg(default_value = "4k-randread-d32")]
    workload: String,
    /// Where the graph goes.
    #[arg(long, default_value = "target/flame.svg")]
    out: PathBuf,
    /// Seconds to record.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// MiB of the unit that are used.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    span: u64,
    /// Further options of our target, as one word.
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    ours: Option<String>,
}

/// Records and draws.
pub(crate) fn run(args: &Args) -> Result<()> {
    if cfg!(debug_assertions) {
        return super::again_in_release();
    }
    ensure!(
        succeeds(Command::new("perf").args(["record", "-o", "/dev/null", "true"])),
        "perf cannot record here: it is missing (Debian: apt-get install linux-perf), or \
         /proc/sys/kernel/perf_event_paranoid does not let it"
    );
    let workload = WORKLOADS.iter().find(|w| w.name == args.workload).with_context(|| {
        let names: Vec<&str> = WORKLOADS.iter().map(|w| w.name).collect();
        format!("there is no workload {}, but {}", args.workload, names.join(", "))
    })?;
    let span = args.span << 20;
    let workload = Workload { span, ..workload.clone() };
    let extra: Vec<String> = args.ours.iter().flat_map(|o| o.split_whitespace()).map(str::to_owned).collect();
    let server = servers::ours("flame", &super::built()?, span, &extra)?;
    lean::fill(&server.url, span)?;
    let data = args.out.with_extension("perf");
    let (pid, time) = (server.pid.to_string(), args.seconds.to_string());
    let mut record = Command::new("perf");
    // Frame pointers are not in the standard library: the stack itself is recorded.
    record.args(["record", "-q", "-F", "499", "--call-graph", "dwarf,16384", "-p", &pid, "-o"]).arg(&data);
    record.args(["--", "sleep", &time]).stdin(Stdio::null());
    let mut record = record.spawn().context("perf record")?;
    std::thread::sleep(Duration::from_millis(300));
    let under_load = Duration::from_secs_f64(args.seconds);
    side_by_side(workload.sessions, |n| lean::run(&server.url, &workload, under_load, n as u64 + 1))?;
    ensure!(record.wait()?.success(), "perf record failed");
    drop(server);
    let stacks =
        output(Command::new("perf").args(["script", "--no-inline", "-F", "ip,sym", "-i"]).arg(&data))?;
    std::fs::remove_file(&data)?;
    let tree = fold(&stacks);
    ensure!(tree.samples > 0, "perf has recorded nothing");
    std::fs::write(&args.out, draw(&tree, &format!("iscsi-target, {}", workload.name)))?;
    println!("{}", args.out.display());
    Ok(())
}

/// The release build of our target.
pub(crate) fn built() -> Result<PathBuf> {
    let mut build = crate::tools::cargo();
    build.args(["build", "--quiet", "--release", "-p", "iscsi-target", "--bins"]);
    run_command(build.stdout(std::io::stderr()))?;
    Ok(crate::workspace::root().join("target/release/iscsi-target"))
}

/// A function, called by the one that it lies in.
#[derive(Default)]
struct Node {
    samples: u64,
    calls: BTreeMap<String, Node>,
}

/// What `perf script -F ip,sym` writes: the frames of a sample a line each, the innermost first, then an empty line.
fn fold(text: &str) -> Node {
    let mut root = Node::default();
    let mut stack: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        if let Some((_, symbol)) = line.trim().split_once(' ') {
            stack.push(symbol.split("+0x").next().unwrap_or(symbol));
            continue;
        }
        if stack.is_empty() {
            continue;
        }
        root.samples += 1;
        let mut node = &mut root;
        for symbol in stack.drain(..).rev() {
            node = node.calls.entry(symbol.to_owned()).or_default();
            node.samples += 1;
        }
    }
    root
}

const WIDTH: f64 = 1400.0;
const ROW: f64 = 17.0;
/// Narrower boxes are left out.
const LEAST: f64 = 0.4;

fn draw(root: &Node, title: &str) -> String {
    let height = (depth(root) + 2) as f64 * ROW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" \
         font-size=\"11\">\n<text x=\"4\" y=\"13\">{}, {} samples</text>\n",
        escaped(title),
        root.samples
    );
    boxes(root, 0.0, height - ROW, root.samples as f64, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

fn depth(node: &Node) -> usize {
    node.calls.values().map(|call| depth(call) + 1).max().unwrap_or(0)
}

/// The calls of a node, side by side from `x` on, those that they make above them.
fn boxes(node: &Node, x: f64, y: f64, all: f64, svg: &mut String) {
    let mut x = x;
    for (name, call) in &node.calls {
        let width = call.samples as f64 / all * WIDTH;
        if width >= LEAST {
            let hash = name.bytes().fold(7u32, |hash, b| hash.wrapping_mul(31).wrapping_add(b.into()));
            let (green, blue) = (90 + hash % 130, hash / 130 % 70);
            let (name, share) = (escaped(name), call.samples as f64 / all * 100.0);
            // About 6.7 pixels a character.
            let shown: String = name.chars().take((width / 6.7) as usize).collect();
            let shown = if shown.contains('&') && shown != name { String::new() } else { shown };
            let _ = writeln!(
                svg,
                "<g><title>{name}: {} samples, {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.1}\" \
                 width=\"{width:.1}\" height=\"{:.1}\" fill=\"rgb(235,{green},{blue})\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\">{shown}</text></g>",
                call.samples,
                ROW - 1.0,
                x + 2.0,
                y + 12.0,
            );
            boxes(call, x, y - ROW, all, svg);
        }
        x += width;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_become_a_tree_and_boxes() {
        let text = "\n\t55d0 leaf+0x10\n\t55d1 Vec<T>::push+0x3\n\t55d2 main+0x1\n\n\t55d3 other\n\t55d2 main+0x9\n\n";
        let tree = fold(text);
        assert_eq!(tree.samples, 2);
        let main = &tree.calls["main"];
        assert_eq!((main.samples, main.calls.len(), depth(&tree)), (2, 2, 3));
        assert_eq!(main.calls["Vec<T>::push"].calls["leaf"].samples, 1);
        let svg = draw(&tree, "a & b");
        assert!(svg.contains("<title>Vec&lt;T&gt;::push: 1 samples, 50.0 %</title>"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 4);
        assert!(svg.contains("a &amp; b, 2 samples"));
    }
}
