//! `ublk-srp show`.

use std::path::Path;

use clap::Args;

use super::device::DeviceNumber;
use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use super::size::size;
use super::table::Table;
use crate::rpc::client;
use crate::rpc::protocol::{DeviceDetail, ShowParams, method};

/// Show all about one block device
#[derive(Args, Clone, Debug)]
pub(super) struct Show {
    /// N, ublkbN or /dev/ublkbN
    #[arg(value_name = "DEVICE")]
    device: DeviceNumber,
}

impl Show {
    pub(super) fn run(&self, socket: &Path, output: &mut Output) -> Result<(), Failure> {
        let params = ShowParams { device: self.device.0 };
        let detail: DeviceDetail = client::call(socket, method::SHOW, &params)?;
        output.result(&detail, || sections(&detail));
        Ok(())
    }
}

fn sections(detail: &DeviceDetail) -> String {
    let mut text = format!("{}\n", printable(&detail.device.path));
    text += &disk(detail).text("  ");
    text += "\nblock device\n";
    text += &block_device(detail).text("  ");
    text += "\nsession\n";
    text += &session(detail).text("  ");
    if !detail.channels.is_empty() {
        text += "\nchannels\n";
        text += &channels(detail).text("  ");
    }
    if !detail.session_info.others.is_empty() {
        text += "\nother logical units of the target\n";
        text += &others(detail).text("  ");
    }
    text += "\ncounters\n";
    text += &counters(detail).text("  ");
    text
}

fn disk(detail: &DeviceDetail) -> Table {
    let device = &detail.device;
    let mut table = Table::default();
    table.row(["state", &device.state]);
    table.row(["size", &bytes(device.size)]);
    let blocks = format!("{} logical, {} physical", device.block_size, device.physical_block_size);
    table.row(["block size", &blocks]);
    table.row(["access", if device.read_only { "read-only" } else { "read-write" }]);
    table.row(["LUN", &device.lun]);
    table.row(["vendor", &device.vendor]);
    table.row(["product", &device.product]);
    table.row(["revision", &device.revision]);
    table.row(["serial", device.serial.as_deref().unwrap_or("-")]);
    table.row(["identifier", device.identifier.as_deref().unwrap_or("-")]);
    table
}

fn block_device(detail: &DeviceDetail) -> Table {
    let mut table = Table::default();
    table.row([
        "queues",
        &format!("{} of {} requests", detail.queues, detail.queue_depth),
    ]);
    table.row(["largest request", &bytes(detail.max_transfer.into())]);
    let optimal = detail
        .optimal_transfer
        .map_or("-".to_owned(), |optimal| bytes(optimal.into()));
    table.row(["optimal request", &optimal]);
    table.row(["write cache", if detail.write_cache { "yes" } else { "no" }]);
    table.row(["forced unit access", if detail.fua { "yes" } else { "no" }]);
    table.row(["rotational", if detail.rotational { "yes" } else { "no" }]);
    table
}

fn session(detail: &DeviceDetail) -> Table {
    let session = &detail.session_info;
    let mut table = Table::default();
    table.row(["number", &session.id.to_string()]);
    table.row(["state", &session.state]);
    if let Some(reason) = &session.reason {
        table.row(["reason", reason]);
    }
    table.row(["address", &session.address]);
    table.row(["local port", &session.local]);
    table.row(["initiator port", &session.initiator_port]);
    table.row([
        "channels",
        &format!("{} of {} wanted", session.channels, session.channels_wanted),
    ]);
    table.row(["request limit", &format!("{} per channel", session.request_limit)]);
    table.row(["target", &session.target]);
    table
}

fn channels(detail: &DeviceDetail) -> Table {
    let mut table = Table::under(&[
        "REACTOR",
        "CREDITS",
        "IN FLIGHT",
        "WITHOUT CREDIT",
        "BUFFERS",
        "IN PIECES",
        "ABORTS",
        "RESETS",
    ]);
    for channel in &detail.channels {
        table.row([
            channel.reactor.to_string(),
            channel.credits.to_string(),
            channel.in_flight.to_string(),
            channel.zero_credit.to_string(),
            size(channel.buffer_bytes.into()),
            channel.in_pieces.to_string(),
            channel.aborts.to_string(),
            channel.resets.to_string(),
        ]);
    }
    table
}

fn others(detail: &DeviceDetail) -> Table {
    let mut table = Table::under(&["LUN", "KIND", "PRODUCT", "WHY"]);
    for other in &detail.session_info.others {
        let known = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
        table.row([&other.lun, &known(&other.kind), &known(&other.product), &other.reason]);
    }
    table
}

fn counters(detail: &DeviceDetail) -> Table {
    let counters = &detail.counters;
    let mut table = Table::default();
    table.row(["reads", &counters.reads.to_string(), &size(counters.read_bytes)]);
    table.row(["writes", &counters.writes.to_string(), &size(counters.written_bytes)]);
    table.row(["flushes", &counters.flushes.to_string(), ""]);
    table.row(["errors", &counters.errors.to_string(), ""]);
    table
}

fn bytes(count: u64) -> String {
    format!("{} ({count} bytes)", size(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;
    use crate::rpc::protocol::SkippedLun;

    #[test]
    fn all_sections() {
        let mut detail = samples::detail();
        detail.session_info.others.push(SkippedLun {
            lun: "2".to_owned(),
            kind: Some("CD/DVD".to_owned()),
            product: None,
            reason: "no disk".to_owned(),
            failed: false,
        });
        assert_eq!(sections(&detail), include_str!("show.golden"));
    }
}
