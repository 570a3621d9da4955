//! The end of a command at the target, and of the memory window it was given.
//!
//! With [`Exposure::Window`](crate::fabric::Exposure::Window) a command's bytes are open to the target from the work
//! request in front of its SEND to the one that follows its answer, and the command is over when the latter has
//! completed: what the caller is told of, no target can change any more. Commands that end with their channel need no
//! closing: the flushed queue pair carries no accesses (the DMA rule).

use super::channel::Channel;
use super::engine::Engine;
use super::mutation::Mutation;
use super::request::{Answer, Key};
use super::slots::{Slot, Window};
use crate::fabric::{Extent, Fabric, RemoteAccess};
use crate::time::Instant;

impl Channel {
    /// Opens the window of a command that is about to be sent.
    #[cold]
    pub(super) fn open_window(&self, fabric: &mut impl Fabric, slot: u16, extent: Extent, access: RemoteAccess) {
        let len = extent.len + u32::from(self.mutated.is(Mutation::WindowTooLong));
        let access = match access {
            RemoteAccess::Read if self.mutated.is(Mutation::WindowWrongWay) => RemoteAccess::Write,
            access => access,
        };
        fabric.post_bind(self.qp, slot, Extent { len, ..extent }, access);
    }
}

impl<F: Fabric> Engine<F> {
    /// The target is done with a command whose window is open. It ends when its SEND has completed and its window is
    /// closed.
    #[cold]
    pub(super) fn close_answered(&mut self, index: usize, slot: u16, key: Key, answer: Answer, now: Instant) {
        self.close_window(index, slot);
        if self.mutated.is(Mutation::WindowNotAwaited) {
            return self.answered(index, slot, key, &answer, now);
        }
        if let Some(request) = self.requests.get_mut(key) {
            request.answer = Some(answer);
        }
    }

    /// Closes the window of a command that was answered, unless its channel is closing: it ends with that.
    #[cold]
    pub(super) fn close_window(&mut self, index: usize, slot: u16) {
        let Some(channel) = self.channels[index].as_mut().filter(|channel| channel.is_open()) else {
            return;
        };
        let qp = channel.qp;
        if let Slot::Command { window, .. } = &mut channel.slots[usize::from(slot)].state {
            *window = Window::Closing;
            channel.sends_posted += 1;
            self.fabric.post_invalidate(qp, slot);
        }
    }

    /// A window is closed.
    #[cold]
    pub(super) fn window_closed(&mut self, index: usize, slot: u16, now: Instant) {
        self.window_ended(index, slot, now);
        self.settle(index, now);
    }

    fn window_ended(&mut self, index: usize, slot: u16, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        channel.sends_posted = channel.sends_posted.saturating_sub(1);
        let Some(Slot::Command {
            request,
            sending,
            answered,
            window,
            ..
        }) = channel.state(slot)
        else {
            return;
        };
        *window = Window::Closed;
        let (request, over) = (*request, *answered && !*sending);
        if over {
            self.answer_in(index, slot, request, now);
        }
    }
}
