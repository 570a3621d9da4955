//! The loop of a reactor.
//!
//! One pass: completions to the backend, what it sends for them, mail to the backend, the backend's own work, its actions to the
//! ring, one `io_uring_enter`. A reactor that finds nothing goes on looking for a while ([`Patience`]), then sleeps until a completion,
//! its eventfd, a watched descriptor or the backend's deadline wakes it.

use std::sync::Arc;
use std::time::Duration;

use super::ReactorError;
use super::handle::{AddQueue, AddQueueError, Counters, RemoveAreaError, Reply};
use super::mailbox::{Doorbell, Mail, Mailbox};
use super::patience::Patience;
use super::placement::Placement;
use super::served::{CommandStep, CopyStep, Served};
use super::watches::Watches;
use crate::backend::{Action, AreaId, Backend, BlockRequest, DeviceKey, RequestId};
use crate::moment::Moment;
use crate::ring::{DataPlane, Descriptor, EnterError, Event, RetiredArea, Wait};

/// Completions taken in one pass.
const BATCH: usize = 256;

pub(super) struct Pass<B: Backend> {
    pub(super) plane: DataPlane,
    pub(super) backend: B,
    mailbox: Mailbox<B::Message>,
    bell: Arc<Doorbell>,
    patience: Patience,
    placement: Placement,
    /// By the slot part of the plane's queue handle.
    pub(super) queues: Vec<Option<(u32, Served)>>,
    pub(super) watches: Watches,
    events: Vec<Event>,
    pub(super) actions: Vec<Action>,
    /// Queues whose FETCHes have not all been seen by the driver.
    starting: Vec<(u32, Reply<Result<(), AddQueueError>>)>,
    leaving: Vec<(DeviceKey, Reply<()>)>,
    retiring: Vec<(AreaId, Reply<Result<RetiredArea, RemoveAreaError>>)>,
    counters: Counters,
    stopping: bool,
}

impl From<EnterError> for ReactorError {
    fn from(error: EnterError) -> Self {
        Self::Ring(Box::new(error))
    }
}

impl<B: Backend> Pass<B> {
    pub(super) fn new(plane: DataPlane, backend: B, mailbox: Mailbox<B::Message>, spin: Duration) -> Self {
        let bell = Arc::clone(&mailbox.bell);
        Self {
            plane,
            backend,
            mailbox,
            bell,
            patience: Patience::new(spin),
            placement: Placement::of_this_thread(),
            queues: Vec::new(),
            watches: Watches::new(),
            events: Vec::with_capacity(BATCH),
            actions: Vec::with_capacity(2 * BATCH),
            starting: Vec::new(),
            leaving: Vec::new(),
            retiring: Vec::new(),
            counters: Counters::default(),
            stopping: false,
        }
    }

    pub(super) fn run(mut self) -> Result<(), ReactorError> {
        let result = self.turn();
        if let Err(error) = &result {
            tracing::error!(%error, "the reactor ends");
        }
        result
    }

    fn turn(&mut self) -> Result<(), ReactorError> {
        self.plane.watch_doorbell(self.bell.fd())?;
        loop {
            if self.plane.deferred() {
                // While this gave the processor up or slept.
                self.plane.enter(Wait::No)?;
            }
            let now = Moment::now();
            let (mut progress, deadline) = self.once(now)?;
            if self.plane.unsubmitted() || self.plane.deferred() {
                self.plane.enter(Wait::No)?;
                // What this has brought out is work that was found: it waits for nobody who wants this processor.
                progress |= self.plane.ready();
            }
            self.publish();
            if self.stopping {
                return Ok(());
            }
            if progress || !self.starting.is_empty() || !self.retiring.is_empty() {
                self.patience.busy(now);
            } else if self.patience.idle(now) {
                // Whoever else wants this processor may be the one who has the work: the fabric's own threads, or the
                // target's, where both are on one machine.
                std::thread::yield_now();
            } else if deadline.is_none_or(|deadline| deadline > now) {
                self.sleep(deadline)?;
            }
        }
    }

    /// Whether anything was done, and when the backend wants to be called again.
    fn once(&mut self, now: Moment) -> Result<(bool, Option<Moment>), ReactorError> {
        let mut progress = self.completions(now)?;
        if progress {
            // What came leaves before anything else is looked at.
            self.backend.send(now, &mut self.actions);
            self.act_on_all(now)?;
        }
        if self.bell.answer() {
            progress = true;
            while let Ok(mail) = self.mailbox.receiver.try_recv() {
                self.mail(mail, now)?;
            }
        }
        let pumped = self.backend.pump(now, &mut self.actions);
        progress |= pumped.progress | !self.actions.is_empty();
        self.act_on_all(now)?;
        self.retire();
        Ok((progress, pumped.deadline))
    }

