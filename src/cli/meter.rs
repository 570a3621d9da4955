//! How far a long scan is, for people at a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use srp_discovery::scan::Progress;

use super::output::Output;

/// Tells people at a terminal how far a long scan is.
pub(super) struct Meter<'a> {
    output: &'a Output,
    wanted: bool,
    next: Instant,
    shown: bool,
}

impl<'a> Meter<'a> {
    const FIRST: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(200);

    pub(super) fn new(output: &'a Output) -> Self {
        Self {
            output,
            wanted: std::io::stderr().is_terminal(),
            next: Instant::now() + Self::FIRST,
            shown: false,
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        let now = Instant::now();
        if self.wanted && now >= self.next {
            self.next = now + Self::PAUSE;
            self.shown = true;
            let Progress {
                port,
                asked,
                left,
                units,
            } = progress;
            self.output.passing(&format!(
                "{port}: {asked} questions asked, {left} left, {units} I/O units found"
            ));
        }
    }

    pub(super) fn clear(self) {
        if self.shown {
            self.output.passing("");
        }
    }
}
