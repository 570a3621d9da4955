//! Attaching: looking at a target's logical units, making block devices of its disks.
//!
//! That takes as long as the units do to answer; the session hears of each when there is something to hear.

use std::collections::BTreeMap;

use srp_addressing::TargetOptions;
use srp_initiator::scsi::bringup::{self, BringUpError};
use srp_initiator::scsi::{Lun, LunSet};
use srp_verbs::cm::Address;
use tokio::sync::{mpsc, watch};

use super::attach_queue::Step;
use super::device::{BlockDevice, DeviceGround};
use super::execute::SessionCommands;
use super::failure::{chain, failure, nothing_attached};
use crate::rpc::protocol::{AttachParams, AttachReport, ErrorData, ErrorKind, SessionInfo, SkippedLun};

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

/// What one attach goes by.
pub(crate) struct Attach {
    pub(crate) ground: DeviceGround,
    pub(crate) commands: SessionCommands,
    pub(crate) address: Address,
    /// The session as it is now.
    pub(crate) session: SessionInfo,
    /// Numbers of the devices there are.
    pub(crate) there: BTreeMap<Lun, u32>,
    /// True when the session has come to its end.
    pub(crate) over: watch::Receiver<bool>,
}

impl Attach {
    /// Looks at the target's logical units and makes block devices of the disks that are wanted and not there yet.
    pub(super) async fn disks(
        self,
        wanted: Wanted,
        tell: mpsc::UnboundedSender<Step>,
    ) -> Result<AttachReport, ErrorData> {
        let mut luns = bringup::report_luns(&self.commands)
            .await
            .map_err(|error| bringup_failure(&error, &self.address))?;
        // Targets list them in any order; device numbers follow the LUNs.
        luns.sort();
        let id = self.session.id;
        let mut report = AttachReport {
            session: self.session.clone(),
            devices: Vec::new(),
            skipped: Vec::new(),
            warnings: ignored(&wanted.target),
        };
        let mut there = Vec::new();
        for &lun in &luns {
            if lun.is_well_known() || !wanted.wants(lun) {
                continue;
            }
            if let Some(number) = self.there.get(&lun) {
                there.push(format!("LUN {lun} is /dev/ublkb{number}"));
                continue;
            }
            match self.one_disk(lun, wanted.read_only).await {
                Ok(device) => {
                    report.devices.push(device.info(id, "running"));
                    let _ = tell.send(Step::Attached(device));
                }
                Err(skipped) => {
                    if skipped.failed {
                        tracing::error!(session = id, lun = skipped.lun, reason = skipped.reason, "LUN left out");
                    }
                    let _ = tell.send(Step::LeftOut(lun, skipped.clone()));
                    report.skipped.push(skipped);
                }
            }
        }
        if report.devices.is_empty() {
            return Err(nothing_attached(&report, &there, &luns));
        }
        Ok(report)
    }

    async fn one_disk(&self, lun: Lun, read_only: bool) -> Result<BlockDevice, SkippedLun> {
        let unseen = |reason: String| SkippedLun {
            lun: lun.to_string(),
            kind: None,
            product: None,
            reason,
            failed: true,
        };
        if self.ground.daemon.is_ending() {
            return Err(unseen("the daemon has been told to end".to_owned()));
        }
        if *self.over.borrow() {
            return Err(unseen("the session was lost meanwhile".to_owned()));
        }
        let unit = bringup::probe(&self.commands, lun).await;
        let unit = unit.map_err(|error| unseen(chain(&error)))?;
        let skipped = |reason: String, failed| SkippedLun {
            kind: Some(unit.kind.to_string()),
            product: Some(format!("{} {}", unit.vendor, unit.product).trim().to_owned()),
            failed,
            ..unseen(reason)
        };
        let geometry = match &unit.disk {
            Ok(geometry) => *geometry,
            Err(reason) => return Err(skipped(reason.to_string(), false)),
        };
        BlockDevice::attach(&self.ground, unit.clone(), &geometry, read_only)
            .await
            .map_err(|error| skipped(error.message, true))
    }
}

fn bringup_failure(error: &BringUpError, address: &Address) -> ErrorData {
    let message = format!("{address}: the logical units cannot be listed: {}", chain(error));
    failure(ErrorKind::Target, message)
}

fn ignored(target: &TargetOptions) -> Vec<String> {
    target
        .ignored_options()
        .iter()
        .map(|key| format!("option {key} has no effect here"))
        .collect()
}