    fn sleep(&mut self, deadline: Option<Moment>) -> Result<(), ReactorError> {
        if !self.backend.prepare_sleep() || !self.bell.fall_asleep() {
            return Ok(());
        }
        if !self.plane.ready() {
            self.counters.sleeps += 1;
            let limit = deadline.map(|deadline| deadline.saturating_since(Moment::now()));
            self.plane.enter(Wait::Until(limit))?;
        }
        self.bell.wake_up();
        Ok(())
    }

    fn completions(&mut self, now: Moment) -> Result<bool, ReactorError> {
        if !self.plane.ready() && self.starting.is_empty() {
            return Ok(false);
        }
        // Queues added in an earlier pass: their FETCHes have been submitted, so refusals lie ready by now.
        let mut events = std::mem::take(&mut self.events);
        self.plane.reap(&mut events);
        let progress = !events.is_empty();
        let settled = if events.len() < BATCH { self.starting.len() } else { 0 };
        for event in events.drain(..) {
            match event {
                Event::Command { queue, tag, result } => self.command_ended(queue, tag, result, now)?,
                Event::Copied { queue, tag, result } => self.copy_ended(queue, tag, result, now)?,
                Event::CopiedForeign { token, result } => {
                    self.counters.copies += 1;
                    self.backend.copied_foreign(token, result, now);
                }
                Event::Watch { watch, result, more } => {
                    if let Some(token) = self.watches.completed(&mut self.plane, watch, result, more)? {
                        self.backend.ready(token, now);
                    }
                }
                Event::Doorbell { more: true } => {}
                Event::Doorbell { more: false } => self.plane.watch_doorbell(self.bell.fd())?,
            }
        }
        self.events = events;
        self.settle(settled);
        Ok(progress)
    }

    fn command_ended(&mut self, queue: u32, tag: u16, result: i32, now: Moment) -> Result<(), ReactorError> {
        let Some(served) = find(&mut self.queues, queue) else {
            return Ok(());
        };
        match served.command_ended(tag, result) {
            CommandStep::Request => {
                let Some(descriptor) = self.plane.descriptor(queue, tag) else {
                    return Ok(());
                };
                match served.take(tag, descriptor) {
                    Ok(operation) => {
                        self.counters.requests += 1;
                        self.backend.submit(
                            BlockRequest {
                                id: RequestId { queue, tag },
                                device: served.device,
                                queue_id: served.queue_id,
                                operation,
                                sector: descriptor.start,
                                sectors: descriptor.sectors,
                            },
                            now,
                        );
                    }
                    Err(errno) => {
                        unservable(served.device, descriptor, errno);
                        self.plane.commit(queue, tag, -errno)?;
                    }
                }
            }
            CommandStep::Commit(result) => self.plane.commit(queue, tag, result)?,
            CommandStep::Refused(errno) => {
                refused(served, tag, errno);
                self.bury(queue);
            }
            CommandStep::Ended => self.bury(queue),
            CommandStep::Wait => {}
        }
        Ok(())
    }

    pub(super) fn copy_ended(
        &mut self,
        queue: u32,
        tag: u16,
        result: Result<(), i32>,
        now: Moment,
    ) -> Result<(), ReactorError> {
        self.counters.copies += 1;
        let Some(served) = find(&mut self.queues, queue) else {
            return Ok(());
        };
        let step = served.copy_ended(tag, result);
        if let CopyStep::TellAndCommit(result) = step {
            self.plane.commit(queue, tag, result)?;
        }
        if step != CopyStep::Ignore {
            self.backend.copied(RequestId { queue, tag }, result, now);
        }
        Ok(())
    }

    /// Gives up a queue whose tags have all ended.
    #[cold]
    fn bury(&mut self, queue: u32) {
        let Some(place) = self.queues.get_mut(slot(queue)) else {
            return;
        };
        let Some((_, served)) = place
            .as_ref()
            .filter(|(handle, served)| *handle == queue && served.over())
        else {
            return;
        };
        let (device, queue_id) = (served.device, served.queue_id);
        if !self.plane.remove_queue(queue) {
            debug_assert!(false, "every tag has ended, so no copy is under way");
            return;
        }
        *place = None;
        tracing::debug!(device = device.0, queue_id, "queue ended");
        if !self.serves(device) {
            let (gone, rest) = self.leaving.drain(..).partition(|(key, _)| *key == device);
            self.leaving = rest;
            for (_, reply) in Vec::into_iter(gone) {
                reply(());
            }
        }
    }

