//! Opening and closing the memory windows of a channel's send slots.

use rdma_sys::{
    bind_mw_t, bind_mw_tso_union_t, ibv_access_flags, ibv_mw_bind_info, ibv_send_flags, ibv_send_wr, ibv_wr_opcode,
    imm_data_invalidated_rkey_union_t,
};
use srp_initiator::fabric::{Extent, RemoteAccess, WorkKind};

use super::channel::Channel;
use super::work_id;
use crate::memory::{MemoryWindow, next_key};

/// A send slot's window, by what was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    state: State,
    /// What it was opened with last.
    key: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open,
    Closing,
}

impl Window {
    pub(super) fn new(window: &MemoryWindow) -> Self {
        Self {
            state: State::Closed,
            key: window.key(),
        }
    }

    fn open(&mut self) -> u32 {
        assert_eq!(self.state, State::Closed, "a window is opened twice");
        self.state = State::Open;
        self.key = next_key(self.key);
        self.key
    }

    fn close(&mut self) -> u32 {
        assert_eq!(self.state, State::Open, "a window is closed that is not open");
        self.state = State::Closing;
        self.key
    }
}

impl Channel {
    /// The key a slot's window will be opened with.
    ///
    /// # Panics
    /// When it has none.
    pub(super) fn next_window_key(&self, slot: u16) -> u32 {
        next_key(self.windows[usize::from(slot)].key)
    }

    /// Queues the opening of a slot's window on an extent. It is told of only when it fails.
    ///
    /// # Panics
    /// When there is no such window or extent, or the window is open.
    pub(super) fn queue_bind(&mut self, slot: u16, extent: Extent, access: RemoteAccess) {
        let arena = self.parts.region(extent);
        let bind_info = ibv_mw_bind_info {
            mr: arena.registration(),
            addr: arena.base() as u64 + u64::from(extent.offset),
            length: extent.len.into(),
            mw_access_flags: match access {
                RemoteAccess::Read => ibv_access_flags::IBV_ACCESS_REMOTE_READ.0,
                RemoteAccess::Write => ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0,
            },
        };
        let bind_mw = bind_mw_t {
            mw: self.parts.windows[usize::from(slot)].raw(),
            rkey: self.windows[usize::from(slot)].open(),
            bind_info,
        };
        let request = self.window_request(WorkKind::Bind, slot);
        request.opcode = ibv_wr_opcode::IBV_WR_BIND_MW;
        request.send_flags = 0;
        // Drivers refuse it with anything in this place, which is a closing's too.
        request.imm_data_invalidated_rkey_union = imm_data_invalidated_rkey_union_t { imm_data: 0 };
        request.bind_mw_tso_union = bind_mw_tso_union_t { bind_mw };
    }

    /// Queues the closing of a slot's window.
    ///
    /// # Panics
    /// When there is no such window, or it is not open.
    pub(super) fn queue_invalidate(&mut self, slot: u16) {
        let invalidated_rkey = self.windows[usize::from(slot)].close();
        let request = self.window_request(WorkKind::Invalidate, slot);
        request.opcode = ibv_wr_opcode::IBV_WR_LOCAL_INV;
        request.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
        request.imm_data_invalidated_rkey_union = imm_data_invalidated_rkey_union_t { invalidated_rkey };
    }

    fn window_request(&mut self, kind: WorkKind, slot: u16) -> &mut ibv_send_wr {
        let request = &mut self.send_requests[self.queued_sends];
        self.queued_sends += 1;
        request.wr_id = work_id::pack(self.id, kind, slot);
        request.num_sge = 0;
        request
    }

    /// Notes the keys of the windows whose opening is among the first `count` requests: drivers take the old key from
    /// the window when the next opening is posted.
    pub(super) fn note_openings(&mut self, count: usize) {
        if self.windows.is_empty() {
            return;
        }
        for request in &self.send_requests[..count] {
            let (_, kind, slot) = work_id::unpack(request.wr_id);
            if kind == WorkKind::Bind {
                let window = usize::from(slot);
                self.parts.windows[window].opened(self.windows[window].key);
            }
        }
    }

    /// A closing came back. When it failed, the queue pair has, and opens no window any more.
    pub(super) fn window_closed(&mut self, slot: u16) {
        if let Some(window) = self.windows.get_mut(usize::from(slot)) {
            window.state = State::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_new_key_each_time() {
        let mut window = Window {
            state: State::Closed,
            key: 0x1200,
        };
        for expected in [0x1201, 0x1202, 0x1203] {
            assert_eq!(window.open(), expected);
            assert_eq!(window.close(), expected);
            window.state = State::Closed;
        }
    }
}
