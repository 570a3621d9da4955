//! What the kernel's initiator, ib_srp, is set to: lines for its `add_target` depend on it.

use std::fs;
use std::path::Path;

/// The most immediate data that ib_srp sends, if it is loaded and sends any. A target that takes less needs
/// `max_it_iu_size` in its line.
pub(super) fn max_immediate_data() -> Option<u32> {
    of(Path::new("/sys/module/ib_srp/parameters"))
}

fn of(parameters: &Path) -> Option<u32> {
    let read = |name| fs::read_to_string(parameters.join(name)).ok();
    let used = read("use_imm_data")?;
    if !matches!(used.trim_end(), "Y" | "1") {
        return None;
    }
    read("max_imm_data")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let dir = std::env::temp_dir().join(format!("ublk-srp-peer-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(of(&dir), None);
        fs::write(dir.join("use_imm_data"), "Y\n").unwrap();
        fs::write(dir.join("max_imm_data"), "8192\n").unwrap();
        assert_eq!(of(&dir), Some(8192));
        fs::write(dir.join("use_imm_data"), "N\n").unwrap();
        assert_eq!(of(&dir), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
