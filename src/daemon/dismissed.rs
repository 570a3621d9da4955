//! The targets that somebody has detached: none is attached by itself again, until somebody attaches it or the daemon is
//! started anew.

use std::sync::{Mutex, MutexGuard, PoisonError};

use srp_addressing::{Gid, Guid, TargetOptions};
use srp_discovery::targets::Target;

/// A target port, as a session to it knew it.
#[derive(Debug, PartialEq, Eq)]
struct Port {
    id_ext: u64,
    ioc_guid: Guid,
    gids: Vec<Gid>,
}

/// Those that were detached.
#[derive(Debug, Default)]
pub(super) struct Dismissed(Mutex<Vec<Port>>);

impl Dismissed {
    /// Takes note of a target port that has these names.
    pub(super) fn dismiss(&self, target: &TargetOptions, gids: &[Gid]) {
        let port = Port {
            id_ext: target.id_ext,
            ioc_guid: target.ioc_guid,
            gids: gids.to_vec(),
        };
        let mut ports = self.lock();
        if !ports.contains(&port) {
            ports.push(port);
        }
    }

    /// Forgets a target: somebody wants it again. By which of its ports does not matter.
    pub(super) fn recall(&self, target: &TargetOptions) {
        self.lock()
            .retain(|port| (port.id_ext, port.ioc_guid) != (target.id_ext, target.ioc_guid));
    }

    /// Whether it is one of them.
    pub(super) fn has(&self, target: &Target) -> bool {
        let Ok(id_ext) = u64::from_str_radix(&target.id_ext, 16) else {
            return false;
        };
        let is =
            |port: &Port| (port.id_ext, port.ioc_guid) == (id_ext, target.ioc_guid) && port.gids.contains(&target.gid);
        self.lock().iter().any(is)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Port>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::known::samples::target;

    fn options(guid: u64) -> TargetOptions {
        let found = target(guid);
        let line = srp_discovery::listing::add_target_line(&found, &Default::default()).unwrap();
        line.parse().unwrap()
    }

    #[test]
    fn until_somebody_wants_it_again() {
        let dismissed = Dismissed::default();
        let (one, other) = (target(0xa1), target(0xa2));
        assert!(!dismissed.has(&one));
        for _ in 0..2 {
            dismissed.dismiss(&options(0xa1), &[Gid::default(), one.gid]);
        }
        assert_eq!(dismissed.lock().len(), 1);
        assert!(dismissed.has(&one) && !dismissed.has(&other));
        // Another port of the same target.
        let mut second = one.clone();
        second.gid = other.gid;
        assert!(!dismissed.has(&second));
        dismissed.recall(&options(0xa2));
        assert!(dismissed.has(&one));
        dismissed.recall(&options(0xa1));
        assert!(!dismissed.has(&one));
    }
}
