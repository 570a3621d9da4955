//! What comes back: send completions, the target's IUs, time running out.

use super::channel::{AnswerKind, ChannelError};
use super::engine::Engine;
use super::mutation::Mutation;
use super::request::{Answer, Purpose, Stage};
use super::slots::{Slot, Window};
use crate::fabric::{Completion, Fabric, WorkError, WorkKind};
use crate::scsi::sense::Sense;
use crate::time::Instant;
use crate::wire::FromTarget;
use crate::wire::async_event::AsyncEventResponse;
use crate::wire::credit::CreditResponse;
use crate::wire::response::{Residual, Response};

impl<F: Fabric> Engine<F> {
    /// One finished work request.
    pub(super) fn completed(&mut self, completion: Completion, now: Instant) {
        let Some(&index) = self.by_qp.get(&completion.qp) else {
            return;
        };
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        match (completion.kind, completion.result) {
            (WorkKind::Send, result) => {
                channel.sends_posted = channel.sends_posted.saturating_sub(1);
                match result {
                    Ok(_) => self.sent(index, completion.slot, now),
                    Err(error) => self.work_failed(index, error, now),
                }
            }
            (WorkKind::Invalidate, result) => {
                channel.sends_posted = channel.sends_posted.saturating_sub(1);
                match result {
                    Ok(_) => self.window_closed(index, completion.slot, now),
                    Err(error) => self.work_failed(index, error, now),
                }
            }
            (WorkKind::Bind, Ok(_)) => {}
            (WorkKind::Bind, Err(error)) => self.work_failed(index, error, now),
            (WorkKind::Receive, Err(error)) => {
                channel.receives_posted = channel.receives_posted.saturating_sub(1);
                // Only this one was certainly posted before the queue pair was put in error.
                let marker = completion.slot == channel.marker() || self.mutated.is(Mutation::AnyFlushProves);
                let refused = self.mutated.is(Mutation::RefusedMarkerProves);
                channel.flushed |= marker && (error == WorkError::Flushed || refused);
                self.work_failed(index, error, now);
            }
            (WorkKind::Receive, Ok(len)) => {
                channel.receives_posted = channel.receives_posted.saturating_sub(1);
                if let Err(reason) = self.received(index, completion.slot, len, now) {
                    self.close(index, reason, now);
                }
                if let Some(channel) = &mut self.channels[index] {
                    let marker = completion.slot == channel.marker();
                    if channel.is_open() || marker {
                        channel.receives_posted += 1;
                        let qp = channel.qp;
                        self.fabric.post_receive(qp, completion.slot);
                        if marker {
                            // An IU of the target took it: the queue pair is in error by now.
                            self.fabric.fail(qp);
                        }
                    }
                }
            }
        }
        self.settle(index, now);
    }

    fn work_failed(&mut self, index: usize, error: WorkError, now: Instant) {
        self.close(index, ChannelError::Work(error), now);
    }

    /// A SEND completed: the target has the IU.
    fn sent(&mut self, index: usize, slot: u16, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        match channel.slots.get_mut(usize::from(slot)) {
            Some(Slot::Command {
                request,
                sending,
                answered,
                window,
                ..
            }) => {
                *sending = false;
                let (request, over) = (*request, *answered && *window == Window::Closed);
                if *window == Window::Open && self.mutated.is(Mutation::WindowClosedEarly) {
                    self.close_window(index, slot);
                } else if over {
                    self.answer_in(index, slot, request, now);
                }
            }
            Some(Slot::Task { sending, answered, .. }) => {
                *sending = false;
                if *answered {
                    channel.free_task(slot);
                }
            }
            Some(Slot::Answer) => {
                channel.free_answer(slot);
                self.answer_target(index);
            }
            Some(Slot::Logout) => self.close(index, ChannelError::Closed, now),
            Some(Slot::Free) | None => {}
        }
    }

