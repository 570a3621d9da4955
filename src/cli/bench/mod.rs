//! `ublk-srp bench`: how fast a disk is, beside what its link could carry.

mod fio;
mod link;
mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use self::fio::{Measured, Point};
use self::link::Link;
use super::device::DeviceNumber;
use super::failure::Failure;
use super::holders;
use super::output::Output;
use super::printable::printable;
use super::table::Table;
use crate::rpc::client;
use crate::rpc::protocol::{DeviceDetail, ErrorData, ErrorKind, ShowParams, method};

/// Measure a block device with fio: small and large, shallow and deep
#[derive(Args, Clone, Debug)]
pub(super) struct Bench {
    /// N, ublkbN or /dev/ublkbN
    #[arg(value_name = "DEVICE")]
    device: DeviceNumber,
    /// Measure writes too: this DESTROYS what is on the device
    #[arg(long)]
    destroy: bool,
    /// Length of each measurement
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Write results.json and plots (SVG) into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    disk: String,
    link: Link,
    points: Vec<Line>,
}

/// A measurement and its share of the link.
#[derive(Debug, Serialize)]
struct Line {
    point: &'static str,
    #[serde(flatten)]
    measured: Measured,
    /// Bytes a second as a part of what the link carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_link: Option<f64>,
}

impl Bench {
    pub(super) fn run(&self, socket: &Path, output: &mut Output) -> Result<(), Failure> {
        let number = self.device.0;
        let detail: DeviceDetail = client::call(socket, method::SHOW, &ShowParams { device: number })?;
        self.check(&detail)?;
        if let Some(folder) = &self.out {
            fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        }
        let link = Link::of(Path::new("/sys"), &detail.session_info.local);
        let mut lines = Vec::new();
        for point in Point::all(self.destroy) {
            output.passing(&format!("{} ...", point.name));
            let measured = point.measure(&detail.device.path, self.seconds)?;
            lines.push(Line {
                point: point.name,
                of_link: link.share(measured.bytes_per_second),
                measured,
            });
        }
        output.passing("");
        let report = Report {
            device: detail.device.path.clone(),
            disk: format!("{} {}", detail.device.vendor, detail.device.product),
            link,
            points: lines,
        };
        if let Some(folder) = &self.out {
            write(folder, &report)?;
        }
        output.result(&report, || text(&report));
        Ok(())
    }

    fn check(&self, detail: &DeviceDetail) -> Result<(), Failure> {
        let path = &detail.device.path;
        if detail.device.state != "running" {
            let message = format!("{path} is {}", detail.device.state);
            return Err(Failure::new(ErrorKind::Target, message).remedy("`ublk-srp show` says why"));
        }
        if !self.destroy {
            return Ok(());
        }
        if detail.device.read_only {
            return Err(Failure::new(ErrorKind::Usage, format!("{path} is read-only")).remedy("leave out --destroy"));
        }
        let holders = holders::of(detail.device.number);
        if holders.is_empty() {
            return Ok(());
        }
        Err(ErrorData {
            kind: ErrorKind::Busy,
            message: format!("{path} is in use, and --destroy would overwrite it"),
            remedy: Some("unmount it first, or measure reads alone".to_owned()),
            holders,
        }
        .into())
    }
}

fn unwritable(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::of(ErrorKind::Host, error).about(&format!("{} cannot be written", path.display()))
}

fn write(folder: &Path, report: &Report) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(report).map_err(|error| Failure::of(ErrorKind::Internal, &error))?;
    let path = folder.join("results.json");
    fs::write(&path, json).map_err(|error| unwritable(&path, &error))?;
    for (name, draw) in [
        (
            "throughput.svg",
            plot::throughput as fn(&Path, &Report) -> Result<(), plot::PlotError>,
        ),
        ("latency.svg", plot::latency),
    ] {
        let path = folder.join(name);
        draw(&path, report).map_err(|error| unwritable(&path, &error))?;
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let mut table = Table::under(&["", "IOPS", "MB/s", "OF LINK", "50 %", "99 %", "99.9 %"]);
    for line in &report.points {
        let measured = &line.measured;
        table.row([
            line.point.to_owned(),
            format!("{:.0}", measured.iops),
            format!("{:.1}", measured.bytes_per_second / 1e6),
            line.of_link
                .map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            format!("{:.0} us", measured.latency_us.half),
            format!("{:.0} us", measured.latency_us.most),
            format!("{:.0} us", measured.latency_us.nearly_all),
        ]);
    }
    format!(
        "{} ({}) over {}\n{}",
        printable(&report.device),
        printable(&report.disk),
        printable(&report.link.to_string()),
        table.text("  ")
    )
}

#[cfg(test)]
mod tests;
