//! Requests between reactors.
//!
//! A reactor whose session has channels on others only hands a request to one of them, its sibling: that one copies the data
//! and has the target carry the request out; where the request came from, its end is told to the block layer. A sibling that has
//! no channel either gives the request back and is not asked again until the control side names it anew, so that a request
//! comes to its end whatever the reactors know of each other.

use std::collections::HashMap;

use srp_initiator::scsi::BlockError;
use srp_initiator::session::{Handle, Handover, RequestId as EngineId, SessionKey};
use srp_initiator::time::Instant as CoreInstant;
use ublk_frontend::backend::{Action, AreaRanges, DeviceKey, ForeignRequest, Operation, RequestId};

use super::message::{Carried, Message, Sibling};
use super::{SrpBackend, engine_id, ublk_id};

/// Set in the ids of requests of other reactors.
const FOREIGN: u64 = 1 << 62;

/// Whether the engine's name for a request is that of another reactor's.
pub(super) const fn is_foreign(id: EngineId) -> bool {
    id.0 >> 62 == 1
}

/// The other reactors with channels, by session.
#[derive(Default)]
pub(super) struct Siblings {
    lists: HashMap<SessionKey, List>,
    /// Lists so far.
    named: u64,
}

struct List {
    /// Its number.
    number: u64,
    own: Sibling,
    others: Vec<Sibling>,
}

impl Siblings {
    pub(super) fn set(&mut self, session: SessionKey, own: Sibling, others: Vec<Sibling>) {
        self.named += 1;
        let number = self.named;
        self.lists.insert(session, List { number, own, others });
    }

    pub(super) fn forget(&mut self, session: SessionKey) {
        self.lists.remove(&session);
    }

    /// The list of a session, and the one to hand a request to.
    fn first(&self, session: SessionKey) -> Option<(&List, &Sibling)> {
        let list = self.lists.get(&session)?;
        Some((list, list.others.first()?))
    }

    /// Strikes one off that had no channel when it was asked by the list of this number: of a later list it may be again.
    /// Whether any are left.
    fn strike(&mut self, session: SessionKey, index: usize, number: u64) -> bool {
        self.lists.get_mut(&session).is_some_and(|list| {
            if list.number == number {
                list.others.retain(|other| other.index != index);
            }
            !list.others.is_empty()
        })
    }
}

/// Requests of other reactors that are served here.
#[derive(Default)]
pub(super) struct CarriedTable {
    requests: HashMap<u64, Taken>,
    last: u64,
}

struct Taken {
    carried: Carried,
    /// The engine's name while a copy is under way.
    copying: Option<(Handle, bool)>,
}

impl SrpBackend {
    /// The engine has no channel for a request: it goes to a sibling, or back to where it came from.
    pub(super) fn hand_over(&mut self, handover: Handover, out: &mut Vec<Action>) {
        if is_foreign(handover.request.id) {
            let Some(taken) = self.carried.requests.remove(&handover.request.id.0) else {
                return;
            };
            let mut carried = taken.carried;
            carried.handover = handover;
            let handle = carried.origin.handle.clone();
            // A reactor that is gone has no queue whose request could wait.
            let _ = handle.message(Message::TakeBack(Box::new(carried), self.reactor));
            return;
        }
        let id = ublk_id(handover.request.id);
        if let Err(errno) = self.carry(id, handover) {
            self.complete(id, Err(errno), out);
        }
    }

    fn carry(&self, id: RequestId, handover: Handover) -> Result<(), i32> {
        let transport = BlockError::Transport.errno();
        let pending = self.pending.get(id).ok_or(transport)?;
        let device = DeviceKey(handover.request.lun.0);
        let disk = self.disks.get(&device).ok_or(transport)?;
        let (list, sibling) = self.siblings.first(disk.setup.session).ok_or(transport)?;
        let carried = Carried {
            origin: list.own.clone(),
            list: list.number,
            id,
            session: disk.setup.session,
            data: ForeignRequest {
                device,
                queue_id: pending.queue_id,
                tag: id.tag,
            },
            len: pending.len,
            handover,
        };
        let sent = sibling.handle.message(Message::TakeOver(Box::new(carried)));
        sent.map_err(|_| transport)
    }

    /// A request of another reactor.
    pub(super) fn take_over(&mut self, carried: Carried, now: CoreInstant) {
        self.carried.last += 1;
        let number = FOREIGN | self.carried.last;
        let mut handover = carried.handover;
        handover.request.id = EngineId(number);
        let taken = Taken { carried, copying: None };
        self.carried.requests.insert(number, taken);
        self.engine.take_over(handover, now);
    }

