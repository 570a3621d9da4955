//! A failing run is made smaller, and fails the same way still.
//!
//! Defects exist in builds with debug assertions only.
#![cfg(debug_assertions)]

use srp_initiator::session::Mutation;
use srp_initiator::sim::{Scenario, run, shrink};

#[test]
fn the_smallest_run_breaks_the_same_rule() {
    for mutation in [Mutation::ShortReadInFull, Mutation::StaleTagAccepted] {
        let failing = (1..1000).find_map(|seed| {
            let mut scenario = Scenario::from_seed(seed);
            scenario.world.mutation = Some(mutation);
            let failure = run(&scenario).err()?;
            // One that there is something to leave out of.
            (failure.rule().is_some() && failure.events > 100).then_some((scenario, failure))
        });
        let (scenario, failure) = failing.expect("the defect is seen");
        let (smallest, small) = shrink(&scenario, &failure);
        assert_eq!(small.rule(), failure.rule(), "{small}");
        assert!(smallest.requests < scenario.requests, "{}", smallest.describe());
        let (before, after) = (failure.events, small.events);
        assert!(after * 2 < before, "{before} events, then {after}");
        let again = run(&smallest).expect_err("it replays");
        assert_eq!(again.trace, small.trace);
    }
}
