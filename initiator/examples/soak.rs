//! Runs the simulator over many seeds and says what was covered.
//!
//! `cargo run --release -p srp-initiator --example soak -- --seeds 1000000`; `--first N` starts elsewhere,
//! `--threads N` uses so many, `--seed N` replays one seed and prints its trace. Seeds that fail are printed and the soak goes on, up to ten
//! of them; it ends with an error then.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use srp_initiator::sim::{Failure, Scenario, Tally, run_seed, shrink};

/// Failures after which it is no use to go on.
const ENOUGH: usize = 10;

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

/// The failure of a seed, and the smallest run that fails the same way.
fn report(failure: &Failure) -> String {
    let (smallest, small) = shrink(&Scenario::from_seed(failure.seed), failure);
    let what = smallest.describe();
    format!("{failure}\nThe same in small: {what}\n{small}")
}

fn main() -> ExitCode {
    // One line for each: the trace says what led there, and there are many when a failure is made smaller.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    if let Some(seed) = number("--seed") {
        return match run_seed(seed) {
            Ok(mut world) => {
                println!("{}seed {seed} passes", world.fabric().trace());
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{}", report(&failure));
                ExitCode::FAILURE
            }
        };
    }
    let (first, seeds) = (number("--first").unwrap_or(1), number("--seeds").unwrap_or(10_000));
    let threads = number("--threads").unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |count| u64::try_from(count.get()).unwrap_or(1))
    });
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new(Tally::default());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tally = Tally::default();
                while failed.lock().is_ok_and(|failed| failed.len() < ENOUGH) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    match run_seed(seed) {
                        Ok(mut world) => tally.add(world.fabric().tally()),
                        Err(failure) => {
                            let report = report(&failure);
                            if let Ok(mut failed) = failed.lock() {
                                println!("{report}seed {seed} fails; --seed {seed} replays it");
                                failed.push(seed);
                            }
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
    let total = total.into_inner().unwrap_or_default();
    let failed = failed.into_inner().unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    println!("what happened how often:\n{total}");
    if failed.is_empty() {
        println!("{seeds} seeds pass in {seconds:.0} s");
        return ExitCode::SUCCESS;
    }
    println!("after {seconds:.0} s: these seeds fail: {failed:?}");
    ExitCode::FAILURE
}
