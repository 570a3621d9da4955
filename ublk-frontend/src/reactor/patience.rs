//! How long a reactor that has nothing to do goes on looking before it sleeps.

use std::time::Duration;

use crate::moment::Moment;

/// Looks for work as long as it is likely to come soon: looking is worth its processor time only where it saves the
/// wake-up. Where the last pauses were longer than the limit the reactor sleeps at once.
#[derive(Debug)]
pub(super) struct Patience {
    /// In nanoseconds.
    limit: u64,
    /// Of the last pauses, a moving average in nanoseconds.
    pause: u64,
    idle_since: Option<Moment>,
}

/// How many pauses the average reaches back.
const WEIGHT: u64 = 4;

impl Patience {
    /// With a limit of an hour at most.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit: limit.min(Duration::from_secs(3600)).as_nanos() as u64,
            pause: 0,
            idle_since: None,
        }
    }

    /// Work was found.
    pub(super) fn busy(&mut self, now: Moment) {
        if let Some(since) = self.idle_since.take() {
            // A night without requests must not count for the first hour of the morning.
            let pause = now.nanos_since(since).min(self.limit * (2 * WEIGHT));
            self.pause = (self.pause * (WEIGHT - 1) + pause) / WEIGHT;
        }
    }

    /// Nothing was found. Whether to go on looking.
    pub(super) fn idle(&mut self, now: Moment) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        self.pause <= self.limit && now.nanos_since(since) < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    fn later(moment: Moment, micros: u64) -> Moment {
        Moment::from_nanos(moment.as_nanos() + 1000 * micros)
    }

    /// Lets `pauses` pass and says how often it would have slept.
    fn sleeps(patience: &mut Patience, now: &mut Moment, pauses: &[u64]) -> usize {
        let mut slept = 0;
        for &micros in pauses {
            patience.busy(*now);
            let begun = *now;
            let end = later(begun, micros);
            let mut at = begun;
            while at < end {
                if !patience.idle(at) {
                    slept += 1;
                    break;
                }
                at = later(at, 1);
            }
            *now = end;
        }
        slept
    }

    #[test]
    fn looks_while_pauses_are_short() {
        let (mut patience, mut now) = (Patience::new(LIMIT), Moment::now());
        assert_eq!(sleeps(&mut patience, &mut now, &[20; 50]), 0);
    }

    #[test]
    fn sleeps_at_once_when_pauses_are_long_and_looks_again_when_they_are_not() {
        let (mut patience, mut now) = (Patience::new(LIMIT), Moment::now());
        sleeps(&mut patience, &mut now, &[1000; 20]);
        patience.busy(now);
        assert!(!patience.idle(now), "looks although pauses are long");
        now = later(now, 20);
        let slept = sleeps(&mut patience, &mut now, &[20; 50]);
        assert!((1..20).contains(&slept), "slept {slept} times in 50 short pauses");
        assert_eq!(sleeps(&mut patience, &mut now, &[20; 50]), 0);
    }

    #[test]
    fn no_limit_means_no_looking() {
        let mut patience = Patience::new(Duration::ZERO);
        assert!(!patience.idle(Moment::now()));
    }
}
