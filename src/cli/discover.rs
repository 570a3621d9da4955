//! `ublk-srp discover`.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use srp_discovery::listing::{LineError, LineOptions, ListingOptions, Logins, add_target_line, io_unit};
use srp_discovery::ports::{self, Port, Roots};
use srp_discovery::rules::{Rules, RulesError, Verdict};
use srp_discovery::scan::{
    Cause, Destination, PortSelector, Progress, ScanError, ScanOptions, ScanReport, Severity, SubnetError, discover,
};

use super::configuration;
use super::failure::Failure;
use super::kernel_peer;
use super::known;
use super::output::Output;
use super::printable::printable;
use super::probed::{Probed, probe_all};
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
    #[arg(short = 'd', long = "umad", value_name = "UMAD", value_parser = umad)]
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
    /// /etc/srp_daemon.conf
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
        conflicts_with_all = ["addresses", "device", "umad", "rdma_cm_port", "probe", "rules", "timeout", "retries", "verbose"]
    )]
    known: bool,
    /// Also tell of neighbours that do not answer, and of empty slots
    #[arg(short = 'v', long)]
    verbose: bool,
}

fn selector(text: &str) -> Result<PortSelector, String> {
    named(text).map(PortSelector::from)
}

fn umad(text: &str) -> Result<PortSelector, String> {
    named(text).map(PortSelector::umad)
}

fn named(text: &str) -> Result<&str, String> {
    (!text.is_empty())
        .then_some(text)
        .ok_or_else(|| "a name is needed".to_owned())
}

/// The ports named by device and by umad device; named by both, each must be of one of the others.
fn selectors(devices: &[PortSelector], umads: &[PortSelector], ports: &[Port]) -> Result<Vec<PortSelector>, Failure> {
    if devices.is_empty() || umads.is_empty() {
        return Ok(devices.iter().chain(umads).cloned().collect());
    }
    // What does not exist is told when it is looked for.
    let there = |s: &&PortSelector| ports.iter().any(|port| s.selects(port));
    if let Some(missing) = umads.iter().chain(devices).find(|s| !there(s)) {
        return Ok(vec![missing.clone()]);
    }
    let of = |port: &&Port, names: &[PortSelector]| names.iter().any(|name| name.selects(port));
    let list = |names: &[PortSelector]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let disagreement = |what| {
        let remedy = "give either of -d and -i; each finds the other";
        Err(Failure::new(ErrorKind::Usage, what).remedy(remedy))
    };
    if let Some(port) = ports.iter().find(|port| of(port, umads) && !of(port, devices)) {
        let umad = port
            .umad
            .as_ref()
            .map_or_else(String::new, |umad| umad.display().to_string());
        let what = format!("{umad} belongs to port {}, not to {}", port.name, list(devices));
        return disagreement(what);
    }
    let both = |device: &PortSelector| ports.iter().any(|port| device.selects(port) && of(&port, umads));
    if let Some(device) = devices.iter().find(|device| !both(device)) {
        return disagreement(format!("no port of {device} belongs to {}", list(umads)));
    }
    Ok(umads.to_vec())
}

