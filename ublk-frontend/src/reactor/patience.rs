//! How long a reactor that has nothing to do goes on looking before it sleeps.

use std::time::{Duration, Instant};

/// Looks for work as long as it is likely to come soon: looking is worth its processor time only where it saves the
/// wake-up. Where the last pauses were longer than the limit the reactor sleeps at once.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// Of the last pauses, a moving average.
    pause: Duration,
    idle_since: Option<Instant>,
}

/// How many pauses the average reaches back.
const WEIGHT: u32 = 4;

impl Patience {
    pub(super) const fn new(limit: Duration) -> Self {
        Self {
            limit,
            pause: Duration::ZERO,
            idle_since: None,
        }
    }

    /// Work was found.
    pub(super) fn busy(&mut self, now: Instant) {
        if let Some(since) = self.idle_since.take() {
            // A night without requests must not count for the first hour of the morning.
            let pause = now.saturating_duration_since(since).min(self.limit * (2 * WEIGHT));
            self.pause = (self.pause * (WEIGHT - 1) + pause) / WEIGHT;
        }
    }

    /// Nothing was found. Whether to go on looking.
    pub(super) fn idle(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        self.pause <= self.limit && now.saturating_duration_since(since) < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    /// Lets `pauses` pass and says how often it would have slept.
    fn sleeps(patience: &mut Patience, now: &mut Instant, pauses: &[u64]) -> usize {
        let mut slept = 0;
        for &micros in pauses {
            patience.busy(*now);
            let begun = *now;
            let end = begun + Duration::from_micros(micros);
            let mut at = begun;
            while at < end {
                if !patience.idle(at) {
                    slept += 1;
                    break;
                }
                at += Duration::from_micros(1);
            }
            *now = end;
        }
        slept
    }

    #[test]
    fn looks_while_pauses_are_short() {
        let (mut patience, mut now) = (Patience::new(LIMIT), Instant::now());
        assert_eq!(sleeps(&mut patience, &mut now, &[20; 50]), 0);
    }

    #[test]
    fn sleeps_at_once_when_pauses_are_long_and_looks_again_when_they_are_not() {
        let (mut patience, mut now) = (Patience::new(LIMIT), Instant::now());
        sleeps(&mut patience, &mut now, &[1000; 20]);
        patience.busy(now);
        assert!(!patience.idle(now), "looks although pauses are long");
        now += Duration::from_micros(20);
        let slept = sleeps(&mut patience, &mut now, &[20; 50]);
        assert!((1..20).contains(&slept), "slept {slept} times in 50 short pauses");
        assert_eq!(sleeps(&mut patience, &mut now, &[20; 50]), 0);
    }

    #[test]
    fn no_limit_means_no_looking() {
        let mut patience = Patience::new(Duration::ZERO);
        assert!(!patience.idle(Instant::now()));
    }
}
