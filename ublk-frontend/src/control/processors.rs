//! Which processors a device's queues are for.

use std::fs;

use super::block_name;

/// The processor whose requests come by a queue of a started device, if they are one's alone
/// (`/sys/block/ublkbN/mq/Q/cpu_list`, Documentation/ABI/stable/sysfs-block).
pub fn only_processor(device: u32, queue: u16) -> Option<usize> {
    only(&fs::read_to_string(format!("/sys/block/{}/mq/{queue}/cpu_list", block_name(device))).ok()?)
}

/// The number in a list of one.
fn only(list: &str) -> Option<usize> {
    list.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn a_list_of_several_is_nobodys_alone() {
        assert_eq!(only("7\n"), Some(7));
        assert_eq!(only("0, 1\n"), None);
        assert_eq!(only("\n"), None);
    }
}
