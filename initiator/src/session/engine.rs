//! The engine of one reactor: its channels, the queues of its logical units, and the requests in flight.
//!
//! Inputs are requests, completions and the time; outputs are posts on the fabric and [`Event`]s. A reactor has
//! any number of channels of a session and uses them in turn; as long as one lives, so does the session.

use std::time::Duration;

use super::channel::{Channel, ChannelError};
use super::control::Task;
use super::due::NEVER;
use super::event::{Event, Events, Handle};
use super::failover::Fenced;
use super::key_map::KeyMap;
use super::mutation::{Mutated, Mutation};
use super::queue::{Queue, Started};
use super::request::{
    BlockRequest, BlockResult, Control, ControlRequest, Key, LunKey, Purpose, Request, RequestId, Requests, SessionKey,
    Stage,
};
use super::roster::SessionState;
use super::start::{Start, Transfer};
use crate::fabric::{Completion, Fabric, QueuePairId};
use crate::scsi::BlockError;
use crate::time::{Instant, nanoseconds};

/// How many completions are taken from the fabric at a time.
const BATCH: usize = 256;

/// Time limits of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A command of a disk is answered within this, or the target is asked to end it.
    pub command: Duration,
    /// ABORT TASK, then LOGICAL UNIT RESET, take no longer than this each, or the channel is given up.
    pub task: Duration,
    /// A channel that is given up stays for so long at the most, for another to be made in its place.
    pub successor: Duration,
    /// What is under way on a channel that has a successor has this long to end.
    pub retirement: Duration,
    /// A request that does not succeed, however often it is sent again, fails this long after it was sent first.
    pub busy: Duration,
    /// Pause before a refused request is sent again.
    pub backoff: Duration,
    /// A logical unit is not reset for a write of unknown fate before this long after the write's queue pair was flushed
    /// or destroyed: for as long as a packet may live on the subnet, and a target may take to start what it received.
    /// What it starts later than that it may carry out behind the reset.
    pub fence_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(30),
            task: Duration::from_secs(5),
            successor: Duration::from_secs(10),
            retirement: Duration::from_secs(1),
            busy: Duration::from_secs(120),
            backoff: Duration::from_millis(100),
            fence_pause: Duration::from_secs(2),
        }
    }
}

/// The limits that count for every command, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    pub(super) command: u64,
    pub(super) busy: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Engine<F> {
    pub(super) fabric: F,
    pub(super) limits: Limits,
    pub(super) spans: Spans,
    pub(super) requests: Requests,
    pub(super) channels: Vec<Option<Channel>>,
    pub(super) by_qp: KeyMap<QueuePairId, usize>,
    pub(super) sessions: Vec<Option<SessionState>>,
    pub(super) session_index: KeyMap<SessionKey, usize>,
    pub(super) queues: Vec<Option<Queue>>,
    /// Queues that were removed and still have requests.
    pub(super) removed: usize,
    /// Queues of units that are given fewer commands than there is credit for.
    pub(super) limited: usize,
    pub(super) disks: KeyMap<LunKey, usize>,
    pub(super) delayed: Vec<Key>,
    /// No request that waits is over before this.
    pub(super) next_expiry: Option<Instant>,
    /// Nothing is to be done before this but what requests and completions bring (see `due`).
    pub(super) due: Instant,
    pub(super) fences: Vec<Fenced>,
    pub(super) tasks: Vec<Task>,
    pub(super) events: Events,
    completions: Vec<Completion>,
    /// A pass has something to dispatch.
    pub(super) dirty: bool,
    pub(super) mutated: Mutated,
}

impl<F: Fabric> Engine<F> {
    /// An engine without channels or disks.
    pub fn new(fabric: F, limits: Limits) -> Self {
        Self {
            fabric,
            limits,
            spans: Spans {
                command: nanoseconds(limits.command),
                busy: nanoseconds(limits.busy),
            },
            requests: Requests::default(),
            channels: Vec::new(),
            by_qp: KeyMap::default(),
            sessions: Vec::new(),
            session_index: KeyMap::default(),
            queues: Vec::new(),
            removed: 0,
            limited: 0,
            disks: KeyMap::default(),
            delayed: Vec::new(),
            next_expiry: None,
            due: NEVER,
            fences: Vec::new(),
            tasks: Vec::new(),
            events: Events::with_capacity(BATCH * 2),
            completions: Vec::with_capacity(BATCH),
            dirty: false,
            mutated: Mutated::default(),
        }
    }

    /// Gives the engine a defect, before it has channels. For the test that the simulator would see it.
    #[doc(hidden)]
    #[cfg(debug_assertions)]
    pub fn mutate(&mut self, mutation: Mutation) {
        self.mutated = Mutated::by(mutation);
        if mutation == Mutation::BackoffForEver {
            self.limits.backoff = Duration::from_secs(600);
        }
    }

    /// The fabric, for what the engine does not do itself.
    pub fn fabric(&self) -> &F {
        &self.fabric
    }

    /// The fabric, for what the engine does not do itself.
    pub fn fabric_mut(&mut self) -> &mut F {
        &mut self.fabric
    }

    /// The fabric, when the engine is not wanted any more.
    pub fn into_fabric(self) -> F {
        self.fabric
    }

