//! Instructions per command through the engine, submission to completion, over a fabric that does nothing; of a pass with
//! nothing to do; and of writing and reading IUs. Commands are of 4 KiB, and of more to see what the arena does.
//!
//! `cargo bench -p srp-initiator --bench instructions`. Counted by callgrind (valgrind), as time is noisy; without
//! it nanoseconds are printed, which say little, and it fails, as it does when a command takes too many. What the fabric costs all the same is counted apart, and not the
//! engine's; the loop that drives the engine is in its figure.

#[path = "../tests/bare/mod.rs"]
mod bare;
mod codec;

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use bare::Load;
use srp_initiator::fabric::Exposure;

/// The functions of the fabric, for callgrind.
const FABRIC: &str = "--toggle-collect=*BareFabric*";
const CASE: &str = "SRP_BENCH_CASE";
const COMMAND_WRITTEN: &str = "command-written";
const RESPONSE_READ: &str = "response-read";
const SENSE_READ: &str = "response-with-sense-read";
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
    kib: u32,
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
    let mut load = Load::new(case.disks, case.exposure()).with_blocks(2 * case.kib);
    if case.depth == 0 {
        assert!(black_box(load.idle(commands)) <= 1, "something to do");
        return;
    }
    assert_eq!(black_box(load.run(commands, case.depth, case.write)), commands);
}

/// Instructions per command, of everything or as `arguments` choose; nothing without valgrind.
fn instructions(case: Case, arguments: &[&str]) -> Option<u64> {
    let (write, window) = (u8::from(case.write), u8::from(case.window));
    each(
        &format!("{} {} {write} {window} {}", case.disks, case.depth, case.kib),
        arguments,
    )
}

/// Instructions of each time that something is done; nothing without valgrind.
fn each(what: &str, arguments: &[&str]) -> Option<u64> {
    let (few, many) = (counted(what, FEW, arguments)?, counted(what, MANY, arguments)?);
    Some((many - few) / (MANY - FEW))
}

/// Instructions of a process that does it so many times.
fn counted(what: &str, times: u64, arguments: &[&str]) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let text = format!("{what} {times}");
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
    match (text.split(' ').next(), &numbers[..]) {
        (_, &[disks, depth, write, window, kib, commands]) => {
            let case = Case {
                disks: u32::try_from(disks).unwrap_or(1),
                depth,
                write: write == 1,
                window: window == 1,
                kib: u32::try_from(kib).unwrap_or(4),
            };
            run(case, commands);
        }
        (Some(COMMAND_WRITTEN), &[times]) => {
            let (command, mut slot) = (codec::command(), [0; 256]);
            assert!((0..times).all(|_| codec::write_command(&command, &mut slot)));
        }
        (Some(what @ (RESPONSE_READ | SENSE_READ)), &[times]) => {
            let slot = codec::response(what == SENSE_READ);
            assert!((0..times).all(|_| codec::read_response(&slot)));
        }
        _ => panic!("no such case: {text}"),
    }
}

fn main() {
    if let Ok(text) = std::env::var(CASE) {
        return child(&text);
    }
    let mut over = false;
    println!(
        "{:>6} {:>6} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8}",
        "disks", "depth", "", "", "KiB", "engine", "fabric", "ns"
    );
    for (disks, window, kib) in [
        (1, false, 4),
        (1024, false, 4),
        (1, true, 4),
        (1, false, 64),
        (1, false, 512),
    ] {
        // Eight of the largest are what the buffers of a channel hold.
        let deep = if kib == 4 { 32 } else { 8 };
        for (depth, write) in [(0, false), (1, false), (1, true), (deep, false), (deep, true)] {
            if depth == 0 && kib > 4 {
                continue;
            }
            let case = Case {
                disks,
                depth,
                write,
                window,
                kib,
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
            println!("{disks:>6} {depth:>6} {what:>6} {exposure:>6} {kib:>6} {engine:>8} {fabric:>8} {nanoseconds:>8}");
        }
    }
    for what in [COMMAND_WRITTEN, RESPONSE_READ, SENSE_READ] {
        println!(
            "{what}: {}",
            each(what, &[]).map_or("?".to_owned(), |count| count.to_string())
        );
    }
    if over {
        eprintln!("more than {LIMIT} instructions without windows, or none counted: valgrind has to be installed");
        std::process::exit(1);
    }
}
