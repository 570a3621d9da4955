//! Texts that people and files give.

use std::str::FromStr;

use srp_addressing::{Endpoint, Gid, Guid, IoClass, PKey, ServiceId, TargetOptions};
use srp_configuration::{Configuration, ConfigurationError, PERIODS};
use srp_initiator::scsi::LunSet;

pub(crate) fn add_target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match TargetOptions::from_str(text) {
        Ok(options) => assert_eq!(TargetOptions::from_str(&options.to_string()), Ok(options)),
        Err(error) => drop(error.to_string()),
    }
}

/// What is printed means the same when it is read.
fn round_trip<T: FromStr + ToString + PartialEq>(text: &str) {
    if let Ok(value) = T::from_str(text) {
        assert!(
            T::from_str(&value.to_string()).is_ok_and(|again| again == value),
            "{text:?} is printed as {:?}",
            value.to_string()
        );
    }
}

pub(crate) fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    round_trip::<Gid>(text);
    round_trip::<Guid>(text);
    round_trip::<PKey>(text);
    round_trip::<ServiceId>(text);
    round_trip::<IoClass>(text);
    round_trip::<Endpoint>(text);
    let _ = LunSet::from_str(text);
}

pub(crate) fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Configuration::parse(text) {
        Ok(Configuration { discovery }) => {
            let seconds = i64::try_from(discovery.period.as_secs());
            assert!(seconds.is_ok_and(|seconds| PERIODS.contains(&seconds)), "{discovery:?}");
            assert!(discovery.watch || !discovery.attach, "{discovery:?}");
            assert!(discovery.rules.is_none_or(|path| path.is_absolute()));
        }
        Err(ConfigurationError { line, mistake }) => {
            let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert!(!mistake.to_string().is_empty());
        }
    }
}
