//! The targets of a port, and what has changed.

use std::time::Instant;

use super::WatchEvent;
use crate::targets::Target;

/// A target that so many scans in a row did not find is gone.
const MISSED: u32 = 2;

/// The targets known.
#[derive(Default)]
pub(super) struct Table(Vec<Known>);

/// A target and what a watcher knows besides.
#[derive(Clone, Debug)]
pub struct Known {
    /// The target, as it was found last.
    pub target: Target,
    /// When it was found first.
    pub since: Instant,
    /// How many scans in a row have not found it; a target that two have not is gone.
    pub missed: u32,
}

impl Table {
    pub(super) fn known(&self) -> &[Known] {
        &self.0
    }

    /// Takes in what a scan has found `now`. Of those that `sought` names, what was not found counts as missed. Whether
    /// anything is missed but not given up yet.
    pub(super) fn update(
        &mut self,
        found: Vec<Target>,
        now: Instant,
        sought: Option<&dyn Fn(&Target) -> bool>,
        events: &mut dyn FnMut(WatchEvent),
    ) -> bool {
        for entry in &mut self.0 {
            if sought.is_some_and(|sought| sought(&entry.target)) {
                entry.missed += 1;
            }
        }
        for target in found {
            match self.0.iter_mut().find(|entry| is_same(&entry.target, &target)) {
                Some(entry) => {
                    entry.missed = 0;
                    entry.target = target;
                }
                None => {
                    events(WatchEvent::Appeared(Box::new(target.clone())));
                    self.0.push(Known {
                        target,
                        since: now,
                        missed: 0,
                    });
                }
            }
        }
        for gone in self.0.extract_if(.., |entry| entry.missed >= MISSED) {
            events(WatchEvent::Vanished(Box::new(gone.target)));
        }
        self.0.iter().any(|entry| entry.missed > 0)
    }
}

/// Whether it is the same to log in to; its LID may have changed.
fn is_same(one: &Target, other: &Target) -> bool {
    let key = |t: &Target| (t.gid, t.pkey, t.ioc_guid, t.service_id, t.io_class);
    key(one) == key(other) && one.id_ext.eq_ignore_ascii_case(&other.id_ext)
}
