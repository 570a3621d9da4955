//! The data plane of one reactor: one io_uring and all that its entries point at.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{EnterFlags, IoUring, cqueue, opcode, types};
use libublk::sys::{UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_FETCH_REQ};
use thiserror::Error;

use super::area::{Area, Mapping, RetiredArea};
use super::copy::Lent;
use super::descriptors::{Descriptor, Descriptors};
use super::foreign::Foreign;
use super::setup::{SetupError, data_ring};
use super::slots::Slots;
use super::tickets::Ticket;
use crate::backend::{AreaId, AreaRanges};

/// `io_uring_enter` failed in a way that does not pass.
#[derive(Debug, Error)]
#[error("io_uring_enter failed: {0}; the reactor cannot go on")]
pub(crate) struct EnterError(#[source] io::Error);

/// A range that does not lie in a mapped area.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no such bytes: {0:?}")]
pub(crate) struct RangeError(pub(crate) AreaRanges);

/// Whether `enter` sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Submit, run what the kernel has deferred to us, and come back.
    No,
    /// Sleep until something completes, at most that long.
    Until(Option<Duration>),
}

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A FETCH or COMMIT ended: with a request (0), or an errno (negative).
    Command { queue: u32, tag: u16, result: i32 },
    /// A copy ended; a short one counts as `EIO`.
    Copied {
        queue: u32,
        tag: u16,
        result: Result<(), i32>,
    },
    /// A copy for a request of another reactor ended.
    CopiedForeign { token: u64, result: Result<(), i32> },
    /// A watched descriptor is ready (poll mask) or the poll failed (negative); the last one unless `more`.
    Watch { watch: u32, result: i32, more: bool },
    /// Someone rang; the poll has ended unless `more`.
    Doorbell { more: bool },
}

#[derive(Debug)]
pub(super) struct Queue {
    descriptors: Descriptors,
    pub(super) char_device: Arc<OwnedFd>,
    pub(super) id: u16,
    /// What each tag's copy names, while there is one.
    pub(super) copying: Box<[Option<Lent>]>,
    /// Commands and copies in the kernel's hands.
    pub(super) pending: u32,
}

/// See the module's head. Field order is drop order: the ring goes before the memory its entries name.
pub(crate) struct DataPlane {
    ring: IoUring,
    pub(super) queues: Slots<Queue>,
    pub(super) areas: Slots<Area>,
    /// Copies for requests of other reactors.
    pub(super) foreign: Slots<Foreign>,
    enters: u64,
}

impl DataPlane {
    /// To be called on the thread that will use the ring: the kernel lets no other one in.
    pub(crate) fn new(submissions: u32, completions: u32) -> Result<Self, SetupError> {
        Ok(Self {
            ring: data_ring(submissions, completions)?,
            queues: Slots::new(),
            areas: Slots::new(),
            foreign: Slots::new(),
            enters: 0,
        })
    }

    /// Calls of `io_uring_enter` so far.
    pub(crate) const fn enters(&self) -> u64 {
        self.enters
    }

