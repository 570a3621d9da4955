//! The channels of a session: made at login, lost one by one, made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use srp_addressing::{Gid, Guid, PortId, TargetOptions};
use srp_initiator::session::{ChannelSequence, LoginParameters, SessionKey};
use srp_initiator::wire::login::MultiChannel;
use tokio::sync::{Semaphore, mpsc, watch};

use super::Ground;
use super::attach_queue::AttachQueue;
use super::channel::Channel;
use super::detach::AT_ONCE;
use super::early_events::EarlyEvents;
use super::endpoints::endpoints;
use super::failure::{Login, chain, failure, login_failure, unusable};
use super::kernel_peer;
use super::liveness::names_of_port;
use super::login::{self, Accepted, ChannelSetupError, LocalEnd, SessionGround};
use super::nexus::{Holder, Nexus, further_path};
use super::reactors::Reactor;
use super::session::{Request, Session};
use super::snapshot::acl_name;
use crate::backend::{Message, Sibling};
use crate::rpc::protocol::{ErrorData, ErrorKind};

/// Commands per channel when the target text does not say.
const QUEUE_SIZE: u16 = 127;
/// Bytes of the largest request when neither the target text nor the unit says less.
const MAX_TRANSFER: u32 = 1 << 20;
/// Channels of a session at least, where the target allows. Soft-RoCE, HCAs with several engines and targets serve queue
/// pairs side by side, and each of them in order. ib_srp makes as many for each NUMA node, but one for a core at most.
const CHANNELS: usize = 4;
/// Channels of a session for each reactor at most, whatever is asked for: each pins memory.
const MOST_EACH: usize = REACTOR_BUFFERS / LEAST_BUFFERS;
/// Bytes of data buffers per session and direction, shared out to its channels: they are pinned, and a host with many
/// cores has as many channels.
const BUFFERS: usize = 64 << 20;
/// Most of them for the channels of one reactor.
const REACTOR_BUFFERS: usize = 16 << 20;
/// Least of them for a channel.
const LEAST_BUFFERS: usize = 2 * MAX_TRANSFER as usize;
/// Transport retries. Not the most there are: soft-RoCE takes 7 as "for ever" and never reports a dead path.
const RETRY_COUNT: u8 = 6;
/// Bytes of the largest write whose data is sent within its command, where the target takes that; ib_srp has the same.
const IMMEDIATE_DATA: u32 = 8192;
/// Descriptors a command IU is asked to have room for.
const DESCRIPTORS: u16 = 12;

