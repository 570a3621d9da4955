//! Who uses a block device, found as fuser(8) and lsblk(8) find it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Holders shown before the rest is only counted.
const MOST: usize = 16;

/// A line for each holder of `/dev/ublkbN` and its partitions that this process may know of.
pub(super) fn of(number: u32) -> Vec<String> {
    let mut lines = search(Path::new("/sys"), Path::new("/proc"), &format!("ublkb{number}"));
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("{more} more"));
    }
    lines
}

/// The disk or one of its partitions.
struct Node {
    /// As in `/dev/NAME`.
    name: String,
    /// `MAJOR:MINOR`
    number: String,
    directory: PathBuf,
}

fn search(sys: &Path, proc: &Path, disk: &str) -> Vec<String> {
    let nodes = nodes(sys, disk);
    let mut lines = Vec::new();
    for node in &nodes {
        for holder in names(&node.directory.join("holders")) {
            let called = fs::read_to_string(sys.join("class/block").join(&holder).join("dm/name"));
            let called = called.map_or(String::new(), |name| format!(" ({})", name.trim()));
            lines.push(format!("/dev/{holder}{called} is made of /dev/{}", node.name));
        }
    }
    swaps(proc, &nodes, &mut lines);
    let mut seen = HashSet::new();
    for process in names(proc)
        .into_iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
    {
        let directory = proc.join(&process);
        // One look at each mount namespace.
        if fs::read_link(directory.join("ns/mnt")).is_ok_and(|namespace| seen.insert(namespace)) {
            mounts(&directory, &nodes, &mut lines);
        }
        open_files(&directory, &process, &nodes, &mut lines);
    }
    lines
}

fn nodes(sys: &Path, disk: &str) -> Vec<Node> {
    let directory = sys.join("block").join(disk);
    let partitions = names(&directory).into_iter().filter(|name| name.starts_with(disk));
    let all = partitions.map(|name| (directory.join(&name), name));
    let all = std::iter::once((directory.clone(), disk.to_owned())).chain(all);
    all.filter_map(|(directory, name)| {
        let number = fs::read_to_string(directory.join("dev")).ok()?.trim().to_owned();
        Some(Node {
            name,
            number,
            directory,
        })
    })
    .collect()
}

fn swaps(proc: &Path, nodes: &[Node], lines: &mut Vec<String>) {
    let table = fs::read_to_string(proc.join("swaps")).unwrap_or_default();
    for path in table.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        if nodes.iter().any(|node| path.strip_prefix("/dev/") == Some(&node.name)) {
            lines.push(format!("{path} is swapped on"));
        }
    }
}

fn mounts(process: &Path, nodes: &[Node], lines: &mut Vec<String>) {
    let table = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    for line in table.lines() {
        // id parent major:minor root point options [tags] - type source options
        let fields: Vec<&str> = line.split(' ').collect();
        let source = fields
            .iter()
            .position(|field| *field == "-")
            .and_then(|dash| fields.get(dash + 2));
        let (Some(number), Some(point)) = (fields.get(2), fields.get(4)) else {
            continue;
        };
        // Some file systems mount under a number of their own.
        let node = nodes.iter().find(|node| {
            node.number == *number || source.is_some_and(|s| s.strip_prefix("/dev/") == Some(node.name.as_str()))
        });
        if let Some(node) = node {
            let text = format!("/dev/{} is mounted on {}", node.name, point.replace("\\040", " "));
            if !lines.contains(&text) {
                lines.push(text);
            }
        }
    }
}

fn open_files(process: &Path, pid: &str, nodes: &[Node], lines: &mut Vec<String>) {
    for file in names(&process.join("fd")) {
        let file = process.join("fd").join(file);
        // Only what looks like a device is touched: other files may be on a server that does not answer.
        if !fs::read_link(&file).is_ok_and(|path| path.starts_with("/dev")) {
            continue;
        }
        let Some(found) = fs::metadata(&file)
            .ok()
            .filter(|found| found.file_type().is_block_device())
        else {
            continue;
        };
        let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        let number = format!("{major}:{minor}");
        if let Some(node) = nodes.iter().find(|node| node.number == number) {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let text = format!("{} (pid {pid}) has /dev/{} open", command.trim(), node.name);
            if !lines.contains(&text) {
                lines.push(text);
            }
        }
    }
}

/// What is in a directory, in order; nothing if it is not there any more.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;
    use std::os::unix::fs::symlink;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn holders() {
        let scratch = Scratch::new();
        let (sys, proc) = (scratch.path("sys"), scratch.path("proc"));
        write(sys.join("block/ublkb1/dev"), "259:1\n");
        write(sys.join("block/ublkb1/ublkb1p2/dev"), "259:3\n");
        write(sys.join("block/ublkb1/ublkb1p2/holders/dm-4"), "");
        write(sys.join("class/block/dm-4/dm/name"), "vg-data\n");
        write(
            proc.join("swaps"),
            "Filename Type Size\n/dev/ublkb1p2 partition 1\n/dev/ublkb10 partition 1\n",
        );
        for (pid, namespace) in [("7", "mnt:[1]"), ("8", "mnt:[1]"), ("9", "mnt:[2]")] {
            let mounts = "20 1 259:3 / /my\\040disk rw - ext4 /dev/root rw\n\
                21 1 0:50 / /b rw shared:1 - btrfs /dev/ublkb1 rw\n22 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
            write(proc.join(pid).join("mountinfo"), mounts);
            write(proc.join(pid).join("ns/x"), "");
            symlink(namespace, proc.join(pid).join("ns/mnt")).unwrap();
        }
        assert_eq!(
            search(&sys, &proc, "ublkb1"),
            [
                "/dev/dm-4 (vg-data) is made of /dev/ublkb1p2",
                "/dev/ublkb1p2 is swapped on",
                "/dev/ublkb1p2 is mounted on /my disk",
                "/dev/ublkb1 is mounted on /b",
            ]
        );
        assert_eq!(search(&sys, &proc, "ublkb2"), [""; 0]);
    }
}
