//! Who uses a disk, so that nobody pulls it away from under them by accident.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::block_name;
use super::flush::partitions;

/// One use of a disk or of one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The disk's or partition's name, `ublkb0p1`.
    pub node: String,
    /// What for.
    pub usage: Use,
}

/// How a disk is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A file system is mounted.
    Mounted {
        /// Where.
        at: PathBuf,
        /// In the mount namespace of this process, if it is not ours.
        namespace_of: Option<u32>,
    },
    /// The kernel swaps to it.
    Swap,
    /// A device is built on it (device mapper, md, bcache).
    Stacked {
        /// That device.
        device: String,
    },
    /// A process has it open.
    Open {
        /// The process.
        pid: u32,
        /// Its command's name.
        command: String,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/dev/{} is ", self.node)?;
        match &self.usage {
            Use::Mounted { at, namespace_of: None } => write!(f, "mounted at {}", at.display()),
            Use::Mounted {
                at,
                namespace_of: Some(pid),
            } => {
                write!(f, "mounted at {} in the mount namespace of process {pid}", at.display())
            }
            Use::Swap => f.write_str("in use as swap"),
            Use::Stacked { device } => write!(f, "part of /dev/{device}"),
            Use::Open { pid, command } => write!(f, "open in process {pid} ({command})"),
        }
    }
}

/// Why this is not to be known.
#[derive(Debug, Error)]
#[error("{path} cannot be read: {source}; run as root")]
pub struct HoldersError {
    path: PathBuf,
    source: io::Error,
}

/// A disk or partition: its name and its device number.
struct Node {
    name: String,
    number: String,
}

/// Everything that uses `/dev/ublkbN` or a partition of it, as far as this process can see. Races with whoever opens it
/// next; a process that ends while we look is passed over.
pub fn holders(id: u32) -> Result<Vec<Holder>, HoldersError> {
    holders_below(Path::new("/"), &block_name(id), std::process::id())
}

fn holders_below(root: &Path, disk: &str, own_pid: u32) -> Result<Vec<Holder>, HoldersError> {
    let block = root.join("sys/class/block");
    let nodes: Vec<Node> = [disk.to_owned()]
        .into_iter()
        .chain(partitions(&block, disk))
        .filter_map(|name| {
            let number = fs::read_to_string(block.join(&name).join("dev"))
                .ok()?
                .trim()
                .to_owned();
            Some(Node { name, number })
        })
        .collect();
    let mut found = BTreeSet::new();
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    for node in &nodes {
        for device in fs::read_dir(block.join(&node.name).join("holders"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let device = device.file_name().to_string_lossy().into_owned();
            found.insert(Holder {
                node: node.name.clone(),
                usage: Use::Stacked { device },
            });
        }
    }
    let read = |path: PathBuf| fs::read_to_string(&path).map_err(|source| HoldersError { path, source });
    let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    found.extend(swap_uses(&swaps, &nodes));
    found.extend(mount_uses(&read(root.join("proc/self/mountinfo"))?, &nodes, None));

    let own_namespace = fs::read_link(root.join("proc/self/ns/mnt")).ok();
    let mut namespaces = BTreeSet::from_iter(own_namespace);
    let proc = root.join("proc");
    let processes = fs::read_dir(&proc).map_err(|source| HoldersError { path: proc, source })?;
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let folder = process.path();
        if let Ok(namespace) = fs::read_link(folder.join("ns/mnt"))
            && namespaces.insert(namespace)
        {
            let mounts = fs::read_to_string(folder.join("mountinfo")).unwrap_or_default();
            found.extend(mount_uses(&mounts, &nodes, Some(pid)));
        }
        if pid != own_pid {
            found.extend(open_uses(&folder, pid, &nodes));
        }
    }
    Ok(found.into_iter().collect())
}

/// From `/proc/PID/mountinfo`. The device number decides; file systems that hide it (btrfs) show the node as source.
fn mount_uses(mountinfo: &str, nodes: &[Node], namespace_of: Option<u32>) -> Vec<Holder> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, rest) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(2);
            let (number, _root, at) = (fields.next()?, fields.next()?, fields.next()?);
            let source = rest.split(' ').nth(1)?;
            let node = nodes
                .iter()
                .find(|node| node.number == number || source == format!("/dev/{}", node.name))?;
            let at = PathBuf::from(unescape(at));
            Some(Holder {
                node: node.name.clone(),
                usage: Use::Mounted { at, namespace_of },
            })
        })
        .collect()
}

