//! The simulated fabric as the engine uses it, and the books that are kept on that.

use crate::fabric::{Completion, Extent, Fabric, QueuePairId, RemoteAccess, WorkError, WorkKind};
use crate::scsi::cdb::Operation;
use crate::scsi::outcome::{self, Verdict};
use crate::scsi::sense::Sense;
use crate::session::Fence;
use crate::wire::{Data, FromInitiator, FromTarget, MemoryDescriptor, Response, TaskFunction, opcode};

use super::check::rule;
use super::fabric::SimFabric;
use super::lease::Lease;
use super::net::{Finished, Happening, Net};
use super::odds::Odds;
use super::queue_pair::{ReceiveSlot, SimQueuePair, Work};
use super::target::extent_of;
use super::trace::Note;

impl SimFabric {
    /// The queue pairs of the reactor whose turn it is.
    pub(super) fn own(&self) -> Vec<QueuePairId> {
        let ids = self.net.queue_pairs.keys().copied();
        ids.filter(|id| self.net.owner(*id) == self.reactor).collect()
    }

    /// Notes what a posted IU entitles the target to.
    fn book(&mut self, id: QueuePairId, slot: u16, iu: &[u8], payload: Option<Extent>) {
        let now = self.net.now;
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return;
        };
        let (needed, objection) = match FromInitiator::parse(iu) {
            Ok(FromInitiator::Command(command)) => {
                let named = named(&command.data);
                let entitled: Option<Result<Vec<Extent>, String>> = named.as_ref().map(|(list, access)| {
                    let pieces = list.iter().map(|descriptor| qp.entitle(slot, *descriptor, *access));
                    pieces.collect()
                });
                let data = match (&entitled, &named) {
                    (Some(Ok(pieces)), Some((_, access))) => Some((pieces.clone(), *access == RemoteAccess::Write)),
                    _ => payload.map(|extent| (vec![extent], false)),
                };
                let unknown = entitled.and_then(Result::err);
                if let (Some((_, blocks)), Some((list, _))) = (extent_of(&command.cdb.bytes), &named)
                    && let Some(size) = self.target.block_size(command.lun.0)
                    && list.iter().map(|descriptor| descriptor.len).sum::<u32>() != blocks * size
                {
                    let what = format!("{blocks} blocks of {size} bytes in {list:?}");
                    self.net.checks.broken(now, rule::PROTOCOL, what);
                }
                if named.as_ref().is_some_and(|(list, _)| list.len() > 1) {
                    self.net.tally.count("data in several pieces");
                }
                let lease = Lease {
                    slot,
                    tag: command.tag,
                    lun: command.lun.0,
                    cdb: command.cdb.bytes,
                    data,
                    at: now,
                    sent: false,
                    answered: false,
                    window: named.is_some() && qp.windows.exist(),
                    serial: 0,
                };
                let mut started = qp.leases.start(lease);
                self.net.posts.push((id, command.lun.0, command.cdb.bytes));
                let on_the_way = self.net.agenda.iter().filter_map(|happening| match happening {
                    Happening::Arrive(qp, iu) => Some((*qp, iu.as_slice())),
                    _ => None,
                });
                if let (Operation::Write { lba, blocks, .. }, lun) = (command.cdb.operation(), command.lun.0)
                    && (self.target.may_write(lun, lba, blocks)
                        || self.target.may_take_up(on_the_way, lun, lba, blocks))
                {
                    let what = format!("tag {:#x} while an earlier write may still be carried out", command.tag);
                    self.net.checks.broken(now, rule::FENCE, what);
                }
                let carried = match command.data {
                    Data::WriteImmediate { len } => Some(len),
                    _ => None,
                };
                if carried != payload.map(|extent| extent.len) {
                    let what = format!("immediate data of {carried:?} bytes, {payload:?} sent");
                    self.net.checks.broken(now, rule::PROTOCOL, what);
                }
                if let Some(what) = unknown {
                    started = Err(what);
                }
                (Some(2), started)
            }
            Ok(FromInitiator::TaskManagement(task)) => {
                let of = (task.function == TaskFunction::AbortTask).then_some(task.task_tag);
                qp.leases.function(task.tag, of, task.lun.0);
                if task.function == TaskFunction::LogicalUnitReset && self.net.fence == Fence::Relogin {
                    let what = format!("{:?}, which is shared, is reset", task.lun);
                    self.net.checks.broken(now, rule::FENCE, what);
                }
                (Some(1), Ok(()))
            }
            Ok(FromInitiator::Logout(_)) => (Some(1), Ok(())),
            _ => (None, Ok(())),
        };
        if let Some(needed) = needed {
            if qp.credits < needed && !qp.is_broken() {
                let what = format!("sent with {} left, {needed} needed", qp.credits);
                self.net.checks.broken(self.net.now, rule::CREDIT, what);
            }
            qp.credits -= 1;
        }
        if let Err(what) = objection {
            self.net.broken(rule::DMA, what);
        }
    }

    /// Notes what the engine learns from a completion.
    fn tell(&mut self, finished: &Finished) {
        let (completion, now) = (finished.completion, self.net.now);
        let Some(qp) = self.net.queue_pairs.get_mut(&completion.qp) else {
            return;
        };
        let slot = usize::from(completion.slot);
        match (completion.kind, completion.result) {
            (WorkKind::Send, _) => {
                qp.send_busy[slot] = false;
                qp.leases.sent(completion.slot);
            }
            // Flushed, it says nothing of the window: the queue pair's end does.
            (WorkKind::Invalidate, Ok(_)) => qp.leases.closed(completion.slot),
            (WorkKind::Invalidate, Err(_)) | (WorkKind::Bind, _) => {}
            (WorkKind::Receive, Ok(len)) => {
                qp.receive_state[slot] = ReceiveSlot::Readable(len as usize);
                (qp.heard, qp.untold) = (now, qp.untold.saturating_sub(1));
                let iu = qp.receive_slots[slot][..len as usize].to_vec();
                self.net.tally.heard(&iu, &qp.leases);
                let delta = match FromTarget::parse(&iu) {
                    Ok(FromTarget::Response(response)) => {
                        if qp.forged.contains(&response.tag)
                            && let Some(lease) = qp.leases.unanswered(response.tag)
                        {
                            self.net.forged.push((lease.lun, lease.cdb));
                        }
                        if let (Some(lease), Some(at_once)) = (qp.leases.sent_with(response.tag), again(&response)) {
                            self.net.refusals.push((completion.qp, lease.lun, lease.cdb, at_once));
                        }
                        qp.leases.answered(response.tag, response.response_code);
                        response.request_limit_delta
                    }
                    Ok(FromTarget::CreditRequest(request)) => request.delta,
                    Ok(FromTarget::AsyncEvent(event)) => event.delta,
                    _ => 0,
                };
                qp.credits += i64::from(delta);
                if qp.credits < 0 {
                    self.net.tally.count("credits below zero");
                }
                return self.net.note_iu(completion.qp, &iu, false);
            }
            (WorkKind::Receive, Err(_)) => {
                qp.receive_state[slot] = ReceiveSlot::Readable(0);
                if finished.guard {
                    qp.leases.flushed();
                }
            }
        }
        let note = Note::Taken(completion);
        self.net.trace.add(self.net.now, Some(completion.qp), 0, note);
    }

    fn check_use(&self, id: QueuePairId, extent: Extent, what: &str) {
        let holder = self.net.queue_pairs.get(&id).and_then(|qp| qp.leases.holder(extent));
        if let Some(lease) = holder {
            let what = format!("{what} {extent:?} while the target may touch it (tag {:#x})", lease.tag);
            self.net.broken(rule::DMA, what);
        }
    }

    /// As a real fabric does: it has no memory of a queue pair that was destroyed, though others may have it mapped.
    pub(super) fn check_there(&self, id: QueuePairId, extent: Extent) {
        if self.net.queue_pairs.get(&id).is_some_and(|qp| qp.destroyed) {
            let what = format!("asked for bytes of {extent:?}, whose queue pair was destroyed");
            self.net.broken(rule::DMA, what);
        }
    }

    /// As a real fabric does: nobody asks how a target names bytes that are not in an arena.
    fn check_described(&self, id: QueuePairId, extent: Extent) {
        let outside = |qp: &SimQueuePair| qp.bytes(extent).is_none();
        if self.net.queue_pairs.get(&id).is_some_and(outside) {
            let what = format!("described {extent:?}, which is not in an arena");
            self.net.broken(rule::DMA, what);
        }
    }
}

