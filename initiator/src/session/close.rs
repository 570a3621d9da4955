//! How channels end: nothing is given back while the target could still touch it.

use super::channel::{Channel, ChannelError};
use super::due::ALWAYS;
use super::engine::Engine;
use super::event::Event;
use super::mutation::Mutation;
use super::request::Stage;
use super::slots::Slot;
use crate::fabric::{Fabric, QueuePairId};
use crate::time::Instant;
use crate::wire::InitiatorLogout;

impl<F: Fabric> Engine<F> {
    /// Takes a channel out of service. What the target may still touch stays until [`Engine::settle`] sees
    /// that the queue pair has been flushed.
    pub(super) fn close(&mut self, index: usize, reason: ChannelError, _now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if channel.closing.is_some() {
            return;
        }
        let (qp, key, session) = (channel.qp, channel.session, channel.session_index);
        channel.closing = Some(reason.clone());
        channel.ladder = None;
        let marker = channel.marker();
        channel.receives_posted += 1;
        self.fabric.post_receive(qp, marker);
        self.fabric.fail(qp);
        self.fabric.flush();
        self.events.push(Event::ChannelFailed {
            qp,
            session: key,
            reason: Box::new(reason),
        });
        self.tasks_lost(index);
        self.leave(index, session);
    }

    /// A channel takes no more commands: its session goes on with its others, if it has any.
    fn leave(&mut self, index: usize, session: usize) {
        if let Some(channel) = &mut self.channels[index] {
            channel.serving = channel.is_open() && self.mutated.is(Mutation::SentBehindLogout);
            channel.starved = None;
        }
        let Some(state) = &mut self.sessions[session] else {
            return;
        };
        state.channels.retain(|&other| other != index);
        if !state.channels.is_empty() {
            return self.detach_waiting(index);
        }
        for queue in state.queues.clone() {
            self.part_with(queue);
        }
    }

    /// Ends a channel as [`Engine::close_channel`] does, with an SRP_I_LOGOUT (SRP r16a 6.6) before. Targets take the
    /// end of the connection for a logout, and some complain of this, so it is for those that want it.
    pub fn log_out(&mut self, qp: QueuePairId, now: Instant) {
        let limit = now + self.limits.task;
        let Some(&index) = self.by_qp.get(&qp) else { return };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if !channel.is_open() || channel.leaving.is_some() {
            return;
        }
        let may_send = channel.credits + i64::from(channel.unsent) > 0;
        let Some(slot) = may_send.then(|| channel.claim_answer()).flatten() else {
            return self.close(index, ChannelError::Closed, now);
        };
        channel.slots[usize::from(slot)].state = Slot::Logout;
        channel.leaving = Some(limit);
        self.due = ALWAYS;
        channel.credits -= 1;
        channel.sends_posted += 1;
        let session = channel.session_index;
        let logout = InitiatorLogout { tag: channel.tag(slot) };
        let len = logout.emit(self.fabric.send_slot(qp, slot)).unwrap_or_default();
        self.fabric
            .post_send(qp, slot, u32::try_from(len).unwrap_or(u32::MAX), None);
        self.fabric.flush();
        self.leave(index, session);
    }

    /// Ends a channel whose place another one has taken: it is sent nothing new, and what is with the target has
    /// [`Limits::retirement`](super::Limits::retirement) to be answered.
    pub fn retire(&mut self, qp: QueuePairId, now: Instant) {
        let limit = now + self.limits.retirement;
        let Some(&index) = self.by_qp.get(&qp) else { return };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if !channel.is_open() || channel.leaving.is_some() {
            return;
        }
        channel.leaving = Some(limit);
        self.due = ALWAYS;
        let session = channel.session_index;
        self.leave(index, session);
    }

    /// Ends what a closed channel held, once nothing of it can be touched any more.
    pub(super) fn settle(&mut self, index: usize, now: Instant) {
        if self.channels[index].as_ref().is_some_and(Channel::is_quiet) {
            self.settle_quiet(index, now);
        }
    }

    /// The slots of a channel that have commands, in the order of their requests: that is how they are handed over.
    fn commands_in_order(&self, index: usize) -> Vec<u16> {
        let Some(channel) = &self.channels[index] else {
            return Vec::new();
        };
        let order = |slot: &u16| match channel.slots[usize::from(*slot)].state {
            Slot::Command { request, .. } => self.requests.get(request).map(|request| request.order),
            _ => None,
        };
        let mut slots: Vec<u16> = (0..channel.plan.commands)
            .filter(|slot| order(slot).is_some())
            .collect();
        slots.sort_by_key(order);
        slots
    }

    #[cold]
    fn settle_quiet(&mut self, index: usize, now: Instant) {
        for slot in self.commands_in_order(index) {
            let Some(channel) = &mut self.channels[index] else {
                return;
            };
            let fence = channel.fence;
            let Slot::Command { request, answered, .. } = channel.slots[usize::from(slot)].state else {
                continue;
            };
            let posted = self
                .requests
                .get(request)
                .is_some_and(|request| request.stage == Stage::Sent);
            if answered {
                self.answer_in(index, slot, request, now);
            } else if posted {
                channel.free_command(slot);
                self.came_back(request);
                self.unanswered(request, fence, now);
            }
        }
        let Some(channel) = &self.channels[index] else { return };
        if channel.unsent + channel.returned > 0 {
            return;
        }
        let (qp, session) = (channel.qp, channel.session);
        debug_assert_eq!(
            channel.read_space.in_use() + channel.write_space.in_use(),
            0,
            "extents lost"
        );
        self.channels[index] = None;
        self.by_qp.remove(&qp);
        if !self.mutated.is(Mutation::ClosedSilently) {
            self.events.push(Event::ChannelClosed { qp, session });
        }
    }
}
