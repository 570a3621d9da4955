//! `ublk-srp list` and `ublk-srp status`.

use std::path::Path;

use clap::Args;

use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use super::size::size;
use super::table::Table;
use crate::rpc::client;
use crate::rpc::protocol::{DaemonStatus, DeviceInfo, Listing, method};

/// Show the block devices and their targets
#[derive(Args, Clone, Debug)]
pub(super) struct List {}

impl List {
    pub(super) fn run(&self, socket: &Path, output: &mut Output) -> Result<(), Failure> {
        let listing: Listing = client::call(socket, method::LIST, &())?;
        output.result(&listing, || devices(&listing));
        Ok(())
    }
}

/// Show the daemon itself
#[derive(Args, Clone, Debug)]
pub(super) struct Status {}

impl Status {
    pub(super) fn run(&self, socket: &Path, output: &mut Output) -> Result<(), Failure> {
        let status: DaemonStatus = client::call(socket, method::STATUS, &())?;
        output.result(&status, || {
            let mut table = Table::default();
            table.row(["version", &status.version]);
            table.row(["process", &status.pid.to_string()]);
            table.row(["reactors", &status.reactors.to_string()]);
            table.row(["sessions", &status.sessions.to_string()]);
            table.row(["devices", &status.devices.to_string()]);
            table.row(["socket", &socket.display().to_string()]);
            table.text("")
        });
        Ok(())
    }
}

fn devices(listing: &Listing) -> String {
    if listing.devices.is_empty() && listing.sessions.is_empty() {
        return "nothing is attached\n".to_owned();
    }
    let mut table = Table::under(&[
        "DEVICE",
        "SIZE",
        "LUN",
        "STATE",
        "VENDOR",
        "PRODUCT",
        "IDENTIFIER",
        "TARGET",
    ]);
    for device in &listing.devices {
        let session = listing.sessions.iter().find(|session| session.id == device.session);
        table.row([
            device.path.as_str(),
            &size(device.size),
            &device.lun,
            &state(device),
            &device.vendor,
            &device.product,
            device.identifier.as_deref().unwrap_or("-"),
            session.map_or("-", |session| session.address.as_str()),
        ]);
    }
    let mut text = table.text("");
    for session in &listing.sessions {
        if let Some(reason) = &session.reason {
            let (address, state) = (printable(&session.address), printable(&session.state));
            text += &format!(
                "session {} to {address} is {state}: {}\n",
                session.id,
                printable(reason)
            );
        }
    }
    text
}

fn state(device: &DeviceInfo) -> String {
    if device.read_only {
        format!("{}, ro", device.state)
    } else {
        device.state.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn the_table() {
        let mut second = samples::device();
        (second.number, second.path) = (12, "/dev/ublkb12".to_owned());
        (second.lun, second.size, second.read_only) = ("3".to_owned(), 10 << 40, true);
        (second.product, second.identifier) = ("evil\x1b[2J\n".to_owned(), None);
        let mut session = samples::session();
        session.state = "lost".to_owned();
        session.reason = Some("the target's port went down".to_owned());
        let listing = Listing {
            devices: vec![samples::device(), second],
            sessions: vec![session],
        };
        assert_eq!(
            devices(&listing),
            "DEVICE        SIZE    LUN  STATE        VENDOR   PRODUCT          IDENTIFIER            TARGET\n\
             /dev/ublkb0   1 GiB   0    running      LIO-ORG  disk0            naa.6001405d0c1a55e7  10.0.0.1:5555\n\
             /dev/ublkb12  10 TiB  3    running, ro  LIO-ORG  evil\\x1b[2J\\x0a  -                     10.0.0.1:5555\n\
             session 1 to 10.0.0.1:5555 is lost: the target's port went down\n"
        );
        let nothing = Listing {
            devices: Vec::new(),
            sessions: Vec::new(),
        };
        assert_eq!(devices(&nothing), "nothing is attached\n");
    }
}
