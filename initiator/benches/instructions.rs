//! Instructions per 4 KiB command through the engine, submission to completion, over a fabric that does nothing.
//!
//! `cargo bench -p srp-initiator --bench instructions`. Counted by callgrind (valgrind), as time is noisy; without
//! it nanoseconds are printed, which say little.

#[path = "../tests/bare/mod.rs"]
mod bare;

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use bare::Load;
use srp_initiator::fabric::Exposure;

const CASE: &str = "SRP_BENCH_CASE";
/// Commands of the two runs that are compared: what is common to both is not the command's.
const FEW: u64 = 2_000;
const MANY: u64 = 22_000;

#[derive(Clone, Copy)]
struct Case {
    disks: u32,
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
    assert_eq!(
        black_box(Load::new(case.disks, case.exposure()).run(commands, case.depth, case.write)),
        commands
    );
}

/// Instructions of a process that runs so many commands; nothing without valgrind.
fn instructions(case: Case, commands: u64) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let (write, window) = (u8::from(case.write), u8::from(case.window));
    let text = format!("{} {} {write} {window} {commands}", case.disks, case.depth);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
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
    println!(
        "{:>6} {:>6} {:>6} {:>6} {:>14} {:>8}",
        "disks", "depth", "", "", "instructions", "ns"
    );
    for (disks, window) in [(1, false), (1024, false), (1, true)] {
        for depth in [1, 32] {
            for write in [false, true] {
                let case = Case {
                    disks,
                    depth,
                    write,
                    window,
                };
                let counted = instructions(case, MANY).zip(instructions(case, FEW));
                let per_command = counted.map(|(many, few)| (many - few) / (MANY - FEW));
                let start = Instant::now();
                run(case, 10 * MANY);
                let nanoseconds = start.elapsed().as_nanos() / u128::from(10 * MANY);
                let what = if write { "write" } else { "read" };
                let counted = per_command.map_or("no valgrind".to_owned(), |count| count.to_string());
                let exposure = if window { "window" } else { "pool" };
                println!("{disks:>6} {depth:>6} {what:>6} {exposure:>6} {counted:>14} {nanoseconds:>8}");
            }
        }
    }
}
