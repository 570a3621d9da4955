//! What the target received and has not taken up.
//!
//! IUs of a channel are taken up in their order, nearly all at once, some after they lay there for a while. The end of the
//! connection does not change that: what was received is carried out.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Step, Target};
use crate::fabric::QueuePairId;
use crate::scsi::cdb::Operation;
use crate::sim::net::{Happening, Net};
use crate::sim::odds::Odds;
use crate::time::Instant;
use crate::wire::FromInitiator;

/// IUs of a channel that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    ius: VecDeque<Vec<u8>>,
    /// When the last of them is taken up.
    until: Instant,
}

impl Backlog {
    pub(super) fn forget(&mut self) {
        self.ius.clear();
    }
}

impl Target {
    /// An IU arrived. A channel that is gone receives nothing.
    pub(in crate::sim) fn arrived(&mut self, qp: QueuePairId, iu: Vec<u8>, net: &mut Net) {
        let Some(channel) = self.channels.get_mut(&qp).filter(|channel| channel.alive) else {
            return;
        };
        let delayed = Odds::hit(&mut net.rng, net.odds.backlog);
        if !delayed && channel.backlog.ius.is_empty() {
            return self.take_up(qp, &iu, net);
        }
        let delay = match delayed {
            true => net.profile.backlog.draw(&mut net.rng),
            false => Duration::ZERO,
        };
        let at = (net.now + delay).max(channel.backlog.until + Duration::from_nanos(1));
        channel.backlog.until = at;
        channel.backlog.ius.push_back(iu);
        net.tally.count("IU not taken up at once");
        net.agenda.add(at, Happening::Target(Step::TakeUp(qp)));
    }

    pub(super) fn take_up_next(&mut self, qp: QueuePairId, net: &mut Net) {
        let channel = self.channels.get_mut(&qp);
        if let Some(iu) = channel.and_then(|channel| channel.backlog.ius.pop_front()) {
            self.take_up(qp, &iu, net);
        }
    }

    /// IUs of a queue pair that were not taken up yet.
    #[must_use]
    pub fn backlog(&self, qp: QueuePairId) -> usize {
        self.channels.get(&qp).map_or(0, |channel| channel.backlog.ius.len())
    }

    /// Whether a write of these blocks may still be taken up: it was received, or is on its way and will be.
    pub(in crate::sim) fn may_take_up<'a>(
        &self,
        on_the_way: impl Iterator<Item = (QueuePairId, &'a [u8])>,
        lun: u64,
        lba: u64,
        blocks: u32,
    ) -> bool {
        let alive = |qp: &QueuePairId| self.channels.get(qp).is_some_and(|channel| channel.alive);
        let mut arriving = on_the_way.filter(|(qp, _)| alive(qp)).map(|(_, iu)| iu);
        let received = self.channels.values().flat_map(|channel| &channel.backlog.ius);
        let mut received = received.map(Vec::as_slice);
        let writes = |iu: &[u8]| writes(iu, lun, lba, blocks);
        arriving.any(writes) || received.any(writes)
    }
}

/// Whether an IU is a write of any of these blocks.
fn writes(iu: &[u8], lun: u64, lba: u64, blocks: u32) -> bool {
    let Ok(FromInitiator::Command(command)) = FromInitiator::parse(iu) else {
        return false;
    };
    let end = lba + u64::from(blocks);
    match command.cdb.operation() {
        Operation::Write {
            lba: at, blocks: count, ..
        } => command.lun.0 == lun && at < end && lba < at + u64::from(count),
        _ => false,
    }
}
