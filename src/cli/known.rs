//! `ublk-srp discover --known`.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;
use srp_discovery::rules::{Rules, Verdict};

use super::discover::Wanted;
use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use super::table::Table;
use crate::rpc::client;
use crate::rpc::protocol::{KnownTarget, KnownTargets, WatchedPort, method};

/// Shows what the daemon knows; what is `wanted` as text for `attach`, if that is asked for.
pub(super) fn run(socket: &Path, wanted: Option<&Wanted>, output: &mut Output) -> Result<(), Failure> {
    let known: KnownTargets = client::call(socket, method::TARGETS, &())?;
    if let Some(wanted) = wanted {
        let (lines, left_out) = lines(&known, &wanted.rules);
        for line in lines {
            output.text(&format!("{}\n", printable(&line)));
        }
        wanted.tell(left_out, output);
    } else {
        output.result(&known, || listing(&known));
    }
    if known.ports.is_empty() {
        output.note(
            "the daemon watches no port: there is no active InfiniBand port with a MAD device (modprobe ib_umad); its log \
             says what is wrong with one. RoCE ports have no subnet manager to report anything: `ublk-srp discover` asks there",
        );
    } else if known.ports.iter().all(|port| port.targets.is_empty()) {
        output.note("no SRP target is known");
    }
    Ok(())
}

/// Each once: two ports in one fabric know the same targets. And how many the rules leave out.
fn lines(known: &KnownTargets, rules: &Rules) -> (Vec<String>, usize) {
    let targets = known.ports.iter().flat_map(|port| &port.targets);
    let (mut lines, mut left_out): (Vec<String>, usize) = (Vec::new(), 0);
    let mut seen = HashSet::new();
    for line in targets.filter_map(|target| target.line.as_deref()) {
        if !seen.insert(line) {
            continue;
        }
        match line.parse().map(|target| rules.verdict_on_line(&target)) {
            Ok(Verdict::Disallow) => left_out += 1,
            Ok(Verdict::Allow(options)) if !options.is_empty() => lines.push(format!("{line},{options}")),
            // One that only a newer daemon understands stays as it is.
            Ok(Verdict::Allow(_)) | Err(_) => lines.push(line.to_owned()),
        }
    }
    (lines, left_out)
}

fn listing(known: &KnownTargets) -> String {
    known.ports.iter().map(|port| of_port(port, known)).collect()
}

fn of_port(port: &WatchedPort, known: &KnownTargets) -> String {
    let scanned = match port.scanned_seconds {
        Some(seconds) => format!("scanned {} ago", age(seconds)),
        None => "not scanned yet".to_owned(),
    };
    let attaches = if known.attaches { "attached" } else { "not attached" };
    let mut text = format!(
        "{} ({}): {scanned}, again every {} and when events tell; targets are {attaches} by themselves\n",
        printable(&port.port),
        printable(&port.state),
        age(known.period),
    );
    if port.targets.is_empty() {
        return text;
    }
    let mut table = Table::under(&[
        "ID_EXT",
        "IOC_GUID",
        "DGID",
        "PKEY",
        "KNOWN FOR",
        "SESSION",
        "CONTROLLER",
    ]);
    for target in &port.targets {
        table.row([
            field(target, "id_ext"),
            field(target, "ioc_guid"),
            field(target, "dgid"),
            field(target, "pkey"),
            &missing(target),
            &session(target),
            field(target, "ioc_id"),
        ]);
    }
    text += &table.text("  ");
    text
}

fn session(target: &KnownTarget) -> String {
    match target.session {
        Some(session) => session.to_string(),
        None if target.dismissed => "detached".to_owned(),
        None => "-".to_owned(),
    }
}

fn field<'a>(target: &'a KnownTarget, name: &str) -> &'a str {
    target.target.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn missing(target: &KnownTarget) -> String {
    let known = age(target.known_seconds);
    match target.missed {
        0 => known,
        _ => format!("{known}, not seen last time"),
    }
}

/// Seconds as people say them, in one unit.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(id_ext: &str, missed: u32, session: Option<u32>) -> KnownTarget {
        let fields = json!({
            "id_ext": id_ext, "ioc_guid": "00000000000000a1", "pkey": "ffff", "ioc_id": "evil\u{1b}[2J",
            "dgid": "fe80:0000:0000:0000:0000:0000:0000:00a1", "lid": 4
        });
        let Value::Object(target) = fields else { unreachable!() };
        KnownTarget {
            target,
            line: None,
            known_seconds: 7300,
            missed,
            session,
            dismissed: missed > 0,
        }
    }

    #[test]
    fn the_listing() {
        let watched = |name: &str, scanned_seconds, targets| WatchedPort {
            port: name.to_owned(),
            state: "ACTIVE".to_owned(),
            scanned_seconds,
            targets,
        };
        let known = KnownTargets {
            period: 60,
            attaches: false,
            ports: vec![
                watched(
                    "mlx5_0/1",
                    Some(130),
                    vec![target("1", 0, Some(3)), target("2", 1, None)],
                ),
                watched("mlx5_0/2", None, vec![]),
            ],
        };
        assert_eq!(
            listing(&known),
            "mlx5_0/1 (ACTIVE): scanned 2 min ago, again every 60 s and when events tell; targets are not attached by \
             themselves\n  \
             ID_EXT  IOC_GUID          DGID                                     PKEY  KNOWN FOR                SESSION   \
             CONTROLLER\n  \
             1       00000000000000a1  fe80:0000:0000:0000:0000:0000:0000:00a1  ffff  2 h                      3         \
             evil\\x1b[2J\n  \
             2       00000000000000a1  fe80:0000:0000:0000:0000:0000:0000:00a1  ffff  2 h, not seen last time  detached  \
             evil\\x1b[2J\n\
             mlx5_0/2 (ACTIVE): not scanned yet, again every 60 s and when events tell; targets are not attached by \
             themselves\n"
        );
    }

    #[test]
    fn each_line_once() {
        let port = |name: &str, lines: [&str; 2]| WatchedPort {
            port: name.to_owned(),
            state: "ACTIVE".to_owned(),
            scanned_seconds: Some(1),
            targets: lines.map(with_line).into(),
        };
        let known = KnownTargets {
            period: 60,
            attaches: false,
            ports: vec![port("mlx5_0/1", ["a", "b"]), port("mlx5_0/2", ["b", "c"])],
        };
        let (all, left_out) = lines(&known, &Rules::default());
        assert_eq!(
            (all, left_out),
            (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 0)
        );
    }

    #[test]
    fn lines_by_rules() {
        let line = |n: u8| format!("id_ext={n},ioc_guid={n},dgid={n:032x},pkey=ffff,service_id={n}");
        let port = WatchedPort {
            port: "mlx5_0/1".to_owned(),
            state: "ACTIVE".to_owned(),
            scanned_seconds: Some(1),
            targets: [1, 2, 3].map(|n| with_line(&line(n))).into(),
        };
        let known = KnownTargets {
            period: 60,
            attaches: false,
            ports: vec![port],
        };
        let rules = Rules::parse("a ioc_guid=2 queue_size=8\nd dgid=00000000000000000000000000000003").unwrap();
        let wanted = vec![line(1), format!("{},queue_size=8", line(2))];
        assert_eq!(lines(&known, &rules), (wanted, 1));
    }

    fn with_line(line: &str) -> KnownTarget {
        KnownTarget {
            line: Some(line.to_owned()),
            ..target("1", 0, None)
        }
    }

    #[test]
    fn ages() {
        let told = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(age);
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
