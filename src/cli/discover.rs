//! `ublk-srp discover`.

use std::num::NonZeroU16;

use clap::Args;
use srp_discovery::listing::{LineError, LineOptions, ListingOptions, add_target_line, io_unit};
use srp_discovery::scan::{
    Cause, Destination, PortSelector, ScanError, ScanOptions, ScanReport, Severity, SubnetError, discover,
};

use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use crate::rpc::protocol::ErrorKind;

/// Find SRP targets, as ibsrpdm does
#[derive(Args, Clone, Debug)]
pub(super) struct Discover {
    /// Whom to ask: IP addresses (RoCE) or GIDs; without any, all that the subnet manager knows, and on RoCE this host
    /// and the neighbours it knows
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Destination>,
    /// Look through this RDMA device or port only, such as rxe0 or rxe0:1
    #[arg(short = 'i', long, value_name = "DEVICE[:PORT]", value_parser = selector)]
    device: Vec<PortSelector>,
    /// Look through the port of this umad device only, such as /dev/infiniband/umad0
    #[arg(short = 'd', long = "umad", value_name = "UMAD", value_parser = selector)]
    umad: Vec<PortSelector>,
    /// Print lines for `attach` (and for ib_srp's add_target)
    #[arg(short = 'c', long = "lines", conflicts_with = "json")]
    lines: bool,
    /// Where the targets take RDMA/CM logins; RoCE lines need it, and nothing announces it
    #[arg(long, value_name = "PORT")]
    rdma_cm_port: Option<NonZeroU16>,
    /// Also tell of neighbours that do not answer, and of empty slots
    #[arg(short = 'v', long)]
    verbose: bool,
}

fn selector(text: &str) -> Result<PortSelector, String> {
    if text.is_empty() {
        Err("a name is needed".to_owned())
    } else {
        Ok(PortSelector::from(text))
    }
}

impl Discover {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let options = ScanOptions {
            ports: self.device.iter().chain(&self.umad).cloned().collect(),
            destinations: self.addresses.clone(),
            rdma_cm_port: self.rdma_cm_port,
            ..ScanOptions::default()
        };
        let report = discover(&options, &mut |_| {}).map_err(|error| scan_failure(&error))?;
        if self.lines {
            self.print_lines(&report, output);
        } else {
            output.result(&report, || self.listing(&report));
        }
        for problem in &report.problems {
            match problem.severity {
                Severity::Error => output.failure_text(&Failure::new(kind(&problem.cause), problem.to_string())),
                Severity::Warning => output.warning(&problem.to_string()),
                Severity::Note if self.verbose => output.note(&problem.to_string()),
                Severity::Note => {}
            }
        }
        if report.targets.is_empty() {
            output.note("no SRP target was found");
        }
        Ok(())
    }

    fn print_lines(&self, report: &ScanReport, output: &mut Output) {
        for target in &report.targets {
            match add_target_line(target, &LineOptions::default()) {
                Ok(line) => output.text(&format!("{}\n", printable(&line))),
                Err(error) => output.failure_text(&line_failure(&error)),
            }
        }
    }

    fn listing(&self, report: &ScanReport) -> String {
        let options = ListingOptions { slots: self.verbose };
        report
            .units
            .iter()
            .map(|found| io_unit(&found.unit, found.rdma_cm.as_ref(), options))
            .collect()
    }
}

fn scan_failure(error: &ScanError) -> Failure {
    let kind = match error {
        ScanError::NoSuchPort { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Host,
    };
    Failure::of(kind, error)
}

fn line_failure(error: &LineError) -> Failure {
    let kind = match error {
        LineError::NoRdmaCmPort { .. } => ErrorKind::Usage,
        _ => ErrorKind::Internal,
    };
    Failure::of(kind, error)
}

fn kind(cause: &Cause) -> ErrorKind {
    match cause {
        Cause::Open(_)
        | Cause::Transport(_)
        | Cause::Neighbours(_)
        | Cause::LinkLayer
        | Cause::Subnet(SubnetError::NoManager | SubnetError::NotAGid) => ErrorKind::Host,
        _ => ErrorKind::Target,
    }
}
