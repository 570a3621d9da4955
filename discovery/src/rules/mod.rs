//! The rules of `/etc/srp_daemon.conf`: which targets are logged in to, and with which options.
//!
//! One rule in a line; the first one that matches counts; what no rule matches is allowed. What srp_daemon takes is
//! taken, with the same meaning; a last line without a newline and lines that end in CR LF are taken too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use srp_addressing::{Gid, Guid, PKey, ServiceId, TargetOptions, Transport};

use crate::targets::Target;

/// What may be passed through to the login, in decimal.
const OPTIONS: [&str; 9] = [
    "allow_ext_sg",
    "ch_count",
    "cmd_sg_entries",
    "comp_vector",
    "max_cmd_per_lun",
    "max_sect",
    "queue_size",
    "sg_tablesize",
    "tl_retry_count",
];
/// Those that srp_daemon refuses and `attach` takes.
const NOT_HERE: [&str; 6] = [
    "max_it_iu_size",
    "initiator_ext",
    "target_can_queue",
    "io_class",
    "dest",
    "src",
];

/// The rules of a file, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    allow: bool,
    id_ext: Option<u64>,
    ioc_guid: Option<Guid>,
    dgid: Option<Gid>,
    service_id: Option<ServiceId>,
    pkey: Option<PKey>,
    options: String,
}

/// What rules look at.
struct Names {
    id_ext: Option<u64>,
    ioc_guid: Guid,
    dgid: Option<Gid>,
    service_id: Option<ServiceId>,
    pkey: Option<PKey>,
}

/// What the rules say of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Log in, with these further options (`key=value`, separated by commas; often empty).
    Allow(String),
    /// Do not.
    Disallow,
}

/// A file that cannot be read as rules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// Not read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Not understood.
    #[error("{}, line {line}: {cause}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        cause: LineError,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Neither allows nor disallows.
    #[error("{0:?} begins no rule: a rule begins with `a` (allow) or `d` (disallow), a comment with `#`")]
    Kind(String),
    /// Something without a value.
    #[error("{0:?} is not of the form key=value")]
    NoValue(String),
    /// A key nobody knows.
    #[error(
        "unknown key {0:?}: rules match id_ext, ioc_guid, dgid, service_id and pkey, and allow rules pass on {options}",
        options = OPTIONS.join(", ")
    )]
    Key(String),
    /// A key of add_target that rules cannot have.
    #[error("{0} cannot stand in a rule: srp_daemon knows it not either; give it to `attach` instead")]
    NotHere(String),
    /// An option in a rule that disallows.
    #[error("{0} is an option of a login, which a `d` rule does not make")]
    OptionOfNothing(String),
    /// A value that is none.
    #[error("{key}={value}: {why}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What it should be.
        why: String,
    },
}

impl Rules {
    /// Reads a file.
    ///
    /// # Errors
    /// The first line that is not understood, or why the file could not be read.
    pub fn read(path: &Path) -> Result<Self, RulesError> {
        let path = path.to_owned();
        match fs::read(&path) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)).map_err(|(line, cause)| RulesError::Line {
                path,
                line,
                cause,
            }),
            Err(cause) => Err(RulesError::Read { path, cause }),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The number of the first line that is not understood, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, LineError)> {
        let mut rules = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            rules.push(rule(line).map_err(|cause| (number, cause))?);
        }
        Ok(Self(rules))
    }

    /// What the first rule that matches says.
    #[must_use]
    pub fn verdict(&self, target: &Target) -> Verdict {
        self.verdict_on(&Names {
            id_ext: u64::from_str_radix(&target.id_ext, 16).ok(),
            ioc_guid: target.ioc_guid,
            dgid: Some(target.gid),
            service_id: Some(target.service_id),
            pkey: Some(target.pkey),
        })
    }

    /// The same of a login line. One by IP address has no GID, service id or P_Key to match.
    #[must_use]
    pub fn verdict_on_line(&self, line: &TargetOptions) -> Verdict {
        let (dgid, service_id, pkey) = match line.transport {
            Transport::InfiniBand { dgid, pkey, service_id } => (Some(dgid), Some(service_id), Some(pkey)),
            Transport::RdmaCm { .. } => (None, None, None),
        };
        self.verdict_on(&Names {
            id_ext: Some(line.id_ext),
            ioc_guid: line.ioc_guid,
            dgid,
            service_id,
            pkey,
        })
    }

    fn verdict_on(&self, names: &Names) -> Verdict {
        match self.0.iter().find(|rule| rule.matches(names)) {
            Some(rule) if !rule.allow => Verdict::Disallow,
            Some(rule) => Verdict::Allow(rule.options.clone()),
            None => Verdict::Allow(String::new()),
        }
    }
}

impl Rule {
    fn matches(&self, names: &Names) -> bool {
        fn fits<T: PartialEq>(wanted: Option<T>, is: Option<T>) -> bool {
            wanted.is_none() || wanted == is
        }
        fits(self.id_ext, names.id_ext)
            && fits(self.ioc_guid, Some(names.ioc_guid))
            && fits(self.dgid, names.dgid)
            && fits(self.service_id, names.service_id)
            && fits(self.pkey, names.pkey)
    }
}

fn rule(line: &str) -> Result<Rule, LineError> {
    let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let kind = words.next().unwrap_or_default();
    // srp_daemon looks at the first letter alone, so that "allow" and "disallow" do too.
    let allow = match kind.chars().next() {
        Some('a' | 'A') => true,
        Some('d' | 'D') => false,
        _ => return Err(LineError::Kind(kind.to_owned())),
    };
    let mut rule = Rule {
        allow,
        ..Rule::default()
    };
    // "aid_ext=..." would be taken for a kind otherwise, and its key be lost.
    if kind.contains('=') {
        return Err(LineError::Kind(kind.to_owned()));
    }
    for word in words {
        let (key, value) = word
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| LineError::NoValue(word.to_owned()))?;
        let wrong = |why: &dyn std::fmt::Display| LineError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            why: why.to_string(),
        };
        match key {
            "id_ext" => rule.id_ext = Some(value.parse::<Guid>().map_err(|_| wrong(&"1 to 16 hex digits"))?.0),
            "ioc_guid" => rule.ioc_guid = Some(value.parse().map_err(|_| wrong(&"1 to 16 hex digits"))?),
            "dgid" => rule.dgid = Some(value.parse().map_err(|_| wrong(&"32 hex digits"))?),
            "service_id" => rule.service_id = Some(value.parse().map_err(|error| wrong(&error))?),
            "pkey" => rule.pkey = Some(value.parse().map_err(|error| wrong(&error))?),
            option if OPTIONS.contains(&option) => {
                if !allow {
                    return Err(LineError::OptionOfNothing(option.to_owned()));
                }
                let number = value.parse::<u32>().ok().filter(|_| !value.starts_with('+'));
                let number = number.ok_or_else(|| wrong(&"a decimal number is wanted"))?;
                if option == "tl_retry_count" && !(2..=7).contains(&number) {
                    return Err(wrong(&"2 to 7"));
                }
                if !rule.options.is_empty() {
                    rule.options.push(',');
                }
                rule.options += word;
            }
            other if NOT_HERE.contains(&other) => return Err(LineError::NotHere(other.to_owned())),
            other => return Err(LineError::Key(other.to_owned())),
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests;
