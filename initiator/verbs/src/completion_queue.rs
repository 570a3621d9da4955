//! Completion queues: one per reactor and HCA.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rdma_sys::{ibv_wc, ibv_wc_status};

use crate::cm::set_nonblocking;
use crate::device::Device;
use crate::errno::{check, check_pointer, check_value, remedy};

/// A completion queue cannot be set up or has no room.
#[derive(Debug, thiserror::Error)]
pub enum CompletionQueueError {
    /// No completion channel.
    #[error("HCA {device} gives no completion channel: {cause}{hint}", hint = remedy(.cause))]
    Channel {
        /// The HCA's name.
        device: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// No completion queue.
    #[error("HCA {device} gives no completion queue of {depth} entries: {cause}{hint}", hint = remedy(.cause))]
    Create {
        /// The HCA's name.
        device: String,
        /// Entries asked for.
        depth: u32,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The queue pairs on it already need all entries.
    #[error(
        "the completion queue has {free} of {depth} entries free, {needed} are needed: use fewer or shallower channels"
    )]
    Full {
        /// Entries of the queue.
        depth: u32,
        /// Entries not reserved.
        free: u32,
        /// Entries asked for.
        needed: u32,
    },
}

/// A pair of completion queues, one for receives and one for sends, and their completion channel.
///
/// They are apart so that a sleeper is woken by what the peer says and not, before that, by the acknowledgement of
/// what it was asked: `request_event` is about receives, and only who waits for a send asks for
/// `request_send_event` too.
///
/// Room is reserved by the queue pairs on it, so it cannot overrun. Only one thread should poll it: the owner of the
/// [`crate::VerbsFabric`] it is attached to.
#[derive(Debug)]
pub struct CompletionQueue {
    receives: NonNull<rdma_sys::ibv_cq>,
    sends: NonNull<rdma_sys::ibv_cq>,
    channel: NonNull<rdma_sys::ibv_comp_channel>,
    fd: RawFd,
    depth: u32,
    reserved: AtomicU32,
    device: Arc<Device>,
}

