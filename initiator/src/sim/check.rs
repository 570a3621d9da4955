//! What was seen that must never be.

use std::cell::RefCell;
use std::fmt;

use crate::time::Instant;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When it was seen.
    pub at: Instant,
    /// The rule, in few words; the same for every case of it.
    pub rule: &'static str,
    /// The case.
    pub what: String,
}

impl Violation {
    /// Whether it is a rule that holds whatever a target says: what is our memory, our slots, our requests and channels.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let ours = [rule::DMA, rule::SEND_SLOT, rule::RECEIVE_SLOT, rule::ONCE, rule::CLOSED];
        ours.contains(&self.rule)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.as_nanos() / 1000;
        write!(f, "{micros} us: {}: {}", self.rule, self.what)
    }
}

/// The violations of a run. Also noted from behind shared references, as reading memory can break a rule.
#[derive(Debug, Default)]
pub(super) struct Checks(RefCell<Vec<Violation>>);

impl Checks {
    pub(super) fn broken(&self, at: Instant, rule: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.0.borrow_mut().push(Violation { at, rule, what });
    }

    pub(super) fn all(&self) -> Vec<Violation> {
        self.0.borrow().clone()
    }

    pub(super) fn any(&self) -> bool {
        !self.0.borrow().is_empty()
    }
}

/// The rules that are checked.
pub(super) mod rule {
    pub(in crate::sim) const DMA: &str = "DMA rule";
    pub(in crate::sim) const FENCE: &str = "fence rule";
    pub(in crate::sim) const SEND_SLOT: &str = "send slot touched while its send is in flight";
    pub(in crate::sim) const RECEIVE_SLOT: &str = "receive slot read or posted out of turn";
    pub(in crate::sim) const POSTED: &str = "a reactor that rests has posted its receives";
    pub(in crate::sim) const CREDIT: &str = "credit";
    pub(in crate::sim) const PROTOCOL: &str = "protocol";
    pub(in crate::sim) const ONCE: &str = "each request completes exactly once";
    pub(in crate::sim) const HOPS: &str = "no request goes to and fro between reactors";
    pub(in crate::sim) const PATH: &str = "no request fails for want of a path while there is one";
    pub(in crate::sim) const ACKNOWLEDGED: &str = "no success the target did not report";
    pub(in crate::sim) const DATA: &str = "data";
    pub(in crate::sim) const ORDER: &str = "first in, first out within a logical unit";
    pub(in crate::sim) const FAIRNESS: &str = "round robin across logical units";
    pub(in crate::sim) const DEADLINE: &str = "deadline";
    pub(in crate::sim) const CLOSED: &str = "a failed channel is closed, and then silent";
    pub(in crate::sim) const LEAK: &str = "nothing is left over";
}
