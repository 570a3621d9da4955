//! The command line.

mod attach;
mod bench;
mod configuration;
pub(crate) mod daemon;
mod detach;
mod device;
mod discover;
mod exit;
mod failure;
mod holders;
mod ibsrpdm;
mod kernel_peer;
mod known;
mod list;
mod logging;
mod meter;
mod output;
mod printable;
mod probed;
#[cfg(test)]
pub(crate) mod samples;
mod selection;
mod show;
mod size;
mod table;
mod target;
mod whoami;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind as ClapErrorKind;
use clap::{Parser, Subcommand};

use crate::rpc::protocol::{DEFAULT_SOCKET, ErrorKind};
pub(crate) use exit::Exit;
use failure::Failure;
use output::Output;

/// Remote SRP LUNs as local block devices, without a kernel initiator
#[derive(Parser, Debug)]
#[command(name = "ublk-srp", version, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    /// The daemon's control socket
    #[arg(long, global = true, help_heading = "General options", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The configuration file, over which options win [default: /etc/ublk-srp/config.toml, where there is one]
    #[arg(long, global = true, help_heading = "General options", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Results as JSON, one object per line
    #[arg(long, global = true, help_heading = "General options")]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Discover(discover::Discover),
    Whoami(whoami::Whoami),
    Attach(Box<attach::Attach>),
    List(list::List),
    Show(show::Show),
    Detach(detach::Detach),
    Bench(bench::Bench),
    Status(list::Status),
    Daemon(daemon::Daemon),
}

/// Does what the arguments ask for, the program's name being the first.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some((_, rest)) = arguments.split_first().filter(|(name, _)| ibsrpdm::is_meant(name)) {
        return ibsrpdm::run(rest);
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, arguments.iter().any(|argument| argument == "--json")),
    };
    let mut output = Output::new(cli.json);
    let (socket, config) = (&cli.socket, cli.config.as_deref());
    let done = match &cli.command {
        Command::Discover(discover) => discover.run(socket, config, &mut output),
        Command::Whoami(whoami) => whoami.run(&mut output),
        Command::Attach(attach) => attach.run(socket, &mut output),
        Command::List(list) => list.run(socket, &mut output),
        Command::Show(show) => show.run(socket, &mut output),
        Command::Detach(detach) => detach.run(socket, &mut output),
        Command::Bench(bench) => bench.run(socket, &mut output),
        Command::Status(status) => status.run(socket, &mut output),
        Command::Daemon(daemon) => daemon.run(socket, config),
    };
    if let Err(failure) = done {
        output.failure(&failure);
    }
    output.exit()
}

fn not_understood(error: &clap::Error, json: bool) -> Exit {
    let mut output = Output::new(json);
    let text = error.render().to_string();
    match error.kind() {
        ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion => output.text(&text),
        ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output.failure(&Failure::new(ErrorKind::Usage, "arguments are missing").usage(&text));
        }
        _ => {
            // The first paragraph says what is wrong, the rest how to use the program.
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let (what, usage) = text.split_once("\n\n").unwrap_or((text, ""));
            let what: Vec<&str> = what.lines().map(str::trim).collect();
            output.failure(&Failure::new(ErrorKind::Usage, what.join(" ")).usage(usage));
        }
    }
    output.exit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("ublk-srp").chain(line.split(' ')))
    }

    #[test]
    fn lines() {
        for line in [
            "daemon --socket /x --reactors 2 --log debug",
            "daemon --watch 60 --attach-rules /etc/srp_daemon.conf",
            "daemon --config /etc/ublk-srp/config.toml --no-watch --no-attach",
            "attach id_ext=1 --lun 0,3-7 --exclude 4 --read-only --json",
            "attach -",
            "attach --dest 10.0.0.1:5555 --id-ext 1 --ioc-guid 2 --initiator-ext 3 --src 10.0.0.2",
            "--json --socket /x detach 1 /dev/ublkb2 ublkb3 --force",
            "detach --all",
            "show 3 --json",
            "list",
            "status",
            "bench 0 --destroy --seconds 3 --out /x --json",
            "discover 10.0.0.1 fe80::1%eth0 --device rxe0:1 -c --rdma-cm-port 5555 -d /dev/infiniband/umad0",
            "discover --json",
            "discover 10.0.0.1 --rdma-cm-port 5555 --probe",
            "discover -c -f /etc/srp_daemon.conf",
            "discover --known",
            "discover --known -c",
            "discover --known -c -f rules",
            "discover --known --json",
            "whoami",
            "whoami id_ext=1,ioc_guid=2,dest=10.0.0.1:5555 -i mlx5_0:1 --json",
            "discover fe80000000000000000000000000abcd -i mlx5_0:1 -t 500 -r 1 -v",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "list extra",
            "detach",
            "detach --all 1",
            "detach /dev/ublkb0p1",
            "show sda",
            "bench",
            "bench 0 --seconds 0",
            "attach x --lun 7-3",
            "daemon --reactors 0",
            "daemon --watch 60 --no-watch",
            "daemon --attach-rules /etc/srp_daemon.conf --no-attach",
            "discover nowhere!",
            "discover -c --json",
            "discover -f rules",
            "discover --known 10.0.0.1",
            "discover --known -i mlx5_0",
            "discover --known -f rules",
            "discover --rdma-cm-port 0",
            "frobnicate",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
