//! Attaching: logging in to a target, looking at its logical units, making block devices of its disks.

use std::collections::BTreeMap;
use std::sync::Arc;

use srp_addressing::{Gid, Guid, PortId, TargetOptions};
use srp_initiator::scsi::bringup::{self, BringUpError};
use srp_initiator::scsi::{Lun, LunSet};
use srp_initiator::session::{ChannelSequence, LoginParameters, SessionKey};
use srp_initiator::wire::login::MultiChannel;
use tokio::sync::{Semaphore, mpsc};

use super::Ground;
use super::channel::{self, Channel, ChannelSetupError, LocalEnd, SessionGround};
use super::detach::AT_ONCE;
use super::device::BlockDevice;
use super::endpoints::endpoints;
use super::execute::SessionCommands;
use super::failure::{Login, chain, failure, login_failure, nothing_attached, unusable};
use super::kernel_peer;
use super::liveness::names_of_port;
use super::nexus::{Holder, Nexus, further_path};
use super::session::{Request, Session, acl_name};
use crate::rpc::protocol::{AttachParams, AttachReport, ErrorData, ErrorKind, SkippedLun};

/// Commands per channel when the target text does not say.
const QUEUE_SIZE: u16 = 127;
/// Bytes of the largest request when neither the target text nor the unit says less.
const MAX_TRANSFER: u32 = 1 << 20;
/// Bytes of data buffers per session and direction, shared out to its channels: they are pinned, and a host with many
/// cores has as many channels.
const BUFFERS: usize = 64 << 20;
/// Least and most of them for a channel.
const ARENA: (usize, usize) = (2 * MAX_TRANSFER as usize, 16 << 20);
/// Transport retries. Not the most there are: soft-RoCE takes 7 as "for ever" and never reports a dead path.
const RETRY_COUNT: u8 = 6;
/// Bytes of the largest write whose data is sent within its command, where the target takes that; ib_srp has the same.
const IMMEDIATE_DATA: u32 = 8192;
/// Descriptors a command IU is asked to have room for; ours carry one.
const DESCRIPTORS: u16 = 12;

/// What a client wants attached.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) target: TargetOptions,
    luns: Option<LunSet>,
    exclude: Option<LunSet>,
    read_only: bool,
}

impl Wanted {
    /// Reads the parameters of the method.
    pub(crate) fn parse(params: &AttachParams) -> Result<Self, ErrorData> {
        let usage =
            |what: &str, error: &dyn std::error::Error| failure(ErrorKind::Usage, format!("{what}: {}", chain(error)));
        let set = |text: &Option<String>, what: &str| {
            text.as_deref()
                .map(|text| text.parse::<LunSet>().map_err(|error| usage(what, &error)))
                .transpose()
        };
        Ok(Self {
            target: params
                .target
                .parse()
                .map_err(|error: srp_addressing::ParseTargetError| usage("target", &error))?,
            luns: set(&params.luns, "LUNs")?,
            exclude: set(&params.exclude, "excluded LUNs")?,
            read_only: params.read_only,
        })
    }

    fn wants(&self, lun: Lun) -> bool {
        self.luns.as_ref().is_none_or(|set| set.contains(lun))
            && !self.exclude.as_ref().is_some_and(|set| set.contains(lun))
    }
}

/// The two ends of a session's first channel; its others have the same.
struct Ends {
    local: LocalEnd,
    peer: Option<Gid>,
    initiator_port: PortId,
}

/// Logs in: SINGLE first, then MULTI as far as the target allows.
pub(crate) async fn log_in(
    ground: &Arc<Ground>,
    key: SessionKey,
    target: &TargetOptions,
    requests: &mpsc::UnboundedSender<Request>,
    take: impl Fn(Nexus) -> Result<(), Holder>,
) -> Result<Session, ErrorData> {
    let (address, source) = endpoints(target)?;
    let max_transfer = target
        .max_sect
        .map_or(MAX_TRANSFER, |sectors| sectors.saturating_mul(512));
    let wanted = target
        .ch_count
        .map_or(usize::MAX, |count| count as usize)
        .min(ground.reactors.count());
    let mut shared = SessionGround {
        key,
        address,
        source,
        retry_count: target.tl_retry_count.unwrap_or(RETRY_COUNT),
        queue_size: queue_size(target),
        exposure: target.exposure.unwrap_or_default(),
        fence: target.fence.unwrap_or_default(),
        max_transfer: max_transfer.clamp(4096, MAX_TRANSFER) & !4095,
        arena_len: arena_len(wanted),
        immediate_data: IMMEDIATE_DATA,
        domain: None,
    };
    let mut sequence = ChannelSequence::new(u16::try_from(wanted).unwrap_or(u16::MAX));
    let mut made: Vec<Channel> = Vec::new();
    let mut ends: Option<Ends> = None;
    while let Some(multichannel) = sequence.next() {
        let result = one_channel(
            ground,
            target,
            requests,
            &mut shared,
            multichannel,
            made.len(),
            &mut ends,
            &take,
        );
        match result.await {
            Ok(channel) => {
                made.push(channel);
                sequence.connected();
            }
            Err(error) if sequence.refused() => {
                tracing::warn!(
                    session = key.0,
                    channels = made.len(),
                    wanted,
                    reason = error.message,
                    "the target gave fewer channels than wanted"
                );
            }
            Err(error) => return Err(error),
        }
    }
    let Some(Ends {
        local,
        peer,
        initiator_port,
    }) = ends
    else {
        return Err(failure(ErrorKind::Internal, "a session without a channel"));
    };
    tracing::info!(
        session = key.0, target = %address, channels = made.len(), local = %local.device,
        initiator_port = acl_name(initiator_port), "logged in"
    );
    Ok(Session {
        ground: Arc::clone(ground),
        key,
        target: target.clone(),
        address,
        target_gids: names_of_port(&address, peer),
        local,
        initiator_port,
        wanted_channels: u16::try_from(wanted).unwrap_or(u16::MAX),
        channels: made,
        devices: BTreeMap::new(),
        others: BTreeMap::new(),
        detaching: Arc::new(Semaphore::new(AT_ONCE)),
        lost: None,
        max_transfer: shared.max_transfer,
        closing: None,
    })
}

