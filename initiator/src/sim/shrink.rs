//! A smaller scenario that breaks the same rule: what does not matter is taken away, one thing at a time.

use super::run::{Failure, run};
use super::scenario::Scenario;
use crate::fabric::Exposure;

/// Runs that are spent on it.
const RUNS: u32 = 600;

/// A way to make a scenario smaller; false when there is nothing to take away.
type Step = Box<dyn Fn(&mut Scenario) -> bool>;

/// The smallest scenario found that fails as this one does, and how it fails. Nothing is taken away that makes it longer.
#[must_use]
pub fn shrink(scenario: &Scenario, failure: &Failure) -> (Scenario, Box<Failure>) {
    let mut smallest = (scenario.clone(), Box::new(failure.clone()));
    let (steps, mut runs) = (steps(scenario), 0);
    loop {
        let mut smaller = false;
        for step in &steps {
            let mut tried = smallest.0.clone();
            if runs == RUNS {
                return smallest;
            }
            if !step(&mut tried) {
                continue;
            }
            runs += 1;
            if let Err(found) = run(&tried)
                && found.rule() == failure.rule()
                && found.panic.is_some() == failure.panic.is_some()
                && found.events <= smallest.1.events
            {
                smallest = (tried, found);
                smaller = true;
            }
        }
        if !smaller {
            return smallest;
        }
    }
}

fn steps(scenario: &Scenario) -> Vec<Step> {
    let mut steps: Vec<Step> = vec![
        Box::new(|scenario| lower(&mut scenario.requests, |count| count / 2, 1)),
        Box::new(|scenario| lower(&mut scenario.requests, |count| count / 10 * 9, 1)),
        Box::new(|scenario| lower(&mut scenario.requests, |count| count - 1, 1)),
        Box::new(|scenario| clear(&mut scenario.killing)),
        Box::new(|scenario| clear(&mut scenario.restarting)),
        Box::new(|scenario| clear(&mut scenario.managing)),
        Box::new(|scenario| clear(&mut scenario.closing)),
        Box::new(|scenario| clear(&mut scenario.plugging)),
        Box::new(|scenario| clear(&mut scenario.world.unsupplied)),
        Box::new(|scenario| scenario.detaching.take().is_some()),
        Box::new(|scenario| scenario.striking.take().is_some()),
        Box::new(|scenario| scenario.world.target.slow.take().is_some()),
        Box::new(|scenario| scenario.world.sessions.len() > 1 && scenario.world.sessions.pop().is_some()),
        Box::new(fewer_units),
        Box::new(|scenario| lower(&mut scenario.world.reactors, |_| 1, 1)),
        Box::new(fewer_channels),
        Box::new(|scenario| lower(&mut scenario.depth, |_| 1, 1)),
        Box::new(|scenario| lower(&mut scenario.depth, |depth| depth / 2, 1)),
        Box::new(|scenario| lower(&mut scenario.world.immediate_data, |_| 0, 0)),
        Box::new(|scenario| lower(&mut scenario.world.descriptors, |_| 1, 1)),
        Box::new(|scenario| std::mem::take(&mut scenario.world.profile.partial_polls)),
        Box::new(|scenario| std::mem::replace(&mut scenario.world.exposure, Exposure::Pool) != Exposure::Pool),
    ];
    let kinds = { scenario.odds }.rates().len();
    steps.extend((0..kinds).map(|kind| -> Step {
        Box::new(move |scenario| {
            let mut rates = scenario.odds.rates();
            rates.get_mut(kind).is_some_and(|(_, rate)| clear(rate))
        })
    }));
    steps
}

fn clear(rate: &mut u16) -> bool {
    std::mem::take(rate) > 0
}

fn lower<T: Copy + Ord>(value: &mut T, to: impl Fn(T) -> T, least: T) -> bool {
    let to = to(*value).max(least);
    let lower = to < *value;
    *value = to.min(*value);
    lower
}

fn fewer_units(scenario: &mut Scenario) -> bool {
    let mut sessions = scenario.world.sessions.iter_mut();
    let session = sessions.find(|session| session.luns.len() > 1);
    session.is_some_and(|session| session.luns.pop().is_some())
}

fn fewer_channels(scenario: &mut Scenario) -> bool {
    let mut sessions = scenario.world.sessions.iter_mut();
    let session = sessions.find(|session| session.channels > 1);
    session.is_some_and(|session| lower(&mut session.channels, |count| count - 1, 1))
}

impl Scenario {
    /// What is left of it, in few words.
    #[must_use]
    pub fn describe(&self) -> String {
        let world = &self.world;
        let sessions = world.sessions.iter();
        let sessions: Vec<String> = sessions
            .map(|session| format!("{} channels and units {:?}", session.channels, session.luns))
            .collect();
        let mut odds = self.odds;
        let odds: Vec<String> = odds
            .rates()
            .into_iter()
            .filter(|(_, rate)| **rate > 0)
            .map(|(name, rate)| format!("{name} {rate}"))
            .collect();
        format!(
            "seed {}: {} requests, {} at once; {} reactors; sessions with {}; {}, {:?}; per mille: {}",
            world.seed,
            self.requests,
            self.depth,
            world.reactors,
            sessions.join(", with "),
            world.target.credit.name(),
            world.exposure,
            odds.join(", "),
        )
    }
}
