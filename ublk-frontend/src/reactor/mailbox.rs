//! From other threads to a reactor: a queue, and an eventfd that is written only when the reactor sleeps.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::event::{EventfdFlags, eventfd};

use super::gauges::Gauges;
use super::handle::{AddQueue, AddQueueError, Gone, ReactorHandle, RemoveAreaError, Reply};
use crate::backend::{AreaId, DeviceKey};
use crate::ring::{Mapping, RetiredArea};

pub(super) enum Mail<M> {
    Backend(M),
    AddQueue(AddQueue, Reply<Result<(), AddQueueError>>),
    RemoveDevice(DeviceKey, Reply<()>),
    AddArea(Mapping, Reply<Option<AreaId>>),
    RemoveArea(AreaId, Reply<Result<RetiredArea, RemoveAreaError>>),
    /// A queue of that processor alone is served.
    KeepOff(usize),
    Stop,
}

const MAIL: u32 = 1;
const ASLEEP: u32 = 2;

/// `state` is zero while the reactor runs and has read everything.
#[derive(Debug)]
pub(super) struct Doorbell {
    state: AtomicU32,
    eventfd: OwnedFd,
    pub(super) gauges: Gauges,
}

impl Doorbell {
    fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            state: AtomicU32::new(0),
            eventfd,
            gauges: Gauges::default(),
        })
    }

    /// After mail has been queued. True when the eventfd was written.
    fn ring(&self) -> bool {
        let before = self.state.fetch_or(MAIL, Ordering::AcqRel);
        let wake = before == ASLEEP;
        if wake && let Err(errno) = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes()) {
            tracing::error!(%errno, "eventfd of a reactor");
        }
        wake
    }

    /// True once for any amount of mail queued before.
    pub(super) fn answer(&self) -> bool {
        self.state.load(Ordering::Relaxed) & MAIL != 0 && self.state.fetch_and(!MAIL, Ordering::AcqRel) & MAIL != 0
    }

    /// False when there is mail: no sleep then.
    pub(super) fn fall_asleep(&self) -> bool {
        self.state
            .compare_exchange(0, ASLEEP, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    pub(super) fn wake_up(&self) {
        self.state.fetch_and(!ASLEEP, Ordering::AcqRel);
    }

    pub(super) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Slot<M> {
    sender: Sender<Mail<M>>,
    pub(super) bell: Arc<Doorbell>,
}

impl<M> Clone for Slot<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<M> Slot<M> {
    pub(super) fn post(&self, mail: Mail<M>) -> Result<(), Gone> {
        self.sender.send(mail).map_err(|_| Gone)?;
        self.bell.ring();
        Ok(())
    }
}

/// The reactor's end.
pub(super) struct Mailbox<M> {
    pub(super) receiver: Receiver<Mail<M>>,
    pub(super) bell: Arc<Doorbell>,
}

pub(super) fn open<M>() -> io::Result<(ReactorHandle<M>, Mailbox<M>)> {
    let bell = Arc::new(Doorbell::new()?);
    let (sender, receiver) = mpsc::channel();
    let slot = Slot {
        sender,
        bell: Arc::clone(&bell),
    };
    Ok((ReactorHandle::new(slot), Mailbox { receiver, bell }))
}

#[cfg(test)]
mod tests {
    use super::Doorbell;

    #[test]
    fn rings_once_and_only_a_sleeper() {
        let bell = Doorbell::new().unwrap();
        assert!(!bell.ring(), "awake: no system call");
        assert!(!bell.fall_asleep(), "there is mail");
        assert!(bell.answer());
        assert!(!bell.answer());
        assert!(bell.fall_asleep());
        assert!(bell.ring());
        assert!(!bell.ring(), "already woken");
        bell.wake_up();
        assert!(bell.answer());
        assert!(bell.fall_asleep());
    }
}
