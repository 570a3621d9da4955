//! What comes back: send completions, the target's IUs, time running out.

use super::channel::{AnswerKind, Channel, ChannelError};
use super::engine::Engine;
use super::mutation::Mutation;
use super::request::{Answer, Purpose, Stage};
use super::slots::{Slot, Window};
use crate::fabric::{Completion, Fabric, QueuePairId, WorkError, WorkKind};
use crate::scsi::sense::Sense;
use crate::time::Instant;
use crate::wire::FromTarget;
use crate::wire::async_event::AsyncEventResponse;
use crate::wire::credit::CreditResponse;
use crate::wire::response::{Residual, Response};

impl<F: Fabric> Engine<F> {
    /// One finished work request of a channel.
    #[inline(always)]
    pub(super) fn completed(&mut self, index: usize, completion: Completion, now: Instant) {
        let slot = completion.slot;
        match (completion.kind, completion.result) {
            (WorkKind::Send, Ok(_)) => self.sent(index, slot, now),
            (WorkKind::Receive, Ok(len)) => self.received(completion.qp, index, slot, len, now),
            (kind, result) => self.seldom_completed(index, kind, slot, result, now),
        }
    }

    #[cold]
    fn seldom_completed(
        &mut self,
        index: usize,
        kind: WorkKind,
        slot: u16,
        result: Result<u32, WorkError>,
        now: Instant,
    ) {
        match (kind, result) {
            (WorkKind::Invalidate, Ok(_)) => self.window_closed(index, slot, now),
            (kind, Err(error)) => self.work_failed(index, kind, slot, error, now),
            _ => {}
        }
    }

    #[cold]
    fn work_failed(&mut self, index: usize, kind: WorkKind, slot: u16, error: WorkError, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        match kind {
            WorkKind::Send | WorkKind::Invalidate => channel.sends_posted = channel.sends_posted.saturating_sub(1),
            WorkKind::Bind => {}
            WorkKind::Receive => {
                channel.receives_posted = channel.receives_posted.saturating_sub(1);
                // Only this one was certainly posted before the queue pair was put in error.
                let marker = slot == channel.marker() || self.mutated.is(Mutation::AnyFlushProves);
                let refused = self.mutated.is(Mutation::RefusedMarkerProves);
                channel.flushed |= marker && (error == WorkError::Flushed || refused);
            }
        }
        self.close(index, ChannelError::Work(error), now);
        self.settle(index, now);
    }

    /// A SEND completed: the target has the IU.
    #[inline(always)]
    fn sent(&mut self, index: usize, slot: u16, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        channel.sends_posted = channel.sends_posted.saturating_sub(1);
        if let Some(Slot::Command { sending, answered, .. }) = channel.state(slot) {
            *sending = false;
            let expected = !*answered && !self.mutated.is(Mutation::WindowClosedEarly);
            if expected && channel.is_open() {
                return;
            }
        }
        self.seldom_sent(index, slot, now);
    }