    /// Takes a block request. It ends with [`Event::Done`] or [`Event::Data`]. What is due of it now is handed to the
    /// fabric by the next [`Engine::send`] or [`Engine::pump`], and told by [`Engine::next_event`].
    pub fn submit(&mut self, request: BlockRequest, now: Instant) {
        let index = self.disks.get(&request.lun).copied();
        let queue = index.and_then(|index| Some((index, self.queues[index].as_mut()?)));
        let Some((index, queue)) = queue else {
            return self.done(request.id, Err(BlockError::Offline));
        };
        let transfer = match queue.transfer(&request) {
            Ok(transfer) => transfer,
            Err(why) => return self.done(request.id, Err(why)),
        };
        let Some(session) = &mut self.sessions[queue.session] else {
            return self.done(request.id, Err(BlockError::Offline));
        };
        let (key, request) = self
            .requests
            .insert(Request::new(index, queue.lun, Purpose::Block(request), transfer));
        let mut start = Start {
            fabric: &mut self.fabric,
            events: &mut self.events,
            spans: &self.spans,
            due: &mut self.due,
            now,
        };
        match session.start_at_once(&mut start, key, request, &mut self.channels, queue, self.mutated) {
            Started::Yes => {}
            Started::Unsendable => self.unsendable(key),
            Started::Refused | Started::Wait | Started::NoBuffer => self.wait(key, index),
        }
    }

    /// Puts a request that was just made in its queue.
    #[inline(never)]
    fn wait(&mut self, key: Key, index: usize) {
        let Some(queue) = &mut self.queues[index] else { return };
        if self.mutated.is(Mutation::LastInFirstOut) {
            queue.put(key, &mut self.requests, true);
        } else {
            queue.push(key, &mut self.requests);
        }
        queue.make_ready(index, &mut self.sessions);
        self.dirty = true;
    }

    /// Takes a control request. It ends with [`Event::Reply`].
    pub fn submit_control(&mut self, request: ControlRequest, now: Instant) {
        let index = self.session_index.get(&request.session);
        let Some(session) = index.and_then(|&index| self.sessions[index].as_ref()) else {
            self.events.push(Event::Reply {
                id: request.id,
                result: Err(BlockError::Transport),
            });
            return;
        };
        let (queue, lun, deadline) = (session.control, request.lun, Some(now + request.timeout));
        let transfer = match request.data_in {
            0 => Transfer::None,
            len => Transfer::ToInitiator(len),
        };
        let control = Box::new(Control {
            request,
            sense: Vec::new(),
        });
        let (key, _) = self.requests.insert(Request {
            deadline,
            ..Request::new(queue, lun, Purpose::Control(control), transfer)
        });
        self.push_waiting(key);
    }

    /// The data of a [`Event::Data`] has been taken.
    pub fn release(&mut self, handle: Handle, now: Instant) {
        let Some(request) = self.requests.get_mut(handle.0) else {
            return;
        };
        if request.stage != Stage::Returned {
            debug_assert!(false, "released twice");
            return;
        }
        let (Some(index), queue) = (request.channel, request.queue) else {
            return;
        };
        let mut open = false;
        if let Some(channel) = &mut self.channels[index] {
            channel.returned -= 1;
            open = channel.is_open();
            // Only reads are returned.
            if let Some(extent) = request.extent {
                channel.read_space.release(extent);
            }
        }
        self.requests.remove(handle.0);
        self.forsake(queue);
        self.dirty = true;
        if !open {
            self.settle(index, now);
        }
    }

    /// Ends a channel: nothing new is sent, what is in flight ends when the queue pair has been flushed.
    pub fn close_channel(&mut self, qp: QueuePairId, reason: ChannelError, now: Instant) {
        if let Some(&index) = self.by_qp.get(&qp) {
            self.close(index, reason, now);
        }
    }

    /// The queue pair of a channel that failed was destroyed, or its memory deregistered: nothing of it can be
    /// touched any more. For a channel whose marker did not come back flushed.
    pub fn destroyed(&mut self, qp: QueuePairId, now: Instant) {
        let Some(&index) = self.by_qp.get(&qp) else { return };
        self.close(index, ChannelError::Closed, now);
        if let Some(channel) = &mut self.channels[index] {
            channel.destroyed();
        }
        self.settle(index, now);
    }

    /// Does what can be done now. True when anything happened: then it must be called again before the caller sleeps,
    /// whatever [`Engine::deadline`] says. Receives that came back are posted then, behind what their answers have brought about.
    #[inline(never)]
    pub fn pump(&mut self, now: Instant) -> bool {
        if !self.mutated.is(Mutation::ReceivesKept) {
            self.fabric.flush();
        }
        // What a pass with nothing to do can do without is in functions of its own: it does not save their registers.
        self.fabric.poll(&mut self.completions);
        let mut progress = !self.completions.is_empty();
        if progress {
            self.reap(now);
        }
        self.check_time(now);
        if self.dirty {
            progress = true;
            self.dispatch(now);
        }
        self.fabric.flush_sends();
        progress
    }

    /// Hands what was started since to the fabric, without looking at what that has finished. [`Engine::pump`] does it too:
    /// this is for who has just submitted or supplied and would have it leave first.
    pub fn send(&mut self) {
        self.fabric.flush();
    }

    /// Acts on what the fabric has finished.
    #[inline(never)]
    fn reap(&mut self, now: Instant) {
        loop {
            let mut at = 0;
            while let Some(&completion) = self.completions.get(at) {
                at += 1;
                if let Some(index) = self.by_qp.again(completion.qp) {
                    self.completed(index, completion, now);
                }
            }
            let full = self.completions.len() == self.completions.capacity();
            self.completions.clear();
            if !full {
                return;
            }
            // There may be more.
            self.fabric.poll(&mut self.completions);
        }
    }

    /// The next thing to say.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    pub(super) fn done(&mut self, id: RequestId, result: BlockResult) {
        self.events.put(|| Event::Done { id, result });
    }
}
