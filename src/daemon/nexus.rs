//! Who has which pair of ports: a second login between the same two would end the first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use srp_addressing::PortId;
use srp_initiator::session::SessionKey;

/// The two ends of a session at SRP's level: initiator port, target port.
pub(super) type Nexus = (PortId, PortId);

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
}
