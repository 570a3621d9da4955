//! Why an `add_target` text was refused.

use super::key;

/// An `add_target` text that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// A key nobody knows.
    #[error("unknown option {key:?}{}: valid are {}", did_you_mean(*.nearest), key::names())]
    UnknownKey {
        /// As written.
        key: String,
        /// A key that looks like it.
        nearest: Option<&'static str>,
    },
    /// Something known that is no option of a target.
    #[error("{key} is no option of a target: {why}")]
    NotAnOption {
        /// As written.
        key: &'static str,
        /// What to do instead.
        why: &'static str,
    },
    /// A part without "=".
    #[error("{0:?} has no value: write key=value")]
    NoValue(String),
    /// A value of the wrong form or out of range.
    #[error("{key}={value}: expected {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// As written, escaped.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Not enough to reach a target.
    #[error(
        "missing {}: InfiniBand needs id_ext, ioc_guid, dgid, pkey and service_id; \
         RDMA/CM (RoCE, iWARP) needs id_ext, ioc_guid and dest",
        .0.join(", ")
    )]
    Missing(
        /// The keys; where neither transport has any, those of both are named in one.
        Vec<&'static str>,
    ),
}

fn did_you_mean(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |key| format!(" (did you mean {key}?)"))
}
