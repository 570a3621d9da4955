//! Where results and messages go.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::printable::{printable, printable_json};

/// Standard output for results, standard error for messages, and the worst that happened.
pub(super) struct Output {
    json: bool,
    worst: Exit,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            worst: Exit::Success,
        }
    }

    /// A result: as JSON if that was asked for, else as text that ends its lines itself.
    pub(super) fn result(&mut self, result: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.json_line(result);
        } else {
            self.text(&text());
        }
    }

    /// Text for standard output, whatever the form.
    pub(super) fn text(&mut self, text: &str) {
        self.stdout(text);
    }

    fn json_line(&mut self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(json) => self.stdout(&format!("{}\n", printable_json(&json))),
            Err(error) => {
                self.worst = Exit::Internal;
                stderr(&format!("ublk-srp: a result cannot be written as JSON: {error}\n"));
            }
        }
    }

    /// A failure, after which the rest goes on.
    pub(super) fn failure(&mut self, failure: &Failure) {
        if self.json {
            self.json_line(&failure.json());
        }
        self.failure_text(failure);
    }

    /// A failure that the JSON result has told already.
    pub(super) fn failure_text(&mut self, failure: &Failure) {
        stderr(&failure.text());
        self.worst = self.worst.max(failure.exit);
    }

    /// Something the user should know.
    pub(super) fn warning(&self, text: &str) {
        stderr(&format!("ublk-srp: warning: {}\n", printable(text)));
    }

    /// Something worth a line.
    pub(super) fn note(&self, text: &str) {
        stderr(&format!("ublk-srp: {}\n", printable(text)));
    }

    /// A line that the next one replaces, where that can be seen.
    pub(super) fn passing(&self, text: &str) {
        if io::stderr().is_terminal() {
            stderr(&format!("\r\x1b[K{}", printable(text)));
        }
    }

    /// How the program ends.
    pub(super) fn exit(&self) -> Exit {
        self.worst
    }

    fn stdout(&mut self, text: &str) {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        match written {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                self.worst = self.worst.max(Exit::Internal);
                stderr(&format!("ublk-srp: cannot write to standard output: {error}\n"));
            }
            Ok(()) => {}
        }
    }
}

fn stderr(text: &str) {
    // There is nowhere left to complain.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
