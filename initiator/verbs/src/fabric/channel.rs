//! One queue pair of a reactor, and the work requests queued for its next doorbell.

use std::collections::VecDeque;
use std::ptr;

use rdma_sys::{ibv_recv_wr, ibv_send_flags, ibv_send_wr, ibv_sge, ibv_wr_opcode};
use srp_initiator::fabric::{Completion, Extent, QueuePairId, WorkError, WorkKind};

use super::parts::ChannelParts;
use super::window::Window;
use super::work_id;
use crate::errno::check_value;

/// Entries of a send: the IU, and immediate data.
type SendEntries = [ibv_sge; 2];

/// A channel as a reactor holds it. Work requests are written in place into arrays made once; a slot is in the array of
/// sends at most once, and its window twice, so a full array cannot happen.
pub(super) struct Channel {
    pub(super) id: QueuePairId,
    pub(super) parts: ChannelParts,
    pub(super) send_requests: Box<[ibv_send_wr]>,
    send_entries: Box<[SendEntries]>,
    receive_requests: Box<[ibv_recv_wr]>,
    receive_entries: Box<[ibv_sge]>,
    pub(super) queued_sends: usize,
    queued_receives: usize,
    /// Slots that are queued or posted.
    sends_in_flight: Box<[bool]>,
    receives_in_flight: Box<[bool]>,
    pub(super) windows: Box<[Window]>,
    failed: bool,
}

// SAFETY: the raw pointers are those inside work requests, which are written anew right before each post and point
// into this value's own boxes; they mean nothing in between. Everything else is Send.
unsafe impl Send for Channel {}

impl Channel {
    pub(super) fn new(id: QueuePairId, parts: ChannelParts) -> Self {
        let sends = usize::from(parts.sends.slots());
        let receives = usize::from(parts.receives.slots());
        let send_work = sends + 2 * parts.windows.len();
        let send_request = || -> ibv_send_wr {
            // SAFETY: plain integers and raw pointers, for which all zeroes is a valid value.
            unsafe { std::mem::zeroed() }
        };
        let entry = || ibv_sge {
            addr: 0,
            length: 0,
            lkey: 0,
        };
        Self {
            id,
            send_requests: (0..send_work).map(|_| send_request()).collect(),
            send_entries: (0..send_work).map(|_| [entry(), entry()]).collect(),
            receive_requests: (0..receives)
                .map(|_| ibv_recv_wr {
                    wr_id: 0,
                    next: ptr::null_mut(),
                    sg_list: ptr::null_mut(),
                    num_sge: 1,
                })
                .collect(),
            receive_entries: (0..receives).map(|_| entry()).collect(),
            queued_sends: 0,
            queued_receives: 0,
            sends_in_flight: vec![false; sends].into(),
            receives_in_flight: vec![false; receives].into(),
            windows: parts.windows.iter().map(Window::new).collect(),
            failed: false,
            parts,
        }
    }

    /// Most completions that can be outstanding at once.
    pub(super) fn slots(&self) -> usize {
        self.send_requests.len() + self.receive_requests.len()
    }

    pub(super) const fn has_queued(&self) -> bool {
        self.queued_sends + self.queued_receives > 0
    }

    /// Memory of a send slot.
    pub(super) fn send_slot(&mut self, slot: u16) -> &mut [u8] {
        let start = self.parts.sends.slot(slot);
        assert!(
            !self.sends_in_flight[usize::from(slot)],
            "send slot {slot} is in flight"
        );
        // SAFETY: the slot lies in the ring, whose memory no peer can reach and nothing else refers to; the HCA does
        // not read it, as it is not in flight; it cannot be posted while `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(start, self.parts.sends.slot_len() as usize) }
    }

    /// Memory of a receive slot.
    pub(super) fn receive_slot(&self, slot: u16) -> &[u8] {
        let start = self.parts.receives.slot(slot);
        assert!(
            !self.receives_in_flight[usize::from(slot)],
            "receive slot {slot} is posted"
        );
        // SAFETY: as above; the HCA does not write it, as it is not posted.
        unsafe { std::slice::from_raw_parts(start, self.parts.receives.slot_len() as usize) }
    }

