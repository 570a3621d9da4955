//! The simulator can fail: every deliberate defect of the engine is caught by some seed.
//!
//! Defects exist in builds with debug assertions only.
#![cfg(debug_assertions)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use srp_initiator::session::Mutation;
use srp_initiator::sim::{Scenario, run};

/// Seeds tried per defect.
const SEEDS: u64 = 10_000;

/// How a seed ends with a defect; nothing when it passes.
fn caught(seed: u64, mutation: Mutation) -> Option<String> {
    let mut scenario = Scenario::from_seed(seed);
    scenario.world.mutation = Some(mutation);
    let result = catch_unwind(AssertUnwindSafe(|| run(&scenario).map(drop)));
    match result {
        Ok(Ok(())) => None,
        Ok(Err(report)) => {
            let first = report
                .lines()
                .find(|line| line.starts_with("  ") && line.contains(" us: "));
            Some(first.unwrap_or("not over in time").trim().to_owned())
        }
        Err(_) => Some("an assertion of the engine".to_owned()),
    }
}

#[test]
fn each_is_caught_by_some_seed() {
    // What the engine's own assertions say of its defects is expected.
    std::panic::set_hook(Box::new(|_| {}));
    let next = std::sync::Mutex::new(Mutation::ALL.iter());
    let missed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&mutation) = next.lock().expect("no panic").next() {
                    let found = (1..=SEEDS).find_map(|seed| Some((seed, caught(seed, mutation)?)));
                    match found {
                        Some((seed, what)) => println!("{mutation:?}: seed {seed}: {what}"),
                        None => missed.lock().expect("no panic").push(mutation),
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let missed = missed.into_inner().expect("no panic");
    assert!(missed.is_empty(), "not caught by {SEEDS} seeds: {missed:?}");
}
