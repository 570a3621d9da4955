//! What other threads ask of a reactor.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;

use thiserror::Error;

use super::mailbox::{Mail, Slot};
use crate::backend::{AreaId, DeviceKey};
use crate::ring::{MapAreaError, Mapping, RetiredArea};

/// Called once, on the reactor's thread, with an answer: it must be quick and must not block. Dropped uncalled when
/// the reactor ends first, so that the receiver of a one-shot channel moved into it learns of that.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// The reactor is no more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the reactor has ended: its log says why; its devices answer nothing until the daemon is restarted")]
pub struct Gone;

/// Waits for the answer to a request, for callers that may block.
///
/// `let area = wait(|reply| handle.remove_area(area, reply))??;`
pub fn wait<T: Send + 'static>(ask: impl FnOnce(Reply<T>) -> Result<(), Gone>) -> Result<T, Gone> {
    let (sender, receiver) = mpsc::sync_channel(1);
    ask(Box::new(move |answer| drop(sender.send(answer))))?;
    receiver.recv().map_err(|_| Gone)
}

/// A queue of a device, to be served.
#[derive(Clone, Debug)]
pub struct AddQueue {
    /// The backend's name for the device.
    pub device: DeviceKey,
    /// The queue's number in the device.
    pub queue_id: u16,
    /// Its tags.
    pub depth: u16,
    /// `/dev/ublkcN`; let go of when the queue has ended.
    pub char_device: Arc<OwnedFd>,
    /// The longest read or write.
    pub max_io_bytes: u32,
}

/// Why a queue is not served.
#[derive(Debug, Error)]
pub enum AddQueueError {
    /// Its descriptors could not be mapped.
    #[error("queue {queue_id}: its descriptors cannot be mapped: {source}; was the device made by this process?")]
    Map {
        /// The queue.
        queue_id: u16,
        /// The cause.
        source: std::io::Error,
    },
    /// The driver refused a FETCH; tags already fetched end with STOP_DEV.
    #[error("queue {queue_id}: the driver refuses to hand out requests ({source}); stop and delete the device")]
    Fetch {
        /// The queue.
        queue_id: u16,
        /// The cause.
        source: std::io::Error,
    },
}

/// Why an area is not there.
#[derive(Debug, Error)]
pub enum AddAreaError {
    /// No mapping.
    #[error(transparent)]
    Map(#[from] MapAreaError),
    /// No reactor.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// No room.
    #[error("the reactor has 65,536 areas: remove one first")]
    Full,
}

/// Why an area was not removed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RemoveAreaError {
    /// Never added, or already removed.
    #[error("no area {0:?} in this reactor")]
    Unknown(AreaId),
}

/// What a reactor has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests handed to the backend.
    pub requests: u64,
    /// Copies between requests and areas.
    pub copies: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Those among them that were meant to sleep.
    pub sleeps: u64,
}

/// The way to a reactor, from any thread.
pub struct ReactorHandle<M> {
    slot: Slot<M>,
}

impl<M> Clone for ReactorHandle<M> {
    fn clone(&self) -> Self {
        Self {
            slot: self.slot.clone(),
        }
    }
}

impl<M> fmt::Debug for ReactorHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle")
            .field("counters", &self.counters())
            .finish()
    }
}

impl<M> ReactorHandle<M> {
    pub(super) const fn new(slot: Slot<M>) -> Self {
        Self { slot }
    }

    /// To [`Backend::message`](crate::backend::Backend::message).
    pub fn message(&self, message: M) -> Result<(), Gone> {
        self.slot.post(Mail::Backend(message))
    }

    /// Maps the queue and fetches all its tags; answered when the driver has taken the fetches. START_DEV may be sent
    /// when all queues of a device have been answered with success, not before: it would wait.
    pub fn add_queue(
        &self,
        queue: AddQueue,
        reply: impl FnOnce(Result<(), AddQueueError>) + Send + 'static,
    ) -> Result<(), Gone> {
        self.slot.post(Mail::AddQueue(queue, Box::new(reply)))
    }

    /// Answered when no queue of the device is left on this reactor: all tags aborted by the driver, descriptors
    /// unmapped, character device let go of. It is STOP_DEV that makes them end, also before START_DEV; io_uring's own
    /// cancellation does not reach ublk commands.
    pub fn remove_device(&self, device: DeviceKey, reply: impl FnOnce(()) + Send + 'static) -> Result<(), Gone> {
        self.slot.post(Mail::RemoveDevice(device, Box::new(reply)))
    }

    /// Maps a memfd (on the calling thread) for [`AreaRange`](crate::backend::AreaRange)s to name.
    pub fn add_area(
        &self,
        memfd: &OwnedFd,
        len: u64,
        reply: impl FnOnce(Result<AreaId, AddAreaError>) + Send + 'static,
    ) -> Result<(), AddAreaError> {
        let mapping = Mapping::area(memfd, len)?;
        let answer = |area: Option<AreaId>| reply(area.ok_or(AddAreaError::Full));
        Ok(self.slot.post(Mail::AddArea(mapping, Box::new(answer)))?)
    }

    /// Answered when no copy is under way on the area. The backend must not name it any more.
    pub fn remove_area(
        &self,
        area: AreaId,
        reply: impl FnOnce(Result<RetiredArea, RemoveAreaError>) + Send + 'static,
    ) -> Result<(), Gone> {
        self.slot.post(Mail::RemoveArea(area, Box::new(reply)))
    }

    /// A queue of the reactor's is for this processor alone: its thread is to run on others, where it may.
    pub fn keep_off(&self, processor: usize) -> Result<(), Gone> {
        self.slot.post(Mail::KeepOff(processor))
    }

    /// Ends the reactor at once. Queues it still has are treated by the driver as those of a server that died.
    pub fn stop(&self) -> Result<(), Gone> {
        self.slot.post(Mail::Stop)
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.slot.bell.gauges.read()
    }
}