    fn serves(&self, device: DeviceKey) -> bool {
        self.queues.iter().flatten().any(|(_, served)| served.device == device)
    }

    fn mail(&mut self, mail: Mail<B::Message>, now: Moment) -> Result<(), ReactorError> {
        match mail {
            Mail::Backend(message) => self.backend.message(message, now, &mut self.actions),
            Mail::AddQueue(queue, reply) => self.add_queue(queue, reply)?,
            Mail::RemoveDevice(device, reply) if self.serves(device) => self.leaving.push((device, reply)),
            Mail::RemoveDevice(_, reply) => reply(()),
            Mail::AddArea(mapping, reply) => reply(self.plane.add_area(mapping)),
            Mail::RemoveArea(area, reply) => self.retiring.push((area, reply)),
            Mail::KeepOff(processor) => self.placement.keep_off(processor),
            Mail::Stop => self.stopping = true,
        }
        Ok(())
    }

    fn add_queue(&mut self, queue: AddQueue, reply: Reply<Result<(), AddQueueError>>) -> Result<(), ReactorError> {
        let AddQueue {
            device,
            queue_id,
            depth,
            char_device,
            max_io_bytes,
        } = queue;
        let handle = match self.plane.add_queue(char_device, queue_id, depth) {
            Ok(handle) => handle,
            Err(source) => {
                reply(Err(AddQueueError::Map { queue_id, source }));
                return Ok(());
            }
        };
        let place = slot(handle);
        if self.queues.len() <= place {
            self.queues.resize_with(place + 1, || None);
        }
        if let Some(place) = self.queues.get_mut(place) {
            *place = Some((handle, Served::new(device, queue_id, depth, max_io_bytes)));
        }
        for tag in 0..depth {
            self.plane.fetch(handle, tag)?;
        }
        self.starting.push((handle, reply));
        Ok(())
    }

    /// Answers for the first `settled` queues in `starting`.
    fn settle(&mut self, settled: usize) {
        for (handle, reply) in self.starting.drain(..settled) {
            let served = self.queues.get(slot(handle)).and_then(Option::as_ref);
            reply(match served.filter(|(serving, _)| *serving == handle) {
                Some((_, served)) => match served.refused() {
                    None => Ok(()),
                    Some(errno) => Err(fetch_error(served.queue_id, errno)),
                },
                // Every tag was aborted or refused before we got here.
                None => Err(fetch_error(0, libc::ENODEV)),
            });
        }
    }

    fn retire(&mut self) {
        if self.retiring.is_empty() {
            return;
        }
        let plane = &mut self.plane;
        for (area, reply) in std::mem::take(&mut self.retiring) {
            match plane.remove_area(area) {
                Some(retired) => reply(Ok(retired)),
                None if plane.has_area(area) => self.retiring.push((area, reply)),
                None => reply(Err(RemoveAreaError::Unknown(area))),
            }
        }
    }

    fn publish(&mut self) {
        self.counters.enters = self.plane.enters();
        self.bell.gauges.write(self.counters);
    }
}

/// What hardly ever happens is kept out of the way of what always does.
#[cold]
fn unservable(device: DeviceKey, descriptor: Descriptor, errno: i32) {
    let device = device.0;
    tracing::error!(device, ?descriptor, errno, "a request that cannot be served");
}

#[cold]
fn refused(served: &Served, tag: u16, errno: i32) {
    let (device, queue_id) = (served.device.0, served.queue_id);
    tracing::error!(
        device,
        queue_id,
        tag,
        errno,
        "the driver refused a command; the tag is out of use"
    );
}

fn fetch_error(queue_id: u16, errno: i32) -> AddQueueError {
    AddQueueError::Fetch {
        queue_id,
        source: std::io::Error::from_raw_os_error(errno),
    }
}

const fn slot(queue: u32) -> usize {
    (queue & 0xffff) as usize
}

pub(super) fn find(queues: &mut [Option<(u32, Served)>], queue: u32) -> Option<&mut Served> {
    match queues.get_mut(slot(queue))? {
        Some((handle, served)) if *handle == queue => Some(served),
        _ => None,
    }
}