#[allow(clippy::too_many_arguments)]
async fn one_channel(
    ground: &Ground,
    target: &TargetOptions,
    requests: &mpsc::UnboundedSender<Request>,
    shared: &mut SessionGround,
    multichannel: MultiChannel,
    index: usize,
    ends: &mut Option<Ends>,
    take: &impl Fn(Nexus) -> Result<(), Holder>,
) -> Result<Channel, ErrorData> {
    let address = shared.address;
    let unnamed = Login {
        initiator_port: "",
        source: None,
        address,
    };
    let resolved = channel::resolve(&ground.connections, &ground.devices, shared).await;
    let resolved = resolved.map_err(|error| setup_failure(&error, &unnamed))?;
    let initiator_port = match ends {
        Some(ends) => ends.initiator_port,
        None => {
            let initiator_port = take_nexus(target, &resolved.local, take)?;
            kernel_peer::check(target, &resolved.local)?;
            initiator_port
        }
    };
    let Ends { local, .. } = ends.insert(Ends {
        local: resolved.local.clone(),
        peer: resolved.peer,
        initiator_port,
    });
    let name = acl_name(initiator_port);
    let login = Login {
        initiator_port: &name,
        source: local.address.map(|address| address.ip()),
        address,
    };
    let parameters = LoginParameters {
        initiator_port,
        target_port: target.target_port(),
        descriptors: target.cmd_sg_entries.map_or(DESCRIPTORS, u16::from),
        max_it_iu_len: target.max_it_iu_size,
        immediate_data: shared.immediate_data,
    };
    let reactor = ground.reactors.get(index);
    let weak = requests.downgrade();
    let lost = move |reason| {
        if let Some(requests) = weak.upgrade() {
            let _ = requests.send(Request::ConnectionLost(reason));
        }
    };
    let channel = resolved
        .login(shared, &parameters, multichannel, &ground.reactors, reactor, lost)
        .await;
    let error = match channel {
        Ok(channel) => return Ok(channel),
        Err(error) => error,
    };
    // Older targets take IUs of about 2 KiB and refuse whoever asks for more.
    if error.iu_too_long() && shared.immediate_data > 0 && target.max_it_iu_size.is_none() {
        tracing::info!(target = %address, "the target takes short IUs only: no write carries its data in the command");
        shared.immediate_data = 0;
        return Box::pin(one_channel(
            ground,
            target,
            requests,
            shared,
            multichannel,
            index,
            ends,
            take,
        ))
        .await;
    }
    Err(setup_failure(&error, &login))
}

fn setup_failure(error: &ChannelSetupError, login: &Login<'_>) -> ErrorData {
    match error {
        ChannelSetupError::Connect(error) => login_failure(error, login),
        ChannelSetupError::Login(error) => unusable(error, login),
        ChannelSetupError::NoDevice(_) => failure(ErrorKind::Target, error.to_string())
            .remedy("check the route (`ip route get`) and the RDMA devices (`rdma link`)"),
        other => failure(ErrorKind::Host, chain(other)),
    }
}

/// Takes the nexus to log in with, and says what this side is called in it.
fn take_nexus(
    target: &TargetOptions,
    local: &LocalEnd,
    take: &impl Fn(Nexus) -> Result<(), Holder>,
) -> Result<PortId, ErrorData> {
    let mut target = target.clone();
    loop {
        let initiator_port = initiator_port(&target, local);
        let Err(holder) = take((initiator_port, target.target_port())) else {
            return Ok(initiator_port);
        };
        if let Some(extension) = further_path(&target, holder) {
            tracing::info!(
                other = holder.session.0,
                initiator_ext = format!("{extension:016x}"),
                "a further path to a target that has a session: it gets an initiator_ext of its own"
            );
            target.initiator_ext = Some(extension);
            continue;
        }
        let message = format!(
            "session {} is logged in between the same two ports already, or about to be",
            holder.session.0
        );
        return Err(failure(ErrorKind::Exists, message)
            .remedy("for a second path to the same target give it an initiator_ext of its own"));
    }
}

