//! A failure as the user sees it.

use std::error::Error;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::exit::Exit;
use super::printable::printable;
use crate::rpc::client::CallError;
use crate::rpc::protocol::{ErrorData, ErrorKind};

/// Something that did not work: what, why, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(super) exit: Exit,
    kind: &'static str,
    message: String,
    remedy: Option<String>,
    holders: Vec<String>,
    /// How the program is used; text of our own, of several lines.
    usage: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ErrorData {
            kind,
            message: message.into(),
            remedy: None,
            holders: Vec::new(),
        }
        .into()
    }

    /// A failure that an error tells of, with its causes.
    pub(super) fn of(kind: ErrorKind, error: &dyn Error) -> Self {
        Self::new(kind, with_causes(error))
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says first what it is about.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Shows at the end how the program is used.
    pub(super) fn usage(mut self, usage: &str) -> Self {
        usage.trim_end().clone_into(&mut self.usage);
        self
    }

    /// Whether the message has this text in it.
    pub(super) fn mentions(&self, text: &str) -> bool {
        self.message.contains(text)
    }

    /// As standard error shows it.
    pub(super) fn text(&self) -> String {
        let mut text = format!("ublk-srp: {}\n", printable(&self.message));
        for holder in &self.holders {
            let _ = writeln!(text, "  held by: {}", printable(holder));
        }
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(text, "  hint: {}", printable(remedy));
        }
        if !self.usage.is_empty() {
            let _ = writeln!(text, "\n{}", self.usage);
        }
        text
    }

    /// As `--json` shows it.
    pub(super) fn json(&self) -> Value {
        let mut error = json!({ "kind": self.kind, "message": self.message, "exit_code": self.exit.code() });
        if let Some(remedy) = &self.remedy {
            error["remedy"] = json!(remedy);
        }
        if !self.holders.is_empty() {
            error["holders"] = json!(self.holders);
        }
        json!({ "error": error })
    }
}

impl From<ErrorData> for Failure {
    fn from(data: ErrorData) -> Self {
        let kind = match data.kind {
            ErrorKind::Usage => "usage",
            ErrorKind::Host => "host",
            ErrorKind::Target => "target",
            ErrorKind::Busy => "busy",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Exists => "exists",
            ErrorKind::Internal => "internal",
        };
        Self {
            exit: data.kind.into(),
            kind,
            message: data.message,
            remedy: data.remedy,
            holders: data.holders,
            usage: String::new(),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let kind = match error {
            CallError::Failed(data) => return data.into(),
            CallError::NotRunning { .. } | CallError::Lost(_) | CallError::Late(_) => ErrorKind::Internal,
            CallError::Denied { .. } | CallError::Unreachable { .. } => ErrorKind::Host,
            CallError::Nonsense(_) | CallError::Misunderstood { .. } => ErrorKind::Internal,
        };
        let mut failure = Self::of(kind, &error);
        failure.remedy = error.remedy().map(str::to_owned);
        if matches!(error, CallError::NotRunning { .. }) {
            (failure.exit, failure.kind) = (Exit::NotRunning, "not_running");
        }
        failure
    }
}

/// An error and its causes; a cause that the text above it already tells is not told again.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn texts() {
        let failure = Failure::from(ErrorData {
            kind: ErrorKind::Busy,
            message: "/dev/ublkb3 is in use\u{1b}[2J".to_owned(),
            remedy: Some("unmount it, or use --force".to_owned()),
            holders: vec!["mounted on /mnt\nx".to_owned(), "mkfs.ext4 (pid 12)".to_owned()],
        });
        assert_eq!(
            failure.text(),
            "ublk-srp: /dev/ublkb3 is in use\\x1b[2J\n  held by: mounted on /mnt\\x0ax\n  \
             held by: mkfs.ext4 (pid 12)\n  hint: unmount it, or use --force\n"
        );
        let json = failure.json();
        assert_eq!(
            (&json["error"]["exit_code"], &json["error"]["kind"]),
            (&json!(5), &json!("busy"))
        );
        assert_eq!(json["error"]["holders"][1], "mkfs.ext4 (pid 12)");
    }

    #[test]
    fn calls() {
        let missing = Failure::from(CallError::NotRunning { path: "/run/x".into() });
        assert_eq!(missing.exit, Exit::NotRunning);
        assert_eq!(
            missing.text(),
            "ublk-srp: the daemon is not running: nobody listens on /run/x\n  \
             hint: start it with `ublk-srp daemon` or `systemctl start ublk-srp`\n"
        );
        let broken = Failure::from(CallError::Lost(io::Error::other("EPIPE"))).text();
        assert!(broken.contains("before it answered: EPIPE\n"), "{broken}");
        assert_eq!(Failure::from(CallError::Denied { path: "/x".into() }).exit, Exit::Host);
    }
}
