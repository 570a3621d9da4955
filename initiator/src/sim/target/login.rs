//! Admission, in the order LIO's ib_srpt checks.

use std::collections::VecDeque;

use super::{Backlog, Credit, Target, TargetChannel};
use crate::fabric::QueuePairId;
use crate::wire::login::{FORMAT_DIRECT, FORMAT_INDIRECT};
use crate::wire::{LoginReject, LoginRejectReason, LoginRequest, LoginResponse, MultiChannel, MultiChannelResult};

impl Target {
    /// Admits a queue pair, or says why not; with it come the channels this login ends.
    pub(in crate::sim) fn login(
        &mut self,
        qp: QueuePairId,
        private_data: &[u8],
    ) -> Result<(LoginResponse, Vec<QueuePairId>), LoginReject> {
        let reject = |tag, reason| Err(LoginReject { tag, reason });
        let Ok(request) = LoginRequest::parse(private_data) else {
            return reject(0, LoginRejectReason::UnableToEstablish);
        };
        let lengths = 64..=self.profile.max_request_len;
        if !lengths.contains(&request.max_it_iu_len) {
            return reject(request.tag, LoginRejectReason::IuTooLong);
        }
        if !self.profile.enabled {
            return reject(request.tag, LoginRejectReason::InsufficientResources);
        }
        if request.target_port != self.profile.port {
            return reject(request.tag, LoginRejectReason::NoNexus);
        }
        let admitted = |list: &Vec<_>| list.contains(&request.initiator_port);
        if !self.profile.initiators.as_ref().is_none_or(admitted) {
            return reject(request.tag, LoginRejectReason::ChannelLimit);
        }
        let siblings: Vec<QueuePairId> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.alive && channel.initiator == request.initiator_port)
            .map(|(qp, _)| *qp)
            .collect();
        let multi = request.multichannel == MultiChannel::Multi;
        if multi && !self.profile.multichannel {
            return reject(request.tag, LoginRejectReason::MultiChannelUnsupported);
        }
        let result = match (multi, siblings.is_empty()) {
            (true, _) => MultiChannelResult::Maintained,
            (false, true) => MultiChannelResult::NoneExisted,
            (false, false) => MultiChannelResult::Terminated,
        };
        let ended = if multi { Vec::new() } else { siblings };
        for old in &ended {
            if let Some(channel) = self.channels.get_mut(old) {
                channel.alive = false;
            }
        }
        let attention = if self.profile.attention_at_login {
            self.disks.keys().copied().collect()
        } else {
            Default::default()
        };
        let immediate = self.profile.immediate_data && request.immediate_data_offset.is_some_and(|offset| offset >= 48);
        let channel = TargetChannel {
            initiator: request.initiator_port,
            alive: true,
            immediate,
            max_request_len: request.max_it_iu_len,
            credit: Credit::new(self.profile.request_limit),
            outstanding: 0,
            attention,
            event: None,
            old_tags: VecDeque::new(),
            backlog: Backlog::default(),
            answered: Default::default(),
        };
        self.channels.insert(qp, channel);
        let response = LoginResponse {
            tag: request.tag,
            request_limit_delta: self.profile.request_limit,
            max_it_iu_len: self.profile.max_request_len,
            max_ti_iu_len: self.profile.max_response_len,
            buffer_formats: FORMAT_DIRECT | FORMAT_INDIRECT,
            multichannel: result,
            immediate_data: immediate,
        };
        Ok((response, ended))
    }
}
