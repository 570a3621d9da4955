//! Errors as a client sees them: what kind, what happened, what to do.

use std::error::Error;
use std::fmt::Write as _;

use srp_initiator::scsi::Lun;
use srp_initiator::session::{LoginError, SessionKey, reject_reason};
use srp_initiator::wire::login::LoginRejectReason;

use super::connection::ConnectError;
use crate::rpc::protocol::{AttachReport, ErrorData, ErrorKind};

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
    pub(crate) address: srp_verbs::cm::Address,
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
        ConnectError::Cm(cause) => (format!("{address}: {}", chain(error)), cause.remedy().to_owned()),
        ConnectError::Broken { .. } => (format!("{address}: {}", chain(error)), String::new()),
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

/// Why an attach made no block device: what was left out, what is one already, what the target has.
pub(crate) fn nothing_attached(report: &AttachReport, there: &[String], luns: &[Lun]) -> ErrorData {
    let name = &report.session.initiator_port;
    let reasons: Vec<_> = report
        .skipped
        .iter()
        .map(|skipped| format!("LUN {}: {}", skipped.lun, skipped.reason))
        .collect();
    let reasons = reasons.join("; ");
    if report.skipped.iter().any(|skipped| skipped.failed) {
        return failure(ErrorKind::Host, format!("no block device could be made: {reasons}"));
    }
    if !there.is_empty() {
        let also = if reasons.is_empty() { "" } else { "; " };
        let message = format!("nothing is left to attach: {}{also}{reasons}", there.join(", "));
        return failure(ErrorKind::Exists, message)
            .remedy("detach it first, or give a second path to it an initiator_ext of its own");
    }
    if !reasons.is_empty() {
        return failure(
            ErrorKind::Target,
            format!("the target has no disk among the LUNs wanted: {reasons}"),
        )
        .remedy(format!(
            "LUNs that are missing here have to be mapped at the target for this initiator, on LIO in its ACL {name}"
        ));
    }
    let shown: Vec<_> = luns
        .iter()
        .filter(|lun| !lun.is_well_known())
        .map(Lun::to_string)
        .collect();
    if shown.is_empty() {
        return failure(ErrorKind::Target, "the target has no LUN for this initiator").remedy(format!(
            "map LUNs for this initiator at the target, on LIO in its ACL {name}"
        ));
    }
    failure(
        ErrorKind::NotFound,
        format!(
            "none of the LUNs that the target has for this initiator is wanted: it has {}",
            shown.join(", ")
        ),
    )
    .remedy(format!(
        "check --lun and --exclude, and what the target maps for this initiator ({name})"
    ))
}

/// Why a session that ends takes no more devices.
pub(crate) fn ending(key: SessionKey) -> ErrorData {
    failure(
        ErrorKind::Busy,
        format!("session {} to this target is just being logged out", key.0),
    )
    .remedy("try again in a moment")
}
