//! What is due, and when to look next.
//!
//! Engines are driven far more often than anything is due: a pass costs next to nothing until then. So one moment is
//! kept, before which nothing is. It is brought forward wherever something may be due sooner, and never put back but when
//! it has come: what ended meanwhile costs one pass for nothing.

use std::time::Duration;

use super::channel::{Channel, ChannelError};
use super::engine::Engine;
use super::failover::Fenced;
use super::mutation::Mutation;
use super::request::Stage;
use super::task::Ladder;
use crate::fabric::Fabric;
use crate::time::Instant;

impl Channel {
    // With a ladder or a logout under way there may be something to do in any pass.
    fn is_urgent(&self) -> bool {
        self.ladder.is_some() || self.leaving.is_some()
    }

    /// When something of it is due at the latest.
    fn deadline(&self, task: Duration) -> Instant {
        let climbing = |ladder: Ladder| {
            let told = self.next_limit(ladder.told);
            ladder.limit.min(told).min(self.incomplete(task))
        };
        let check = self.ladder.map_or(self.next_check, climbing);
        let starved = self.starved.filter(|_| self.credits <= 1);
        check.min(starved.unwrap_or(NEVER)).min(self.leaving.unwrap_or(NEVER))
    }

    /// Before when nothing can be done about what is overdue, or may be.
    fn due(&self) -> Instant {
        if self.is_urgent() {
            return ALWAYS;
        }
        self.next_check.min(self.starved.unwrap_or(NEVER))
    }
}

impl<F: Fabric> Engine<F> {
    /// Acts on what is due.
    #[inline(always)]
    pub(super) fn check_time(&mut self, now: Instant) {
        if self.due <= now {
            self.act_on_time(now);
        }
    }

    #[cold]
    fn act_on_time(&mut self, now: Instant) {
        for index in 0..self.channels.len() {
            let Some(channel) = &mut self.channels[index] else {
                continue;
            };
            let session = channel.session_index;
            if channel.is_open() && channel.starved.is_some_and(|limit| limit <= now) {
                let starved = channel.is_starved(now);
                channel.starved = None;
                if starved && self.is_waiting(session) && !self.mutated.is(Mutation::StarvedForEver) {
                    let reason = ChannelError::Protocol("no credit for as long as a command may take");
                    self.close(index, reason, now);
                }
                continue;
            }
            if channel.leaving.is_some_and(|limit| limit <= now) {
                self.close(index, ChannelError::Closed, now);
            }
            self.climb(index, now);
        }
        self.fence(now);
        self.run_tasks(now);
        self.expire(now);
        self.end_delays(now);
        let channels = self.channels.iter().flatten().filter(|channel| channel.is_open());
        let due = channels.map(Channel::due).chain(self.next_expiry).min();
        self.due = match self.is_pending() {
            true => ALWAYS,
            false => due.unwrap_or(NEVER),
        };
    }

    fn end_delays(&mut self, now: Instant) {
        if self.delayed.is_empty() {
            return;
        }
        let mut delayed = std::mem::take(&mut self.delayed);
        delayed.retain(|&key| match self.requests.get(key).map(|request| request.stage) {
            Some(Stage::Delayed(at)) if at > now => true,
            Some(Stage::Delayed(_)) => {
                self.push_waiting(key);
                false
            }
            _ => false,
        });
        self.delayed = delayed;
    }

    /// When [`Engine::pump`] has to be called again at the latest.
    #[must_use]
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        if self.due == ALWAYS {
            return self.earliest();
        }
        // Without requests nothing else is due, whatever was.
        (self.due < NEVER && !self.requests.is_empty()).then_some(self.due)
    }

    /// The same where something is tried in each pass: sleepers are told when it ends.
    #[cold]
    fn earliest(&self) -> Option<Instant> {
        let mut at = match self.next_expiry {
            Some(expiry) if !self.requests.is_empty() => expiry,
            _ => NEVER,
        };
        for channel in self.channels.iter().flatten() {
            if channel.is_open() {
                at = at.min(channel.deadline(self.limits.task));
            }
        }
        if self.is_pending() {
            at = self.pending_deadline(at);
        }
        (at < NEVER).then_some(at)
    }

    /// Whether anything is to be tried in each pass.
    fn is_pending(&self) -> bool {
        self.delayed.len() | self.fences.len() | self.tasks.len() != 0
    }

    fn pending_deadline(&self, mut at: Instant) -> Instant {
        for &key in &self.delayed {
            if let Some(Stage::Delayed(until)) = self.requests.get(key).map(|request| request.stage) {
                at = at.min(until);
            }
        }
        let fences = self.fences.iter().map(Fenced::due);
        let tasks = self.tasks.iter().map(|task| task.limit);
        fences.chain(tasks).fold(at, Instant::min)
    }
}

/// Before everything: [`Engine::due`] while something is tried in each pass.
pub(super) const ALWAYS: Instant = Instant::from_nanos(0);

/// Behind everything.
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The earlier of two moments, as far as there are any.
pub(super) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