    /// Maps the queue's descriptors. Sets `O_NONBLOCK` on the character device: without it io_uring hands every copy
    /// to a worker thread.
    pub(crate) fn add_queue(&mut self, char_device: Arc<OwnedFd>, id: u16, depth: u16) -> io::Result<u32> {
        let flags = rustix::fs::fcntl_getfl(&*char_device)?;
        rustix::fs::fcntl_setfl(&*char_device, flags | rustix::fs::OFlags::NONBLOCK)?;
        let descriptors = Descriptors::map(&char_device, id, depth)?;
        let copying = (0..depth).map(|_| None).collect();
        let queue = Queue {
            descriptors,
            char_device,
            id,
            copying,
            pending: 0,
        };
        self.queues
            .insert(queue)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENFILE))
    }

    /// Unmaps the descriptors and lets go of the character device, unless the kernel still has entries of the queue.
    pub(crate) fn remove_queue(&mut self, queue: u32) -> bool {
        let idle = self.queues.get(queue).is_some_and(|entry| entry.pending == 0);
        idle && self.queues.remove(queue).is_some()
    }

    /// The request the tag has last been handed.
    pub(crate) fn descriptor(&self, queue: u32, tag: u16) -> Option<Descriptor> {
        self.queues.get(queue)?.descriptors.read(tag)
    }

    pub(crate) fn add_area(&mut self, mapping: Mapping) -> Option<AreaId> {
        self.areas.insert(Area { mapping, copies: 0 }).map(AreaId)
    }

    /// The mapping, unless the area is unknown or a copy is under way on it.
    pub(crate) fn remove_area(&mut self, area: AreaId) -> Option<RetiredArea> {
        let idle = self.areas.get(area.0).is_some_and(|entry| entry.copies == 0);
        if !idle {
            return None;
        }
        self.areas.remove(area.0).map(|area| RetiredArea(area.mapping))
    }

    /// The queue's character device.
    pub(super) fn char_device(&self, queue: u32) -> Option<&Arc<OwnedFd>> {
        Some(&self.queues.get(queue)?.char_device)
    }

    /// Whether the area exists.
    pub(crate) fn has_area(&self, area: AreaId) -> bool {
        self.areas.get(area.0).is_some()
    }

    /// FETCH_REQ: the first command of a tag.
    pub(crate) fn fetch(&mut self, queue: u32, tag: u16) -> Result<(), EnterError> {
        let Some(entry) = self.command(queue, tag, UBLK_U_IO_FETCH_REQ, 0) else {
            return Ok(());
        };
        self.push(&[entry])
    }

    /// COMMIT_AND_FETCH_REQ: the tag's request ends with `result`.
    pub(crate) fn commit(&mut self, queue: u32, tag: u16, result: i32) -> Result<(), EnterError> {
        let Some(entry) = self.command(queue, tag, UBLK_U_IO_COMMIT_AND_FETCH_REQ, result) else {
            return Ok(());
        };
        self.push(&[entry])
    }

    /// A multishot poll for readability. The number may be closed or reused at any time: no memory depends on it.
    pub(crate) fn watch(&mut self, fd: RawFd, watch: u32) -> Result<(), EnterError> {
        self.poll(fd, Ticket::Watch { watch })
    }

    /// The same for the mailbox's eventfd.
    pub(crate) fn watch_doorbell(&mut self, fd: RawFd) -> Result<(), EnterError> {
        self.poll(fd, Ticket::Doorbell)
    }

    /// Ends a poll; it completes a last time, without `more`.
    pub(crate) fn unwatch(&mut self, watch: u32) -> Result<(), EnterError> {
        let target = Ticket::Watch { watch }.encode();
        self.push(&[opcode::PollRemove::new(target)
            .build()
            .user_data(Ticket::Silent.encode())])
    }

    /// Entries not yet submitted.
    pub(crate) fn unsubmitted(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether the kernel has completions that only `enter` brings out.
    pub(crate) fn deferred(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Whether completions lie ready.
    pub(crate) fn ready(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Submits everything and runs deferred work.
    pub(crate) fn enter(&mut self, wait: Wait) -> Result<(), EnterError> {
        self.enters += 1;
        let submit = self.ring.submission().len() as u32;
        let no_iowait = self.ring.params().is_feature_no_iowait();
        let submitter = self.ring.submitter();
        let timespec;
        let mut arguments = types::SubmitArgs::new();
        let (least, flags) = match wait {
            Wait::No => (0, EnterFlags::GETEVENTS),
            Wait::Until(limit) => {
                if let Some(limit) = limit {
                    timespec = types::Timespec::from(limit);
                    arguments = arguments.timespec(&timespec);
                }
                let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
                // An idle reactor waits with FETCHes in flight; that is no I/O wait.
                flags.set(EnterFlags::NO_IOWAIT, no_iowait);
                (1, flags)
            }
        };
        let argument = flags.contains(EnterFlags::EXT_ARG).then_some(&arguments);
        // SAFETY: the entries submitted name areas, lists of their pieces and files that `self` holds until they complete
        // (`pending`, `copies` and `Lent` guard them); the argument lives through the call, and its type is the one EXT_ARG asks for.
        match unsafe { submitter.enter(submit, least, flags.bits(), argument) } {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; completions must be reaped first; no memory for requests right now.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(EnterError(error)),
            },
        }
    }

    /// Moves completions into `events` until it is full (its capacity does not grow) or there are none.
    pub(crate) fn reap(&mut self, events: &mut Vec<Event>) {
        let Self {
            ring,
            queues,
            areas,
            foreign,
            ..
        } = self;
        let mut completions = ring.completion();
        while events.len() < events.capacity() {
            let Some(completion) = completions.next() else { break };
            let result = completion.result();
            let more = cqueue::more(completion.flags());
            let event = match Ticket::decode(completion.user_data()) {
                Some(Ticket::Command { queue, tag }) => {
                    let Some(entry) = queues.get_mut(queue) else { continue };
                    entry.pending = entry.pending.saturating_sub(1);
                    Event::Command { queue, tag, result }
                }
                Some(Ticket::Copy { queue, tag }) => {
                    let Some(entry) = queues.get_mut(queue) else { continue };
                    let Some(copying) = entry.copying.get_mut(usize::from(tag)).and_then(Option::take) else {
                        continue;
                    };
                    entry.pending = entry.pending.saturating_sub(1);
                    let result = copying.came_back(areas, result);
                    Event::Copied { queue, tag, result }
                }
                Some(Ticket::Foreign { copy }) => {
                    let Some(ended) = foreign.remove(copy) else { continue };
                    Event::CopiedForeign {
                        token: ended.token,
                        result: ended.lent.came_back(areas, result),
                    }
                }
                Some(Ticket::Watch { watch }) => Event::Watch { watch, result, more },
                Some(Ticket::Doorbell) => Event::Doorbell { more },
                Some(Ticket::Silent) => continue,
                None => {
                    unasked(completion.user_data());
                    continue;
                }
            };
            events.push(event);
        }
    }

    pub(super) fn command(&mut self, handle: u32, tag: u16, operation: u32, result: i32) -> Option<Entry> {
        let queue = self.queues.get_mut(handle)?;
        queue.pending += 1;
        // struct ublksrv_io_cmd { u16 q_id; u16 tag; s32 result; u64 addr; }, addr 0 as USER_COPY demands
        let mut command = [0; 16];
        command[0..2].copy_from_slice(&queue.id.to_ne_bytes());
        command[2..4].copy_from_slice(&tag.to_ne_bytes());
        command[4..8].copy_from_slice(&result.to_ne_bytes());
        let entry = opcode::UringCmd16::new(types::Fd(queue.char_device.as_raw_fd()), operation)
            .cmd(command)
            .build();
        Some(entry.user_data(Ticket::Command { queue: handle, tag }.encode()))
    }

    fn poll(&mut self, fd: RawFd, ticket: Ticket) -> Result<(), EnterError> {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(&[entry.user_data(ticket.encode())])
    }

    /// Queues entries that belong together; a full queue is submitted first, so a linked pair goes in one submission.
    /// (The kernel takes a submission whole, SUBMIT_ALL, but for want of memory for a request, which `GFP_KERNEL`
    /// allocations of that size wait for.)
    pub(super) fn push(&mut self, entries: &[Entry]) -> Result<(), EnterError> {
        loop {
            // SAFETY: see `enter`: what the entries name is held by `self` until their completions have been reaped.
            if unsafe { self.ring.submission().push_multiple(entries) }.is_ok() {
                return Ok(());
            }
            self.enter(Wait::No)?;
        }
    }
}

#[cold]
fn unasked(user_data: u64) {
    tracing::error!(user_data, "a completion nobody asked for");
}
