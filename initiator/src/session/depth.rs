//! How many commands a logical unit is given at once.
//!
//! A unit that says TASK SET FULL or BUSY (SAM-5 5.3.1) gets half of what it has, and one more whenever as many
//! commands as it is given went well, until it takes whatever credit allows again.

use super::engine::Engine;
use super::request::Key;
use crate::fabric::Fabric;

/// From here on a unit's depth is not limited any more: no channel has more credit in use.
const UNLIMITED: u32 = 256;

/// The commands of one logical unit that left its queue and have not ended, and how many there may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Depth {
    pub(super) out: u32,
    pub(super) limit: Option<u32>,
    /// Commands that went well since the limit last changed.
    good: u32,
}

impl Depth {
    pub(super) fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.out >= limit)
    }

    /// The unit refused a command, one of `out`.
    pub(super) fn refused(&mut self) {
        let half = (self.out / 2).max(1);
        self.limit = Some(self.limit.map_or(half, |limit| limit.min(half)));
        self.good = 0;
    }

    /// A command ended, or goes back to its queue; true where the queue may have rested till then.
    #[inline(always)]
    pub(super) fn came_back(&mut self) -> bool {
        self.out -= 1;
        self.limit.is_some()
    }

    #[inline(always)]
    pub(super) fn went_well(&mut self) {
        let Some(limit) = self.limit else { return };
        self.good += 1;
        if self.good >= limit {
            self.good = 0;
            self.limit = Some(limit + 1).filter(|limit| *limit < UNLIMITED);
        }
    }
}

impl<F: Fabric> Engine<F> {
    /// A command that had left its queue ended, or goes back to it.
    pub(super) fn came_back(&mut self, key: Key) {
        let Some(request) = self.requests.get(key) else { return };
        let index = request.queue;
        let Some(queue) = &mut self.queues[index] else { return };
        if queue.depth.came_back() {
            self.make_ready(index);
            self.dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halved_when_refused_and_raised_one_by_one() {
        let mut depth = Depth {
            out: 20,
            ..Depth::default()
        };
        depth.refused();
        assert_eq!(depth.limit, Some(10));
        depth.refused();
        assert_eq!(depth.limit, Some(10), "what is out was sent before the first refusal");
        (0..10).for_each(|_| depth.went_well());
        assert_eq!(depth.limit, Some(11));
        depth.out = 1;
        depth.refused();
        assert_eq!(depth.limit, Some(1));
        depth.out = 0;
        assert!(!depth.is_full(), "one can always be sent");
    }

    #[test]
    fn a_limit_ends() {
        let mut depth = Depth {
            out: 400,
            ..Depth::default()
        };
        depth.refused();
        assert_eq!(depth.limit, Some(200));
        (0..UNLIMITED * UNLIMITED).for_each(|_| depth.went_well());
        assert_eq!(depth.limit, None);
    }
}
