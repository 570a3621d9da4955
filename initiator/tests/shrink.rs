//! A failing run is made smaller, and fails the same way still.
//!
//! Defects exist in builds with debug assertions only.
#![cfg(debug_assertions)]

use srp_initiator::session::Mutation;
use srp_initiator::sim::{Failure, Scenario, run, shrink};

/// A few runs with a defect that fail, of those that there is something to leave out of.
fn failing(mutation: Mutation) -> impl Iterator<Item = (Scenario, Box<Failure>)> {
    let failing = (1..1000).filter_map(move |seed| {
        let mut scenario = Scenario::from_seed(seed);
        scenario.world.mutation = Some(mutation);
        let failure = run(&scenario).err()?;
        (failure.rule().is_some() && failure.events > 100).then_some((scenario, failure))
    });
    failing.take(5)
}

#[test]
fn the_smallest_run_breaks_the_same_rule() {
    for mutation in [Mutation::ShortReadInFull, Mutation::StaleTagAccepted] {
        let (mut before, mut after) = (0, 0);
        for (scenario, failure) in failing(mutation) {
            let (smallest, small) = shrink(&scenario, &failure);
            assert_eq!(small.rule(), failure.rule(), "{small}");
            assert!(smallest.requests < scenario.requests, "{}", smallest.describe());
            assert!(small.events <= failure.events, "{}", smallest.describe());
            before += failure.events;
            after += small.events;
            let again = run(&smallest).expect_err("it replays");
            assert_eq!(again.trace, small.trace);
        }
        // A single one may need nearly all that happened.
        assert!(0 < after && after * 2 < before, "{before} events, then {after}");
    }
}
