//! What a target should not do, and might: it says things twice, too late, unreadably or too long, and it lies.
//!
//! Whoever answers a command is done with it, however untrue the answer is: one that goes on with what it has answered reaches memory
//! that was given up, and nothing but a window helps against that. So commands that an answer was made up for are dropped, and their
//! data is not looked at.

use super::task::{Memory, Task};
use super::{OLD_TAGS, Target};
use crate::fabric::{QueuePairId, RemoteAccess};
use crate::scsi::outcome::{BUSY, CHECK_CONDITION, GOOD, TASK_ABORTED, TASK_SET_FULL};
use crate::sim::net::Net;
use crate::sim::odds::{Injection, Odds};
use crate::wire::{FromTarget, Residual, Response};

impl Target {
    /// What a target should not do after a response, and might.
    pub(super) fn mischief(&mut self, task: &Task, response: &Response<'_>, net: &mut Net) {
        let (qp, odds) = (task.qp, net.odds);
        let injected = matches!(task.injection, Some(Injection::Duplicate));
        if injected || Odds::hit(&mut net.rng, odds.duplicate) {
            net.tally.count("response sent twice");
            self.regrant(qp, response.request_limit_delta);
            self.send_response(qp, response, net);
        }
        let Some(channel) = self.channels.get_mut(&qp) else {
            return;
        };
        let old = channel.old_tags.front().copied();
        channel.old_tags.push_back(task.tag);
        if channel.old_tags.len() > OLD_TAGS {
            channel.old_tags.pop_front();
        }
        if let Some(tag) = old
            && Odds::hit(&mut net.rng, odds.stale)
        {
            net.tally.count("response for a command that is over");
            let stale = Response {
                tag,
                request_limit_delta: 0,
                ..*response
            };
            self.send_response(qp, &stale, net);
        }
        if Odds::hit(&mut net.rng, odds.garbage) {
            net.tally.count("unreadable IU");
            let mut iu = vec![0; net.rng.usize(0..self.profile.max_response_len as usize)];
            net.rng.fill(&mut iu);
            if matches!(
                FromTarget::parse(&iu),
                Ok(FromTarget::CreditRequest(_) | FromTarget::AsyncEvent(_))
            ) {
                // It would wait for an answer to that.
                iu[0] = 0x55;
            }
            self.note_forged(qp, &iu, net);
            net.send_to_initiator(qp, iu);
        }
        if Odds::hit(&mut net.rng, odds.forge) {
            self.forge(qp, net);
        }
        if Odds::hit(&mut net.rng, odds.oversized) {
            net.tally.count("IU longer than agreed");
            net.send_to_initiator(qp, vec![0xc1; self.profile.max_response_len as usize + 1]);
        }
        let own = match &task.memory {
            Memory::In(list) => list.first().map(|memory| (*memory, RemoteAccess::Write)),
            Memory::Out(list) => list.first().map(|memory| (*memory, RemoteAccess::Read)),
            Memory::None | Memory::Immediate(_) => None,
        };
        if let Some((memory, access)) = own {
            net.tempt(qp, memory, access);
        }
        if Odds::hit(&mut net.rng, odds.async_event) {
            self.report_event(qp, task.lun, net);
        }
        if Odds::hit(&mut net.rng, odds.logout) {
            self.log_out(qp, net);
        }
    }

    /// A delta that is sent again counts again.
    fn regrant(&mut self, qp: QueuePairId, delta: i32) {
        if let Some(channel) = self.channels.get_mut(&qp) {
            channel.credit.owe_more(delta.max(0));
            channel.credit.grant(delta);
        }
    }

