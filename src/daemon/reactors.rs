//! The reactors of the daemon, and their completion queues on each HCA.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use srp_verbs::completion_queue::{CompletionQueue, CompletionQueueError};
use srp_verbs::device::Device;
use srp_verbs::queue_pair::QueuePair;
use tokio::sync::{mpsc, oneshot};
use ublk_frontend::backend::{AreaId, DeviceKey};
use ublk_frontend::reactor::{
    AddAreaError, AddQueue, AddQueueError, Gone, Reactor as Thread, ReactorConfig, ReactorHandle, SpawnError,
};

use crate::backend::{Event, Message, Sibling, SrpBackend};

/// All reactors; the threads end with the process.
pub(crate) struct Reactors {
    threads: Vec<Thread<Message>>,
    queues: Mutex<HashMap<OnDevice, Vec<Weak<CompletionQueue>>>>,
}

/// A reactor and the name of an HCA.
type OnDevice = (usize, String);

/// The way to one reactor.
#[derive(Clone, Debug)]
pub(crate) struct Reactor {
    pub(crate) index: usize,
    handle: ReactorHandle<Message>,
}

impl Reactors {
    /// Starts `count` reactors, whose events go to `events`. They look for work for `spin` before they sleep.
    pub(crate) fn start(count: u16, spin: Duration, events: &mpsc::UnboundedSender<Event>) -> Result<Self, SpawnError> {
        let mut threads = Vec::new();
        for index in 0..count {
            let events = events.clone();
            let make = move || Ok(SrpBackend::new(index.into(), events));
            let config = ReactorConfig {
                spin,
                ..ReactorConfig::new(index)
            };
            threads.push(Thread::spawn(config, make)?);
        }
        Ok(Self {
            threads,
            queues: Mutex::default(),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }

    /// The one with this number, counted modulo their number.
    pub(crate) fn get(&self, index: usize) -> Reactor {
        let index = index % self.threads.len();
        Reactor {
            index,
            handle: self.threads[index].handle().clone(),
        }
    }

    /// Has a queue pair made on a completion queue of a reactor's on an HCA that has room for so many work requests of either
    /// direction: one of those there are, or another. They live as long as somebody uses them.
    pub(crate) fn queue_pair<E: From<CompletionQueueError>>(
        &self,
        reactor: usize,
        device: &Arc<Device>,
        entries: u32,
        make: impl FnOnce(&Arc<CompletionQueue>) -> Result<QueuePair, E>,
    ) -> Result<QueuePair, E> {
        // Held until its room is taken.
        let mut all = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = all.entry((reactor, device.name().to_owned())).or_default();
        queues.retain(|queue| queue.strong_count() > 0);
        let mut usable = queues.iter().filter_map(Weak::upgrade);
        let there = usable.find(|queue| Arc::ptr_eq(queue.device(), device) && queue.free() >= entries);
        if let Some(queue) = there {
            return make(&queue);
        }
        let vector = u32::try_from(reactor).unwrap_or(0);
        let queue = CompletionQueue::new(device, CompletionQueue::DEFAULT_DEPTH.max(entries), vector)?;
        queues.push(Arc::downgrade(&queue));
        make(&queue)
    }
}

impl Reactor {
    /// What another reactor reaches it by.
    pub(crate) fn sibling(&self) -> Sibling {
        Sibling {
            index: self.index,
            handle: self.handle.clone(),
        }
    }

    /// To the reactor's backend. A reactor that has ended drops the message, and with it any reply channel.
    pub(crate) fn send(&self, message: Message) {
        if let Err(error) = self.handle.message(message) {
            tracing::error!(reactor = self.index, %error, "message to a reactor");
        }
    }

    /// Sends a message made with a reply channel and waits for the answer.
    pub(crate) async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.handle.message(message(reply))?;
        answer.await.map_err(|_| Gone)
    }

    /// Serves a queue; answered when all its tags have been fetched.
    pub(crate) async fn add_queue(&self, queue: AddQueue) -> Result<Result<(), AddQueueError>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.handle.add_queue(queue, |result| drop(reply.send(result)))?;
        answer.await.map_err(|_| Gone)
    }

    /// Has it run on other processors than that of its clients. One that has ended runs nowhere.
    pub(crate) fn keep_off(&self, processor: usize) {
        let _ = self.handle.keep_off(processor);
    }

    /// Waits until no queue of the device is left here.
    pub(crate) async fn remove_device(&self, device: DeviceKey) -> Result<(), Gone> {
        let (reply, answer) = oneshot::channel();
        self.handle.remove_device(device, |()| {
            // Nobody waits any more.
            let _ = reply.send(());
        })?;
        answer.await.map_err(|_| Gone)
    }

    /// Maps a memfd into the reactor.
    pub(crate) async fn add_area(&self, memfd: &std::os::fd::OwnedFd, len: u64) -> Result<AreaId, AddAreaError> {
        let (reply, answer) = oneshot::channel();
        self.handle.add_area(memfd, len, |result| drop(reply.send(result)))?;
        answer.await.map_err(|_| Gone)?
    }

    /// Unmaps an area once no copy is under way on it.
    pub(crate) async fn remove_area(&self, area: AreaId) {
        let (reply, answer) = oneshot::channel();
        let asked = self.handle.remove_area(area, |result| {
            // The mapping ends where the answer is dropped: with the receiver, off the reactor's thread.
            drop(reply.send(result));
        });
        if asked.is_ok()
            && let Ok(Err(error)) = answer.await
        {
            tracing::error!(%error, "an area could not be removed");
        }
    }
}
