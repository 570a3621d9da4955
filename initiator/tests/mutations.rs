//! The simulator can fail: every deliberate defect of the engine is caught by some seed.
//!
//! Defects exist in builds with debug assertions only.
#![cfg(debug_assertions)]

use srp_initiator::session::Mutation;
use srp_initiator::sim::{Scenario, run};

/// Seeds tried per defect.
const SEEDS: u64 = 10_000;

/// How a defect is seen.
enum Caught {
    /// The simulator saw a rule broken: first, this one.
    Rule(String),
    /// Only an assertion of the engine fails, of which nothing is left where it counts.
    Assertion,
}

/// How a seed ends with a defect; nothing when it passes.
fn caught(seed: u64, mutation: Mutation) -> Option<Caught> {
    let mut scenario = Scenario::from_seed(seed);
    scenario.world.mutation = Some(mutation);
    let failure = run(&scenario).err()?;
    let rule = failure
        .violations
        .first()
        .map(|violation| Caught::Rule(violation.to_string()));
    Some(rule.unwrap_or(Caught::Assertion))
}

/// Looks for a seed by which the simulator sees a defect; says which ones made only the engine's assertions fail.
fn search(mutation: Mutation) -> Result<(), String> {
    let mut asserted = 0;
    for seed in 1..=SEEDS {
        match caught(seed, mutation) {
            Some(Caught::Rule(what)) => {
                println!("{mutation:?}: seed {seed} ({asserted} others by assertions): {what}");
                return Ok(());
            }
            Some(Caught::Assertion) => asserted += 1,
            None => {}
        }
    }
    Err(format!("{mutation:?} ({asserted} seeds make an assertion fail)"))
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
                loop {
                    let mutation = next.lock().expect("no panic").next();
                    let Some(&mutation) = mutation else { return };
                    if let Err(what) = search(mutation) {
                        missed.lock().expect("no panic").push(what);
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let missed = missed.into_inner().expect("no panic");
    assert!(
        missed.is_empty(),
        "no rule is broken by any of {SEEDS} seeds with: {missed:?}"
    );
}