    /// Makes a response up, or changes the request limit out of all bounds.
    pub(super) fn forge(&mut self, qp: QueuePairId, net: &mut Net) {
        let Some(channel) = self.channels.get(&qp).filter(|channel| channel.alive) else {
            return;
        };
        let delta = *net.rng.choice(&[i32::MAX, i32::MIN, 0, 0, 1, -2]).unwrap_or(&0);
        if delta.unsigned_abs() > 2 {
            net.tally.count("request limit changed by 2^31");
            if !channel.credit.is_asking() && net.rng.bool() {
                return self.request_credit(qp, delta, net);
            }
        }
        let live: Vec<u64> = self
            .tasks
            .values()
            .filter(|task| task.qp == qp)
            .map(|task| task.tag)
            .collect();
        let old = channel.old_tags.back().copied();
        let (tag, what) = match (net.rng.u8(0..4), net.rng.choice(&live), old) {
            (0 | 1, Some(tag), _) => (*tag, "response made up for another command"),
            // The next of its slot: it may be waiting for its data, or be on its way.
            (2, _, Some(old)) => (old + (1 << 16), "response made up for a command not sent yet"),
            _ => (net.rng.u64(..) | 0xffff, "response made up for no command"),
        };
        net.tally.count(what);
        let statuses = [
            GOOD,
            GOOD,
            GOOD,
            BUSY,
            TASK_SET_FULL,
            TASK_ABORTED,
            CHECK_CONDITION,
            0xff,
        ];
        let response = Response {
            tag,
            request_limit_delta: delta,
            status: *net.rng.choice(&statuses).unwrap_or(&GOOD),
            data_out_residual: untrue(net),
            data_in_residual: untrue(net),
            response_code: *net.rng.choice(&[None, None, Some(0), Some(2)]).unwrap_or(&None),
            sense: None,
        };
        let mut iu = vec![0; self.profile.max_response_len as usize];
        let Ok(len) = response.emit(&mut iu) else { return };
        iu.truncate(len);
        self.note_forged(qp, &iu, net);
        net.send_to_initiator(qp, iu);
    }

    /// Keeps the books for an IU that is made up.
    pub(in crate::sim) fn note_forged(&mut self, qp: QueuePairId, iu: &[u8], net: &mut Net) {
        let Ok(FromTarget::Response(response)) = FromTarget::parse(iu) else {
            return;
        };
        let (Some(channel), Some(state)) = (self.channels.get_mut(&qp), net.queue_pairs.get_mut(&qp)) else {
            return;
        };
        state.forged.insert(response.tag);
        let mut tasks = self.tasks.iter();
        let task = tasks.find(|(_, task)| task.qp == qp && task.tag == response.tag);
        match task.map(|(serial, _)| *serial) {
            Some(serial) => {
                channel.credit.owe();
                channel.credit.grant(response.request_limit_delta);
                self.abandon(serial);
            }
            None => {
                channel.credit.grant(response.request_limit_delta);
                channel.answered.insert(response.tag);
            }
        }
    }

    /// What is said of the data that was moved, maybe not the truth.
    pub(super) fn lie(&mut self, task: &Task, truth: Option<Residual>, net: &mut Net) -> Option<Residual> {
        if task.memory.len() == 0 || !Odds::hit(&mut net.rng, net.odds.lie) {
            return truth;
        }
        let len = task.memory.len();
        let counts = [1, len, len.saturating_add(1), u32::MAX];
        let count = *net.rng.choice(&counts).unwrap_or(&len);
        let untrue = match net.rng.u8(0..4) {
            0 if truth.is_some() => None,
            0 | 1 => Some(Residual::Over(count)),
            _ => Some(Residual::Under(count)),
        };
        net.tally.count(match untrue {
            None => "transfer that was cut short, and nothing said of it",
            Some(_) => "residual made up",
        });
        // More is said to be there than came.
        if let Some(state) = net.queue_pairs.get_mut(&task.qp)
            && truth.is_some()
        {
            state.forged.insert(task.tag);
        }
        untrue
    }
}

fn untrue(net: &mut Net) -> Option<Residual> {
    let count = *net.rng.choice(&[0, 1, 512, u32::MAX]).unwrap_or(&0);
    match net.rng.u8(0..4) {
        0 => Some(Residual::Over(count)),
        1 => Some(Residual::Under(count)),
        _ => None,
    }
}
