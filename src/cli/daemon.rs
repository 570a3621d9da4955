//! `ublk-srp daemon`.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use srp_discovery::rules::Rules;
use ublk_frontend::reactor::ReactorConfig;

use super::failure::Failure;
use super::logging;
use crate::daemon::watch::Plan;
use crate::rpc::protocol::ErrorKind;

/// Run the daemon: it holds the sessions and serves the block devices
#[derive(Args, Clone, Debug)]
pub(super) struct Daemon {
    /// Reactor threads [default: one for each core]
    #[arg(long, value_name = "N")]
    reactors: Option<NonZeroU16>,
    /// How long a reactor looks for work before it sleeps, where work usually comes that soon; 0 to sleep at once
    #[arg(long, value_name = "MICROSECONDS", default_value_t = ReactorConfig::SPIN.as_micros())]
    spin: u128,
    /// Watch the InfiniBand ports for targets that come and go, and scan them all every so many seconds
    #[arg(long, value_name = "SECONDS")]
    watch: Option<NonZeroU16>,
    /// Attach the targets that the rules of this file allow, as they appear; the rules are those of srp_daemon.conf
    #[arg(long, value_name = "FILE", requires = "watch")]
    attach_rules: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or per module as in warn,ublk_srp::rpc=debug
    /// [default: $UBLK_SRP_LOG, or info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// What the daemon is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DaemonOptions {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// Reactor threads; nothing said means one for each core.
    pub(crate) reactors: Option<u16>,
    /// How long a reactor looks for work before it sleeps.
    pub(crate) spin: Duration,
    /// How InfiniBand ports are watched; nothing said means not at all.
    pub(crate) watch: Option<Plan>,
}

impl Daemon {
    pub(super) fn run(&self, socket: &Path) -> Result<(), Failure> {
        let _last_lines = logging::start(self.log.as_deref())?;
        crate::daemon::check_host()?;
        // Threads inherit it, so all of the daemon's have it: memory is never reclaimed by writing to the disks
        // that they serve.
        if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
            tracing::warn!(%error, "not marked as serving disks (CAP_SYS_RESOURCE): short memory may stop this daemon");
        }
        let attach = self.attach_rules.as_deref().map(Rules::read).transpose();
        let attach = attach.map_err(|error| Failure::of(ErrorKind::Usage, &error))?;
        let watch = self.watch.map(|seconds| Plan {
            period: Duration::from_secs(seconds.get().into()),
            attach,
        });
        let options = DaemonOptions {
            socket: socket.to_owned(),
            reactors: self.reactors.map(NonZeroU16::get),
            spin: Duration::from_micros(u64::try_from(self.spin).unwrap_or(u64::MAX)),
            watch,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("ublk-srp-ctl")
            .enable_all()
            .build()
            .map_err(|error| Failure::of(ErrorKind::Host, &error).about("cannot start the daemon's threads"))?;
        let ended = runtime.block_on(crate::daemon::run(options));
        // Tasks that still wait for something must not hold up the end.
        runtime.shutdown_background();
        Ok(ended?)
    }
}
