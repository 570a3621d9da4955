//! Copies for requests of queues that other reactors serve.
//!
//! The data of a request is reached by queue and tag in `/dev/ublkcN`, from any thread of the process; only its COMMIT
//! belongs to the queue's own thread. Such a copy holds the character device itself, as the queue is not this ring's.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::copy::{Direction, Lent, copy_position};
use super::plane::{DataPlane, EnterError, RangeError};
use super::tickets::Ticket;
use crate::backend::{AreaRanges, ForeignRequest};

/// A copy in the kernel's hands.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) token: u64,
    pub(super) lent: Lent,
    _char_device: Arc<OwnedFd>,
}

impl DataPlane {
    /// Copies between an area and a request of another reactor. `queue` is one of ours of the same device.
    pub(crate) fn copy_foreign(
        &mut self,
        queue: u32,
        request: ForeignRequest,
        ranges: &AreaRanges,
        direction: Direction,
        token: u64,
    ) -> Result<Result<(), RangeError>, EnterError> {
        let refused = || Ok(Err(RangeError(ranges.clone())));
        let Some(char_device) = self.char_device(queue).map(Arc::clone) else {
            return refused();
        };
        let Some(lent) = Lent::new(&mut self.areas, ranges) else {
            return refused();
        };
        let position = copy_position(request.queue_id, request.tag);
        let entry = lent.entry(char_device.as_raw_fd(), position, direction);
        let area = ranges.pieces().0.area;
        let foreign = Foreign {
            token,
            lent,
            _char_device: char_device,
        };
        let Some(copy) = self.foreign.insert(foreign) else {
            if let Some(area) = self.areas.get_mut(area.0) {
                area.copies -= 1;
            }
            return refused();
        };
        self.push(&[entry.user_data(Ticket::Foreign { copy }.encode())]).map(Ok)
    }
}
