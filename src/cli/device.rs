//! How a block device is named on the command line.

use std::fs;
use std::path::Path;
use std::str::FromStr;

/// The number of a block device, given as `N`, `ublkbN`, `/dev/ublkbN` or a link to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceNumber(pub(super) u32);

/// Text that names no device of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParseDeviceError {
    #[error("{name} is a partition: name the whole disk, /dev/ublkb{disk}")]
    Partition { name: String, disk: u32 },
    #[error("{name} is the control node of a disk: name the disk, /dev/ublkb{disk}")]
    ControlNode { name: String, disk: u32 },
    #[error("{name} is not a ublk disk: give a number, /dev/ublkbN or ublkbN, as `ublk-srp list` shows it")]
    Other { name: String },
}

impl FromStr for DeviceNumber {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let resolved = resolve(text);
        let name = resolved.as_deref().unwrap_or(text);
        let other = || ParseDeviceError::Other { name: text.to_owned() };
        let name = name.strip_prefix("/dev/").unwrap_or(name);
        if let Some(rest) = name.strip_prefix("ublkc") {
            let disk = number(rest).ok_or_else(other)?;
            return Err(ParseDeviceError::ControlNode {
                name: text.to_owned(),
                disk,
            });
        }
        let digits = name.strip_prefix("ublkb").unwrap_or(name);
        if let Some(disk) = number(digits) {
            return Ok(Self(disk));
        }
        match digits.split_once('p').map(|(disk, part)| (number(disk), number(part))) {
            Some((Some(disk), Some(_))) => Err(ParseDeviceError::Partition {
                name: text.to_owned(),
                disk,
            }),
            _ => Err(other()),
        }
    }
}

/// Where a link such as those in /dev/disk leads.
fn resolve(text: &str) -> Option<String> {
    let path = Path::new(text);
    let linked = path.is_absolute() && fs::symlink_metadata(path).ok()?.is_symlink();
    linked
        .then(|| fs::canonicalize(path).ok()?.into_os_string().into_string().ok())
        .flatten()
}

fn number(digits: &str) -> Option<u32> {
    // parse would take a sign.
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;

    #[test]
    fn names() {
        for text in ["7", "ublkb7", "/dev/ublkb7", "007"] {
            assert_eq!(text.parse(), Ok(DeviceNumber(7)), "{text}");
        }
        for text in ["ublkb7p1", "/dev/ublkb7p12", "7p1"] {
            let error = text.parse::<DeviceNumber>().unwrap_err();
            assert_eq!(
                error,
                ParseDeviceError::Partition {
                    name: text.to_owned(),
                    disk: 7
                }
            );
            assert!(error.to_string().ends_with("/dev/ublkb7"));
        }
        assert!(matches!(
            "ublkc3".parse::<DeviceNumber>(),
            Err(ParseDeviceError::ControlNode { disk: 3, .. })
        ));
        for text in [
            "",
            "-1",
            "+1",
            "sda",
            "/dev/sda",
            "ublkb",
            "ublkbp1",
            "ublkb1p",
            "4294967296",
            "/tmp/ublkb1",
            "/dev/ublkb1/",
        ] {
            assert!(
                matches!(text.parse::<DeviceNumber>(), Err(ParseDeviceError::Other { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn links() {
        let scratch = Scratch::new();
        let target = scratch.path("sda");
        fs::write(&target, "").unwrap();
        let link = scratch.path("7");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(link.to_str().unwrap().parse::<DeviceNumber>().is_err());
    }
}
