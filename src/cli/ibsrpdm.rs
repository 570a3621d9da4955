//! The program under the name `ibsrpdm`: that program's options, output and exit codes, for scripts that call it.

use std::ffi::OsString;

use srp_discovery::listing::{LineOptions, ListingOptions, Logins, add_target_line, io_unit};
use srp_discovery::ports::{self, LinkLayer, Port, PortState, Roots};
use srp_discovery::scan::{FoundUnit, PortSelector, ScanOptions, ScanReport, Severity, discover};
use srp_discovery::transport::Patience;

use super::exit::Exit;
use super::kernel_peer;
use super::printable::printable;

const USAGE: &str = "\
Usage: ibsrpdm [-c] [-d UMAD] [-v]
  -c       print lines for add_target, or for `ublk-srp attach`
  -d UMAD  look through the port of this umad device, such as /dev/infiniband/umad0
           [default: the first active InfiniBand port]
  -v       also tell, on standard error, what does not answer
  -h       print this
";

/// Whether the program was called by that name.
pub(super) fn is_meant(name: &OsString) -> bool {
    std::path::Path::new(name)
        .file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with("ibsrpdm"))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    lines: bool,
    verbose: bool,
    umad: Option<String>,
}

/// Does what ibsrpdm does: 0, or 1 for any failure.
pub(super) fn run(arguments: &[OsString]) -> Exit {
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    let options = match parse(&mut arguments) {
        Ok(options) => options,
        Err(why) => {
            complain(&why);
            eprint(USAGE);
            return Exit::Internal;
        }
    };
    match scan(&options) {
        Ok(report) => show(&report, &options),
        Err(why) => {
            complain(&why);
            Exit::Internal
        }
    }
}

fn parse(arguments: &mut impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        // Like getopt: letters may stand together, and a value behind its letter or by itself.
        let letters = argument
            .strip_prefix('-')
            .filter(|letters| !letters.is_empty() && !letters.starts_with('-'))
            .ok_or_else(|| format!("{argument}: not understood"))?;
        for (at, letter) in letters.char_indices() {
            match letter {
                'c' => options.lines = true,
                'v' => options.verbose = true,
                'd' => {
                    let rest = &letters[at + 1..];
                    let value = if rest.is_empty() {
                        arguments.next()
                    } else {
                        Some(rest.to_owned())
                    };
                    options.umad = Some(value.ok_or("-d needs the name of a umad device")?);
                    break;
                }
                'h' => return Err("how it is used".to_owned()),
                other => return Err(format!("-{other}: no such option")),
            }
        }
    }
    Ok(options)
}

fn scan(options: &Options) -> Result<ScanReport, String> {
    let patience = Patience::default();
    let port = match &options.umad {
        Some(umad) => PortSelector::umad(umad),
        None => {
            let ports = ports::list(&Roots::default()).map_err(|error| error.to_string())?;
            let port = default_port(&ports)?;
            PortSelector::from(port.name.to_string().as_str())
        }
    };
    let scan = ScanOptions {
        ports: vec![port],
        patience,
        subnet_patience: patience,
        ..ScanOptions::default()
    };
    discover(&scan, &mut |_| {}).map_err(|error| error.to_string())
}

/// The first InfiniBand port that is up.
fn default_port(ports: &[Port]) -> Result<&Port, String> {
    let of_infiniband = || ports.iter().filter(|port| port.link_layer == LinkLayer::InfiniBand);
    if let Some(port) = of_infiniband().find(|port| port.state == PortState::Active) {
        return Ok(port);
    }
    match of_infiniband().next() {
        Some(port) => Err(format!(
            "{} is {}, not ACTIVE: {}",
            port.name,
            port.state,
            port.state.remedy()
        )),
        None => Err("this host has no InfiniBand port; targets on RoCE are found by `ublk-srp discover`".to_owned()),
    }
}

fn show(report: &ScanReport, options: &Options) -> Exit {
    let mut exit = Exit::Success;
    let mut out = String::new();
    if options.lines {
        let line = LineOptions {
            max_imm_data: kernel_peer::max_immediate_data(),
            ..LineOptions::default()
        };
        for target in report.units.iter().flat_map(FoundUnit::every_target) {
            match add_target_line(&target, &line) {
                Ok(line) => out += &format!("{}\n", printable(&line)),
                Err(error) => {
                    complain(&error.to_string());
                    exit = Exit::Internal;
                }
            }
        }
    } else {
        let listing = ListingOptions {
            repeated: true,
            ..ListingOptions::default()
        };
        for found in &report.units {
            out += &io_unit(&found.unit, Logins::ByService, listing);
        }
    }
    if std::io::Write::write_all(&mut std::io::stdout().lock(), out.as_bytes()).is_err() {
        exit = Exit::Internal;
    }
    for problem in &report.problems {
        if problem.severity == Severity::Error {
            exit = Exit::Internal;
        }
        if options.verbose || problem.severity > Severity::Note {
            complain(&problem.to_string());
        }
    }
    exit
}

fn complain(text: &str) {
    eprint(&format!("ibsrpdm: {}\n", printable(text)));
}

fn eprint(text: &str) {
    // There is nowhere left to complain.
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(&mut line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn its_name() {
        for (name, meant) in [
            ("ibsrpdm", true),
            ("/usr/sbin/ibsrpdm", true),
            ("./my-ibsrpdm", true),
            ("ublk-srp", false),
            ("/opt/ibsrpdm/ublk-srp", false),
        ] {
            assert_eq!(is_meant(&name.into()), meant, "{name}");
        }
    }

    #[test]
    fn its_options() {
        let options = |lines, verbose, umad: Option<&str>| {
            let umad = umad.map(str::to_owned);
            Ok(Options { lines, verbose, umad })
        };
        assert_eq!(parsed(""), options(false, false, None));
        assert_eq!(parsed("-c"), options(true, false, None));
        assert_eq!(parsed("-vc -d umad1"), options(true, true, Some("umad1")));
        assert_eq!(
            parsed("-cd/dev/infiniband/umad0"),
            options(true, false, Some("/dev/infiniband/umad0"))
        );
        for bad in ["-h", "-k", "--json", "umad0", "-d", "-"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