/// Whether a command is to be sent again, and then at once.
fn again(response: &Response<'_>) -> Option<bool> {
    let residual = response.data_in_residual.or(response.data_out_residual);
    if residual.is_some() || response.response_code.is_some_and(|code| code != 0) {
        return None;
    }
    let sense = response.sense.and_then(|bytes| Sense::parse(bytes).ok());
    match outcome::judge(response.status, sense.as_ref(), 0) {
        Verdict::RetryNow(_) => Some(true),
        Verdict::RetryAfterBackoff(_) => Some(false),
        _ => None,
    }
}

/// The memory a command describes, and what the target may do with it.
fn named(data: &Data<'_>) -> Option<(Vec<MemoryDescriptor>, RemoteAccess)> {
    match *data {
        Data::Read(descriptor) => Some((vec![descriptor], RemoteAccess::Write)),
        Data::Write(descriptor) => Some((vec![descriptor], RemoteAccess::Read)),
        Data::ReadIndirect { inline, .. } => Some((inline.iter().collect(), RemoteAccess::Write)),
        Data::WriteIndirect { inline, .. } => Some((inline.iter().collect(), RemoteAccess::Read)),
        Data::None | Data::WriteImmediate { .. } => None,
    }
}

impl Fabric for SimFabric {
    fn poll(&mut self, out: &mut Vec<Completion>) {
        let mut room = (out.capacity() - out.len()).min(self.net.finished_for(self.reactor));
        if self.net.profile.partial_polls && room > 1 && self.net.rng.bool() {
            room = self.net.rng.usize(1..=room);
        }
        for _ in 0..room {
            let Some(finished) = self.net.take_finished(self.reactor) else {
                return;
            };
            self.tell(&finished);
            self.net.heard = self.net.now;
            out.push(finished.completion);
        }
    }