fn swap_uses(swaps: &str, nodes: &[Node]) -> Vec<Holder> {
    swaps
        .lines()
        .skip(1)
        .filter_map(|line| {
            let name = line.split_whitespace().next()?.strip_prefix("/dev/")?;
            let node = nodes.iter().find(|node| node.name == name)?;
            Some(Holder {
                node: node.name.clone(),
                usage: Use::Swap,
            })
        })
        .collect()
}

fn open_uses(process: &Path, pid: u32, nodes: &[Node]) -> Vec<Holder> {
    let mut found = Vec::new();
    for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        // Only files below /dev are looked at: asking about a file on a dead network mount would block.
        let below_dev = fs::read_link(descriptor.path()).is_ok_and(|target| target.starts_with("/dev"));
        let Some(metadata) = below_dev.then(|| fs::metadata(descriptor.path()).ok()).flatten() else {
            continue;
        };
        if !metadata.file_type().is_block_device() {
            continue;
        }
        let number = format!(
            "{}:{}",
            rustix::fs::major(metadata.rdev()),
            rustix::fs::minor(metadata.rdev())
        );
        if let Some(node) = nodes.iter().find(|node| node.number == number) {
            let command = fs::read_to_string(process.join("comm"))
                .unwrap_or_default()
                .trim()
                .to_owned();
            found.push(Holder {
                node: node.name.clone(),
                usage: Use::Open { pid, command },
            });
        }
    }
    found
}

/// mountinfo writes blanks and the like as `\040`.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', digits @ ..] => digits
                .get(..3)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() {
            rest.get(4..).unwrap_or_default()
        } else {
            tail
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Node> {
        [("ublkb1", "259:1"), ("ublkb1p1", "259:2")]
            .map(|(name, number)| Node {
                name: name.into(),
                number: number.into(),
            })
            .into()
    }

    fn shown(holders: Vec<Holder>) -> Vec<String> {
        holders.iter().map(Holder::to_string).collect()
    }

    #[test]
    fn mounts_by_number_and_by_source() {
        let mountinfo = "\
            22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            30 22 259:2 / /mnt/my\\040disk rw shared:9 - xfs /dev/disk/by-id/x rw\n\
            31 22 0:44 / /btrfs rw - btrfs /dev/ublkb1 rw\n\
            32 22 259:11 / /other rw - ext4 /dev/ublkb11 rw\n\
            not a line\n";
        assert_eq!(
            shown(mount_uses(mountinfo, &nodes(), None)),
            [
                "/dev/ublkb1p1 is mounted at /mnt/my disk",
                "/dev/ublkb1 is mounted at /btrfs"
            ]
        );
        let elsewhere = mount_uses(mountinfo, &nodes(), Some(77));
        assert!(
            elsewhere[0]
                .to_string()
                .ends_with("in the mount namespace of process 77")
        );
    }

    #[test]
    fn swap() {
        let swaps = "Filename Type Size Used Priority\n/dev/ublkb1 partition 1 0 -2\n/dev/ublkb11 partition 1 0 -2\n";
        assert_eq!(shown(swap_uses(swaps, &nodes())), ["/dev/ublkb1 is in use as swap"]);
        assert_eq!(shown(swap_uses("", &nodes())), [""; 0]);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/tail\04"), r"/tail\04");
        assert_eq!(unescape(r"\999"), r"\999");
        assert_eq!(unescape("/ü"), "/ü");
    }

    #[test]
    fn stacked_devices_and_no_disk() {
        let root = std::env::temp_dir().join(format!("ublk-frontend-holders-{}", std::process::id()));
        drop(fs::remove_dir_all(&root));
        let block = root.join("sys/class/block/ublkb1");
        fs::create_dir_all(block.join("holders/dm-3")).unwrap();
        fs::create_dir_all(block.join("ublkb1p1")).unwrap();
        fs::write(block.join("ublkb1p1/partition"), "1\n").unwrap();
        fs::write(block.join("dev"), "259:1\n").unwrap();
        fs::create_dir_all(root.join("proc/self")).unwrap();
        fs::write(root.join("proc/self/mountinfo"), "").unwrap();
        assert_eq!(
            shown(holders_below(&root, "ublkb1", 1).unwrap()),
            ["/dev/ublkb1 is part of /dev/dm-3"]
        );
        assert_eq!(holders_below(&root, "ublkb2", 1).unwrap(), []);
        fs::remove_dir_all(&root).unwrap();
    }
}
