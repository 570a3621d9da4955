//! Task management asked for by the control side: what a recovered session fences its units with.

use super::due::ALWAYS;
use super::engine::Engine;
use super::event::Event;
use super::request::{RequestId, SessionKey};
use crate::fabric::Fabric;
use crate::scsi::{BlockError, Lun};
use crate::time::Instant;
use crate::wire::{TaskFunction, TaskResponse};

/// A function about all commands of a logical unit (SAM-5 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitFunction {
    /// ABORT TASK SET: ends the commands of this initiator, or of the channel only where the target takes each
    /// channel for an initiator, as LIO does.
    AbortTaskSet,
    /// CLEAR TASK SET: ends everybody's commands.
    ClearTaskSet,
    /// LOGICAL UNIT RESET: ends everybody's commands and resets the unit.
    Reset,
}

impl From<UnitFunction> for TaskFunction {
    fn from(function: UnitFunction) -> Self {
        match function {
            UnitFunction::AbortTaskSet => Self::AbortTaskSet,
            UnitFunction::ClearTaskSet => Self::ClearTaskSet,
            UnitFunction::Reset => Self::LogicalUnitReset,
        }
    }
}

/// A task management function of the control side. Commands of the unit it ends are sent again.
#[derive(Clone, Copy, Debug)]
pub struct TaskRequest {
    /// Passed back.
    pub id: RequestId,
    /// The session it goes to, over any of its channels.
    pub session: SessionKey,
    /// The logical unit.
    pub lun: Lun,
    /// What to do.
    pub function: UnitFunction,
}

/// A function on its way.
#[derive(Debug)]
pub(super) struct Task {
    request: TaskRequest,
    /// The channel it was sent on, and its tag.
    sent: Option<(usize, u64)>,
    pub(super) limit: Instant,
}

impl<F: Fabric> Engine<F> {
    /// Takes a task management function. It ends with [`Event::TaskDone`], within
    /// [`Limits::task`](super::Limits::task). One that is not answered keeps its place, of which a channel has two: who
    /// gives up on it closes the channel.
    pub fn submit_task(&mut self, request: TaskRequest, now: Instant) {
        let limit = now + self.limits.task;
        self.due = ALWAYS;
        self.tasks.push(Task {
            request,
            sent: None,
            limit,
        });
        self.dirty = true;
    }

    /// Sends what is due, and gives up what takes too long or has nowhere to go.
    pub(super) fn run_tasks(&mut self, now: Instant) {
        if self.tasks.is_empty() {
            return;
        }
        let mut tasks = std::mem::take(&mut self.tasks);
        tasks.retain_mut(|task| {
            if task.sent.is_none() && !self.has_channel(task.request.session) {
                self.task_done(task.request.id, Err(BlockError::Transport));
                return false;
            }
            if task.limit <= now {
                self.task_done(task.request.id, Err(BlockError::Timeout));
                return false;
            }
            if task.sent.is_none() {
                task.sent = self.send_task(&task.request);
            }
            true
        });
        self.tasks.append(&mut tasks);
    }

    fn has_channel(&self, session: SessionKey) -> bool {
        let session = self.session_of(session).and_then(|index| self.sessions[index].as_ref());
        session.is_some_and(|session| !session.channels.is_empty())
    }

    fn send_task(&mut self, request: &TaskRequest) -> Option<(usize, u64)> {
        let session = self.session_of(request.session)?;
        for place in 0..self.sessions[session].as_ref()?.channels.len() {
            let index = self.sessions[session].as_ref()?.channels[place];
            if let Some(tag) = self.post_function(index, request.function.into(), request.lun, None) {
                return Some((index, tag));
            }
        }
        None
    }

    /// A function was answered.
    pub(super) fn task_answered(&mut self, index: usize, tag: u64, result: TaskResponse) {
        if let Some(place) = self.tasks.iter().position(|task| task.sent == Some((index, tag))) {
            let task = self.tasks.swap_remove(place);
            self.task_done(task.request.id, Ok(result));
        }
    }

    /// A channel went, and with it the answers to what was sent on it.
    pub(super) fn tasks_lost(&mut self, index: usize) {
        let on_it = |task: &Task| task.sent.is_some_and(|(channel, _)| channel == index);
        while let Some(place) = self.tasks.iter().position(on_it) {
            let task = self.tasks.swap_remove(place);
            self.task_done(task.request.id, Err(BlockError::Transport));
        }
    }

    fn task_done(&mut self, id: RequestId, result: Result<TaskResponse, BlockError>) {
        self.events.push(Event::TaskDone { id, result });
    }
}