// SAFETY: libibverbs and its providers lock inside the verbs on a completion queue; the fields read here are constant
// after creation or atomic.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl CompletionQueue {
    /// Entries for sends and as many for receives, unless the HCA has fewer: 64 channels of 64 requests.
    pub const DEFAULT_DEPTH: u32 = 4096;

    /// Completion queues of `depth` entries each (fewer if the HCA cannot), whose interrupts go to completion vector
    /// `vector` modulo their number.
    ///
    /// # Errors
    /// When the HCA has no resources left.
    pub fn new(device: &Arc<Device>, depth: u32, vector: u32) -> Result<Arc<Self>, CompletionQueueError> {
        let depth = depth.min(device.limits().max_cqe).max(1);
        let name = || device.name().to_owned();
        // SAFETY: the context is open; null is checked.
        let channel = check_pointer(unsafe { rdma_sys::ibv_create_comp_channel(device.context()) })
            .map_err(|cause| CompletionQueueError::Channel { device: name(), cause })?;
        let vector = i32::try_from(vector % device.completion_vectors()).unwrap_or(0);
        let create = || {
            // SAFETY: context and channel are alive; no context pointer is given.
            check_pointer(unsafe {
                rdma_sys::ibv_create_cq(
                    device.context(),
                    i32::try_from(depth).unwrap_or(i32::MAX),
                    ptr::null_mut(),
                    channel.as_ptr(),
                    vector,
                )
            })
        };
        let both = create().and_then(|receives| match create() {
            Ok(sends) => Ok((receives, sends)),
            Err(cause) => {
                // SAFETY: the queue was just created and nothing uses it.
                unsafe { rdma_sys::ibv_destroy_cq(receives.as_ptr()) };
                Err(cause)
            }
        });
        let (receives, sends) = match both {
            Ok(both) => both,
            Err(cause) => {
                // SAFETY: the channel was just created and has no completion queue.
                unsafe { rdma_sys::ibv_destroy_comp_channel(channel.as_ptr()) };
                return Err(CompletionQueueError::Create {
                    device: name(),
                    depth,
                    cause,
                });
            }
        };
        // SAFETY: the channel is alive.
        let fd = unsafe { channel.as_ref().fd };
        let queue = Self {
            receives,
            sends,
            channel,
            fd,
            depth,
            reserved: AtomicU32::new(0),
            device: device.clone(),
        };
        set_nonblocking(queue.as_fd()).map_err(|cause| CompletionQueueError::Channel { device: name(), cause })?;
        Ok(Arc::new(queue))
    }

    /// The HCA it belongs to.
    pub const fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its entries for sends, and as many for receives.
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// Entries no queue pair has reserved.
    pub fn free(&self) -> u32 {
        self.depth - self.reserved.load(Ordering::Relaxed)
    }

    /// Reserves room in either queue for every work request a queue pair can have posted: `entries` is the larger
    /// of its sends and receives.
    pub(crate) fn reserve(self: &Arc<Self>, entries: u32) -> Result<Reservation, CompletionQueueError> {
        self.reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
                reserved.checked_add(entries).filter(|sum| *sum <= self.depth)
            })
            .map_err(|reserved| CompletionQueueError::Full {
                depth: self.depth,
                free: self.depth - reserved,
                needed: entries,
            })?;
        Ok(Reservation {
            queue: self.clone(),
            entries,
        })
    }

    /// Where sends complete.
    pub(crate) const fn sends(&self) -> *mut rdma_sys::ibv_cq {
        self.sends.as_ptr()
    }

    /// Where receives complete.
    pub(crate) const fn receives(&self) -> *mut rdma_sys::ibv_cq {
        self.receives.as_ptr()
    }

    /// Polls into `completions`: receives and, behind them, sends. In this order each completion is found that came
    /// before another that is found.
    pub(crate) fn poll<'a>(&self, completions: &'a mut [MaybeUninit<ibv_wc>]) -> io::Result<Polled<'a>> {
        let mut count = 0;
        let mut receives = 0;
        for queue in [self.receives, self.sends] {
            let place = &mut completions[count..];
            if place.is_empty() {
                break;
            }
            let room = i32::try_from(place.len()).unwrap_or(i32::MAX);
            // SAFETY: the queue is alive, the place has room for `room` entries.
            let found = unsafe { rdma_sys::ibv_poll_cq(queue.as_ptr(), room, place.as_mut_ptr().cast()) };
            let found = usize::try_from(found).map_err(|_| io::Error::from_raw_os_error(libc::EIO))?;
            count += found.min(place.len());
            if queue == self.receives {
                receives = count;
            }
        }
        // SAFETY: ibv_poll_cq filled in the first `count` entries.
        let found = unsafe { std::slice::from_raw_parts(completions.as_ptr().cast(), count) };
        let (receives, sends) = found.split_at(receives);
        Ok(Polled { receives, sends })
    }

    /// Asks for one event on the channel at the next receive that completes.
    pub(crate) fn request_event(&self) -> io::Result<()> {
        // SAFETY: the queue is alive.
        check_value(unsafe { rdma_sys::ibv_req_notify_cq(self.receives.as_ptr(), 0) })
    }

    /// Asks for one event on the channel at the next send that completes.
    pub(crate) fn request_send_event(&self) -> io::Result<()> {
        // SAFETY: the queue is alive.
        check_value(unsafe { rdma_sys::ibv_req_notify_cq(self.sends.as_ptr(), 0) })
    }

    /// Reads and acknowledges events that have arrived: `most` of them, as many as were asked for.
    pub(crate) fn drain_events(&self, most: u32) -> Events {
        let mut events = Events::default();
        let mut queue = ptr::null_mut();
        let mut context = ptr::null_mut();
        for _ in 0..most {
            // SAFETY: the channel is alive and non-blocking, the places for the answer are ours.
            let read = unsafe { rdma_sys::ibv_get_cq_event(self.channel.as_ptr(), &mut queue, &mut context) };
            if check(read).is_err() {
                break;
            }
            if queue == self.sends.as_ptr() {
                events.sends += 1;
            } else {
                events.receives += 1;
            }
        }
        for (queue, count) in [(self.receives, events.receives), (self.sends, events.sends)] {
            if count > 0 {
                // SAFETY: the queue is alive, and each of its events is acknowledged once.
                unsafe { rdma_sys::ibv_ack_cq_events(queue.as_ptr(), count) };
            }
        }
        events
    }
}

