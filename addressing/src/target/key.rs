//! The keys of the `add_target` text, and what somebody may have meant who wrote another.

/// Key and what its value may be.
pub(super) const KEYS: [(&str, &str); 23] = [
    ("id_ext", "1 to 16 hex digits"),
    ("ioc_guid", "1 to 16 hex digits"),
    ("dgid", "32 hex digits (the GID of the target port)"),
    ("pkey", "1 to 4 hex digits"),
    ("service_id", "1 to 16 hex digits"),
    ("dest", "ip:port or [ipv6%interface]:port, numeric"),
    ("src", "ip, ip:port, or [ipv6%interface] with or without :port, numeric"),
    ("io_class", "0100 or ff00"),
    ("initiator_ext", "1 to 16 hex digits"),
    ("tl_retry_count", "a number from 2 to 7"),
    ("max_sect", "a number of 512-byte sectors"),
    ("max_cmd_per_lun", "a number, at least 1"),
    ("target_can_queue", "a number, at least 1"),
    ("queue_size", "a number, at least 1"),
    ("ch_count", "a number, at least 1"),
    ("cmd_sg_entries", "a number from 1 to 255"),
    ("allow_ext_sg", "0 or 1"),
    ("sg_tablesize", "a number from 1 to 2048"),
    ("comp_vector", "a number, at least 0"),
    ("max_it_iu_size", "a number of bytes; 0 for no limit"),
    ("exposure", "pool or window"),
    ("fence", "lun-reset or relogin"),
    ("logout", "dreq or iu"),
];

const TIMERS: &str = "it is an attribute of a session; set it where the session's timers are set";
const SHOWN_ONLY: &str = "it is only shown by the kernel; leave it out";

/// Names seen in the field that are no keys, and what to do instead.
const NOT_OPTIONS: [(&str, &str); 11] = [
    (
        "allow_duplicates",
        "no kernel has it; to log in twice to one target port give each login its own initiator_ext",
    ),
    ("reconnect_delay", TIMERS),
    ("fast_io_fail_tmo", TIMERS),
    ("dev_loss_tmo", TIMERS),
    ("sgid", "the local port is chosen separately; for RDMA/CM give src"),
    ("orig_dgid", "give it as dgid"),
    ("req_lim", SHOWN_ONLY),
    ("zero_req_lim", SHOWN_ONLY),
    ("local_ib_port", SHOWN_ONLY),
    ("local_ib_device", SHOWN_ONLY),
    ("use_imm_data", "it is a parameter of the ib_srp module; leave it out"),
];

pub(super) fn names() -> String {
    KEYS.map(|(name, _)| name).join(", ")
}

/// The key of this name and what its value may be.
pub(super) fn find(name: &str) -> Option<(&'static str, &'static str)> {
    KEYS.into_iter().find(|(key, _)| *key == name)
}

pub(super) fn not_an_option(name: &str) -> Option<(&'static str, &'static str)> {
    NOT_OPTIONS.into_iter().find(|(key, _)| *key == name)
}

/// The key that differs least, if by little enough to be a slip.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Longer than any key can be mistyped; also bounds the work.
    if name.len() > 24 {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    let distances = KEYS.iter().map(|(key, _)| (distance(&name, key), *key));
    let limit = if name.len() < 5 { 1 } else { name.len() / 3 };
    distances
        .min_by_key(|(d, _)| *d)
        .filter(|(d, _)| *d <= limit)
        .map(|(_, key)| key)
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognized() {
        let table = [
            ("ioc_giud", Some("ioc_guid")),
            ("iocguid", Some("ioc_guid")),
            ("service-id", Some("service_id")),
            ("PKEY", Some("pkey")),
            ("p_key", Some("pkey")),
            ("max_sectors", Some("max_sect")),
            ("dst", Some("dest")),
            ("frobnicate", None),
            ("", None),
        ];
        for (name, key) in table {
            assert_eq!(nearest(name), key, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }

    #[test]
    fn nothing_is_both_a_key_and_not() {
        assert!(KEYS.iter().all(|(key, _)| not_an_option(key).is_none()));
    }
}
