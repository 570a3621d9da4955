//! Who has which pair of ports: a second login between the same two would end the first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use srp_addressing::{Gid, PortId, TargetOptions, Transport};
use srp_initiator::session::SessionKey;

/// The two ends of a session at SRP's level: initiator port, target port.
pub(super) type Nexus = (PortId, PortId);

/// Who has a nexus already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) session: SessionKey,
    /// The target's port it leads to, where that is known for sure.
    pub(super) port: Option<Gid>,
}

/// The target's port that a login leads to; an IP address does not tell.
pub(super) const fn port(target: &TargetOptions) -> Option<Gid> {
    match target.transport {
        Transport::InfiniBand { dgid, .. } => Some(dgid),
        Transport::RdmaCm { .. } => None,
    }
}

/// The `initiator_ext` of a login that leads to another port of a target than the session that has its nexus, so that
/// both can be: the GUID of that port, as with `srp_daemon -n`. Nothing where the login says its own, or may lead to the
/// same port.
pub(super) fn further_path(target: &TargetOptions, holder: Holder) -> Option<u64> {
    if target.initiator_ext.is_some() {
        return None;
    }
    let (ours, theirs) = (port(target)?, holder.port?);
    (ours != theirs).then(|| ours.interface().0)
}

/// The nexuses of sessions that are logged in, or about to be.
#[derive(Default)]
pub(super) struct Nexuses(Mutex<HashMap<Nexus, SessionKey>>);

impl Nexuses {
    /// Takes a nexus, from before the login on: two logins at a time must not both find it free.
    ///
    /// # Errors
    /// The session that has it.
    pub(super) fn take(&self, nexus: Nexus, session: SessionKey) -> Result<(), SessionKey> {
        match *self.lock().entry(nexus).or_insert(session) {
            holder if holder == session => Ok(()),
            holder => Err(holder),
        }
    }

    /// Gives back what a session has.
    pub(super) fn give_back(&self, session: SessionKey) {
        self.lock().retain(|_, holder| *holder != session);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Nexus, SessionKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use srp_addressing::{Guid, IoClass};

    #[test]
    fn one_login_at_a_time() {
        let port = |number| PortId::new(number, Guid(1), IoClass::Rev16a);
        let (nexus, other) = ((port(0), port(7)), (port(1), port(7)));
        let (first, second) = (SessionKey(1), SessionKey(2));
        let nexuses = Nexuses::default();
        assert_eq!(nexuses.take(nexus, first), Ok(()));
        assert_eq!(
            nexuses.take(nexus, second),
            Err(first),
            "it has not logged in yet, but will"
        );
        assert_eq!(nexuses.take(nexus, first), Ok(()), "its own");
        assert_eq!(nexuses.take(other, second), Ok(()));
        nexuses.give_back(first);
        assert_eq!(nexuses.take(nexus, second), Ok(()));
        assert_eq!(nexuses.take(other, first), Err(second));
    }

    #[test]
    fn a_further_path_has_a_name_of_its_own() {
        let line = |port: u64, more: &str| -> TargetOptions {
            let line = format!("id_ext=a1,ioc_guid=a1,dgid=fe80000000000000{port:016x},pkey=ffff,service_id=a1{more}");
            line.parse().unwrap()
        };
        let by_address: TargetOptions = "id_ext=a1,ioc_guid=a1,dest=10.9.0.1:5555".parse().unwrap();
        let holder = |target: &TargetOptions| Holder {
            session: SessionKey(1),
            port: port(target),
        };
        let (first, second) = (line(0x11, ""), line(0x12, ""));
        assert_eq!(further_path(&second, holder(&first)), Some(0x12));
        let pair = |target: &TargetOptions, extension| {
            let named = TargetOptions {
                initiator_ext: extension,
                ..target.clone()
            };
            (named.initiator_port(Guid(1)), named.target_port())
        };
        let nexuses = Nexuses::default();
        assert_eq!(nexuses.take(pair(&first, None), SessionKey(1)), Ok(()));
        assert_eq!(nexuses.take(pair(&second, None), SessionKey(2)), Err(SessionKey(1)));
        assert_eq!(nexuses.take(pair(&second, Some(0x12)), SessionKey(2)), Ok(()));
        // The same port in another partition, an address that may be the same port's, and a word that stands.
        assert_eq!(further_path(&line(0x11, ",pkey=8001"), holder(&first)), None);
        assert_eq!(further_path(&by_address, holder(&first)), None);
        assert_eq!(further_path(&second, holder(&by_address)), None);
        assert_eq!(further_path(&line(0x12, ",initiator_ext=0"), holder(&first)), None);
        let ended = Holder {
            session: SessionKey(1),
            port: None,
        };
        assert_eq!(further_path(&second, ended), None);
    }
}
