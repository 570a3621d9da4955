use super::*;

fn discovery_of(text: &str) -> Discovery {
    Configuration::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .discovery
}

#[test]
fn what_is_said() {
    assert_eq!(Configuration::parse(""), Ok(Configuration::default()));
    assert_eq!(discovery_of("[discovery]\n"), Discovery::default());
    let text = "# ours\n[discovery]\nwatch = true\nperiod = 0x1e # half a minute\nattach = true\nrules = '/etc/srp_daemon.conf'\n";
    let said = Discovery {
        watch: true,
        period: Duration::from_secs(30),
        rules: Some("/etc/srp_daemon.conf".into()),
        attach: true,
        rdma_cm_port: None,
    };
    assert_eq!(discovery_of(text), said);
    let port = discovery_of("[discovery]\nrdma_cm_port = 5555").rdma_cm_port;
    assert_eq!(port.map(NonZeroU16::get), Some(5555));
    // The same in other words.
    let inline = "discovery = { watch = true, period = 30, rules = \"/etc/srp_daemon.conf\", attach = true }\r\n";
    assert_eq!(discovery_of(inline), said);
    assert_eq!(
        discovery_of("discovery.attach = true\ndiscovery.watch = true").period,
        Duration::from_secs(60)
    );
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, told) in [
        (
            "\n[discovery]\nwacth = true\n",
            "line 3: unknown key discovery.wacth: here may be watch, period, rules, attach, rdma_cm_port",
        ),
        ("[discovry]\n", "line 1: unknown key discovry: here may be discovery"),
        (
            "discovery = 1",
            "line 1: discovery = 1: it may be a table, as in [discovery]",
        ),
        ("[[discovery]]\n", "it may be a table, as in [discovery]"),
        (
            "[discovery]\nwatch = \"yes\"",
            "line 2: discovery.watch = \"yes\": it may be true or false",
        ),
        (
            "[discovery]\n\nperiod = 0",
            "line 3: discovery.period = 0: it may be a number of seconds, 1 to 86400",
        ),
        ("[discovery]\nperiod = 86401", "it may be a number of seconds"),
        (
            "[discovery]\nperiod = 99999999999999999999",
            "it may be a number of seconds",
        ),
        ("[discovery]\nperiod = -5", "discovery.period = -5"),
        ("[discovery]\nperiod = 1.5", "discovery.period = 1.5"),
        (
            "[discovery]\nrules = 'srp_daemon.conf'",
            "it may be the path of a file, from / on, in quotes",
        ),
        ("[discovery]\nrules = true", "it may be the path of a file"),
        ("[discovery]\nrules = \"/etc/\\u0000\"", "it may be the path of a file"),
        (
            "[discovery]\nattach = true\n",
            "line 2: discovery.attach has no effect without discovery.watch = true",
        ),
        (
            "[discovery]\nrdma_cm_port = 0",
            "discovery.rdma_cm_port = 0: it may be a port number, 1 to 65535",
        ),
        ("[discovery]\nrdma_cm_port = 65536", "it may be a port number"),
        ("[discovery]\nwatch = yes\n", "line 2: "),
        ("[discovery]\nwatch = true\nwatch = true\n", "line 3: "),
        ("[discovery\n", "line 1: "),
        ("a = 1\nb = 2", "line 1: unknown key a"),
        (
            "[discovery]\nperiod = '''\nlong\ntext'''",
            "discovery.period = ''': it may be",
        ),
    ] {
        let error = Configuration::parse(text).unwrap_err().to_string();
        assert!(error.contains(told), "{text:?}: {error}");
    }
}

#[test]
fn the_example() {
    let example = include_str!("../config.toml");
    assert_eq!(Configuration::parse(example), Ok(Configuration::default()));
    // What it shows commented out is understood, and is what holds without it.
    let lines: Vec<&str> = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .collect();
    let shown = discovery_of(&lines.join("\n"));
    assert_eq!(shown.rules, Some("/etc/srp_daemon.conf".into()));
    assert_eq!(shown.rdma_cm_port.map(NonZeroU16::get), Some(5555));
    let shown = Discovery {
        rdma_cm_port: None,
        ..shown
    };
    assert_eq!(Discovery { rules: None, ..shown }, Discovery::default());
}

#[test]
fn files() {
    let dir = std::env::temp_dir().join(format!("ublk-srp-configuration-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("config.toml");
    assert_eq!(Configuration::read(&file).unwrap(), None);
    std::fs::write(&file, "[discovery]\nwatch = true\n").unwrap();
    assert!(Configuration::read(&file).unwrap().unwrap().discovery.watch);
    std::fs::write(&file, "[discovery]\n\nwatch = 1\n").unwrap();
    let error = Configuration::read(&file).unwrap_err().to_string();
    assert!(error.contains("config.toml, line 3: discovery.watch = 1"), "{error}");
    std::fs::write(&file, b"[discovery]\n# \xff\n").unwrap();
    assert!(
        Configuration::read(&file)
            .unwrap_err()
            .to_string()
            .contains("line 2: this is not text")
    );
    std::fs::write(&file, vec![b'\n'; LONGEST as usize + 1]).unwrap();
    assert!(matches!(Configuration::read(&file), Err(ReadError::Io { .. })));
    let error = Configuration::read(&dir).unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}
