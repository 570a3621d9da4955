//! How often what happened, over a run or many: a soak says what it covered, and what it did not.

use std::collections::BTreeMap;
use std::fmt;

use super::lease::Leases;
use crate::wire::FromTarget;

/// All that is counted. What is not counted in a soak was not covered by it, and can only be missed when it is listed.
const KINDS: &[&str] = &[
    // What the target answers.
    "UNIT ATTENTION",
    "BUSY",
    "TASK SET FULL",
    "CHECK CONDITION",
    "short transfer",
    "command not answered",
    "command takes seconds",
    "response code: request fields invalid",
    "response sent twice",
    "response for a command that is over",
    "response before its SEND completed",
    "response as long as agreed",
    "command of a slow unit",
    "response made up for another command",
    "response made up for a command not sent yet",
    "response made up for no command",
    "request limit changed by 2^31",
    "residual made up",
    "transfer that was cut short, and nothing said of it",
    "unreadable IU",
    "IU longer than agreed",
    "burst of IUs that uses up all receives",
    "SRP_RSP",
    "SRP_CRED_REQ",
    "SRP_AER_REQ",
    "SRP_T_LOGOUT",
    "credits below zero",
    "credit: one with every response",
    "credit: several at once",
    "credit: more or less than one",
    "credit: by SRP_CRED_REQ",
    "credit: none at all",
    // Task management.
    "task management done",
    "task management takes seconds",
    "task management not answered",
    "task management not complete",
    "task management answered without a code",
    "response behind the abort of its command",
    // Connections.
    "queue pair breaks on our side",
    "connection cut in silence",
    "target disconnects",
    "fault at a time of its own",
    "receive refused",
    "marker refused",
    "marker taken by an IU",
    "SENDs not acknowledged any more",
    "IU not taken up at once",
    "IU taken up behind a lost connection",
    "IU of a destroyed queue pair arrives",
    "access to our memory after the error",
    "command executed behind a lost connection",
    "target restarts",
    "daemon dies",
    "session detached",
    "session given up at detach",
    // Logins.
    "login refused: unable to establish",
    "login refused: insufficient resources",
    "login refused: IU too long",
    "login refused: no nexus",
    "login refused: format",
    "login refused: no multiple channels",
    "login refused: channel limit",
    "login refused: unknown reason",
    "login refused: unreadable",
    "login refused: CM reason 8, nobody listens",
    "login refused: CM reason 10, stale connection",
    "login refused: CM reason 24, port and CM redirection",
    "login refused: CM reason 25, port redirection",
    "login refused: CM reason 30, duplicate id",
    // Memory.
    "data in several pieces",
    "window opened",
    "window not opened",
    "access beyond need, still within the command's window",
    "access outside of any window, refused",
    // Requests that move between reactors.
    "request handed over",
    "write of unknown fate handed over",
    "request sent back",
    "bounce of an older list of siblings",
    "request ends elsewhere",
    // How channels and requests end.
    "channel ends: work request failed",
    "channel ends: unreadable IU",
    "channel ends: protocol error",
    "channel ends: command neither answered nor ended",
    "channel ends: work requests of an answered command do not complete",
    "channel ends: target logged out",
    "channel stuck",
    "channel ends: closed by the control side",
    "request fails: path lost",
    "request fails: timed out",
    "request fails: disk gone",
    "request fails: medium error",
    "request fails: I/O error",
];

/// Counts by name, zeros among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Default for Tally {
    fn default() -> Self {
        Self(KINDS.iter().map(|kind| (*kind, 0)).collect())
    }
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        match self.0.get_mut(what) {
            Some(count) => *count += 1,
            None => debug_assert!(false, "{what} is not listed"),
        }
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

    /// What never happened.
    #[must_use]
    pub fn unseen(&self) -> Vec<&'static str> {
        let unseen = self.0.iter().filter(|(_, count)| **count == 0);
        unseen.map(|(what, _)| *what).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>12}  {what}")?;
        }
        match self.unseen().as_slice() {
            [] => writeln!(f, "every kind was seen"),
            unseen => writeln!(f, "never seen: {}", unseen.join("; ")),
        }
    }
}
