//! Running a scenario to its end, and what there is to say when it fails.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check::Violation;
use super::scenario::Scenario;
use super::world::{Errand, World};

/// A run that failed: rules were broken, or the engine panicked.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// The rules that were broken, in order.
    pub violations: Vec<Violation>,
    /// What the engine panicked with.
    pub panic: Option<String>,
    /// The last events.
    pub trace: String,
    /// How many there were in all.
    pub events: u64,
}

impl Failure {
    fn of(world: &World, panic: Option<String>) -> Box<Self> {
        let fabric = world.reactors.fabric();
        Box::new(Self {
            seed: world.spec.seed,
            violations: fabric.violations(),
            panic,
            trace: fabric.trace(),
            events: fabric.net.trace.total,
        })
    }

    /// The first rule that was broken; none when there was only a panic.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        self.violations.first().map(|violation| violation.rule)
    }

    /// What was broken, without the events.
    #[must_use]
    pub fn summary(&self) -> String {
        let broken = self.violations.iter().map(|violation| format!("  {violation}\n"));
        let panic = self.panic.iter().map(|panic| format!("  a panic: {panic}\n"));
        let broken: String = broken.chain(panic).collect();
        format!("seed {}; broken:\n{broken}", self.seed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.trace, self.summary())
    }
}

impl std::error::Error for Failure {}

/// Runs the scenario of a seed to its end.
///
/// # Errors
/// When a rule was broken or the engine panicked.
pub fn run_seed(seed: u64) -> Result<World, Box<Failure>> {
    run(&Scenario::from_seed(seed))
}

/// Runs a scenario to its end. A panic on the way is reported like a broken rule: whoever runs many seeds has to know
/// which it was.
///
/// # Errors
/// When a rule was broken or the engine panicked.
pub fn run(scenario: &Scenario) -> Result<World, Box<Failure>> {
    let new = catch_unwind(AssertUnwindSafe(|| World::new(scenario.world.clone())));
    let mut world = new.map_err(|panic| {
        Box::new(Failure {
            seed: scenario.world.seed,
            violations: Vec::new(),
            panic: Some(message(panic.as_ref())),
            trace: String::new(),
            events: 0,
        })
    })?;
    match catch_unwind(AssertUnwindSafe(|| world.drive(scenario))) {
        Ok(Ok(())) => Ok(world),
        Ok(Err(_)) => Err(Failure::of(&world, None)),
        Err(panic) => Err(Failure::of(&world, Some(message(panic.as_ref())))),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "something that is no text".to_owned())
}

impl World {
    fn drive(&mut self, scenario: &Scenario) -> Result<(), String> {
        self.fabric().set_odds(scenario.odds);
        let credit = self.spec.target.credit.name();
        self.fabric().net.tally.count(credit);
        if let Some(span) = scenario.striking {
            self.after(span, Errand::Strike(span));
        }
        let mut left = scenario.requests;
        while left > 0 {
            let busy = self.client.pending.len();
            if busy < scenario.depth {
                if let Some((_, all)) = scenario.detaching.filter(|(at, _)| *at == left) {
                    self.detach(0);
                    (1..self.sessions.len()).filter(|_| all).for_each(|session| {
                        self.detach(u32::try_from(session).unwrap_or(u32::MAX));
                    });
                }
                left -= 1;
                self.ask(scenario);
                let pause = scenario.think.draw(&mut self.rng);
                self.run_for(pause)?;
            } else {
                let moved = self.step();
                self.verdict()?;
                if !moved {
                    break;
                }
            }
        }
        let limit = self.heal();
        self.run_until_idle(limit)
    }
}
