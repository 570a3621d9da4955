//! `ublk-srp discover`.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use srp_discovery::listing::{LineError, LineOptions, ListingOptions, Logins, add_target_line, io_unit};
use srp_discovery::ports::{self, LinkLayer, Port, Roots};
use srp_discovery::rules::{Rules, RulesError, Verdict};
use srp_discovery::scan::{
    Cause, Destination, PortSelector, Problem, ScanError, ScanOptions, ScanReport, Severity, SubnetError, discover,
};

use super::configuration;
use super::failure::Failure;
use super::kernel_peer;
use super::known;
use super::meter::Meter;
use super::output::Output;
use super::printable::printable;
use super::probed::{Probed, probe_all};
use super::selection;
use crate::rpc::protocol::ErrorKind;

/// Find SRP targets, as ibsrpdm does
#[derive(Args, Clone, Debug)]
pub(super) struct Discover {
    /// Whom to ask: IP addresses (RoCE) or GIDs; without any, all that the subnet manager knows, and on RoCE this host
    /// and the neighbours it knows
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Destination>,
    /// Look through this RDMA device or port only, such as rxe0 or rxe0:1
    #[arg(short = 'i', long, value_name = "DEVICE[:PORT]", value_parser = selection::device)]
    device: Vec<PortSelector>,
    /// Look through the port of this umad device only, such as /dev/infiniband/umad0
    #[arg(short = 'd', long = "umad", value_name = "UMAD", value_parser = selection::umad)]
    umad: Vec<PortSelector>,
    /// Print lines for `attach` (and for ib_srp's add_target)
    #[arg(short = 'c', long = "lines", conflicts_with = "json")]
    lines: bool,
    /// Where the targets take RDMA/CM logins; RoCE lines need it, and nothing announces it [default: what the
    /// configuration says]
    #[arg(long, value_name = "PORT")]
    rdma_cm_port: Option<NonZeroU16>,
    /// Try at --rdma-cm-port whether a target takes logins there; the login tried is one that is refused in any case
    #[arg(long)]
    probe: bool,
    /// With -c: leave out what the rules of this file disallow, and add the options they give, as srp_daemon does with
    /// /etc/srp_daemon.conf [default: the file that discovery.rules of the configuration names]
    #[arg(short = 'f', long = "rules", value_name = "FILE", requires = "lines")]
    rules: Option<PathBuf>,
    /// How long to wait for an answer, in milliseconds [default: 2000 on InfiniBand, 1000 on RoCE]
    #[arg(short = 't', long, value_name = "MS")]
    timeout: Option<NonZeroU32>,
    /// How often to ask again after that [default: 3 on InfiniBand, 2 on RoCE]
    #[arg(short = 'r', long, value_name = "N")]
    retries: Option<u32>,
    /// Ask nobody: show what the daemon knows that watches the InfiniBand ports (`daemon --watch`)
    #[arg(
        long,
        conflicts_with_all = ["addresses", "device", "umad", "rdma_cm_port", "probe", "timeout", "retries", "verbose"]
    )]
    known: bool,
    /// Also tell of neighbours that do not answer, and of empty slots
    #[arg(short = 'v', long)]
    verbose: bool,
}

/// What is said when nobody was found, and nothing else is to blame.
const fn nothing_found(infiniband: bool) -> &'static str {
    if infiniband {
        // Naming a port tells whether this is why.
        "no SRP target was found (on InfiniBand only ports that share a partition with this host's show; give a GID to \
         have that port looked into)"
    } else {
        "no SRP target was found (on RoCE this host and the neighbours it knows are asked; give the address of a target \
         to have it looked into, -v tells who does not answer)"
    }
}

impl Discover {
    pub(super) fn run(&self, socket: &Path, config: Option<&Path>, output: &mut Output) -> Result<(), Failure> {
        let wanted = self.wanted(config)?;
        if self.known {
            return known::run(socket, wanted.as_ref(), output);
        }
        let rdma_cm_port = match self.rdma_cm_port {
            Some(port) => Some(port),
            None => configuration::read(config)?.discovery.rdma_cm_port,
        };
        if self.probe && rdma_cm_port.is_none() {
            return Err(
                Failure::new(ErrorKind::Usage, "--probe needs to know where targets take logins")
                    .remedy("give --rdma-cm-port PORT, or set discovery.rdma_cm_port in the configuration"),
            );
        }
        let ports = ports::list(&Roots::default()).unwrap_or_default();
        let mut options = ScanOptions {
            ports: selection::selectors(&self.device, &self.umad, &ports)?,
            destinations: self.addresses.clone(),
            rdma_cm_port,
            ..ScanOptions::default()
        };
        for patience in [&mut options.patience, &mut options.subnet_patience] {
            let timeout = self.timeout.map(|ms| Duration::from_millis(ms.get().into()));
            patience.timeout = timeout.unwrap_or(patience.timeout);
            patience.retries = self.retries.unwrap_or(patience.retries);
        }
        let mut meter = Meter::new(output);
        let report = discover(&options, &mut |progress| meter.show(progress)).map_err(|error| scan_failure(&error));
        meter.clear();
        let report = report?;
        let probes = if self.probe { Some(probe_all(&report)) } else { None };
        if let Some(wanted) = &wanted {
            print_lines(&report, wanted, output);
        } else {
            let probes = probes.as_deref();
            output.result(
                &Found {
                    report: &report,
                    probes,
                },
                || self.listing(&report),
            );
        }
        for problem in &report.problems {
            match problem.severity {
                Severity::Error => output.failure_text(&Failure::new(kind(&problem.cause), problem.to_string())),
                Severity::Warning => output.warning(&problem.to_string()),
                Severity::Note if self.verbose => output.note(&problem.to_string()),
                Severity::Note => {}
            }
        }
        for probed in probes.iter().flatten() {
            probed.tell(output);
        }
        let failed = |problem: &Problem| problem.severity == Severity::Error;
        if report.targets.is_empty() && !report.problems.iter().any(failed) {
            let infiniband = |port: &Port| port.link_layer == LinkLayer::InfiniBand;
            output.note(nothing_found(ports.iter().any(infiniband)));
        }
        Ok(())
    }

