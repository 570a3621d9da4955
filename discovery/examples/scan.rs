//! Scans through the RoCE ports of this host: `scan [-c | --json | -v] [--rdma-cm-port N] [--port P]...
//! [--timeout MS] [--retries N] [DESTINATION]...`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use srp_discovery::listing::{LineOptions, ListingOptions, add_target_line, io_unit};
use srp_discovery::scan::{PortSelector, RoceOptions, Severity, discover_roce};

enum Form {
    Human,
    Lines,
    Json,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scan: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut options = RoceOptions::default();
    let mut form = Form::Human;
    let mut verbose = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "-c" => form = Form::Lines,
            "--json" => form = Form::Json,
            "-v" => verbose = true,
            "--rdma-cm-port" => options.rdma_cm_port = Some(value()?.parse()?),
            "--port" => options.ports.push(PortSelector::from(value()?.as_str())),
            "--timeout" => options.patience.timeout = Duration::from_millis(value()?.parse()?),
            "--retries" => options.patience.retries = value()?.parse()?,
            _ => options.destinations.push(arg.parse()?),
        }
    }
    let report = discover_roce(&options)?;
    let mut good = true;
    for problem in report
        .problems
        .iter()
        .filter(|p| verbose || p.severity > Severity::Note)
    {
        good &= problem.severity < Severity::Error;
        eprintln!("{:?}: {problem}", problem.severity);
    }
    match form {
        Form::Human => {
            for found in &report.units {
                print!(
                    "{}",
                    io_unit(&found.unit, found.rdma_cm.as_ref(), ListingOptions { slots: verbose })
                );
            }
        }
        Form::Lines => {
            for target in &report.targets {
                match add_target_line(target, &LineOptions::default()) {
                    Ok(line) => println!("{line}"),
                    Err(error) => {
                        eprintln!("Error: {error}");
                        good = false;
                    }
                }
            }
        }
        Form::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(good)
}
