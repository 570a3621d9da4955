//! When an arena has no room: who waits for it, and who does not.
//!
//! Those that need a buffer of it wait in their order, also the ones that would find room: else a long request might
//! never get its. What needs none, has one from an earlier attempt, or goes the other way passes them; the turn of
//! those that wait comes first again in the next pass.

use super::engine::Engine;
use super::request::{Key, Stage};
use super::start::Transfer;
use crate::fabric::Fabric;

/// Which arenas have been found to lack room for the one whose turn it was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Short {
    reads: bool,
    writes: bool,
}

impl Short {
    pub(super) fn is_none(self) -> bool {
        !self.reads && !self.writes
    }

    pub(super) fn add(&mut self, transfer: Transfer) {
        match transfer {
            Transfer::None => {}
            Transfer::ToInitiator(_) => self.reads = true,
            Transfer::ToTarget(_) => self.writes = true,
        }
    }

    /// Whether it is the one that data goes through.
    #[inline(always)]
    pub(super) fn is_of(self, transfer: Transfer) -> bool {
        match transfer {
            Transfer::None => false,
            Transfer::ToInitiator(_) => self.reads,
            Transfer::ToTarget(_) => self.writes,
        }
    }
}

impl<F: Fabric> Engine<F> {
    /// The queue in front has to wait for a buffer: it lets others pass in this pass.
    #[cold]
    pub(super) fn step_aside(&mut self, session: usize) {
        if let Some(session) = &mut self.sessions[session]
            && let Some(queue) = session.ready.pop_front()
        {
            session.aside.push(queue);
        }
    }

    /// Those that let others pass are in front again, in their order: the next buffer is theirs.
    #[cold]
    pub(super) fn line_up(&mut self, session: usize) {
        if let Some(session) = &mut self.sessions[session] {
            while let Some(queue) = session.aside.pop() {
                session.ready.push_front(queue);
            }
        }
    }

    /// Takes the buffers of arenas that are short from requests that cannot use them, as they stand behind others in their
    /// queues or rest after an answer of BUSY or TASK SET FULL; false when there are none.
    #[cold]
    pub(super) fn free_waiting(&mut self, session: usize, short: Short) -> bool {
        let of_session = |queue: usize| {
            self.queues[queue]
                .as_ref()
                .is_some_and(|queue| queue.session == session)
        };
        let holders: Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                matches!(request.stage, Stage::Waiting | Stage::Delayed(_)) && request.extent.is_some()
            })
            .filter(|(_, request)| short.is_of(request.transfer) && of_session(request.queue))
            .map(|(key, _)| key)
            .collect();
        holders.iter().for_each(|&key| self.detach(key));
        !holders.is_empty()
    }
}
