//! Counters a reactor writes and anyone reads.

use std::sync::atomic::{AtomicU64, Ordering};

use super::handle::Counters;

/// Written by the reactor only, so a plain store is enough.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    requests: AtomicU64,
    copies: AtomicU64,
    enters: AtomicU64,
    sleeps: AtomicU64,
}

impl Gauges {
    pub(super) fn write(&self, counters: Counters) {
        self.requests.store(counters.requests, Ordering::Relaxed);
        self.copies.store(counters.copies, Ordering::Relaxed);
        self.enters.store(counters.enters, Ordering::Relaxed);
        self.sleeps.store(counters.sleeps, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counters {
        Counters {
            requests: self.requests.load(Ordering::Relaxed),
            copies: self.copies.load(Ordering::Relaxed),
            enters: self.enters.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
        }
    }
}