    /// A request of ours comes back: the reactor it was handed to has no channel.
    pub(super) fn take_back(&mut self, carried: &Carried, from: usize, now: CoreInstant) {
        let elsewhere = self.siblings.strike(carried.session, from, carried.list);
        self.engine.set_elsewhere(carried.session, elsewhere);
        let mut handover = carried.handover;
        handover.request.id = engine_id(carried.id);
        self.engine.take_back(handover, now);
    }

    /// A request of ours ended where it was handed to.
    pub(super) fn ended_elsewhere(&mut self, id: RequestId, result: Result<u32, i32>, out: &mut Vec<Action>) {
        match (self.pending.get(id).map(|pending| pending.operation), result) {
            (Some(Operation::Read), Ok(_)) => {
                if let Some(pending) = self.pending.take(id) {
                    pending.count(&result);
                    out.push(Action::CompleteCopied { id });
                }
            }
            _ => self.complete(id, result, out),
        }
    }

    /// The engine wants the data of a write of another reactor.
    pub(super) fn supply_foreign(
        &mut self,
        id: EngineId,
        handle: Handle,
        into: Option<AreaRanges>,
        now: CoreInstant,
        out: &mut Vec<Action>,
    ) {
        match (into, self.carried.requests.get_mut(&id.0)) {
            (Some(into), Some(taken)) => {
                taken.copying = Some((handle, false));
                out.push(Action::CopyInForeign {
                    token: id.0,
                    request: taken.carried.data,
                    into,
                });
            }
            _ => self.engine.supplied(handle, false, now),
        }
    }

    /// The data of a read of another reactor is there.
    pub(super) fn data_foreign(
        &mut self,
        id: EngineId,
        handle: Handle,
        from: Option<AreaRanges>,
        now: CoreInstant,
        out: &mut Vec<Action>,
    ) {
        if let (Some(from), Some(taken)) = (from, self.carried.requests.get_mut(&id.0))
            && from.len() == taken.carried.len
        {
            taken.copying = Some((handle, true));
            out.push(Action::CopyOutForeign {
                token: id.0,
                request: taken.carried.data,
                from,
            });
            return;
        }
        // A short read: see `data`.
        self.engine.release(handle, now);
        self.end_foreign(id, Err(BlockError::Io.errno()));
    }

    /// A copy for another reactor's request is over.
    pub(super) fn foreign_copied(&mut self, token: u64, result: Result<(), i32>, now: CoreInstant) {
        let Some(taken) = self.carried.requests.get_mut(&token) else {
            return;
        };
        let Some((handle, read)) = taken.copying.take() else {
            return;
        };
        if let Err(errno) = result {
            tracing::error!(request = ?taken.carried.data, read, errno, "ublk refused a copy");
        }
        if !read {
            return self.engine.supplied(handle, result.is_ok(), now);
        }
        let len = taken.carried.len;
        self.engine.release(handle, now);
        self.end_foreign(EngineId(token), result.map(|()| len));
    }

    /// A request of another reactor ended: its own one tells the block layer.
    pub(super) fn end_foreign(&mut self, id: EngineId, result: Result<u32, i32>) {
        let Some(taken) = self.carried.requests.remove(&id.0) else {
            return;
        };
        let Carried { origin, id, .. } = taken.carried;
        // A reactor that is gone has no queue whose request could wait.
        let _ = origin.handle.message(Message::Ended(id, result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ublk_frontend::reactor::{Reactor, ReactorConfig};

    #[test]
    fn who_is_named_again_is_not_struck_off_by_an_older_answer() {
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let make = move || Ok(SrpBackend::new(0, events));
        let thread = match Reactor::spawn(ReactorConfig::new(0), make) {
            Ok(thread) => thread,
            Err(error) => return println!("no io_uring here: {error}"),
        };
        let sibling = |index| Sibling {
            index,
            handle: thread.handle().clone(),
        };
        let mut siblings = Siblings::default();
        let session = SessionKey(1);
        siblings.set(session, sibling(0), vec![sibling(1), sibling(2)]);
        let old = siblings.first(session).map(|(list, first)| (list.number, first.index));
        assert_eq!(old, Some((1, 1)));
        siblings.set(session, sibling(0), vec![sibling(1)]);
        assert!(siblings.strike(session, 1, 1), "it answered by the list before");
        assert_eq!(siblings.first(session).map(|(_, first)| first.index), Some(1));
        assert!(!siblings.strike(session, 1, 2));
        assert!(siblings.first(session).is_none());
        siblings.forget(session);
        assert!(!siblings.strike(session, 1, 2));
    }
}
