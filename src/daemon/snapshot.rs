//! A session as others see it.

use srp_addressing::{Gid, PortId};
use srp_initiator::fabric::QueuePairId;
use srp_initiator::scsi::Lun;

use super::channel::Channel;
use super::failure::failure;
use super::liveness::Subject;
use super::reactors::Reactor;
use super::session::Session;
use crate::backend::Message;
use crate::rpc::protocol::{ChannelInfo, DeviceDetail, DeviceInfo, ErrorData, ErrorKind, SessionInfo};

/// A session as listings show it.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) session: SessionInfo,
    pub(crate) devices: Vec<DeviceInfo>,
    /// What the fabric may call the target's port.
    pub(crate) target_gids: Vec<Gid>,
    /// What a probe of it asks.
    pub(crate) subject: Subject,
}

impl Session {
    /// The figures of `list`.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = if self.lost.is_some() { "lost" } else { "running" };
        Snapshot {
            session: SessionInfo {
                id: self.key.0,
                target: self.target.to_string(),
                address: self.address.to_string(),
                local: format!("{}/{}", self.local.device, self.local.port),
                initiator_port: acl_name(self.initiator_port),
                state: state.to_owned(),
                reason: self.lost.clone(),
                channels: u16::try_from(self.live().count()).unwrap_or(u16::MAX),
                channels_wanted: self.wanted_channels,
                request_limit: self.live().next().map_or(0, |channel| channel.granted.request_limit),
                others: self.others.values().cloned().collect(),
            },
            devices: self
                .devices
                .values()
                .map(|device| device.info(self.key.0, state))
                .collect(),
            target_gids: self.target_gids.clone(),
            subject: Subject {
                session: self.key,
                lun: self
                    .devices
                    .values()
                    .next()
                    .map_or(Lun::default(), |device| device.lun()),
                channels: self.places(),
                counters: self.devices.values().map(|device| device.counters()).collect(),
            },
        }
    }

    /// Where its channels are.
    pub(super) fn places(&self) -> Vec<(Reactor, QueuePairId)> {
        let place = |channel: &Channel| (channel.reactor.clone(), channel.qp);
        self.live().map(place).collect()
    }

    /// The page of `show`.
    pub(super) async fn show(&self, number: u32) -> Result<DeviceDetail, ErrorData> {
        let device = self
            .devices
            .get(&number)
            .ok_or_else(|| failure(ErrorKind::NotFound, format!("there is no /dev/ublkb{number}")))?;
        let mut channels = Vec::new();
        for channel in &self.channels {
            let state = channel
                .reactor
                .ask(|reply| Message::ChannelState(channel.qp, reply))
                .await
                .ok()
                .flatten();
            if let Some(state) = state {
                channels.push(ChannelInfo {
                    reactor: u32::try_from(channel.reactor.index).unwrap_or(u32::MAX),
                    credits: state.credits,
                    in_flight: state.commands,
                    zero_credit: state.zero_credit,
                    buffer_bytes: state.bytes_in_use,
                    in_pieces: state.in_pieces,
                    aborts: state.aborts,
                    resets: state.resets,
                });
            }
        }
        let session = self.snapshot().session;
        let state = session.state.clone();
        Ok(device.detail(session, &state, channels))
    }
}

/// The initiator port id as LIO's ACLs name it.
pub(crate) fn acl_name(port: PortId) -> String {
    let digits: String = port.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}
