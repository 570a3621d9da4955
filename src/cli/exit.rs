//! Exit codes: what they mean, and which of several counts.

use std::process::ExitCode;

use crate::rpc::protocol::ErrorKind;

/// The part of `--help` that tells the exit codes.
pub(super) const HELP: &str = "\
Exit codes:
  0  done
  1  failed for a reason that none of the following names
  2  usage: an unknown option, a malformed target or device name
  3  the daemon is not running
  4  not permitted, or this host lacks something (module, device, privilege)
  5  the device is in use, or the target is attached already
  6  the target cannot be reached, refused, or did not answer
  7  not found: no such device, or nothing to work on
With several devices or targets all are tried; of several failures the one that
comes first in the order 1, 3, 4, 6, 5, 7, 2 gives the exit code.

With --json each result is one line of JSON on standard output, and a failure is
a line {\"error\": {\"kind\", \"message\", \"exit_code\", \"remedy\", \"holders\"}}; the kinds
are internal, usage, not_running, host, exists, busy, target, not_found.
Messages for people go to standard error in either case.";

/// How the program ends; what is worse is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    Success,
    Usage,
    NotFound,
    Busy,
    Target,
    Host,
    NotRunning,
    Internal,
}

impl Exit {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::Host => 4,
            Self::Busy => 5,
            Self::Target => 6,
            Self::NotFound => 7,
        }
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Host => Self::Host,
            ErrorKind::Target => Self::Target,
            ErrorKind::Busy | ErrorKind::Exists => Self::Busy,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts() {
        let order: Vec<u8> = {
            use Exit::*;
            let mut all = vec![Usage, NotFound, Busy, Target, Host, NotRunning, Internal, Success];
            all.sort_by(|a, b| b.cmp(a));
            all.into_iter().map(Exit::code).collect()
        };
        assert_eq!(order, [1, 3, 4, 6, 5, 7, 2, 0]);
        assert!(HELP.contains("1, 3, 4, 6, 5, 7, 2"));
    }
}