    /// What lines are printed by; nothing where none are.
    fn wanted(&self, config: Option<&Path>) -> Result<Option<Wanted>, Failure> {
        if !self.lines {
            return Ok(None);
        }
        let configured = match self.rules {
            None => configuration::read(config)?.discovery.rules,
            Some(_) => None,
        };
        let rules = self
            .rules
            .as_ref()
            .or(configured.as_ref())
            .map(|file| Rules::read(file));
        let rules = rules.transpose().map_err(|error| rules_failure(&error))?;
        Ok(Some(Wanted {
            rules: rules.unwrap_or_default(),
            configured,
        }))
    }

    fn listing(&self, report: &ScanReport) -> String {
        let options = ListingOptions {
            slots: self.verbose,
            ..ListingOptions::default()
        };
        report
            .units
            .iter()
            .map(|found| io_unit(&found.unit, Logins::of(found), options))
            .collect()
    }
}

/// Which targets are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) rules: Rules,
    /// The file of the rules, where nobody named it on the command line.
    configured: Option<PathBuf>,
}

impl Wanted {
    /// Says that rules which nobody has mentioned have left targets out.
    pub(super) fn tell(&self, left_out: usize, output: &mut Output) {
        if let Some(file) = self.configured.as_ref().filter(|_| left_out > 0) {
            let file = file.display();
            output.note(&format!(
                "targets left out by the rules of {file}, which the configuration names: {left_out} (-f /dev/null prints all)"
            ));
        }
    }
}

fn print_lines(report: &ScanReport, wanted: &Wanted, output: &mut Output) {
    let rules = &wanted.rules;
    // ib_srp may be meant, for which some targets need to be told its limit.
    for line in lines(report, rules, kernel_peer::max_immediate_data()) {
        match line {
            Ok(line) => output.text(&format!("{}\n", printable(&line))),
            Err(error) => output.failure_text(&line_failure(&error)),
        }
    }
    let disallowed = report
        .targets
        .iter()
        .filter(|target| rules.verdict(target) == Verdict::Disallow);
    wanted.tell(disallowed.count(), output);
}

/// Each line once: two ports of this host in one fabric see the same targets, and the second line of two could not be
/// attached.
fn lines(report: &ScanReport, rules: &Rules, max_imm_data: Option<u32>) -> Vec<Result<String, LineError>> {
    let mut seen = HashSet::new();
    let line = |target| {
        let Verdict::Allow(rule_options) = rules.verdict(target) else {
            return None;
        };
        let options = LineOptions {
            rule_options,
            max_imm_data,
            ..LineOptions::default()
        };
        Some(add_target_line(target, &options))
    };
    let mut new = |line: &Result<_, _>| line.as_ref().map_or(true, |line: &String| seen.insert(line.clone()));
    report
        .targets
        .iter()
        .filter_map(line)
        .filter(|line| new(line))
        .collect()
}

/// What JSON shows.
#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    report: &'a ScanReport,
    /// Only if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: Option<&'a [Probed]>,
}

pub(super) fn scan_failure(error: &ScanError) -> Failure {
    let kind = match error {
        ScanError::NoSuchPort { .. } | ScanError::NoSuchUmad { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Host,
    };
    Failure::of(kind, error)
}

fn rules_failure(error: &RulesError) -> Failure {
    let kind = match error {
        RulesError::Read { .. } => ErrorKind::Host,
        _ => ErrorKind::Usage,
    };
    Failure::new(kind, error.to_string())
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
        | Cause::Subnet(SubnetError::NoManager | SubnetError::NoPKey | SubnetError::NotAGid) => ErrorKind::Host,
        _ => ErrorKind::Target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use srp_discovery::model::subnet::Subnet;
    use srp_discovery::scan::discover_with;

    use super::super::selection::samples::{Nobody, port};

    #[test]
    fn a_line_is_printed_once() {
        let ports = [port("mlx5_0", 1, "umad0"), port("mlx5_0", 2, "umad1")];
        let open = |_: &Port| Ok(Subnet::sized(8, 2, true));
        let report = discover_with(&ports, &mut Nobody, open, &ScanOptions::default(), &mut |_| {}).unwrap();
        assert_eq!(report.targets.len(), 4);
        let lines = lines(&report, &Rules::default(), None);
        let lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_ne!(lines[0], lines[1]);
    }

    #[test]
    fn json_has_probes_only_if_asked_for() {
        let report = ScanReport::default();
        let json = |probes| {
            serde_json::to_value(Found {
                report: &report,
                probes,
            })
            .unwrap()
        };
        assert!(json(None).get("probes").is_none() && json(None).get("targets").is_some());
        assert!(json(Some(&[])).get("probes").is_some());
    }
}
