//! The daemon's log: standard error, as systemd and terminals like it.

mod lossy;

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use lossy::{LastLines, Lossy};

use super::failure::Failure;
use crate::rpc::protocol::ErrorKind;

/// Says what to log where `--log` does not.
const VARIABLE: &str = "UBLK_SRP_LOG";

/// Logs to standard error from now on; what is returned is kept until the end of the program.
pub(super) fn start(filter: Option<&str>) -> Result<LastLines, Failure> {
    let variable = env::var(VARIABLE).ok();
    let (origin, text) = match (filter, variable.as_deref()) {
        (Some(text), _) => ("--log", text),
        (None, Some(text)) if !text.is_empty() => (VARIABLE, text),
        // libublk says at this level what the daemon says itself.
        _ => ("", "info,libublk=warn"),
    };
    let filter = EnvFilter::builder().parse(text).map_err(|error| {
        Failure::of(ErrorKind::Usage, &error)
            .about(&format!("{origin}={text}"))
            .remedy("give error, warn, info, debug or trace, also per module as in warn,ublk_srp::rpc=debug")
    })?;
    let failed = |error: &dyn Error| Failure::of(ErrorKind::Internal, error).about("cannot start the log");
    let sink = Lossy::start(io::stderr()).map_err(|error| failed(&error))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(sink.clone())
        .with_ansi(io::stderr().is_terminal());
    // The journal puts its own time on every line.
    let started = if to_journal() {
        log.without_time().try_init()
    } else {
        log.with_timer(SystemTime).try_init()
    };
    started.map_err(|error| failed(error.as_ref()))?;
    Ok(LastLines(sink))
}

/// Whether standard error is the stream that systemd says leads to the journal.
fn to_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else {
        return false;
    };
    env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
