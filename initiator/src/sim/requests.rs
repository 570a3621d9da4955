//! What is asked for.

use std::time::Duration;

use super::world::World;
use crate::scsi::{Cdb, Lun};
use crate::session::{
    BlockOperation, BlockRequest, ControlRequest, LunKey, RequestId, SessionKey, TaskRequest, UnitFunction,
};

impl World {
    /// Asks for blocks.
    pub fn read(&mut self, lun: u32, lba: u64, blocks: u32) -> RequestId {
        self.submit(lun, BlockOperation::Read, lba, blocks)
    }

    /// Writes blocks, with data that names its write.
    pub fn write(&mut self, lun: u32, lba: u64, blocks: u32) -> RequestId {
        self.submit(lun, BlockOperation::Write { fua: false }, lba, blocks)
    }

    /// Flushes a disk.
    pub fn flush(&mut self, lun: u32) -> RequestId {
        self.submit(lun, BlockOperation::Flush, 0, 0)
    }

    /// Makes a block request, on any of the reactors that had a channel when the disk was made.
    pub fn submit(&mut self, number: u32, operation: BlockOperation, lba: u64, blocks: u32) -> RequestId {
        let home = self.home(self.session_of(number).unwrap_or(0));
        self.submit_at(home, number, operation, lba, blocks)
    }

    /// Makes a block request on a reactor.
    pub fn submit_at(
        &mut self,
        reactor: usize,
        number: u32,
        operation: BlockOperation,
        lba: u64,
        blocks: u32,
    ) -> RequestId {
        let id = self.client.next_id();
        let request = BlockRequest {
            id,
            lun: LunKey(number),
            operation,
            lba,
            blocks,
        };
        let session = self.session_of(number).unwrap_or(0);
        let block_size = self.disk_spec(number).map_or(512, |spec| spec.block_size);
        let lun = Lun::from_index(number);
        let limit = self.block_limit(session, lun);
        self.enter();
        let fabric = self.reactors.fabric();
        self.client
            .submitted(fabric, reactor, session, lun, block_size, request, limit);
        // Without a daemon the block layer keeps it.
        if !self.is_recovering(session) {
            let now = self.now;
            self.reactors.at(reactor).submit(request, now);
            self.send_some(reactor, id);
        }
        self.wake(reactor);
        self.after_call();
        id
    }

    /// Makes a control request.
    pub fn control(&mut self, session: usize, number: u32, cdb: Cdb, data_in: u32, timeout: Duration) -> RequestId {
        let id = self.client.next_id();
        let key = u32::try_from(session).unwrap_or(u32::MAX);
        let lun = Lun::from_index(number);
        let request = ControlRequest {
            id,
            session: SessionKey(key),
            lun,
            cdb,
            data_in,
            timeout,
        };
        self.enter();
        let limit = self.control_limit(timeout);
        self.client.submitted_control(id, key, lun, limit);
        let (reactor, now) = (self.spokesman(session), self.now);
        self.reactors.at(reactor).submit_control(request, now);
        self.wake(reactor);
        self.after_call();
        id
    }

    /// Makes a task management request.
    pub fn manage(&mut self, session: usize, number: u32, function: UnitFunction) -> RequestId {
        let id = self.client.next_id();
        let key = u32::try_from(session).unwrap_or(u32::MAX);
        let lun = Lun::from_index(number);
        self.enter();
        let limit = self.control_limit(self.spec.limits.task);
        self.client.submitted_control(id, key, lun, limit);
        let request = TaskRequest {
            id,
            session: SessionKey(key),
            lun,
            function,
        };
        let (reactor, now) = (self.spokesman(session), self.now);
        self.reactors.at(reactor).submit_task(request, now);
        self.wake(reactor);
        self.after_call();
        id
    }
}