/// Completions found by one poll.
#[derive(Clone, Copy)]
pub(crate) struct Polled<'a> {
    pub(crate) receives: &'a [ibv_wc],
    pub(crate) sends: &'a [ibv_wc],
}

impl<'a> Polled<'a> {
    pub(crate) const fn len(&self) -> usize {
        self.receives.len() + self.sends.len()
    }

    /// In the order in which they tell the most: a send that failed says why the receives were flushed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a ibv_wc> {
        let failed = self
            .receives
            .iter()
            .any(|completion| completion.status != ibv_wc_status::IBV_WC_SUCCESS);
        let (first, second) = if failed {
            (self.sends, self.receives)
        } else {
            (self.receives, self.sends)
        };
        first.iter().chain(second)
    }
}

/// Events read from a completion channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    pub(crate) receives: u32,
    pub(crate) sends: u32,
}

impl AsFd for CompletionQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the channel, which `self` owns.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AsRawFd for CompletionQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // ibv_destroy_cq waits for events that were read and not acknowledged: there are none, drain_events acks all.
        // SAFETY: every queue pair holds an Arc of this, so none is left; queues, then channel, each once.
        let results = unsafe {
            [
                rdma_sys::ibv_destroy_cq(self.sends.as_ptr()),
                rdma_sys::ibv_destroy_cq(self.receives.as_ptr()),
                rdma_sys::ibv_destroy_comp_channel(self.channel.as_ptr()),
            ]
        };
        for result in results {
            if let Err(error) = check_value(result) {
                tracing::warn!(%error, device = self.device.name(), "a completion queue could not be destroyed");
            }
        }
    }
}

/// Entries of a completion queue that belong to one queue pair.
#[derive(Debug)]
pub(crate) struct Reservation {
    queue: Arc<CompletionQueue>,
    entries: u32,
}

impl Reservation {
    pub(crate) const fn queue(&self) -> &Arc<CompletionQueue> {
        &self.queue
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.queue.reserved.fetch_sub(self.entries, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(wr_id: u64, status: ibv_wc_status::Type) -> ibv_wc {
        // SAFETY: plain integers, for which all zeroes is a valid value.
        let zeroed: ibv_wc = unsafe { std::mem::zeroed() };
        ibv_wc {
            wr_id,
            status,
            ..zeroed
        }
    }

    #[test]
    fn what_failed_comes_before_what_was_flushed_for_it() {
        use ibv_wc_status::{IBV_WC_RETRY_EXC_ERR, IBV_WC_SUCCESS, IBV_WC_WR_FLUSH_ERR};
        let order = |receive, send| {
            let (receives, sends) = (
                [completion(1, IBV_WC_SUCCESS), completion(2, receive)],
                [completion(3, send)],
            );
            let polled = Polled {
                receives: &receives,
                sends: &sends,
            };
            assert_eq!(polled.len(), 3);
            polled.iter().map(|completion| completion.wr_id).collect::<Vec<_>>()
        };
        assert_eq!(order(IBV_WC_SUCCESS, IBV_WC_SUCCESS), [1, 2, 3]);
        assert_eq!(order(IBV_WC_WR_FLUSH_ERR, IBV_WC_RETRY_EXC_ERR), [3, 1, 2]);
    }
}
