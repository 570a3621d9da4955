//! Attaching: looking at a target's logical units, making block devices of its disks.

use std::sync::Arc;

use srp_addressing::TargetOptions;
use srp_initiator::scsi::bringup::{self, BringUpError};
use srp_initiator::scsi::{Lun, LunSet};

use super::device::BlockDevice;
use super::execute::SessionCommands;
use super::failure::{chain, failure, nothing_attached};
use super::session::Session;
use crate::rpc::protocol::{AttachParams, AttachReport, ErrorData, ErrorKind, SkippedLun};

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

/// Looks at the target's logical units and makes block devices of the disks that are wanted and not there yet.
pub(crate) async fn disks(session: &mut Session, wanted: &Wanted) -> Result<AttachReport, ErrorData> {
    let commands = match session.live().next() {
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
