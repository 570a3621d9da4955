//! `ublk-srp daemon`.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use srp_configuration::Discovery;
use srp_discovery::rules::{Rules, RulesError};
use ublk_frontend::reactor::ReactorConfig;

use super::configuration;
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
    #[arg(long, value_name = "SECONDS", conflicts_with = "no_watch")]
    watch: Option<NonZeroU16>,
    /// Do not watch, whatever the configuration says
    #[arg(long, conflicts_with = "attach_rules")]
    no_watch: bool,
    /// Attach the targets that the rules of this file allow, as they appear; the rules are those of srp_daemon.conf
    #[arg(long, value_name = "FILE", conflicts_with = "no_attach")]
    attach_rules: Option<PathBuf>,
    /// Attach nothing by itself, whatever the configuration says
    #[arg(long)]
    no_attach: bool,
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
    pub(super) fn run(&self, socket: &Path, config: Option<&Path>) -> Result<(), Failure> {
        let _last_lines = logging::start(self.log.as_deref())?;
        let watch = self.plan(configuration::read(config)?.discovery)?;
        crate::daemon::check_host()?;
        // Threads inherit it, so all of the daemon's have it: memory is never reclaimed by writing to the disks
        // that they serve.
        if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
            tracing::warn!(%error, "not marked as serving disks (CAP_SYS_RESOURCE): short memory may stop this daemon");
        }
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

    /// How ports are watched.
    fn plan(&self, mut discovery: Discovery) -> Result<Option<Plan>, Failure> {
        self.win_over(&mut discovery);
        if !discovery.watch {
            return match self.attach_rules {
                Some(_) => Err(
                    Failure::new(ErrorKind::Usage, "--attach-rules has no effect where nobody watches")
                        .remedy("add --watch SECONDS, or set discovery.watch = true in the configuration"),
                ),
                None => Ok(None),
            };
        }
        let rules = discovery.rules.as_deref().filter(|_| discovery.attach);
        let rules = rules.map(Rules::read).transpose().map_err(|error| {
            let kind = match error {
                RulesError::Read { .. } => ErrorKind::Host,
                _ => ErrorKind::Usage,
            };
            Failure::new(kind, error.to_string())
        })?;
        Ok(Some(Plan {
            period: discovery.period,
            attach: discovery.attach.then(|| rules.unwrap_or_default()),
        }))
    }

    fn win_over(&self, discovery: &mut Discovery) {
        if let Some(seconds) = self.watch {
            discovery.watch = true;
            discovery.period = Duration::from_secs(seconds.get().into());
        }
        if let Some(file) = &self.attach_rules {
            discovery.attach = true;
            discovery.rules = Some(file.clone());
        }
        discovery.watch &= !self.no_watch;
        discovery.attach &= !self.no_attach;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;
    use clap::Parser;
    use srp_configuration::Configuration;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        daemon: Daemon,
    }

    /// The plan of a daemon with this configuration and these options, `RULES` being a file of rules.
    fn plan(configuration: &str, options: &str) -> Result<Option<Plan>, String> {
        let scratch = Scratch::new();
        let rules = scratch.path("rules");
        let rules_text = rules.to_str().unwrap();
        std::fs::write(&rules, "a queue_size=8\n").unwrap();
        let configuration = Configuration::parse(&configuration.replace("RULES", rules_text)).unwrap();
        let options = options.replace("RULES", rules_text);
        let words = std::iter::once("daemon").chain(options.split_whitespace());
        let daemon = Line::try_parse_from(words).map_err(|error| error.to_string())?.daemon;
        daemon.plan(configuration.discovery).map_err(|failure| failure.text())
    }

    const ALL: &str = "[discovery]\nwatch = true\nperiod = 30\nattach = true\nrules = 'RULES'\n";

    #[test]
    fn configuration_and_options() {
        let rules = Rules::parse("a queue_size=8").unwrap();
        let wanted = |seconds, attach: Option<&Rules>| {
            let (period, attach) = (Duration::from_secs(seconds), attach.cloned());
            Ok(Some(Plan { period, attach }))
        };
        assert_eq!(plan("", ""), Ok(None), "nothing happens unasked");
        assert_eq!(plan(ALL, ""), wanted(30, Some(&rules)));
        assert_eq!(plan("[discovery]\nwatch = true", ""), wanted(60, None));
        let all = "[discovery]\nwatch = true\nattach = true";
        assert_eq!(plan(all, ""), wanted(60, Some(&Rules::default())), "all are wanted");
        // Options win.
        assert_eq!(plan(ALL, "--watch 7"), wanted(7, Some(&rules)));
        assert_eq!(plan(ALL, "--no-attach"), wanted(30, None));
        assert_eq!(plan(ALL, "--no-watch"), Ok(None));
        assert_eq!(plan("", "--watch 7 --attach-rules RULES"), wanted(7, Some(&rules)));
        assert_eq!(
            plan("[discovery]\nwatch = true", "--attach-rules RULES"),
            wanted(60, Some(&rules))
        );
    }

    #[test]
    fn what_is_refused() {
        let refused = |configuration, options, told: &str| {
            let error = plan(configuration, options).unwrap_err();
            assert!(error.contains(told), "{error}");
        };
        refused("", "--attach-rules RULES", "add --watch SECONDS");
        refused("", "--watch 7 --no-watch", "cannot be used with");
        let broken = "[discovery]\nwatch = true\nattach = true\nrules = '/nowhere/rules'";
        refused(broken, "", "cannot read /nowhere/rules");
        assert!(
            plan(&broken.replace("attach = true", ""), "").is_ok(),
            "they are not needed"
        );
    }
}