    /// Queues a SEND.
    pub(super) fn queue_send(&mut self, slot: u16, len: u32, payload: Option<Extent>) {
        let ring = &self.parts.sends;
        let addr = ring.slot(slot) as u64;
        assert!(
            len <= ring.slot_len(),
            "an IU of {len} bytes in a slot of {}",
            ring.slot_len()
        );
        assert!(
            !self.sends_in_flight[usize::from(slot)],
            "send slot {slot} is in flight already"
        );
        let entries = &mut self.send_entries[self.queued_sends];
        entries[0] = ibv_sge {
            addr,
            length: len,
            lkey: ring.lkey(),
        };
        let mut total = u64::from(len);
        let mut count = 1;
        if let Some(extent) = payload.filter(|extent| extent.len > 0) {
            let arena = self.parts.region(extent);
            let addr = arena.base() as u64 + u64::from(extent.offset);
            entries[1] = ibv_sge {
                addr,
                length: extent.len,
                lkey: arena.lkey(),
            };
            total += u64::from(extent.len);
            count = 2;
        }
        let inline = total <= u64::from(self.parts.queue_pair.caps().max_inline);
        let request = &mut self.send_requests[self.queued_sends];
        request.wr_id = work_id::pack(self.id, WorkKind::Send, slot);
        request.num_sge = count;
        request.opcode = ibv_wr_opcode::IBV_WR_SEND;
        request.send_flags =
            ibv_send_flags::IBV_SEND_SIGNALED.0 | if inline { ibv_send_flags::IBV_SEND_INLINE.0 } else { 0 };
        self.sends_in_flight[usize::from(slot)] = true;
        self.queued_sends += 1;
    }

    /// Queues a receive.
    pub(super) fn queue_receive(&mut self, slot: u16) {
        let ring = &self.parts.receives;
        let addr = ring.slot(slot) as u64;
        assert!(
            !self.receives_in_flight[usize::from(slot)],
            "receive slot {slot} is posted already"
        );
        self.receive_entries[self.queued_receives] = ibv_sge {
            addr,
            length: ring.slot_len(),
            lkey: ring.lkey(),
        };
        self.receive_requests[self.queued_receives].wr_id = work_id::pack(self.id, WorkKind::Receive, slot);
        self.receives_in_flight[usize::from(slot)] = true;
        self.queued_receives += 1;
    }

    /// A completion of this channel was polled or made up.
    pub(super) fn completed(&mut self, kind: WorkKind, slot: u16) {
        let in_flight = match kind {
            WorkKind::Send => &mut self.sends_in_flight,
            WorkKind::Receive => &mut self.receives_in_flight,
            WorkKind::Bind => return,
            WorkKind::Invalidate => return self.window_closed(slot),
        };
        if let Some(flag) = in_flight.get_mut(usize::from(slot)) {
            *flag = false;
        }
    }

    /// Posts what is queued: receives, then sends, one list each. What could not be posted is put into `refused`.
    pub(super) fn flush(&mut self, refused: &mut VecDeque<Completion>) {
        let receives = std::mem::take(&mut self.queued_receives);
        let sends = std::mem::take(&mut self.queued_sends);
        let before = refused.len();
        if receives > 0 {
            self.post_receives(receives, refused);
        }
        if sends > 0 {
            self.post_sends(sends, refused);
        }
        // A queue pair in error need not look at receives posted later (rdma_rxe does not): push it once more. And one
        // that refuses posts is brought into error, so that its other requests come back too.
        if self.failed && receives > 0 || refused.len() > before {
            self.fail();
        }
    }