impl Discover {
    pub(super) fn run(&self, socket: &Path, config: Option<&Path>, output: &mut Output) -> Result<(), Failure> {
        if self.known {
            return known::run(socket, self.lines, output);
        }
        let rules = self.rules.as_deref().map(Rules::read).transpose();
        let rules = rules.map_err(|error| rules_failure(&error))?.unwrap_or_default();
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
        let mut options = ScanOptions {
            ports: selectors(
                &self.device,
                &self.umad,
                &ports::list(&Roots::default()).unwrap_or_default(),
            )?,
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
        if self.lines {
            self.print_lines(&report, &rules, output);
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
        if report.targets.is_empty() {
            // Naming a port tells whether this is why.
            output.note(
                "no SRP target was found (on InfiniBand only ports that share a partition with this host's show; \
                 give a GID to have that port looked into)",
            );
        }
        Ok(())
    }

    fn print_lines(&self, report: &ScanReport, rules: &Rules, output: &mut Output) {
        // ib_srp may be meant, for which some targets need to be told its limit.
        for line in lines(report, rules, kernel_peer::max_immediate_data()) {
            match line {
                Ok(line) => output.text(&format!("{}\n", printable(&line))),
                Err(error) => output.failure_text(&line_failure(&error)),
            }
        }
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

/// Tells people at a terminal how far a long scan is.
struct Meter<'a> {
    output: &'a Output,
    wanted: bool,
    next: Instant,
    shown: bool,
}

impl<'a> Meter<'a> {
    const FIRST: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(200);

    fn new(output: &'a Output) -> Self {
        Self {
            output,
            wanted: std::io::stderr().is_terminal(),
            next: Instant::now() + Self::FIRST,
            shown: false,
        }
    }

    fn show(&mut self, progress: &Progress) {
        let now = Instant::now();
        if self.wanted && now >= self.next {
            self.next = now + Self::PAUSE;
            self.shown = true;
            let Progress {
                port,
                asked,
                left,
                units,
            } = progress;
            self.output.passing(&format!(
                "{port}: {asked} questions asked, {left} left, {units} I/O units found"
            ));
        }
    }

    fn clear(self) {
        if self.shown {
            self.output.passing("");
        }
    }
}

fn scan_failure(error: &ScanError) -> Failure {
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
    use super::super::exit::Exit;
    use super::*;
    use srp_discovery::model::subnet::Subnet;
    use srp_discovery::neighbours::{Neighbour, Neighbours, NeighboursError};
    use srp_discovery::ports::PortName;
    use srp_discovery::scan::discover_with;

    fn port(device: &str, number: u32, umad: &str) -> Port {
        Port {
            name: PortName {
                device: device.to_owned(),
                number,
            },
            umad: Some(format!("/dev/infiniband/{umad}").into()),
            ..Subnet::local_port()
        }
    }

    #[test]
    fn ports_named_twice_agree() {
        let ports = [
            port("mlx5_0", 1, "umad0"),
            port("mlx5_0", 2, "umad1"),
            port("mlx5_1", 1, "umad2"),
        ];
        let named = |device: &[&str], umad: &[&str]| {
            let of = |names: &[&str]| names.iter().map(|name| PortSelector::from(*name)).collect::<Vec<_>>();
            let umads: Vec<_> = umad.iter().map(|name| PortSelector::umad(name)).collect();
            let found = selectors(&of(device), &umads, &ports).map_err(|failure| failure.text())?;
            let selected = ports.iter().filter(|port| found.iter().any(|s| s.selects(port)));
            Ok::<_, String>(selected.map(|port| port.name.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(named(&["mlx5_0"], &[]).unwrap(), ["mlx5_0/1", "mlx5_0/2"]);
        assert_eq!(named(&[], &["umad2"]).unwrap(), ["mlx5_1/1"]);
        assert_eq!(named(&["mlx5_0"], &["/dev/infiniband/umad1"]).unwrap(), ["mlx5_0/2"]);
        let error = named(&["mlx5_0:1"], &["umad1"]).unwrap_err();
        assert!(
            error.contains("umad1 belongs to port mlx5_0/2, not to mlx5_0:1"),
            "{error}"
        );
    }

    /// What a scan says that named this umad device, and maybe a device.
    fn refused(ports: &[Port], devices: &[&str], umad: &str) -> (Exit, String) {
        let devices: Vec<_> = devices.iter().map(|name| PortSelector::from(*name)).collect();
        let options = ScanOptions {
            ports: selectors(&devices, &[PortSelector::umad(umad)], ports).unwrap(),
            ..ScanOptions::default()
        };
        let open = |_: &Port| Ok(Subnet::sized(8, 2, true));
        let error = discover_with(ports, &mut Nobody, open, &options, &mut |_| {}).unwrap_err();
        let failure = scan_failure(&error);
        (failure.exit, failure.text())
    }

    #[test]
    fn a_umad_device_that_is_not_there() {
        let mut ports = [port("mlx5_0", 1, "umad0"), port("mlx5_1", 1, "umad2")];
        for devices in [&[][..], &["mlx5_0"]] {
            let (exit, told) = refused(&ports, devices, "umad7");
            assert_eq!(exit, Exit::from(ErrorKind::NotFound));
            let there =
                "no umad device umad7; there are: /dev/infiniband/umad0 (mlx5_0/1), /dev/infiniband/umad2 (mlx5_1/1)";
            assert!(told.contains(there), "{told}");
        }
        // The name of a port is no umad device's.
        assert!(refused(&ports, &[], "mlx5_0").1.contains("no umad device mlx5_0"));
        assert!(refused(&ports, &["mlx4_0"], "umad0").1.contains("no RDMA port mlx4_0"));
        ports.iter_mut().for_each(|port| port.umad = None);
        for devices in [&[][..], &["mlx5_0"]] {
            let (exit, told) = refused(&ports, devices, "/dev/infiniband/umad0");
            assert_eq!(exit, Exit::Host);
            assert!(told.contains("modprobe ib_umad") && told.contains("mlx5_0/1"), "{told}");
        }
    }

    struct Nobody;

    impl Neighbours for Nobody {
        fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
            Ok(vec![])
        }

        fn look_for(&mut self, _: &[(std::net::IpAddr, Option<String>)]) {}
    }

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
