//! `ublk-srp attach`.

use std::io::{self, BufRead};
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use srp_initiator::scsi::LunSet;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::size::size;
use super::table::Table;
use super::target::TargetKeys;
use crate::rpc::client;
use crate::rpc::protocol::{AttachParams, AttachReport, ErrorKind, SkippedLun, method};

/// Log in to a target and make its disks block devices
#[derive(Args, Clone, Debug)]
#[command(arg_required_else_help = true)]
pub(super) struct Attach {
    /// The target, as a line of `discover -c`, ibsrpdm or srp_daemon (id_ext=...,ioc_guid=...,dest=... and so on);
    /// `-` reads such lines from standard input
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Only these LUNs, such as 0,3-7
    #[arg(long, value_name = "LUNS", visible_alias = "luns", value_parser = luns)]
    lun: Option<String>,
    /// Not these LUNs
    #[arg(long, value_name = "LUNS", value_parser = luns)]
    exclude: Option<String>,
    /// Refuse writes, whatever the target allows
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    keys: TargetKeys,
}

/// The text as it is, once it is known to be a set of LUNs.
fn luns(text: &str) -> Result<String, <LunSet as FromStr>::Err> {
    text.parse::<LunSet>().map(|_| text.to_owned())
}

impl Attach {
    pub(super) fn run(&self, socket: &Path, output: &mut Output) -> Result<(), Failure> {
        match self.target.as_deref() {
            Some("-") => self.lines(socket, io::stdin().lock(), output),
            None if !self.keys.any() => Err(Failure::new(ErrorKind::Usage, "no target is given")
                .remedy("give a line of `ublk-srp discover -c`, or --id-ext, --ioc-guid and --dest")),
            line => {
                let report = self.one(socket, line.unwrap_or_default())?;
                show(&report, output);
                Ok(())
            }
        }
    }

    /// Attaches every line, whatever becomes of the others.
    fn lines(&self, socket: &Path, input: impl BufRead, output: &mut Output) -> Result<(), Failure> {
        let mut seen = false;
        for (number, line) in (1..).zip(input.split(b'\n')) {
            let line =
                line.map_err(|error| Failure::of(ErrorKind::Internal, &error).about("cannot read standard input"))?;
            let Ok(line) = std::str::from_utf8(line.trim_ascii()) else {
                seen = true;
                output.failure(&Failure::new(
                    ErrorKind::Usage,
                    format!("line {number}: this is not text"),
                ));
                continue;
            };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            seen = true;
            match self.one(socket, line) {
                Ok(report) => show(&report, output),
                // Nor would the next line get further.
                Err(failure) if failure.exit == Exit::NotRunning => return Err(failure),
                Err(failure) => output.failure(&failure.about(&format!("line {number}"))),
            }
        }
        if seen {
            return Ok(());
        }
        Err(Failure::new(ErrorKind::NotFound, "standard input has no target in it")
            .remedy("see whether `ublk-srp discover` finds one"))
    }

    fn one(&self, socket: &Path, line: &str) -> Result<AttachReport, Failure> {
        let params = AttachParams {
            target: self.keys.complete(line)?,
            luns: self.lun.clone(),
            exclude: self.exclude.clone(),
            read_only: self.read_only,
        };
        Ok(client::call(socket, method::ATTACH, &params)?)
    }
}

fn show(report: &AttachReport, output: &mut Output) {
    output.result(report, || devices(report));
    for warning in &report.warnings {
        output.warning(warning);
    }
    for skipped in report.skipped.iter().filter(|skipped| !skipped.failed) {
        output.note(&left_out(skipped));
    }
    for skipped in report.skipped.iter().filter(|skipped| skipped.failed) {
        output.failure_text(&Failure::new(ErrorKind::Internal, left_out(skipped)));
    }
    if report.devices.is_empty() && report.skipped.is_empty() {
        output.note("the target has no LUN to attach");
    }
}

fn devices(report: &AttachReport) -> String {
    let mut table = Table::default();
    for device in &report.devices {
        let access = if device.read_only { "read-only" } else { "" };
        table.row([
            device.path.as_str(),
            &size(device.size),
            &format!("LUN {}", device.lun),
            &format!("{} {}", device.vendor, device.product),
            device.identifier.as_deref().unwrap_or_default(),
            access,
        ]);
    }
    table.text("")
}

fn left_out(skipped: &SkippedLun) -> String {
    let what: Vec<&str> = [&skipped.kind, &skipped.product]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let what = if what.is_empty() {
        String::new()
    } else {
        format!(" ({})", what.join(", "))
    };
    format!("LUN {}{what} is left out: {}", skipped.lun, skipped.reason)
}
