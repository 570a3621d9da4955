//! Sizes as people read them.

/// Bytes in the largest binary unit that keeps a digit before the point.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(unit) = (bytes | 1).ilog2().checked_div(10).filter(|unit| *unit > 0) else {
        return format!("{bytes} B");
    };
    let one = 1_u64 << (10 * unit);
    let whole = bytes / one;
    // A tenth is cut off, not rounded up: no disk is shown larger than it is.
    let tenths = u128::from(bytes % one) * 10 / u128::from(one);
    let name = UNITS.get(unit as usize - 1).unwrap_or(&"");
    if whole >= 100 || tenths == 0 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{tenths} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            ((1 << 40) - 1, "1023 GiB"),
            (3_840_755_982_336, "3.4 TiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
