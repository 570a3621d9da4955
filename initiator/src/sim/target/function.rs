//! Task management at the target: done at once, late, never, or refused.

use super::task::Task;
use super::{Step, Target};
use crate::fabric::QueuePairId;
use crate::scsi::outcome;
use crate::sim::check::rule;
use crate::sim::net::{Happening, Net};
use crate::sim::odds::{Function, Odds};
use crate::wire::{Response, TaskFunction, TaskManagement, TaskResponse};

impl Target {
    /// A task management function came.
    pub(super) fn manage(&mut self, qp: QueuePairId, function: TaskManagement, net: &mut Net) {
        let Some(channel) = self.channels.get_mut(&qp) else {
            return;
        };
        if !channel.credit.consume() {
            net.broken(rule::CREDIT, "task management without credit");
        }
        let fate = self.function_fates.pop_front().unwrap_or_else(|| roll(net));
        net.tally.count(fate.name());
        match fate {
            Function::Done => self.carry_out(qp, function, net),
            Function::Late(delay) => {
                self.serial += 1;
                self.functions.insert(self.serial, (qp, function));
                net.after(delay, Happening::Target(Step::Function(self.serial)));
            }
            Function::Silent { done } => {
                if done {
                    self.end_tasks(qp, &function, net);
                }
            }
            Function::Answered(result) => {
                self.function_refused = Some(net.now);
                self.answer(qp, &function, result, net);
            }
            Function::DoneWithResponse => {
                let ended = self.end_tasks(qp, &function, net);
                self.answer(qp, &function, TaskResponse::Complete, net);
                for tag in ended {
                    self.stray_response(qp, tag, net);
                }
            }
        }
    }

    /// A function whose time has come.
    pub(super) fn function_step(&mut self, serial: u64, net: &mut Net) {
        if let Some((qp, function)) = self.functions.remove(&serial) {
            self.carry_out(qp, function, net);
        }
    }

    fn carry_out(&mut self, qp: QueuePairId, function: TaskManagement, net: &mut Net) {
        let ended = self.end_tasks(qp, &function, net);
        // As LIO says it of a task that does not exist.
        let missing = function.function == TaskFunction::AbortTask && ended.is_empty();
        let result = if missing {
            TaskResponse::Failed
        } else {
            TaskResponse::Complete
        };
        self.answer(qp, &function, result, net);
    }

    /// Ends what the function is about, without a response; the tags of this channel among it.
    fn end_tasks(&mut self, qp: QueuePairId, function: &TaskManagement, net: &mut Net) -> Vec<u64> {
        let concerned: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| match function.function {
                TaskFunction::AbortTask => task.qp == qp && task.tag == function.task_tag,
                TaskFunction::AbortTaskSet => task.qp == qp && task.lun == function.lun.0,
                _ => task.lun == function.lun.0,
            })
            .map(|(serial, _)| *serial)
            .collect();
        let mut tags = Vec::new();
        for serial in concerned {
            let Some(task) = self.tasks.remove(&serial) else {
                continue;
            };
            if let Some(channel) = self.channels.get_mut(&task.qp) {
                channel.outstanding -= 1;
                if task.qp != qp && self.profile.task_aborted && channel.alive {
                    self.answer_aborted(&task, net);
                    continue;
                }
                channel.credit.owe();
            }
            if task.qp == qp {
                tags.push(task.tag);
            }
        }
        tags
    }

    fn answer_aborted(&mut self, task: &Task, net: &mut Net) {
        let response = Response {
            tag: task.tag,
            request_limit_delta: self.delta(task.qp, net),
            status: outcome::TASK_ABORTED,
            data_out_residual: None,
            data_in_residual: None,
            response_code: None,
            sense: None,
        };
        self.send_response(task.qp, &response, net);
    }

    fn answer(&mut self, qp: QueuePairId, function: &TaskManagement, result: TaskResponse, net: &mut Net) {
        if self.channels.get(&qp).is_none_or(|channel| !channel.alive) {
            return;
        }
        let response = Response {
            tag: function.tag,
            request_limit_delta: self.delta(qp, net),
            status: 0,
            data_out_residual: None,
            data_in_residual: None,
            response_code: result.code(),
            sense: None,
        };
        self.send_response(qp, &response, net);
    }

    /// A response for a command that was ended without one.
    fn stray_response(&mut self, qp: QueuePairId, tag: u64, net: &mut Net) {
        let response = Response {
            tag,
            request_limit_delta: 0,
            status: 0,
            data_out_residual: None,
            data_in_residual: None,
            response_code: None,
            sense: None,
        };
        self.send_response(qp, &response, net);
    }

    /// Whether a write of these blocks may still be carried out.
    pub(in crate::sim) fn may_write(&self, lun: u64, lba: u64, blocks: u32) -> bool {
        let end = lba + u64::from(blocks);
        self.tasks.values().any(|task| {
            task.lun == lun
                && task
                    .write_range()
                    .is_some_and(|(at, count)| at < end && lba < at + u64::from(count))
        })
    }
}

/// What becomes of a function nothing was arranged for.
fn roll(net: &mut Net) -> Function {
    let odds = net.odds;
    let rng = &mut net.rng;
    if Odds::hit(rng, odds.task_silent) {
        return Function::Silent { done: rng.bool() };
    }
    if Odds::hit(rng, odds.task_late) {
        let delay = std::time::Duration::from_millis(rng.u64(1..7000));
        return Function::Late(delay);
    }
    if Odds::hit(rng, odds.task_refused) {
        let results = [
            TaskResponse::Failed,
            TaskResponse::NotSupported,
            TaskResponse::InvalidFields,
            TaskResponse::Missing,
            TaskResponse::Other(0x33),
        ];
        return Function::Answered(*rng.choice(&results).unwrap_or(&TaskResponse::Failed));
    }
    if Odds::hit(rng, odds.task_stray) {
        return Function::DoneWithResponse;
    }
    Function::Done
}