    /// The same where something ends with it.
    #[cold]
    fn seldom_sent(&mut self, index: usize, slot: u16, now: Instant) {
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        match channel.state(slot) {
            Some(Slot::Command {
                request,
                answered,
                window,
                ..
            }) => {
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
        self.settle(index, now);
    }

    /// An IU arrived. Its receive is queued again once it was read, and posted with the next send or pass.
    #[inline(always)]
    fn received(&mut self, qp: QueuePairId, index: usize, slot: u16, len: u32, now: Instant) {
        let memory = self.fabric.receive_slot(qp, slot);
        // Nearly all are plain: what can be left out for them is left out here, when this is compiled.
        let plain = memory.get(..len as usize).and_then(Response::parse_plain);
        let open = self.channels[index].as_ref().is_some_and(Channel::is_open);
        let Some((tag, delta)) = plain.filter(|_| open) else {
            return self.seldom_received(qp, index, slot, len, now);
        };
        // All that counts of the IU is read.
        self.fabric.post_receive(qp, slot);
        if let Err(reason) = self.responded(index, tag, delta, None, Answer::good(), now) {
            self.close(index, reason, now);
        }
    }

    /// An IU arrived that says more than that a command went well, or the channel is closing.
    #[cold]
    fn seldom_received(&mut self, qp: QueuePairId, index: usize, slot: u16, len: u32, now: Instant) {
        if let Err(reason) = self.examine(index, slot, len, now) {
            self.close(index, reason, now);
        }
        let Some(channel) = &mut self.channels[index] else {
            return;
        };
        if channel.is_open() {
            return self.fabric.post_receive(qp, slot);
        }
        channel.receives_posted = channel.receives_posted.saturating_sub(1);
        // An IU that took the marker's receive took the last one posted before the error: nothing proves the end of
        // accesses any more but the queue pair's own.
        if slot == channel.marker() && self.mutated.is(Mutation::SecondMarkerProves) {
            channel.receives_posted += 1;
            self.fabric.post_receive(qp, slot);
            self.fabric.fail(qp);
        }
        self.settle(index, now);
    }

    /// The target is done with a command or a function. `code` is the response code, where there is one.
    #[inline(always)]
    fn responded(
        &mut self,
        index: usize,
        tag: u64,
        delta: i32,
        code: Option<u8>,
        answer: Answer,
        now: Instant,
    ) -> Result<(), ChannelError> {
        let Some(channel) = &mut self.channels[index] else {
            return Ok(());
        };
        channel.credits += i64::from(delta);
        if tag % 7 == 3 {
            channel.credits -= i64::from(self.mutated.is(Mutation::CreditDropped));
            channel.credits += i64::from(self.mutated.is(Mutation::CreditInvented));
        }
        self.dirty = true;
        let Some((slot, state)) = channel.unanswered(tag) else {
            late(tag);
            return Ok(());
        };
        let Slot::Command {
            request: key,
            sending,
            answered,
            window,
            ..
        } = state
        else {
            self.function_answered(index, slot, code, now);
            return Ok(());
        };
        let Some(request) = self.requests.get_mut(*key) else {
            return Ok(());
        };
        if request.stage != Stage::Sent {
            return Err(ChannelError::Protocol("a response for a command not sent yet"));
        }
        *answered = true;
        let key = *key;
        if *window == Window::Open {
            self.close_answered(index, slot, key, answer, now);
        } else if *sending && !self.mutated.is(Mutation::AnswerEndsSend) {
            request.answer = Some(answer);
        } else {
            let queue = request.queue;
            let outcome = channel.conclude(slot, key, request, &answer, &mut self.events);
            self.ended(queue, answer.status);
            self.act_on(outcome, queue, key, &answer, now);
        }
        Ok(())
    }

    fn examine(&mut self, index: usize, slot: u16, len: u32, now: Instant) -> Result<(), ChannelError> {
        let Some(channel) = &mut self.channels[index] else {
            return Ok(());
        };
        let memory = self.fabric.receive_slot(channel.qp, slot);
        let iu = memory
            .get(..len as usize)
            .ok_or(ChannelError::Protocol("an IU longer than its buffer"))?;
        match FromTarget::parse(iu)? {
            FromTarget::Response(response) => {
                let (tag, delta, code) = (response.tag, response.request_limit_delta, response.response_code);
                if let (Some(sense), Some((_, Slot::Command { request, .. }))) =
                    (response.sense, channel.unanswered(tag))
                    && let Some(request) = self.requests.get_mut(*request)
                    && let Purpose::Control(control) = &mut request.purpose
                {
                    control.sense.extend_from_slice(sense);
                }
                let answer = answer(&response);
                self.responded(index, tag, delta, code, answer, now)
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

/// Late answers of commands given up are harmless; their slot has a new generation.
#[cold]
fn late(tag: u64) {
    tracing::warn!(tag, "response for no command in flight");
}
