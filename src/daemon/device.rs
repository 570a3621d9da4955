//! A block device: a disk of a session, a ublk device in front of it, and how both come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use srp_initiator::fabric::QueuePairId;
use srp_initiator::scsi::Lun;
use srp_initiator::scsi::bringup::{DiskGeometry, LogicalUnit};
use srp_initiator::session::{DiskSetup, LunKey, SessionKey};
use tokio::sync::{Mutex, RwLock, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use ublk_frontend::backend::DeviceKey;
use ublk_frontend::control::{self, Deleted, Device, DeviceConfig, DeviceParams, Recovery};
use ublk_frontend::reactor::AddQueue;

use super::Ground;
use super::detach::{self, Patience};
use super::failure::{chain, failure};
use super::leftover;
use super::reactors::Reactor;
use crate::backend::{Disk, DiskCounters, Message};
use crate::rpc::protocol::{ChannelInfo, Detached, DeviceDetail, DeviceInfo, ErrorData, ErrorKind, SessionInfo};

/// Starting reads the partition table on some kernels: as long as a few commands may take.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Stopping waits for requests under way; they are failed long before this.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// The number comes free when the last user of the node has let go.
const DELETE_LIMIT: Duration = Duration::from_secs(2);

/// What a session's block devices stand on.
#[derive(Clone)]
pub(crate) struct DeviceGround {
    pub(crate) daemon: Arc<Ground>,
    pub(crate) session: SessionKey,
    /// Its queue q is served by reactor q modulo their number.
    pub(crate) owners: Vec<Reactor>,
    /// Requests per queue.
    pub(crate) depth: u16,
    /// Bytes of the largest request.
    pub(crate) max_transfer: u32,
}

/// See the module's text.
pub(crate) struct BlockDevice {
    number: u32,
    key: LunKey,
    session: SessionKey,
    unit: LogicalUnit,
    params: DeviceParams,
    queues: u16,
    depth: u16,
    counters: Arc<DiskCounters>,
    /// The reactors that serve its queues.
    reactors: Vec<Reactor>,
    /// Held by whoever starts or ends it.
    ublk: Arc<Mutex<Device>>,
    detaching: AtomicBool,
    /// To be waited for before the kernel is asked to take it apart.
    endings: Arc<Semaphore>,
    /// See [`Ground::numbers`].
    numbers: Arc<RwLock<()>>,
}

impl BlockDevice {
    /// Makes `/dev/ublkbN` for a disk.
    pub(crate) async fn attach(
        ground: &DeviceGround,
        unit: LogicalUnit,
        geometry: &DiskGeometry,
        read_only: bool,
    ) -> Result<Self, ErrorData> {
        let host = |error: &dyn std::error::Error| failure(ErrorKind::Host, chain(error));
        let params = parameters(geometry, ground.max_transfer, read_only);
        let reactors = ground.owners.clone();
        let config = DeviceConfig {
            id: None,
            queues: u16::try_from(reactors.len()).unwrap_or(u16::MAX).max(1),
            depth: ground.depth,
            params: params.clone(),
            recovery: Recovery::None,
        };
        let numbers = Arc::clone(&ground.daemon.numbers);
        let ublk = {
            let _alone = numbers.write().await;
            let added = spawn_blocking(move || Device::add(&config)).await;
            let ublk = added.map_err(|error| host(&error))?.map_err(|error| host(&error))?;
            leftover::remember(ublk.id());
            ublk
        };
        let key = LunKey(ground.daemon.next_key());
        let counters = Arc::new(DiskCounters::default());
        let device = Self {
            number: ublk.id(),
            key,
            session: ground.session,
            unit,
            params,
            queues: ublk.queues(),
            depth: ublk.depth(),
            counters: Arc::clone(&counters),
            reactors,
            ublk: Arc::new(Mutex::new(ublk)),
            detaching: AtomicBool::new(false),
            endings: Arc::clone(&ground.daemon.endings),
            numbers,
        };
        let disk = Disk {
            device: DeviceKey(key.0),
            setup: DiskSetup {
                key,
                session: ground.session,
                lun: device.unit.lun,
                block_size: geometry.block_size,
                blocks: geometry.blocks,
            },
            read_only: device.params.read_only,
            counters,
        };
        match device.serve(disk).await {
            Ok(()) => {
                tracing::info!(
                    session = ground.session.0, lun = %device.unit.lun, device = device.path(),
                    size = device.params.sectors << 9, "attached"
                );
                Ok(device)
            }
            Err(error) => {
                device.remove(&mut Vec::new()).await;
                Err(error)
            }
        }
    }

    /// Brings the queues to the reactors and starts the device.
    async fn serve(&self, disk: Disk) -> Result<(), ErrorData> {
        let host = |error: &dyn std::error::Error| failure(ErrorKind::Host, chain(error));
        let (char_device, max_io_bytes) = {
            let ublk = self.ublk.lock().await;
            (ublk.char_device(), ublk.max_io_bytes())
        };
        let char_device = char_device.ok_or_else(|| failure(ErrorKind::Internal, "a device without its node"))?;
        for reactor in &self.reactors {
            reactor.send(Message::AddDisk(disk.clone()));
        }
        for queue_id in 0..self.queues {
            let reactor = self.server(queue_id);
            let queue = AddQueue {
                device: disk.device,
                queue_id,
                depth: self.depth,
                char_device: Arc::clone(&char_device),
                max_io_bytes,
            };
            reactor
                .add_queue(queue)
                .await
                .map_err(|error| host(&error))?
                .map_err(|error| host(&error))?;
        }
        drop(char_device);
        let mut ublk = Arc::clone(&self.ublk).lock_owned().await;
        let start = spawn_blocking(move || ublk.start(START_LIMIT));
        start
            .await
            .map_err(|error| host(&error))?
            .map_err(|error| host(&error))?;
        let (number, queues) = (self.number, self.queues);
        let processors = spawn_blocking(move || control::only_processors(number, queues)).await;
        // Nothing depends on it but time.
        for (queue_id, processor) in (0..).zip(processors.unwrap_or_default()) {
            if let Some(processor) = processor {
                self.server(queue_id).keep_off(processor);
            }
        }
        Ok(())
    }

    /// The reactor of a queue.
    fn server(&self, queue_id: u16) -> &Reactor {
        &self.reactors[usize::from(queue_id) % self.reactors.len()]
    }

    /// Ends the device. `channels` are closed when the target does not answer any more.
    pub(crate) async fn detach(&self, force: bool, channels: Vec<(Reactor, QueuePairId)>) -> Detached {
        let mut notes = Vec::new();
        let started = Instant::now();
        let number = self.number;
        if !force && let Some(error) = detach::in_use(number).await {
            return Detached {
                number,
                detached: false,
                notes,
                error: Some(error),
            };
        }
        let mut patience = Patience::new(self.session, self.unit.lun, Arc::clone(&self.counters), channels);
        if force {
            patience = patience.forced(self.key, &self.reactors);
        }
        patience.flush(number, &mut notes).await;
        let error = self.end(&mut patience, &mut notes).await;
        tracing::info!(
            device = self.path(), lun = %self.unit.lun, millis = started.elapsed().as_millis() as u64,
            ?notes, error = error.as_ref().map(|error| error.message.as_str()), "detach"
        );
        Detached {
            number,
            detached: error.is_none(),
            notes,
            error,
        }
    }

    async fn end(&self, patience: &mut Patience, notes: &mut Vec<String>) -> Option<ErrorData> {
        let _turn = self.endings.acquire().await;
        let number = self.number;
        let stop = spawn_blocking(move || control::stop_device(number, STOP_LIMIT));
        match patience.wait(stop, notes).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(failure(ErrorKind::Host, chain(&error))),
            Err(error) => return Some(failure(ErrorKind::Internal, chain(&error))),
        }
        for reactor in &self.reactors {
            if let Err(error) = reactor.remove_device(DeviceKey(self.key.0)).await {
                return Some(failure(ErrorKind::Internal, chain(&error)));
            }
        }
        let mut ublk = Arc::clone(&self.ublk).lock_owned().await;
        let _watched = self.numbers.read().await;
        let deleted = match spawn_blocking(move || ublk.delete(DELETE_LIMIT)).await {
            Ok(deleted) => deleted,
            Err(error) => return Some(failure(ErrorKind::Internal, chain(&error))),
        };
        match deleted {
            Ok(Deleted::Gone) => {
                leftover::forget(number);
                None
            }
            Ok(Deleted::Held) => {
                notes.push(format!(
                    "the number {number} stays taken until the last user of the node has let go"
                ));
                None
            }
            Err(error) => Some(failure(ErrorKind::Host, chain(&error))),
        }
    }

    /// Takes apart a device that did not start.
    async fn remove(&self, notes: &mut Vec<String>) {
        let mut patience = Patience::new(self.session, self.unit.lun, Arc::clone(&self.counters), Vec::new());
        if let Some(error) = self.end(&mut patience, notes).await {
            tracing::error!(
                device = self.path(),
                error = error.message,
                "a device that did not start stays behind"
            );
        }
        for reactor in &self.reactors {
            reactor.send(Message::RemoveDisk(self.key));
        }
    }

    /// True for the first who wants to detach it.
    pub(crate) fn begin_detach(&self) -> bool {
        !self.detaching.swap(true, Ordering::AcqRel)
    }

    /// It is still there: it may be detached again.
    pub(crate) fn end_detach(&self) {
        self.detaching.store(false, Ordering::Release);
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn key(&self) -> LunKey {
        self.key
    }

    pub(crate) fn counters(&self) -> Arc<DiskCounters> {
        Arc::clone(&self.counters)
    }

    pub(crate) fn lun(&self) -> Lun {
        self.unit.lun
    }

    fn path(&self) -> String {
        format!("/dev/ublkb{}", self.number)
    }

    /// The line of `list`.
    pub(crate) fn info(&self, session: u32, state: &str) -> DeviceInfo {
        let unit = &self.unit;
        DeviceInfo {
            number: self.number,
            path: self.path(),
            lun: unit.lun.to_string(),
            session,
            state: state.to_owned(),
            size: self.params.sectors << 9,
            block_size: self.params.logical_block,
            physical_block_size: self.params.physical_block,
            read_only: self.params.read_only,
            vendor: unit.vendor.clone(),
            product: unit.product.clone(),
            revision: unit.revision.clone(),
            serial: unit.serial.clone(),
            identifier: unit.identifier.clone(),
        }
    }

    /// The page of `show`.
    pub(crate) fn detail(&self, session_info: SessionInfo, state: &str, channels: Vec<ChannelInfo>) -> DeviceDetail {
        let params = &self.params;
        DeviceDetail {
            device: self.info(session_info.id, state),
            session_info,
            queues: self.queues,
            queue_depth: self.depth,
            max_transfer: params.max_io_bytes,
            optimal_transfer: (params.io_opt > 0).then_some(params.io_opt),
            write_cache: params.write_cache,
            fua: params.fua,
            rotational: params.rotational,
            channels,
            counters: self.counters.snapshot(),
        }
    }
}

/// What the block layer is told of a disk: what the unit said, as far as ublk can express it.
fn parameters(geometry: &DiskGeometry, max_transfer: u32, read_only: bool) -> DeviceParams {
    let block = geometry.block_size;
    let bytes = |blocks: u32| blocks.saturating_mul(block);
    let longest = geometry
        .max_transfer_blocks
        .map_or(max_transfer, |blocks| bytes(blocks).min(max_transfer));
    // Whole pages, as ublk wants; a unit that takes less than a page at once gets one and refuses it itself.
    let max_io_bytes = (longest & !4095).max(4096);
    let optimal = geometry.optimal_transfer_blocks.map_or(0, bytes);
    DeviceParams {
        logical_block: block,
        physical_block: geometry.physical_block_size.max(block),
        io_min: geometry
            .optimal_granularity_blocks
            .map_or(0, |blocks| power_of_two(bytes(blocks.into()))),
        io_opt: if optimal.is_multiple_of(block) && optimal <= 256 << 20 {
            optimal
        } else {
            0
        },
        max_io_bytes,
        read_only: read_only || geometry.read_only,
        rotational: geometry.rotational.unwrap_or(false),
        write_cache: geometry.write_cache,
        fua: geometry.write_cache && geometry.dpo_fua,
        ..DeviceParams::new(geometry.blocks * u64::from(block / 512))
    }
}

/// The block layer's hints are powers of two; others are not passed on.
fn power_of_two(bytes: u32) -> u32 {
    if bytes.is_power_of_two() { bytes } else { 0 }
}