    /// An IU arrived.
    fn received(&mut self, index: usize, slot: u16, len: u32, now: Instant) -> Result<(), ChannelError> {
        let Some(channel) = &mut self.channels[index] else {
            return Ok(());
        };
        let memory = self.fabric.receive_slot(channel.qp, slot);
        let iu = memory
            .get(..len as usize)
            .ok_or(ChannelError::Protocol("an IU longer than its buffer"))?;
        match FromTarget::parse(iu)? {
            FromTarget::Response(response) => {
                channel.credits += i64::from(response.request_limit_delta);
                if response.tag % 7 == 3 {
                    channel.credits -= i64::from(self.mutated.is(Mutation::CreditDropped));
                    channel.credits += i64::from(self.mutated.is(Mutation::CreditInvented));
                }
                self.dirty = true;
                let Some(slot) = channel.slot_of_tag(response.tag) else {
                    // Late answers of commands given up are harmless; their slot has a new generation.
                    tracing::warn!(tag = response.tag, "response for no command in flight");
                    return Ok(());
                };
                if let Slot::Task { .. } = channel.slots[usize::from(slot)] {
                    let code = response.response_code;
                    self.function_answered(index, slot, code, now);
                    return Ok(());
                }
                let Slot::Command {
                    request: key,
                    sending,
                    ref mut answered,
                    window,
                    ..
                } = channel.slots[usize::from(slot)]
                else {
                    return Ok(());
                };
                let Some(request) = self.requests.get_mut(key) else {
                    return Ok(());
                };
                if request.stage != Stage::Sent {
                    return Err(ChannelError::Protocol("a response for a command not sent yet"));
                }
                *answered = true;
                let answer = answer(&response);
                if let (Purpose::Control(control), Some(sense)) = (&mut request.purpose, response.sense) {
                    control.sense.extend_from_slice(sense);
                }
                if window == Window::Open {
                    self.close_answered(index, slot, key, answer, now);
                } else if sending && !self.mutated.is(Mutation::AnswerEndsSend) {
                    request.answer = Some(answer);
                } else {
                    self.answered(index, slot, key, answer, now);
                }
                Ok(())
            }
            FromTarget::CreditRequest(request) => {
                channel.credits += i64::from(request.delta);
                self.dirty = true;
                if self.mutated.is(Mutation::CreditRequestIgnored) {
                    return Ok(());
                }
                self.owe(index, AnswerKind::Credit, request.tag)
            }
            FromTarget::AsyncEvent(event) => {
                channel.credits += i64::from(event.delta);
                self.dirty = true;
                let tag = event.tag;
                tracing::info!(lun = ?event.lun, "asynchronous event reported by the target");
                self.owe(index, AnswerKind::AsyncEvent, tag)
            }
            FromTarget::Logout(logout) => Err(ChannelError::TargetLogout(logout.reason.to_string())),
        }
    }

    /// Notes that the target is owed an answer, and sends what can be sent.
    fn owe(&mut self, index: usize, kind: AnswerKind, tag: u64) -> Result<(), ChannelError> {
        let Some(channel) = &mut self.channels[index] else {
            return Ok(());
        };
        if channel.owed_answers.len() == channel.owed_answers.capacity() {
            return Err(ChannelError::Protocol(
                "more requests by the target than it may have outstanding",
            ));
        }
        channel.owed_answers.push_back((kind, tag));
        self.answer_target(index);
        Ok(())
    }

    /// Answers the target's requests as far as slots are free. Answers take no credit (SRP r16a 4.2).
    fn answer_target(&mut self, index: usize) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        while channel.is_open() && !channel.owed_answers.is_empty() {
            let Some(slot) = channel.claim_answer() else { return };
            let Some((kind, tag)) = channel.owed_answers.pop_front() else {
                return;
            };
            let buffer = self.fabric.send_slot(channel.qp, slot);
            let emitted = match kind {
                AnswerKind::Credit => CreditResponse { tag }.emit(buffer),
                AnswerKind::AsyncEvent => AsyncEventResponse { tag }.emit(buffer),
            };
            let Ok(len) = emitted else {
                // Slots hold a command, which is longer than any answer.
                debug_assert!(false, "an answer does not fit its slot");
                channel.free_answer(slot);
                return;
            };
            channel.sends_posted += 1;
            self.fabric
                .post_send(channel.qp, slot, u32::try_from(len).unwrap_or(u32::MAX), None);
        }
    }

    /// Acts on what is due.
    pub(super) fn check_time(&mut self, now: Instant) {
        for index in 0..self.channels.len() {
            let Some(channel) = &mut self.channels[index] else {
                continue;
            };
            let session = channel.session_index;
            if channel.is_open() && channel.is_starved(now) {
                channel.starved = None;
                if self.is_waiting(session) && !self.mutated.is(Mutation::StarvedForEver) {
                    let reason = ChannelError::Protocol("no credit for as long as a command may take");
                    self.close(index, reason, now);
                }
                continue;
            }
            if channel.leaving.is_some_and(|limit| limit <= now) {
                self.close(index, ChannelError::Closed, now);
            }
            self.climb(index, now);
        }
        self.fence(now);
        self.run_tasks(now);
        self.expire(now);
        if self.delayed.is_empty() {
            return;
        }
        let mut delayed = std::mem::take(&mut self.delayed);
        delayed.retain(|&key| match self.requests.get(key).map(|request| request.stage) {
            Some(Stage::Delayed(at)) if at > now => true,
            Some(Stage::Delayed(_)) => {
                self.push_waiting(key, true);
                false
            }
            _ => false,
        });
        self.delayed = delayed;
    }
}

fn answer(response: &Response<'_>) -> Answer {
    let residual = response.data_in_residual.or(response.data_out_residual);
    Answer {
        status: response.status,
        sense: response.sense.and_then(|bytes| Sense::parse(bytes).ok()),
        underflow: match residual {
            Some(Residual::Under(bytes)) => bytes,
            _ => 0,
        },
        overflow: matches!(residual, Some(Residual::Over(_))),
        refused: response.response_code.filter(|&code| code != 0),
    }
}
