//! Which processors a device's queues are for.

use std::collections::BTreeSet;
use std::fs;

use super::block_name;

/// For each queue of a started device the processor whose requests come by it, if they are one's alone: of those that are online
/// now, in `/sys/block/ublkbN/mq/Q/cpu_list` (Documentation/ABI/stable/sysfs-block). Reads files.
pub fn only_processors(device: u32, queues: u16) -> Vec<Option<usize>> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let online = online.as_deref().and_then(processors);
    let only_processor = |queue| {
        let list = fs::read_to_string(format!("/sys/block/{}/mq/{queue}/cpu_list", block_name(device))).ok()?;
        only(&list, online.as_ref())
    };
    (0..queues).map(only_processor).collect()
}

/// The one processor of a list that is online: the kernel lists all that there could be.
fn only(list: &str, online: Option<&BTreeSet<usize>>) -> Option<usize> {
    let listed = processors(list)?;
    let mut there = listed
        .into_iter()
        .filter(|processor| online.is_none_or(|online| online.contains(processor)));
    there.next().filter(|_| there.next().is_none())
}

/// The processors of a list like `0, 2-3`.
fn processors(list: &str) -> Option<BTreeSet<usize>> {
    let mut set = BTreeSet::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        set.extend(first..=last);
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::{only, processors};

    #[test]
    fn a_list_of_several_is_nobodys_alone() {
        assert_eq!(only("7\n", None), Some(7));
        assert_eq!(only("0, 1\n", None), None);
        assert_eq!(only("\n", None), None);
        assert_eq!(only("no list\n", None), None);
    }

    #[test]
    fn who_is_not_there_does_not_count() {
        let online = processors("0-1,4\n").unwrap();
        assert_eq!(only("1, 3\n", Some(&online)), Some(1));
        assert_eq!(only("4, 5, 6, 7\n", Some(&online)), Some(4));
        assert_eq!(only("0, 2, 4\n", Some(&online)), None);
        assert_eq!(only("2\n", Some(&online)), None);
    }
}