    fn post_receives(&mut self, count: usize, refused: &mut VecDeque<Completion>) {
        let requests = self.receive_requests.as_mut_ptr();
        let entries = self.receive_entries.as_mut_ptr();
        let mut bad = ptr::null_mut();
        // SAFETY: `count` requests and entries were filled in by `queue_receive`; each points at the next and at its
        // entry, and the verb copies them all. The slots lie in registered memory that lives as long as the queue
        // pair's owner, which ends the queue pair first.
        let result = unsafe {
            for index in 0..count {
                let request = requests.add(index);
                (*request).sg_list = entries.add(index);
                (*request).next = if index + 1 < count {
                    requests.add(index + 1)
                } else {
                    ptr::null_mut()
                };
            }
            rdma_sys::ibv_post_recv(self.parts.queue_pair.raw(), requests, &mut bad)
        };
        if let Err(error) = check_value(result) {
            let first = first_refused(requests, bad, count);
            self.note_refused("receives", count - first, &error);
            for index in first..count {
                self.refuse(self.receive_requests[index].wr_id, refused);
            }
        }
    }

    fn post_sends(&mut self, count: usize, refused: &mut VecDeque<Completion>) {
        let requests = self.send_requests.as_mut_ptr();
        let entries = self.send_entries.as_mut_ptr();
        let mut bad = ptr::null_mut();
        // SAFETY: as in `post_receives`, with `queue_send`.
        let result = unsafe {
            for index in 0..count {
                let request = requests.add(index);
                (*request).sg_list = entries.add(index).cast();
                (*request).next = if index + 1 < count {
                    requests.add(index + 1)
                } else {
                    ptr::null_mut()
                };
            }
            rdma_sys::ibv_post_send(self.parts.queue_pair.raw(), requests, &mut bad)
        };
        self.note_openings(count);
        if let Err(error) = check_value(result) {
            let first = first_refused(requests, bad, count);
            self.note_refused("sends", count - first, &error);
            for index in first..count {
                self.refuse(self.send_requests[index].wr_id, refused);
            }
        }
    }

    #[cold]
    fn note_refused(&self, what: &str, count: usize, error: &std::io::Error) {
        tracing::error!(%error, qp = self.parts.queue_pair.number(), count, "{what} were refused");
    }

    fn refuse(&mut self, wr_id: u64, refused: &mut VecDeque<Completion>) {
        let completion = not_posted(wr_id);
        self.completed(completion.kind, completion.slot);
        refused.push_back(completion);
    }

    /// Moves the queue pair to the error state.
    pub(super) fn fail(&mut self) {
        self.failed = true;
        if let Err(error) = self.parts.queue_pair.fail() {
            tracing::warn!(%error, "only destroying the queue pair can end its requests now");
        }
    }
}

/// Which of `count` requests the verb stopped at; the first when it does not say so credibly.
fn first_refused<T>(requests: *mut T, bad: *mut T, count: usize) -> usize {
    let offset = (bad as usize).wrapping_sub(requests as usize) / size_of::<T>().max(1);
    if bad.is_null() || offset >= count { 0 } else { offset }
}

/// The completion of a request that was not posted, which is made up. It is `Local`, never `Flushed`: it proves nothing
/// about the peer's accesses.
fn not_posted(wr_id: u64) -> Completion {
    let (qp, kind, slot) = work_id::unpack(wr_id);
    let result = Err(WorkError::Local);
    Completion { qp, kind, slot, result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_part_of_a_list_is_found() {
        let mut list = [0u64; 4];
        let start = list.as_mut_ptr();
        assert_eq!(first_refused(start, start.wrapping_add(2), 4), 2);
        assert_eq!(first_refused(start, start, 4), 0);
        assert_eq!(first_refused(start, ptr::null_mut(), 4), 0);
        assert_eq!(first_refused(start, start.wrapping_add(9), 4), 0);
        assert_eq!(first_refused(start, start.wrapping_sub(1), 4), 0);
    }

    #[test]
    fn a_request_that_was_not_posted_is_a_local_error() {
        let expected = Completion {
            qp: QueuePairId(7),
            kind: WorkKind::Receive,
            slot: 3,
            result: Err(WorkError::Local),
        };
        assert_eq!(
            not_posted(work_id::pack(QueuePairId(7), WorkKind::Receive, 3)),
            expected
        );
    }
}