/// The two ends of a session's first channel; its others have the same.
struct Ends {
    local: LocalEnd,
    peer: Option<Gid>,
    parameters: LoginParameters,
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
    let reactors = ground.reactors.count();
    let wanted = wanted_channels(target.ch_count, reactors);
    let mut shared = SessionGround {
        key,
        address,
        source,
        retry_count: target.tl_retry_count.unwrap_or(RETRY_COUNT),
        queue_size: queue_size(target),
        exposure: target.exposure.unwrap_or_default(),
        fence: target.fence.unwrap_or_default(),
        max_transfer: max_transfer.clamp(4096, MAX_TRANSFER) & !4095,
        descriptors: target.cmd_sg_entries.map_or(DESCRIPTORS, u16::from),
        arena_len: arena_len(wanted, reactors),
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
        parameters,
    }) = ends
    else {
        return Err(failure(ErrorKind::Internal, "a session without a channel"));
    };
    let initiator_port = parameters.initiator_port;
    tracing::info!(
        session = key.0, target = %address, channels = made.len(), local = %local.device,
        initiator_port = acl_name(initiator_port), "logged in"
    );
    let session = Session {
        ground: Arc::clone(ground),
        key,
        target: target.clone(),
        address,
        target_gids: names_of_port(&address, peer),
        local,
        initiator_port,
        wanted_channels: u16::try_from(wanted).unwrap_or(u16::MAX),
        owners: made
            .iter()
            .take(reactors)
            .map(|channel| channel.reactor.clone())
            .collect(),
        granted_channels: made.len(),
        making: Vec::new(),
        early: EarlyEvents::default(),
        channels: made,
        shared,
        parameters,
        requests: requests.downgrade(),
        over: watch::Sender::new(false),
        devices: BTreeMap::new(),
        others: BTreeMap::new(),
        attaches: AttachQueue::new(),
        detaching: Arc::new(Semaphore::new(AT_ONCE)),
        lost: None,
    };
    session.introduce();
    Ok(session)
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
    let resolved = login::resolve(&ground.connections, &ground.devices, shared).await;
    let resolved = resolved.map_err(|error| setup_failure(&error, &unnamed))?;
    let initiator_port = match ends {
        Some(ends) => ends.parameters.initiator_port,
        None => {
            let initiator_port = take_nexus(target, &resolved.local, take)?;
            kernel_peer::check(target, &resolved.local)?;
            initiator_port
        }
    };
    let local = resolved.local.clone();
    let name = acl_name(initiator_port);
    let login = Login {
        initiator_port: &name,
        source: local.address.map(|address| address.ip()),
        address,
    };
    let parameters = LoginParameters {
        initiator_port,
        target_port: target.target_port(),
        descriptors: shared.descriptors,
        max_it_iu_len: target.max_it_iu_size,
        immediate_data: shared.immediate_data,
    };
    *ends = Some(Ends {
        local: local.clone(),
        peer: resolved.peer,
        parameters: parameters.clone(),
    });
    let reactor = ground.reactors.get(index);
    let accepted = resolved.connect(shared, &parameters, multichannel, &ground.reactors, reactor);
    let error = match accepted.await {
        Ok(accepted) => match serve(accepted, ground, shared, requests.downgrade()).await {
            Ok(channel) => return Ok(channel),
            Err(error) => error,
        },
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

/// Brings a channel into service. What ends its connection goes to the session.
pub(super) async fn serve(
    accepted: Accepted,
    ground: &Ground,
    shared: &SessionGround,
    requests: mpsc::WeakUnboundedSender<Request>,
) -> Result<Channel, ChannelSetupError> {
    let serial = ground.next_key();
    let lost = move |reason| {
        if let Some(requests) = requests.upgrade() {
            let _ = requests.send(Request::ConnectionLost { serial, reason });
        }
    };
    accepted.serve(shared, serial, lost).await
}

impl Session {
    /// The channels in service.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().filter(|channel| !channel.failed)
    }

    /// How many channels of it a reactor had when it logged in.
    pub(super) fn wanted_on(&self, reactor: usize) -> usize {
        let place = self.owners.iter().position(|owner| owner.index == reactor);
        place.map_or(0, |place| {
            (place..self.granted_channels).step_by(self.owners.len()).len()
        })
    }

    /// Tells each reactor which others have a channel.
    pub(crate) fn introduce(&self) {
        if self.owners.len() < 2 {
            return;
        }
        let live: Vec<Sibling> = match self.lost {
            None => self
                .owners
                .iter()
                .filter(|owner| self.live().any(|channel| channel.reactor.index == owner.index))
                .map(Reactor::sibling)
                .collect(),
            Some(_) => Vec::new(),
        };
        for (place, owner) in self.owners.iter().enumerate() {
            let others = live.iter().filter(|other| other.index != owner.index);
            let mut others: Vec<Sibling> = others.cloned().collect();
            // Not all to the same one.
            let turn = place % others.len().max(1);
            others.rotate_left(turn);
            owner.send(Message::Siblings(self.key, owner.sibling(), others));
        }
    }

    /// A channel is out of service; with the last one the session is.
    pub(super) fn channel_failed(&mut self, which: impl Fn(&Channel) -> bool, reason: &str) {
        let Some(channel) = self
            .channels
            .iter_mut()
            .find(|channel| !channel.failed && which(channel))
        else {
            return;
        };
        channel.failed = true;
        channel.expect_flush();
        let reactor = channel.reactor.index;
        let left = self.live().count();
        // Closing a session ends its channels as well; only what was not asked for is a loss.
        if self.lost.is_some() || !self.is_wanted() {
            return;
        }
        if left == 0 {
            return self.lose(reason);
        }
        tracing::warn!(
            session = self.key.0, reactor, reason, left, target = %self.address,
            "channel lost: the others carry on"
        );
        self.introduce();
    }
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

/// Channels that a session of so many reactors asks for; with `ch_count` as many as that says.
fn wanted_channels(ch_count: Option<u32>, reactors: usize) -> usize {
    let each = CHANNELS.div_ceil(reactors.max(1));
    let asked = ch_count.map_or(reactors * each, |count| count as usize);
    let most = reactors * MOST_EACH;
    if asked > most {
        tracing::warn!(
            asked,
            most,
            "ch_count: that many channels are of no use, so fewer are made"
        );
    }
    asked.min(most)
}

/// Bytes of data buffers per direction of each of so many channels, in whole requests of the largest size. They are those that
/// are asked for: what a target gives shows only when the first has its buffers.
fn arena_len(channels: usize, reactors: usize) -> u32 {
    let of_reactor = REACTOR_BUFFERS / channels.div_ceil(reactors.max(1)).max(1);
    let share = (BUFFERS / channels.max(1)).min(of_reactor).max(LEAST_BUFFERS);
    u32::try_from(share).unwrap_or(u32::MAX) / MAX_TRANSFER * MAX_TRANSFER
}

/// Commands per channel.
fn queue_size(target: &TargetOptions) -> u16 {
    let size = target.queue_size.unwrap_or(u32::from(QUEUE_SIZE));
    let size = target.target_can_queue.map_or(size, |most| size.min(most));
    u16::try_from(size).unwrap_or(u16::MAX).clamp(1, 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_shared_out_to_the_channels() {
        let mib = |channels| arena_len(channels, channels) >> 20;
        assert_eq!([1, 2, 4, 8, 16, 32, 64, 512].map(mib), [16, 16, 16, 8, 4, 2, 2, 2]);
        assert_eq!(mib(7), 9, "whole requests of 1 MiB");
        let mib = |(channels, reactors)| arena_len(channels, reactors) >> 20;
        assert_eq!(
            [(1, 2), (4, 1), (4, 2), (6, 3), (3, 2), (64, 1)].map(mib),
            [16, 4, 8, 8, 8, 2]
        );
    }

    #[test]
    fn each_reactor_has_as_many_channels_as_make_four() {
        let wanted = |reactors| wanted_channels(None, reactors);
        assert_eq!([1, 2, 3, 4, 5, 64].map(wanted), [4, 4, 6, 4, 5, 64]);
        let asked = |(count, reactors)| wanted_channels(Some(count), reactors);
        assert_eq!([(1, 4), (8, 2), (3, 2), (u32::MAX, 2)].map(asked), [1, 8, 3, 16]);
    }
}