    fn send_slot(&mut self, qp: QueuePairId, slot: u16) -> &mut [u8] {
        let busy = |qp: &SimQueuePair| qp.send_busy.get(usize::from(slot)).copied().unwrap_or(true);
        if self.net.queue_pairs.get(&qp).is_none_or(busy) {
            self.net.broken(rule::SEND_SLOT, format!("qp{} slot {slot}", qp.0));
        }
        let Some(qp) = self.net.queue_pairs.get_mut(&qp) else {
            return &mut [];
        };
        qp.send_slots.get_mut(usize::from(slot)).map_or(&mut [], |slot| slot)
    }

    fn receive_slot(&self, qp: QueuePairId, slot: u16) -> &[u8] {
        let Some(state) = self.net.queue_pairs.get(&qp) else {
            return &[];
        };
        if Net::is_posted(state, slot) {
            self.net
                .broken(rule::RECEIVE_SLOT, format!("qp{} slot {slot} read", qp.0));
        }
        state.receive_slots.get(usize::from(slot)).map_or(&[], |slot| slot)
    }

    fn post_send(&mut self, id: QueuePairId, slot: u16, len: u32, payload: Option<Extent>) {
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return self.net.broken(rule::CLOSED, format!("post to qp{}, destroyed", id.0));
        };
        let iu = qp
            .send_slots
            .get(usize::from(slot))
            .and_then(|slot| slot.get(..len as usize));
        let Some(iu) = iu.map(<[u8]>::to_vec) else {
            return self
                .net
                .broken(rule::SEND_SLOT, format!("{len} bytes from slot {slot}"));
        };
        if qp.given_up {
            let what = format!("slot {slot} sent on qp{}, which was given up", id.0);
            self.net.checks.broken(self.net.now, rule::CLOSED, what);
        }
        if qp.logged_out && iu.first() == Some(&opcode::COMMAND) {
            let what = format!("a command on qp{} behind SRP_I_LOGOUT", id.0);
            self.net.checks.broken(self.net.now, rule::PROTOCOL, what);
        }
        qp.logged_out |= iu.first() == Some(&opcode::INITIATOR_LOGOUT);
        if std::mem::replace(&mut qp.send_busy[usize::from(slot)], true) {
            self.net.broken(rule::SEND_SLOT, format!("slot {slot} posted twice"));
        }
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return;
        };
        qp.post(slot, Work::Send { len, payload });
        qp.outbound += 1;
        self.book(id, slot, &iu, payload);
        self.net.note_iu(id, &iu, true);
    }

    fn post_receive(&mut self, id: QueuePairId, slot: u16) {
        let posted = self.net.queue_pairs.get(&id).is_none_or(|qp| Net::is_posted(qp, slot));
        if posted {
            return self
                .net
                .broken(rule::RECEIVE_SLOT, format!("qp{} slot {slot} posted twice", id.0));
        }
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return;
        };
        let marker = qp.marker();
        let refuse = match slot == marker {
            true => self.net.odds.refuse_marker,
            false if qp.is_broken() => self.net.odds.refuse_post,
            false => 0,
        };
        qp.receive_state[usize::from(slot)] = ReceiveSlot::Posted;
        qp.receive_slots[usize::from(slot)].fill(0xee);
        if Odds::hit(&mut self.net.rng, refuse) {
            qp.unmarked |= marker == slot;
            let what = if marker == slot {
                "marker refused"
            } else {
                "receive refused"
            };
            self.net.tally.count(what);
            return self
                .net
                .finish(id, WorkKind::Receive, slot, Err(WorkError::Local), false);
        }
        qp.queued_receives.push(slot);
    }

    fn post_bind(&mut self, id: QueuePairId, slot: u16, extent: Extent, access: RemoteAccess) {
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return self.net.broken(rule::CLOSED, format!("post to qp{}, destroyed", id.0));
        };
        match qp.windows.post_open(slot, extent, access) {
            Ok(opening) => qp.post(slot, Work::Open(opening)),
            Err(what) => self.net.broken(rule::DMA, format!("slot {slot}: {what}")),
        }
    }

    fn post_invalidate(&mut self, id: QueuePairId, slot: u16) {
        let Some(qp) = self.net.queue_pairs.get_mut(&id) else {
            return self.net.broken(rule::CLOSED, format!("post to qp{}, destroyed", id.0));
        };
        let (given_up, closed) = (qp.given_up, qp.windows.post_close(slot));
        qp.post(slot, Work::Close);
        if given_up {
            let what = format!("a window closed on qp{}, which was given up", id.0);
            self.net.broken(rule::CLOSED, what);
        }
        if let Err(what) = closed {
            self.net.broken(rule::DMA, format!("slot {slot}: {what}"));
        }
    }

    fn flush(&mut self) {
        for id in self.own() {
            self.net.post_receives(id);
            self.net.ring(id);
        }
    }

    /// Takes as few receives along as it may.
    fn flush_sends(&mut self) {
        for id in self.own() {
            let sends = self.net.queue_pairs.get(&id).map(|qp| &qp.sends);
            if sends.is_some_and(|sends| sends.iter().any(|send| !send.rung)) {
                self.net.post_receives(id);
                self.net.ring(id);
            }
        }
    }

    fn fail(&mut self, qp: QueuePairId) {
        let Some(state) = self.net.queue_pairs.get_mut(&qp) else {
            return;
        };
        if std::mem::replace(&mut state.given_up, true) {
            // Only what is posted before the first time is posted before the error.
            return;
        }
        self.net.post_receives(qp);
        let Some(state) = self.net.queue_pairs.get(&qp) else {
            return;
        };
        if !state.inbound.is_empty() && self.net.rng.bool() {
            // IUs that waited for a receive may get one before the state is set.
            self.net.drain_inbound(qp);
        }
        self.net.fail(qp, None);
    }

    fn describe(&self, qp: QueuePairId, extent: Extent) -> MemoryDescriptor {
        let none = MemoryDescriptor {
            address: 0,
            key: 0,
            len: 0,
        };
        self.check_described(qp, extent);
        self.net.queue_pairs.get(&qp).map_or(none, |qp| qp.describe(extent))
    }

    fn describe_window(&self, qp: QueuePairId, slot: u16, extent: Extent) -> MemoryDescriptor {
        self.check_described(qp, extent);
        let described = self.net.queue_pairs.get(&qp).and_then(|qp| {
            let key = qp.windows.next_key(slot)?;
            Some(qp.describe_as(extent, key))
        });
        described.unwrap_or_else(|| self.describe(qp, extent))
    }

    fn copy_out(&self, qp: QueuePairId, extent: Extent, into: &mut [u8]) {
        self.check_use(qp, extent, "read from");
        match self.net.queue_pairs.get(&qp).and_then(|qp| qp.bytes(extent)) {
            Some(bytes) if bytes.len() == into.len() => into.copy_from_slice(bytes),
            _ => self
                .net
                .broken(rule::DMA, format!("read from {extent:?}, which is not there")),
        }
    }

    fn copy_in(&mut self, qp: QueuePairId, extent: Extent, from: &[u8]) {
        self.check_use(qp, extent, "write to");
        match self.net.queue_pairs.get_mut(&qp).and_then(|qp| qp.bytes_mut(extent)) {
            Some(bytes) if bytes.len() == from.len() => bytes.copy_from_slice(from),
            _ => self
                .net
                .broken(rule::DMA, format!("write to {extent:?}, which is not there")),
        }
    }
}
