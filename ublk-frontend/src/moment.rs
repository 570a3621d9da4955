//! The time of a pass.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment of `CLOCK_MONOTONIC`, in nanoseconds: a number, where [`std::time::Instant`] is two and each difference of them a
/// call. A reactor takes it for every look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        // Neither is ever negative: the clock begins at boot, see clock_gettime(2).
        Self(
            (now.tv_sec as u64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(now.tv_nsec as u64),
        )
    }

    /// The moment so many nanoseconds after the clock began.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the clock began.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The same in nanoseconds.
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_as_fast_as_that_of_std() {
        let (before, std_before) = (Moment::now(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (std_after, after) = (std::time::Instant::now(), Moment::now());
        let (inner, outer) = (std_after - std_before, after.saturating_since(before));
        assert!(outer >= inner, "{outer:?} around {inner:?}");
        assert!(outer < inner + Duration::from_secs(5), "{outer:?} around {inner:?}");
        assert_eq!(before.saturating_since(after), Duration::ZERO);
    }
}
