//! What is going to happen, in the order of simulated time.

use std::collections::BTreeMap;

use crate::time::Instant;

/// Events by time; those of one moment in the order they were added.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    entries: BTreeMap<(Instant, u64), T>,
    serial: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            serial: 0,
        }
    }
}

impl<T> Agenda<T> {
    pub(super) fn add(&mut self, at: Instant, entry: T) {
        self.serial += 1;
        self.entries.insert((at, self.serial), entry);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.keys().next().map(|(at, _)| *at)
    }

    /// The first entry that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        let entry = self.entries.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(super) fn retain(&mut self, mut kept: impl FnMut(&T) -> bool) {
        self.entries.retain(|_, entry| kept(entry));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.values()
    }
}
