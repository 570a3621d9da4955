//! Options of our own: a choice among names.

use std::fmt;
use std::str::FromStr;

/// How the target of a queue pair reaches the data of its commands (`exposure`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Exposure {
    /// The arenas are open for as long as the queue pair lives, each in its direction: one key for all commands.
    #[default]
    Pool,
    /// The arenas are closed. Each command opens a type-2 memory window (IBA 10.6.7.2) on its bytes, in its direction,
    /// for its queue pair, and closes it before it is over.
    Window,
}

/// What makes sure that a target is done with a write whose connection was lost, before it is sent again (`fence`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fence {
    /// A LOGICAL UNIT RESET, which ends everybody's commands of the unit.
    #[default]
    LunReset,
    /// A login that ends the old nexus, as ib_srp has it. For units that are shared with other initiators: none is
    /// ever reset.
    Relogin,
}

/// A word that is none of the choice's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such choice")]
pub struct ParseChoiceError;

impl Exposure {
    const NAMES: [(&str, Self); 2] = [("pool", Self::Pool), ("window", Self::Window)];
}

fn parse<T: Copy>(names: &[(&str, T)], text: &str) -> Result<T, ParseChoiceError> {
    let found = names.iter().find(|(name, _)| *name == text);
    found.map(|(_, choice)| *choice).ok_or(ParseChoiceError)
}

fn name<T: PartialEq>(names: &[(&'static str, T)], choice: &T) -> &'static str {
    names
        .iter()
        .find(|(_, other)| other == choice)
        .map_or("", |(name, _)| name)
}

impl Fence {
    const NAMES: [(&str, Self); 2] = [("lun-reset", Self::LunReset), ("relogin", Self::Relogin)];
}

impl FromStr for Fence {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(&Self::NAMES, text)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(&Self::NAMES, self))
    }
}

impl FromStr for Exposure {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(&Self::NAMES, text)
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(&Self::NAMES, self))
    }
}
