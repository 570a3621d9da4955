//! `ublk-srp detach`.

use std::path::Path;

use clap::Args;

use super::device::DeviceNumber;
use super::failure::Failure;
use super::holders;
use super::output::Output;
use crate::rpc::client;
use crate::rpc::protocol::{DetachParams, DetachReport, ErrorKind, method};

/// End block devices; a session ends with its last one
#[derive(Args, Clone, Debug)]
pub(super) struct Detach {
    /// What to detach: N, ublkbN or /dev/ublkbN
    #[arg(value_name = "DEVICE", required_unless_present = "all", conflicts_with = "all")]
    devices: Vec<DeviceNumber>,
    /// Every device of the daemon
    #[arg(long)]
    all: bool,
    /// Also when it is in use, or cannot be flushed: what was not written is lost
    #[arg(long)]
    force: bool,
}

impl Detach {
    pub(super) fn run(&self, socket: &Path, output: &mut Output) -> Result<(), Failure> {
        let mut devices: Vec<u32> = Vec::new();
        for DeviceNumber(number) in &self.devices {
            if !devices.contains(number) {
                devices.push(*number);
            }
        }
        let params = DetachParams {
            devices,
            all: self.all,
            force: self.force,
        };
        let mut report: DetachReport = client::call(socket, method::DETACH, &params)?;
        // The daemon does not look through other processes; this program has the time.
        for device in &mut report.devices {
            if let Some(error) = device
                .error
                .as_mut()
                .filter(|e| e.kind == ErrorKind::Busy && e.holders.is_empty())
            {
                error.holders = holders::of(device.number);
            }
        }
        output.result(&report, || detached(&report));
        if report.devices.is_empty() {
            output.note("nothing is attached");
        }
        for device in &report.devices {
            for note in &device.notes {
                output.warning(&format!("/dev/ublkb{}: {note}", device.number));
            }
            if let Some(error) = &device.error {
                output.failure_text(&about_device(device.number, error.clone().into()));
            } else if !device.detached {
                let text = "is still there, and the daemon does not say why";
                output.failure_text(&about_device(device.number, Failure::new(ErrorKind::Internal, text)));
            }
        }
        Ok(())
    }
}

fn about_device(number: u32, failure: Failure) -> Failure {
    let path = format!("/dev/ublkb{number}");
    if failure.mentions(&path) {
        failure
    } else {
        failure.about(&path)
    }
}

fn detached(report: &DetachReport) -> String {
    let gone = report.devices.iter().filter(|device| device.detached);
    gone.map(|device| format!("/dev/ublkb{} is detached\n", device.number))
        .collect()
}
