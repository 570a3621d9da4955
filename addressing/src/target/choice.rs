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

/// How a session that is not needed any more ends (`logout`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Logout {
    /// The connections end; targets take that for a logout.
    #[default]
    Disconnect,
    /// SRP_I_LOGOUT (SRP r16a 6.6) goes before, for targets that want it.
    Iu,
}

/// A word that is none of the choice's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such choice")]
pub struct ParseChoiceError;

/// Text and choice, both ways.
macro_rules! named {
    ($choice:ident: $($name:literal $value:ident),+) => {
        impl FromStr for $choice {
            type Err = ParseChoiceError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$value),)+
                    _ => Err(ParseChoiceError),
                }
            }
        }

        impl fmt::Display for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$value => $name,)+
                })
            }
        }
    };
}

named!(Exposure: "pool" Pool, "window" Window);
named!(Fence: "lun-reset" LunReset, "relogin" Relogin);
named!(Logout: "dreq" Disconnect, "iu" Iu);
