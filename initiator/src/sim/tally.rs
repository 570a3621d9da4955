//! How often what happened, over a run or many: a soak says what it covered.

use std::collections::BTreeMap;
use std::fmt;

use super::lease::Leases;
use crate::wire::FromTarget;

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Counts an IU that reaches the engine.
    pub(super) fn heard(&mut self, iu: &[u8], leases: &Leases) {
        self.count(match FromTarget::parse(iu) {
            Ok(FromTarget::Response(response)) if leases.is_unsent(response.tag) => {
                "response before its SEND completed"
            }
            Ok(FromTarget::Response(_)) => "SRP_RSP",
            Ok(FromTarget::CreditRequest(_)) => "SRP_CRED_REQ",
            Ok(FromTarget::AsyncEvent(_)) => "SRP_AER_REQ",
            Ok(FromTarget::Logout(_)) => "SRP_T_LOGOUT",
            Err(_) => return,
        });
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// How often something happened.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>12}  {what}")?;
        }
        Ok(())
    }
}
