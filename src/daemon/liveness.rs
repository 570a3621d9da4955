//! Whether a target still answers: any answer to a TEST UNIT READY will do, on any channel.

use std::sync::Arc;
use std::time::Duration;

use srp_addressing::Gid;
use srp_discovery::ports::gid_of;
use srp_initiator::fabric::QueuePairId;
use srp_initiator::scsi::bringup::Execute;
use srp_initiator::scsi::{Cdb, Lun};
use srp_initiator::session::SessionKey;
use srp_verbs::cm::Address;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::execute::SessionCommands;
use super::reactors::Reactor;
use crate::backend::{DiskCounters, Message};
use crate::rpc::protocol::Counters;

/// What is asked of a session that may have no target any more.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) session: SessionKey,
    /// Who is asked. A target answers for units it does not have, too.
    pub(crate) lun: Lun,
    pub(crate) channels: Vec<(Reactor, QueuePairId)>,
    /// Of its disks: what completes while the question is on its way is an answer as well.
    pub(crate) counters: Vec<Arc<DiskCounters>>,
}

impl Subject {
    /// Whether anything comes from the target within `limit`. True where there is no channel to ask on.
    pub(crate) async fn answers(&self, limit: Duration) -> bool {
        if self.channels.is_empty() {
            return true;
        }
        let seen = self.completed();
        let mut questions = JoinSet::new();
        for (reactor, _) in &self.channels {
            let commands = SessionCommands {
                session: self.session,
                reactor: reactor.clone(),
            };
            let lun = self.lun;
            questions.spawn(async move { commands.execute(lun, Cdb::test_unit_ready(), 0).await.is_ok() });
        }
        any_of(questions, limit).await || self.completed() != seen
    }

    /// Ends its channels: what waits for them fails.
    pub(crate) fn give_up(&self) {
        for (reactor, qp) in &self.channels {
            reactor.send(Message::CloseChannel(*qp));
        }
    }

    /// What its disks have done. Requests also fail without the target's doing.
    fn completed(&self) -> Vec<Counters> {
        let done = |counters: &Arc<DiskCounters>| Counters {
            errors: 0,
            ..counters.snapshot()
        };
        self.counters.iter().map(done).collect()
    }
}

/// Whether one of the questions is answered within `limit`; the others are not waited for.
async fn any_of(mut questions: JoinSet<bool>, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while let Ok(Some(answered)) = timeout_at(end, questions.join_next()).await {
        if answered.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// The GIDs by which a fabric may speak of the port at `address`, which the connection manager found at `resolved`:
/// an address of IP over InfiniBand does not tell the GID.
pub(crate) fn names_of_port(address: &Address, resolved: Option<Gid>) -> Vec<Gid> {
    let own = match address {
        Address::InfiniBand { gid, .. } => Some(*gid),
        other => other.ip().map(gid_of),
    };
    let mut names: Vec<Gid> = own.into_iter().chain(resolved).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    use srp_addressing::{PKey, ServiceId};

    const LIMIT: Duration = Duration::from_secs(1);

    /// Questions that are answered, or fail, after so many milliseconds; or never.
    fn questions(ends: &[(Option<u64>, bool)]) -> JoinSet<bool> {
        let mut set = JoinSet::new();
        for &(after, answered) in ends {
            set.spawn(async move {
                match after {
                    Some(after) => tokio::time::sleep(Duration::from_millis(after)).await,
                    None => std::future::pending().await,
                }
                answered
            });
        }
        set
    }

    async fn judge(ends: &[(Option<u64>, bool)]) -> (bool, Duration) {
        let start = Instant::now();
        (any_of(questions(ends), LIMIT).await, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_is_enough() {
        assert_eq!(judge(&[(Some(300), true)]).await, (true, Duration::from_millis(300)));
        let (alive, after) = judge(&[(None, true), (Some(900), true), (Some(10), false)]).await;
        assert!(alive && after == Duration::from_millis(900));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_none() {
        assert_eq!(judge(&[(None, true), (None, true)]).await, (false, LIMIT));
        let (alive, after) = judge(&[(Some(1500), true)]).await;
        assert!(!alive && after == LIMIT, "a late answer is none");
        // Channels that fail at once need no more waiting.
        let (alive, after) = judge(&[(Some(20), false), (Some(30), false)]).await;
        assert!(!alive && after < LIMIT);
    }

    #[tokio::test]
    async fn without_a_channel_there_is_nothing_to_judge() {
        let subject = Subject {
            session: SessionKey(1),
            lun: Lun::default(),
            channels: Vec::new(),
            counters: Vec::new(),
        };
        assert!(subject.answers(Duration::ZERO).await);
    }

    #[test]
    fn what_fails_is_no_answer() {
        let counters = Arc::new(DiskCounters::default());
        let subject = Subject {
            session: SessionKey(1),
            lun: Lun::default(),
            channels: Vec::new(),
            counters: vec![Arc::clone(&counters)],
        };
        let before = subject.completed();
        counters.errors.fetch_add(1, Ordering::Relaxed);
        assert_eq!(subject.completed(), before);
        counters.flushes.fetch_add(1, Ordering::Relaxed);
        assert_ne!(subject.completed(), before);
    }

    #[test]
    fn what_a_port_is_called() {
        let gid = |text: &str| text.parse::<Gid>().unwrap();
        let names = |address: &str, resolved| names_of_port(&Address::Ip(address.parse().unwrap()), resolved);
        assert_eq!(names("10.9.0.1:5555", None), [gid("::ffff:10.9.0.1")]);
        assert_eq!(names("[fd00::7]:5555", Some(gid("fd00::7"))), [gid("fd00::7")]);
        // IP over InfiniBand.
        let port = gid("fe80::2:c903:e:8acd");
        assert_eq!(names("10.0.0.1:5555", Some(port)), [gid("::ffff:10.0.0.1"), port]);
        let native = Address::InfiniBand {
            gid: port,
            pkey: PKey::DEFAULT,
            service: Some(ServiceId(1)),
        };
        assert_eq!(names_of_port(&native, Some(port)), [port]);
    }
}
