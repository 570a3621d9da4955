//! Detaching within bounds: who holds a device, and how long a target may be silent.

use std::sync::Arc;
use std::time::Duration;

use srp_initiator::fabric::QueuePairId;
use srp_initiator::scsi::Lun;
use srp_initiator::session::{LunKey, SessionKey};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use ublk_frontend::control;

use super::failure::{chain, failure};
use super::liveness::Subject;
use super::reactors::Reactor;
use crate::backend::{DiskCounters, Message};
use crate::rpc::protocol::{ErrorData, ErrorKind};

/// Devices of a session detached at a time, and devices that the kernel takes apart at a time. Each costs it some rounds
/// of waiting for every processor and leaves hundreds of ended fetches to the reactors: of hundreds at once, none comes
/// to its end within its limits, and a target that answers seems to be silent.
pub(super) const AT_ONCE: usize = 8;
/// Nothing completed for this long: the target is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(2);
/// It has this long to answer.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// With force: the target answers, and nothing of the unit completed for this long. Its requests are given up.
const UNIT_SILENCE: Duration = Duration::from_secs(10);
/// How often progress is looked at.
const GLANCE: Duration = Duration::from_millis(100);
/// udev is done with a device by then.
const UDEV_LIMIT: Duration = Duration::from_secs(3);
/// A flush that makes progress may take this long.
const FLUSH_LIMIT: Duration = Duration::from_secs(3600);

/// Why a device cannot be detached without force: somebody uses it.
///
/// udev looks at a device after every change of it, unasked and for a moment: that is waited for.
pub(crate) async fn in_use(number: u32) -> Option<ErrorData> {
    let patience = Instant::now() + UDEV_LIMIT;
    loop {
        let error = held(number).await?;
        let passing = !error.holders.is_empty() && error.holders.iter().all(|holder| holder.contains("udev"));
        if !passing || Instant::now() >= patience {
            return Some(error);
        }
        tokio::time::sleep(GLANCE / 2).await;
    }
}

async fn held(number: u32) -> Option<ErrorData> {
    let holders = match spawn_blocking(move || control::holders(number)).await {
        Ok(Ok(holders)) => holders,
        Ok(Err(error)) => return Some(failure(ErrorKind::Host, chain(&error))),
        Err(error) => return Some(failure(ErrorKind::Internal, chain(&error))),
    };
    if holders.is_empty() {
        return None;
    }
    let mut error = failure(ErrorKind::Busy, format!("/dev/ublkb{number} is in use")).remedy(
        "unmount it and end what uses it; --force detaches all the same: data is flushed, users get I/O errors",
    );
    error.holders = holders.iter().map(ToString::to_string).collect();
    Some(error)
}

/// Tells a slow target from a dead one while something waits for it, and ends the wait in the latter case. With force
/// also where one unit is silent and its target is not.
pub(crate) struct Patience {
    subject: Subject,
    counters: Arc<DiskCounters>,
    /// Who has requests of the disk, as long as it may be abandoned.
    abandon: Option<(LunKey, Vec<Reactor>)>,
}

impl Patience {
    pub(crate) fn new(
        session: SessionKey,
        lun: Lun,
        counters: Arc<DiskCounters>,
        channels: Vec<(Reactor, QueuePairId)>,
    ) -> Self {
        let subject = Subject {
            session,
            lun,
            channels,
            counters: vec![Arc::clone(&counters)],
        };
        Self {
            subject,
            counters,
            abandon: None,
        }
    }

    /// With force: requests of the disk may be given up, which these reactors have.
    pub(crate) fn forced(self, disk: LunKey, reactors: &[Reactor]) -> Self {
        Self {
            abandon: Some((disk, reactors.to_vec())),
            ..self
        }
    }

    /// Gives the disk's requests up, once.
    fn abandon(&mut self, notes: &mut Vec<String>) {
        let Some((disk, reactors)) = self.abandon.take() else {
            return;
        };
        for reactor in reactors {
            reactor.send(Message::AbandonDisk(disk));
        }
        notes.push("the unit does not answer, though its target does: what was under way was given up".to_owned());
    }

    /// Writes back what is dirty, mounted file systems included, as long as the target goes along.
    pub(crate) async fn flush(&mut self, number: u32, notes: &mut Vec<String>) {
        if self.subject.channels.is_empty() {
            notes.push("not flushed: the session is lost".to_owned());
            return;
        }
        let flush = spawn_blocking(move || control::flush(number, FLUSH_LIMIT));
        match self.wait(flush, notes).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => notes.push(format!("not flushed: {}", chain(&error))),
            Err(error) => notes.push(format!("not flushed: {}", chain(&error))),
        }
    }

    /// Waits for `work`, which ends when the target answers. A target that is silent and does not answer a probe
    /// either is given up: its channels are closed, which fails what `work` waits for.
    pub(crate) async fn wait<T>(&mut self, mut work: JoinHandle<T>, notes: &mut Vec<String>) -> Result<T, JoinError> {
        let mut seen = self.counters.snapshot();
        let mut since = Instant::now();
        let mut silent_since = since;
        let mut given_up = false;
        loop {
            if let Ok(result) = timeout(GLANCE, &mut work).await {
                return result;
            }
            let now = self.counters.snapshot();
            if now != seen {
                (seen, since) = (now, Instant::now());
                silent_since = since;
            } else if since.elapsed() >= SILENCE && !given_up {
                given_up = !self.subject.answers(PROBE_LIMIT).await;
                if given_up {
                    notes.push("the target does not answer: its session was given up".to_owned());
                    self.subject.give_up();
                } else if silent_since.elapsed() >= UNIT_SILENCE {
                    self.abandon(notes);
                }
                since = Instant::now();
            }
        }
    }
}