/// This side's port id: the port GUID of the HCA port, below the extension asked for.
fn initiator_port(target: &TargetOptions, local: &LocalEnd) -> PortId {
    let mut guid = [0; 8];
    guid.copy_from_slice(&local.port_gid.0[8..]);
    target.initiator_port(Guid(u64::from_be_bytes(guid)))
}

/// Bytes of data buffers per direction of each of so many channels, in whole requests of the largest size.
fn arena_len(channels: usize) -> u32 {
    let share = (BUFFERS / channels.max(1)).clamp(ARENA.0, ARENA.1);
    u32::try_from(share).unwrap_or(u32::MAX) / MAX_TRANSFER * MAX_TRANSFER
}

/// Commands per channel.
fn queue_size(target: &TargetOptions) -> u16 {
    let size = target.queue_size.unwrap_or(u32::from(QUEUE_SIZE));
    let size = target.target_can_queue.map_or(size, |most| size.min(most));
    u16::try_from(size).unwrap_or(u16::MAX).clamp(1, 4096)
}

/// Looks at the target's logical units and makes block devices of the disks that are wanted and not there yet.
pub(crate) async fn disks(session: &mut Session, wanted: &Wanted) -> Result<AttachReport, ErrorData> {
    let commands = match session.channels.first() {
        Some(channel) => SessionCommands {
            session: session.key,
            reactor: channel.reactor.clone(),
        },
        None => return Err(failure(ErrorKind::Internal, "the session has no channel")),
    };
    let mut luns = bringup::report_luns(&commands)
        .await
        .map_err(|error| bringup_failure(&error, session))?;
    // Targets list them in any order; device numbers follow the LUNs.
    luns.sort();
    let mut report = AttachReport {
        session: session.snapshot().session,
        devices: Vec::new(),
        skipped: Vec::new(),
        warnings: ignored(&wanted.target),
    };
    let mut there = Vec::new();
    for &lun in &luns {
        if lun.is_well_known() || !wanted.wants(lun) {
            continue;
        }
        if let Some(device) = session.devices.values().find(|device| device.lun() == lun) {
            there.push(format!("LUN {lun} is /dev/ublkb{}", device.number()));
            continue;
        }
        match one_disk(session, &commands, lun, wanted.read_only).await {
            Ok(device) => {
                session.others.remove(&lun);
                report.devices.push(device.info(session.key.0, "running"));
                session.devices.insert(device.number(), Arc::new(device));
            }
            Err(skipped) => {
                if skipped.failed {
                    tracing::error!(
                        session = session.key.0,
                        lun = skipped.lun,
                        reason = skipped.reason,
                        "LUN left out"
                    );
                }
                session.others.insert(lun, skipped.clone());
                report.skipped.push(skipped);
            }
        }
    }
    report.session = session.snapshot().session;
    if report.devices.is_empty() {
        return Err(nothing_attached(&report, &there, &luns));
    }
    Ok(report)
}

async fn one_disk(
    session: &Session,
    commands: &SessionCommands,
    lun: Lun,
    read_only: bool,
) -> Result<BlockDevice, SkippedLun> {
    let unit = bringup::probe(commands, lun).await.map_err(|error| SkippedLun {
        lun: lun.to_string(),
        kind: None,
        product: None,
        reason: chain(&error),
        failed: true,
    })?;
    let skipped = |reason: String, failed| SkippedLun {
        lun: lun.to_string(),
        kind: Some(unit.kind.to_string()),
        product: Some(format!("{} {}", unit.vendor, unit.product).trim().to_owned()),
        reason,
        failed,
    };
    let geometry = match &unit.disk {
        Ok(geometry) => *geometry,
        Err(reason) => return Err(skipped(reason.to_string(), false)),
    };
    BlockDevice::attach(session, unit.clone(), &geometry, read_only)
        .await
        .map_err(|error| skipped(error.message, true))
}

fn bringup_failure(error: &BringUpError, session: &Session) -> ErrorData {
    failure(
        ErrorKind::Target,
        format!(
            "{}: the logical units cannot be listed: {}",
            session.address,
            chain(error)
        ),
    )
}

fn ignored(target: &TargetOptions) -> Vec<String> {
    target
        .ignored_options()
        .iter()
        .map(|key| format!("option {key} has no effect here"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_shared_out_to_the_channels() {
        let mib = |channels| arena_len(channels) >> 20;
        assert_eq!([1, 2, 4, 8, 16, 32, 64, 512].map(mib), [16, 16, 16, 8, 4, 2, 2, 2]);
        assert_eq!(mib(7), 9, "whole requests of 1 MiB");
    }
}
