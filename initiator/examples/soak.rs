//! Runs the simulator over many seeds and says what was covered.
//!
//! `cargo run --release -p srp-initiator --example soak -- --seeds 1000000`; `--first N` starts elsewhere,
//! `--threads N` uses so many, `--seed N` replays one seed and prints its trace. Ends at the first seed that fails.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use srp_initiator::sim::{Tally, run_seed};

/// Seeds between two lines of progress.
const PROGRESS: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    let mut words = std::env::args().skip_while(|word| word != name);
    words.next()?;
    match words.next().and_then(|word| word.parse().ok()) {
        Some(number) => Some(number),
        None => panic!("{name} needs a number"),
    }
}

fn main() -> ExitCode {
    if let Some(seed) = number("--seed") {
        return match run_seed(seed) {
            Ok(mut world) => {
                println!("{}seed {seed} passes", world.fabric().trace());
                ExitCode::SUCCESS
            }
            Err(report) => {
                println!("{report}");
                ExitCode::FAILURE
            }
        };
    }
    let (first, seeds) = (number("--first").unwrap_or(1), number("--seeds").unwrap_or(10_000));
    let threads = number("--threads").unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |count| u64::try_from(count.get()).unwrap_or(1))
    });
    let next = AtomicU64::new(first);
    let failed = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tally = Tally::default();
                while failed.load(Ordering::Relaxed) == 0 {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    match run_seed(seed) {
                        Ok(mut world) => tally.add(world.fabric().tally()),
                        Err(report) => {
                            failed.store(seed, Ordering::Relaxed);
                            println!("{report}");
                            println!("seed {seed} fails; --seed {seed} replays it");
                        }
                    }
                    if (seed + 1 - first).is_multiple_of(PROGRESS) {
                        println!("{} seeds, {:.0} s", seed + 1 - first, start.elapsed().as_secs_f64());
                    }
                }
                if let Ok(mut total) = total.lock() {
                    total.add(&tally);
                }
            });
        }
    });
    if failed.into_inner() != 0 {
        return ExitCode::FAILURE;
    }
    let total = total.into_inner().unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    println!("{seeds} seeds pass in {seconds:.0} s; what happened how often:\n{total}");
    ExitCode::SUCCESS
}
