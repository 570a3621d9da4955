//! Instructions per 4 KiB command through the engine, submission to completion, over a fabric that does nothing, and of
//! a pass with nothing to do.
//!
//! `cargo bench -p srp-initiator --bench instructions`. Counted by callgrind (valgrind), as time is noisy; without
//! it nanoseconds are printed, which say little, and it fails, as it does when a command takes too many. What the fabric costs all the same is counted apart, and not the
//! engine's; the loop that drives the engine is in its figure.

#[path = "../tests/bare/mod.rs"]
mod bare;

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use bare::Load;
use srp_initiator::fabric::Exposure;

/// The functions of the fabric, for callgrind.
const FABRIC: &str = "--toggle-collect=*BareFabric*";
const CASE: &str = "SRP_BENCH_CASE";
/// Commands of the two runs that are compared: what is common to both is not the command's.
const FEW: u64 = 2_000;
const MANY: u64 = 22_000;
/// No command of a channel without windows may take more. The goal is 1,000, and compilers differ.
const LIMIT: u64 = 1_100;

#[derive(Clone, Copy)]
struct Case {
    disks: u32,
    /// Commands at once; 0 for passes without a command.
    depth: u64,
    write: bool,
    window: bool,
}

impl Case {
    fn exposure(self) -> Exposure {
        match self.window {
            true => Exposure::Window,
            false => Exposure::Pool,
        }
    }
}

fn run(case: Case, commands: u64) {
    let mut load = Load::new(case.disks, case.exposure());
    if case.depth == 0 {
        assert!(black_box(load.idle(commands)) <= 1, "something to do");
        return;
    }
    assert_eq!(black_box(load.run(commands, case.depth, case.write)), commands);
}

/// Instructions per command, of everything or as `arguments` choose; nothing without valgrind.
fn instructions(case: Case, arguments: &[&str]) -> Option<u64> {
    let (few, many) = (counted(case, FEW, arguments)?, counted(case, MANY, arguments)?);
    Some((many - few) / (MANY - FEW))
}

/// Instructions of a process that runs so many commands.
fn counted(case: Case, commands: u64, arguments: &[&str]) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let (write, window) = (u8::from(case.write), u8::from(case.window));
    let text = format!("{} {} {write} {window} {commands}", case.disks, case.depth);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(arguments)
        .arg(program)
        .env(CASE, text)
        .output()
        .ok()?;
    let log = String::from_utf8_lossy(&output.stderr);
    let line = log.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

fn child(text: &str) {
    let numbers: Vec<u64> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
    if let [disks, depth, write, window, commands] = numbers[..] {
        let case = Case {
            disks: u32::try_from(disks).unwrap_or(1),
            depth,
            write: write == 1,
            window: window == 1,
        };
        run(case, commands);
    }
}

fn main() {
    if let Ok(text) = std::env::var(CASE) {
        return child(&text);
    }
    let mut over = false;
    println!(
        "{:>6} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8}",
        "disks", "depth", "", "", "engine", "fabric", "ns"
    );
    for (disks, window) in [(1, false), (1024, false), (1, true)] {
        for (depth, write) in [(0, false), (1, false), (1, true), (32, false), (32, true)] {
            let case = Case {
                disks,
                depth,
                write,
                window,
            };
            let fabric = instructions(case, &[FABRIC]);
            let engine = instructions(case, &[]).zip(fabric).map(|(all, fabric)| all - fabric);
            let start = Instant::now();
            run(case, 10 * MANY);
            let nanoseconds = start.elapsed().as_nanos() / u128::from(10 * MANY);
            over |= engine.is_none_or(|engine| !window && engine > LIMIT);
            let what = match (depth, write) {
                (0, _) => "pass",
                (_, true) => "write",
                (_, false) => "read",
            };
            let text = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
            let (engine, fabric) = (text(engine), text(fabric));
            let exposure = if window { "window" } else { "pool" };
            println!("{disks:>6} {depth:>6} {what:>6} {exposure:>6} {engine:>8} {fabric:>8} {nanoseconds:>8}");
        }
    }
    if over {
        eprintln!("more than {LIMIT} instructions without windows, or none counted: valgrind has to be installed");
        std::process::exit(1);
    }
}
