//! Copies for requests of queues that other reactors serve.
//!
//! The data of a request is reached by queue and tag in `/dev/ublkcN`, from any thread of the process; only its COMMIT
//! belongs to the queue's own thread. Such a copy holds the character device itself, as the queue is not this ring's.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, types};

use super::plane::{DataPlane, EnterError, RangeError, copy_position};
use super::tickets::Ticket;
use crate::backend::{AreaRange, ForeignRequest};

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From a WRITE into an area.
    In,
    /// From an area to a READ.
    Out,
}

/// A copy in the kernel's hands.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) token: u64,
    pub(super) area: u32,
    pub(super) len: u32,
    _char_device: Arc<OwnedFd>,
}

impl DataPlane {
    /// Copies between an area and a request of another reactor. `queue` is one of ours of the same device.
    pub(crate) fn copy_foreign(
        &mut self,
        queue: u32,
        request: ForeignRequest,
        range: AreaRange,
        direction: Direction,
        token: u64,
    ) -> Result<Result<(), RangeError>, EnterError> {
        let Some(char_device) = self.char_device(queue).map(Arc::clone) else {
            return Ok(Err(RangeError(range)));
        };
        let area = self.areas.get_mut(range.area.0);
        let Some((area, at)) = area.and_then(|area| area.resolve(range).map(|at| (area, at))) else {
            return Ok(Err(RangeError(range)));
        };
        let fd = types::Fd(char_device.as_raw_fd());
        let copy = self.foreign.insert(Foreign {
            token,
            area: range.area.0,
            len: range.len,
            _char_device: char_device,
        });
        let Some(copy) = copy else {
            return Ok(Err(RangeError(range)));
        };
        area.copies += 1;
        let position = copy_position(request.queue_id, request.tag);
        let entry = match direction {
            Direction::In => opcode::Read::new(fd, at, range.len).offset(position).build(),
            Direction::Out => opcode::Write::new(fd, at.cast_const(), range.len)
                .offset(position)
                .build(),
        };
        self.push(&[entry.user_data(Ticket::Foreign { copy }.encode())]).map(Ok)
    }
}
