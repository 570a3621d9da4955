//! How many commands a logical unit is given at once.
//!
//! A unit that says TASK SET FULL or BUSY (SAM-5 5.3.1) gets half of what it has, and one more whenever as many
//! commands as it is given went well, until it takes whatever credit allows again.

use super::engine::Engine;
use super::request::{Key, Request, Stage};
use crate::fabric::Fabric;
use crate::scsi::outcome;

/// From here on a unit's depth is not limited any more; if that is too much it says so again.
const UNLIMITED: u32 = 256;

/// How many commands of one logical unit may have left its queue and not ended, and how many have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Depth {
    pub(super) limit: Option<u32>,
    /// Counted while there is a limit.
    out: u32,
    /// Commands that went well since the limit last changed.
    good: u32,
}

impl Depth {
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.out >= limit)
    }

    /// A command left the queue.
    #[inline(always)]
    pub(super) fn left(&mut self) {
        if self.limit.is_some() {
            self.out += 1;
        }
    }

    /// The unit refused a command, one of `out`.
    fn refused(&mut self, out: u32) {
        let half = (out / 2).max(1);
        self.limit = Some(self.limit.map_or(half, |limit| limit.min(half)));
        (self.out, self.good) = (out, 0);
    }

    fn went_well(&mut self) {
        let Some(limit) = self.limit else { return };
        self.good += 1;
        if self.good >= limit {
            self.good = 0;
            self.limit = Some(limit + 1).filter(|limit| *limit < UNLIMITED);
        }
    }
}

impl<F: Fabric> Engine<F> {
    /// A command was answered.
    #[inline(always)]
    pub(super) fn ended(&mut self, queue: usize, status: u8) {
        let refused = matches!(status, outcome::BUSY | outcome::TASK_SET_FULL);
        if refused || self.limited > 0 {
            self.adjust(queue, refused);
        }
    }

    #[cold]
    fn adjust(&mut self, index: usize, refused: bool) {
        let out = if refused { self.commands_of(index) } else { 0 };
        let Some(queue) = &mut self.queues[index] else { return };
        let before = queue.depth.limit;
        if refused {
            // The refused one itself at least.
            queue.depth.refused(out.max(1));
        } else {
            queue.depth.went_well();
        }
        let after = queue.depth.limit;
        self.limited = self.limited + usize::from(after.is_some()) - usize::from(before.is_some());
        if before.or(after).is_some() {
            queue.depth.out -= 1;
            // It may have rested till now.
            queue.make_ready(index, &mut self.sessions);
        }
    }

    /// How many commands of a queue have left it and not ended.
    pub(super) fn commands_of(&self, index: usize) -> u32 {
        if let Some(queue) = &self.queues[index]
            && queue.depth.limit.is_some()
        {
            return queue.depth.out;
        }
        let left = |request: &Request| matches!(request.stage, Stage::Filling | Stage::Sent);
        let out = self
            .requests
            .iter()
            .filter(|(_, request)| request.queue == index && left(request));
        u32::try_from(out.count()).unwrap_or(u32::MAX)
    }

    /// A command that had left its queue ended unanswered, or goes back to it.
    pub(super) fn came_back(&mut self, key: Key) {
        let Some(request) = self.requests.get(key) else { return };
        let index = request.queue;
        let Some(queue) = &mut self.queues[index] else { return };
        if queue.depth.limit.is_some() {
            queue.depth.out -= 1;
            queue.make_ready(index, &mut self.sessions);
            self.dirty = true;
        }
    }

    /// Forgets a queue.
    pub(super) fn vacate(&mut self, index: usize) {
        let limit = self.queues[index].take().and_then(|queue| queue.depth.limit);
        self.limited -= usize::from(limit.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halved_when_refused_and_raised_one_by_one() {
        let mut depth = Depth::default();
        depth.refused(20);
        assert_eq!(depth.limit, Some(10));
        depth.refused(20);
        assert_eq!(depth.limit, Some(10), "what is out was sent before the first refusal");
        (0..10).for_each(|_| depth.went_well());
        assert_eq!(depth.limit, Some(11));
        depth.refused(1);
        assert_eq!(depth.limit, Some(1));
        depth.out = 0;
        assert!(!depth.is_full(), "one can always be sent");
    }

    #[test]
    fn a_limit_ends() {
        let mut depth = Depth::default();
        depth.refused(400);
        assert_eq!(depth.limit, Some(200));
        (0..UNLIMITED * UNLIMITED).for_each(|_| depth.went_well());
        assert_eq!(depth.limit, None);
    }
}
