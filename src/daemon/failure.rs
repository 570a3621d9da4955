//! Errors as a client sees them: what kind, what happened, what to do.

use std::error::Error;
use std::fmt::Write as _;

use srp_initiator::session::{LoginError, reject_reason};
use srp_initiator::wire::login::LoginRejectReason;

use super::connection::ConnectError;
use crate::rpc::protocol::{ErrorData, ErrorKind};

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Errors that show their cause themselves are not repeated.
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        source = cause.source();
    }
    text
}

/// An [`ErrorData`] of this kind.
pub(crate) fn failure(kind: ErrorKind, message: impl Into<String>) -> ErrorData {
    ErrorData {
        kind,
        message: message.into(),
        remedy: None,
        holders: Vec::new(),
    }
}

impl ErrorData {
    /// Says what to do about it.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        self.remedy = (!remedy.is_empty()).then_some(remedy);
        self
    }
}

/// Who logs in where: what remedies name.
pub(crate) struct Login<'a> {
    /// As an ACL names this initiator.
    pub(crate) initiator_port: &'a str,
    /// The source address the target sees.
    pub(crate) source: Option<std::net::IpAddr>,
    /// Where to.
    pub(crate) address: std::net::SocketAddr,
}

/// What a failed connection or login means, and the likely remedy.
pub(crate) fn login_failure(error: &ConnectError, login: &Login<'_>) -> ErrorData {
    let address = login.address;
    let (message, remedy) = match error {
        ConnectError::Consumer { private_data } => match reject_reason(private_data) {
            Ok(reason) => return rejected(reason, login),
            Err(cause) => (
                format!("{address} refused the connection without an SRP login reject ({cause})"),
                "is it an SRP target that listens on that port? NVMe-oF and iSER answer like this".to_owned(),
            ),
        },
        ConnectError::Rejected { reason } => (
            format!("{address} refused the connection: {}", reason.words()),
            reason.remedy().to_owned(),
        ),
        ConnectError::Address { .. } => (
            chain(error),
            "check the address, that the interface to it is up (`ip route get`) and has an RDMA device \
             (`rdma link`)"
                .to_owned(),
        ),
        ConnectError::Route { .. } | ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } => (
            format!("{address}: {}", chain(error)),
            "check that the target is up and that the fabric carries RDMA to it (`rping`, `ping`); UDP port 4791 \
             must pass for RoCE"
                .to_owned(),
        ),
        ConnectError::Cm(_) | ConnectError::Broken { .. } => (format!("{address}: {}", chain(error)), String::new()),
    };
    failure(ErrorKind::Target, message).remedy(remedy)
}

fn rejected(reason: LoginRejectReason, login: &Login<'_>) -> ErrorData {
    let message = format!("the target at {} rejected the login: {reason}", login.address);
    // LIO has no code for a missing ACL and says "channel limit reached": name what to type.
    if reason != LoginRejectReason::ChannelLimit {
        return failure(ErrorKind::Target, message).remedy(reason.remedy());
    }
    let mut names = format!("`{}`", login.initiator_port);
    if let Some(source) = login.source {
        let _ = write!(
            names,
            " where the target is named by its GID, `{source}` where by its GUID"
        );
    }
    failure(ErrorKind::Target, message).remedy(format!(
        "an LIO target says this when it has no ACL for this initiator; in targetcli, below the target's `acls`: \
         `create NAME`, with NAME {names}"
    ))
}

/// What an unusable login response means.
pub(crate) fn unusable(error: &LoginError, login: &Login<'_>) -> ErrorData {
    failure(ErrorKind::Target, format!("{}: {}", login.address, chain(error)))
}
