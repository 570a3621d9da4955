//! On which processors a reactor runs.
//!
//! A client that has made a request sleeps, or makes the next, on its own processor, while the reactor works on another: where there
//! is a reactor for each processor, none is to run on the one whose requests come to it. The two would wait for each other, and each
//! change between them costs both their caches.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the reactor of this thread may run.
#[derive(Debug)]
pub(super) struct Placement {
    /// What it was given; none when the kernel does not tell.
    allowed: Option<CpuSet>,
    /// Processors that queues of its own are for.
    clients: CpuSet,
}

impl Placement {
    pub(super) fn of_this_thread() -> Self {
        Self {
            allowed: sched_getaffinity(None).ok(),
            clients: CpuSet::new(),
        }
    }

    /// A queue of this processor alone comes here.
    pub(super) fn keep_off(&mut self, processor: usize) {
        if processor >= CpuSet::MAX_CPU || self.clients.is_set(processor) {
            return;
        }
        self.clients.set(processor);
        let Some(allowed) = &self.allowed else { return };
        if let Err(errno) = sched_setaffinity(None, &without(allowed, &self.clients)) {
            tracing::debug!(%errno, "a reactor stays where it is");
        }
    }
}

/// What is allowed without the clients' own, or all of it where nothing else is.
fn without(allowed: &CpuSet, clients: &CpuSet) -> CpuSet {
    let mut rest = *allowed;
    for processor in (0..CpuSet::MAX_CPU).filter(|&processor| clients.is_set(processor)) {
        rest.unset(processor);
    }
    if rest.count() == 0 { *allowed } else { rest }
}

#[cfg(test)]
mod tests {
    use super::{CpuSet, without};

    fn set(processors: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        for &processor in processors {
            set.set(processor);
        }
        set
    }

    #[test]
    fn keeps_off_its_clients_processors_while_there_are_others() {
        assert_eq!(without(&set(&[0, 1]), &set(&[1])), set(&[0]));
        assert_eq!(without(&set(&[0, 1, 2, 3]), &set(&[1, 3])), set(&[0, 2]));
        assert_eq!(without(&set(&[0]), &set(&[0])), set(&[0]), "the only one");
        assert_eq!(
            without(&set(&[2, 3]), &set(&[2, 3])),
            set(&[2, 3]),
            "it serves all of them"
        );
        assert_eq!(
            without(&set(&[2, 3]), &set(&[0])),
            set(&[2, 3]),
            "it may not run there anyway"
        );
    }
}
