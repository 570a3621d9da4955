//! What is wrong with a configuration.

use std::io;
use std::path::PathBuf;

/// A file that is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not read.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Not understood.
    #[error("{}, {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: ConfigurationError,
    },
}

/// The first mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {mistake}")]
pub struct ConfigurationError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub mistake: Mistake,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that means nothing.
    #[error("unknown key {key}: here may be {}", known.join(", "))]
    UnknownKey {
        /// The key, with its table.
        key: String,
        /// What there may be.
        known: &'static [&'static str],
    },
    /// A value that means nothing.
    #[error("{key} = {value}: it may be {wanted}")]
    Value {
        /// The key, with its table.
        key: String,
        /// The value, as it is written.
        value: String,
        /// What it may be.
        wanted: String,
    },
    /// A setting without effect.
    #[error("{key} has no effect without {needs}")]
    Needs {
        /// The key, with its table.
        key: String,
        /// What it needs.
        needs: &'static str,
    },
}
