//! The configuration file, `/etc/ublk-srp/config.toml`: TOML, one table for each part of the program.
//!
//! A key that nobody knows and a value that makes no sense are errors that say which key, in which line, and what it may
//! be: a setting with a typing error must not be a setting without effect.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use error::{ConfigurationError, Mistake, ReadError};

/// Where the file is when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/ublk-srp/config.toml";
/// Seconds that `period` may have: up to a day.
pub const PERIODS: RangeInclusive<i64> = 1..=86_400;
/// No sensible file is longer.
const LONGEST: u64 = 1 << 20;

/// What the file says; without one, the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The table `discovery`.
    pub discovery: Discovery,
}

/// Whether targets are watched for, and what is done about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Watch the InfiniBand ports of this host.
    pub watch: bool,
    /// How often everything is scanned, whatever events tell.
    pub period: Duration,
    /// A file with rules, which are those of srp_daemon.conf: which targets lines are printed for, and which are attached by
    /// themselves. Without one, all are.
    pub rules: Option<PathBuf>,
    /// Attach wanted targets by itself.
    pub attach: bool,
    /// Where targets take RDMA/CM logins, which nothing announces.
    pub rdma_cm_port: Option<NonZeroU16>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            watch: false,
            period: Duration::from_secs(60),
            rules: None,
            attach: false,
            rdma_cm_port: None,
        }
    }
}

impl Configuration {
    /// Reads the file at `path`; where there is none, nothing is returned.
    ///
    /// # Errors
    /// When it cannot be read, or for the first mistake in it.
    pub fn read(path: &Path) -> Result<Option<Self>, ReadError> {
        let failed = |cause| ReadError::Io {
            path: path.to_owned(),
            cause,
        };
        let mut bytes = Vec::new();
        match File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes)) {
            Ok(_) if bytes.len() as u64 > LONGEST => return Err(failed(io::ErrorKind::FileTooLarge.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let error = |error| ReadError::Content {
            path: path.to_owned(),
            error,
        };
        let text = std::str::from_utf8(&bytes).map_err(|utf8| {
            let before = bytes.get(..utf8.valid_up_to()).unwrap_or_default();
            error(ConfigurationError {
                line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
                mistake: Mistake::Syntax("this is not text (UTF-8)".to_owned()),
            })
        })?;
        Self::parse(text).map(Some).map_err(error)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let root = DeTable::parse(text).map_err(|error| ConfigurationError {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            mistake: Mistake::Syntax(error.message().to_owned()),
        })?;
        let mut configuration = Self::default();
        for entry in Entry::all(text, "", root.get_ref()) {
            match entry.name() {
                "discovery" => configuration.discovery = discovery(text, &entry)?,
                _ => return Err(entry.unknown(&["discovery"])),
            }
        }
        Ok(configuration)
    }
}

fn discovery(text: &str, table: &Entry<'_>) -> Result<Discovery, ConfigurationError> {
    let mut found = Discovery::default();
    let mut attach = None;
    for entry in Entry::all(text, "discovery.", table.table()?) {
        match entry.name() {
            "watch" => found.watch = entry.boolean()?,
            "period" => found.period = Duration::from_secs(entry.seconds(PERIODS)?),
            "rules" => found.rules = Some(entry.path()?),
            "attach" => {
                found.attach = entry.boolean()?;
                attach = Some(entry);
            }
            "rdma_cm_port" => found.rdma_cm_port = Some(entry.port()?),
            _ => return Err(entry.unknown(&["watch", "period", "rules", "attach", "rdma_cm_port"])),
        }
    }
    match attach {
        Some(entry) if found.attach && !found.watch => Err(entry.mistake(Mistake::Needs {
            key: entry.key(),
            needs: "discovery.watch = true",
        })),
        _ => Ok(found),
    }
}

/// A key and its value.
struct Entry<'a> {
    text: &'a str,
    /// The table it is in, with a dot behind it.
    within: &'static str,
    key: &'a Spanned<Cow<'a, str>>,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Entry<'a> {
    /// The entries of a table, in the order of the file, so that the first mistake is reported.
    fn all(text: &'a str, within: &'static str, table: &'a DeTable<'a>) -> Vec<Self> {
        let entry = |(key, value)| Self {
            text,
            within,
            key,
            value,
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.key.span().start);
        entries
    }

    fn name(&self) -> &str {
        self.key.get_ref()
    }

    fn key(&self) -> String {
        format!("{}{}", self.within, self.key.get_ref())
    }

    fn mistake(&self, mistake: Mistake) -> ConfigurationError {
        ConfigurationError {
            line: line_of(self.text, self.key.span().start),
            mistake,
        }
    }

    fn unknown(&self, known: &'static [&'static str]) -> ConfigurationError {
        self.mistake(Mistake::UnknownKey { key: self.key(), known })
    }

    fn wrong(&self, wanted: &str) -> ConfigurationError {
        let value = self.text.get(self.value.span()).unwrap_or_default();
        let line = value.lines().next().unwrap_or_default();
        self.mistake(Mistake::Value {
            key: self.key(),
            value: line.chars().take(80).collect(),
            wanted: wanted.to_owned(),
        })
    }

    fn table(&self) -> Result<&'a DeTable<'a>, ConfigurationError> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(&format!("a table, as in [{}]", self.key()))),
        }
    }

    fn boolean(&self) -> Result<bool, ConfigurationError> {
        self.value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.wrong("true or false"))
    }

    fn integer(&self) -> Option<i64> {
        let number = self.value.get_ref().as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    fn seconds(&self, range: RangeInclusive<i64>) -> Result<u64, ConfigurationError> {
        let number = self.integer().filter(|number| range.contains(number));
        let number = number.and_then(|number| u64::try_from(number).ok());
        let wanted = || format!("a number of seconds, {} to {}", range.start(), range.end());
        number.ok_or_else(|| self.wrong(&wanted()))
    }

    fn port(&self) -> Result<NonZeroU16, ConfigurationError> {
        let number = self.integer().and_then(|number| u16::try_from(number).ok());
        let port = number.and_then(NonZeroU16::new);
        port.ok_or_else(|| self.wrong("a port number, 1 to 65535"))
    }

    fn path(&self) -> Result<PathBuf, ConfigurationError> {
        let path = self.value.get_ref().as_str().map(Path::new);
        // The daemon's working directory is nobody's business.
        let path = path.filter(|path| path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0));
        path.map(Path::to_owned)
            .ok_or_else(|| self.wrong("the path of a file, from / on, in quotes"))
    }
}

/// The line, from 1, of a place in a text.
fn line_of(text: &str, place: usize) -> usize {
    let before = text.as_bytes().get(..place).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests;
