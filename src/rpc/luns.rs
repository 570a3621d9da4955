//! Which LUNs: the text `0,3-7` of `--lun` and `--exclude`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of LUN numbers. [`Display`](fmt::Display) and [`FromStr`] are the form `0,3-7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LunSet(Vec<RangeInclusive<u64>>);

impl LunSet {
    /// Whether the LUN is one of the set.
    pub(crate) fn contains(&self, lun: u64) -> bool {
        self.0.iter().any(|range| range.contains(&lun))
    }
}

/// Text that is no set of LUNs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a LUN or a range of LUNs: {why}; give numbers and ranges such as 0,3-7")]
pub(crate) struct ParseLunsError {
    text: String,
    why: &'static str,
}

impl FromStr for LunSet {
    type Err = ParseLunsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(|part| range(part.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn range(part: &str) -> Result<RangeInclusive<u64>, ParseLunsError> {
    let refused = |why| ParseLunsError {
        text: part.to_owned(),
        why,
    };
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain
            .then(|| digits.parse().ok())
            .flatten()
            .ok_or_else(|| refused("a number is missing or too big"))
    };
    let (first, last) = match part.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => {
            let only = number(part)?;
            (only, only)
        }
    };
    if first > last {
        return Err(refused("it ends before it begins"));
    }
    Ok(first..=last)
}

impl fmt::Display for LunSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}", range.start())?;
            if range.end() != range.start() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let set: LunSet = "0,3-7, 16383".parse().unwrap();
        assert_eq!(set.to_string(), "0,3-7,16383");
        let held: Vec<u64> = (0..20).filter(|lun| set.contains(*lun)).collect();
        assert_eq!(held, [0, 3, 4, 5, 6, 7]);
        assert!(set.contains(16383));
        for bad in [
            "",
            ",",
            "1,",
            "-1",
            "1-",
            "7-3",
            "+1",
            "a",
            "1-2-3",
            "99999999999999999999",
        ] {
            let error = bad.parse::<LunSet>().unwrap_err().to_string();
            assert!(error.contains("such as 0,3-7"), "{error}");
        }
    }
}
