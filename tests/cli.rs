//! The program as a user runs it: exit codes, messages, JSON, against no daemon and a scripted one.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const TARGET: &str = "id_ext=0000000000000001,ioc_guid=0000000000000002,dest=10.0.0.1:5555";

/// A directory of one test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ublk-srp-cli-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ublk-srp"));
    command
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .env_remove("UBLK_SRP_LOG")
        .env_remove("JOURNAL_STREAM");
    command
}

fn run(socket: &Path, arguments: &[&str]) -> Output {
    program(socket, arguments).stdin(Stdio::null()).output().unwrap()
}

fn run_with_input(socket: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = program(socket, arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// Every line of standard output as JSON.
fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A daemon that answers as the script says, as long as the test runs.
fn daemon(scratch: &Scratch, script: fn(&str, &Value) -> Result<Value, Value>) -> PathBuf {
    let socket = scratch.socket();
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let Ok(request) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
            match script(request["method"].as_str().unwrap(), &request["params"]) {
                Ok(result) => answer["result"] = result,
                Err(data) => {
                    answer["error"] = json!({ "code": -32000, "message": data["message"], "data": data });
                }
            }
            let _ = stream.write_all(format!("{answer}\n").as_bytes());
        }
    });
    socket
}

#[test]
fn usage_errors() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["list", "extra"],
        &["show"],
        &["show", "sda"],
        &["show", "-1"],
        &["detach"],
        &["detach", "--all", "1"],
        &["attach"],
        &["attach", "--read-only"],
        &["attach", TARGET, "--lun", "7-3"],
        &["attach", TARGET, "--frobnicate"],
        &["attach", "nonsense"],
        &["attach", "id_ext=1"],
        &["daemon", "--reactors", "0"],
        &["daemon", "--log", "a=b=c"],
        &["discover", "nowhere!"],
        &["discover", "-c", "--json"],
        &["discover", "--probe"],
        &["discover", "--config", "/nowhere/config.toml"],
    ] {
        let output = run(&socket, arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(
            stderr(&output).starts_with("ublk-srp: "),
            "{arguments:?}: {}",
            stderr(&output)
        );
        if !arguments.contains(&"--json") {
            assert_eq!(stdout(&output), "", "{arguments:?}");
        }
    }
    let output = run(&socket, &["--json", "detach", "/dev/ublkb3p1"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("is a partition: name the whole disk, /dev/ublkb3"),
        "{}",
        stderr(&output)
    );
    let error = &json_lines(&output)[0]["error"];
    assert_eq!((&error["kind"], &error["exit_code"]), (&json!("usage"), &json!(2)));
}

#[test]
fn help_tells_the_exit_codes() {
    let scratch = Scratch::new();
    let output = run(&scratch.socket(), &["--help"]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    assert!(
        stdout(&output).contains("3  the daemon is not running"),
        "{}",
        stdout(&output)
    );
    let version = run(&scratch.socket(), &["--version"]);
    assert_eq!(stdout(&version), format!("ublk-srp {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn keys_are_named_when_they_are_wrong() {
    let scratch = Scratch::new();
    for (line, key) in [
        ("id_ext=xyz,ioc_guid=2,dest=10.0.0.1:5555", "id_ext=xyz"),
        ("id_ext=1,ioc_guid=2,dest=10.0.0.1", "dest=10.0.0.1"),
        ("id_ext=1,ioc_guid=2,dest=10.0.0.1:5555,queue_sise=3", "queue_sise"),
        ("id_ext=1,ioc_guid=2,dest=10.0.0.1:5555,max_sect", "max_sect"),
        ("id_ext=1,ioc_guid=2", "dest"),
    ] {
        let output = run(&scratch.socket(), &["attach", line]);
        assert_eq!(code(&output), 2, "{line}");
        assert!(stderr(&output).contains(key), "{line}: {}", stderr(&output));
    }
    let output = run(&scratch.socket(), &["attach", TARGET, "--tl-retry-count", "9"]);
    assert!(stderr(&output).contains("tl_retry_count=9"), "{}", stderr(&output));
    // What came from outside cannot play with the terminal.
    let output = run(&scratch.socket(), &["attach", "\u{1b}[2J=1"]);
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
}

#[test]
fn no_daemon() {
    let scratch = Scratch::new();
    for arguments in [
        &["list"][..],
        &["status"],
        &["show", "0"],
        &["detach", "--all"],
        &["attach", TARGET],
    ] {
        let output = run(&scratch.socket(), arguments);
        assert_eq!(code(&output), 3, "{arguments:?}");
        assert!(
            stderr(&output).contains("hint: start it with `ublk-srp daemon`"),
            "{}",
            stderr(&output)
        );
    }
    let lines = format!("{TARGET}\n{TARGET}\n");
    let output = run_with_input(&scratch.socket(), &["attach", "-", "--json"], &lines);
    assert_eq!(code(&output), 3);
    let errors = json_lines(&output);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["error"]["kind"], "not_running");
}

#[test]
fn listing_and_showing() {
    let scratch = Scratch::new();
    let socket = daemon(&scratch, |method, params| match method {
        "list" => Ok(json!({ "devices": [], "sessions": [] })),
        "status" => Ok(json!({ "version": "0\u{9b}2J", "pid": 5, "reactors": 1, "devices": 0, "sessions": 0 })),
        _ => Err(json!({
            "kind": "not_found",
            "message": format!("/dev/ublkb{} is not here", params["device"]),
            "remedy": "look",
        })),
    });
    let output = run(&socket, &["list"]);
    assert_eq!((code(&output), stdout(&output)), (0, "nothing is attached\n"));
    let output = run(&socket, &["list", "--json"]);
    assert_eq!(json_lines(&output), [json!({ "devices": [], "sessions": [] })]);
    let output = run(&socket, &["status"]);
    assert!(
        stdout(&output).contains("version   0\\u{9b}2J\nprocess   5\n"),
        "{}",
        stdout(&output)
    );
    let output = run(&socket, &["status", "--json"]);
    assert!(stdout(&output).contains("0\\u009b2J"), "{}", stdout(&output));
    let output = run(&socket, &["show", "/dev/ublkb4"]);
    assert_eq!(code(&output), 7);
    assert_eq!(stderr(&output), "ublk-srp: /dev/ublkb4 is not here\n  hint: look\n");
}

#[test]
fn kinds_become_exit_codes() {
    let scratch = Scratch::new();
    let socket = daemon(&scratch, |_, params| {
        let kinds = ["usage", "host", "target", "busy", "not_found", "exists", "internal"];
        Err(json!({ "kind": kinds[params["device"].as_u64().unwrap() as usize], "message": "m" }))
    });
    for (device, expected) in [2, 4, 6, 5, 7, 5, 1].into_iter().enumerate() {
        assert_eq!(
            code(&run(&socket, &["show", &device.to_string()])),
            expected,
            "{device}"
        );
    }
}

fn report(target: &Value) -> Value {
    json!({
        "session": {
            "id": 1, "target": target, "address": "10.0.0.1:5555", "local": "rxe0/1", "initiator_port": "0x0",
            "state": "running", "channels": 1, "channels_wanted": 1, "request_limit": 8, "others": [],
        },
        "devices": [{
            "number": 0, "path": "/dev/ublkb0", "lun": "0", "session": 1, "state": "running", "size": 1048576,
            "block_size": 512, "physical_block_size": 512, "read_only": true,
            "vendor": "V", "product": "P", "revision": "1",
        }],
        "skipped": [{ "lun": "1", "kind": "CD/DVD", "reason": "no disk" }],
        "warnings": ["comp_vector has no effect"],
    })
}

#[test]
fn attaching_one() {
    let scratch = Scratch::new();
    let socket = daemon(&scratch, |_, params| {
        assert_eq!(params["luns"], "0,3-7");
        assert_eq!(params["exclude"], "4");
        assert_eq!(params["read_only"], true);
        Ok(report(&params["target"]))
    });
    let options = ["--lun", "0,3-7", "--exclude", "4", "--read-only", "--queue-size", "8"];
    let output = run(&socket, &[&["attach", TARGET], &options[..]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), "/dev/ublkb0  1 MiB  LUN 0  V P    read-only\n");
    assert_eq!(
        stderr(&output),
        "ublk-srp: warning: comp_vector has no effect\nublk-srp: LUN 1 (CD/DVD) is left out: no disk\n"
    );
    let keys = ["--id-ext", "1", "--ioc-guid", "2", "--dest", "10.0.0.1:5555", "--json"];
    let output = run(&socket, &[&["attach"], &keys[..], &options[..]].concat());
    let target = &json_lines(&output)[0]["session"]["target"];
    assert_eq!(target, "id_ext=1,ioc_guid=2,dest=10.0.0.1:5555,queue_size=8");
}

#[test]
fn attaching_lines() {
    let scratch = Scratch::new();
    let socket = daemon(&scratch, |_, params| match params["target"].as_str().unwrap() {
        target if target.contains("10.0.0.9") => Err(json!({ "kind": "target", "message": "it refused" })),
        target => Ok(report(&json!(target))),
    });
    let lines = format!("\n# comment\nbad\nid_ext=1,ioc_guid=2,dest=10.0.0.9:1\n{TARGET}\r\n");
    let output = run_with_input(&socket, &["attach", "-"], &lines);
    // All were tried, and the refusal is worse than the malformed line.
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    assert!(stdout(&output).starts_with("/dev/ublkb0"));
    assert!(stderr(&output).contains("ublk-srp: line 3: "), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("ublk-srp: line 4: it refused\n"),
        "{}",
        stderr(&output)
    );
    let output = run_with_input(&socket, &["attach", "-", "--json"], &lines);
    let results = json_lines(&output);
    assert_eq!(results.len(), 3);
    assert_eq!(results[1]["error"]["message"], "line 4: it refused");
    assert_eq!(results[2]["devices"][0]["number"], 0);
    let output = run_with_input(&socket, &["attach", "-"], "\n");
    assert_eq!(code(&output), 7);
}

#[test]
fn detaching() {
    let scratch = Scratch::new();
    let socket = daemon(&scratch, |_, params| {
        assert_eq!(
            params,
            &json!({ "devices": [900, 901, 902], "all": false, "force": true })
        );
        let busy = json!({ "kind": "busy", "message": "/dev/ublkb901 is in use", "holders": ["mke2fs (pid 3)"] });
        let missing = json!({ "kind": "not_found", "message": "no such device" });
        Ok(json!({ "devices": [
            { "number": 900, "detached": true, "notes": ["it was not flushed"] },
            { "number": 901, "detached": false, "error": busy },
            { "number": 902, "detached": false, "error": missing },
        ] }))
    });
    let output = run(
        &socket,
        &["detach", "900", "ublkb901", "/dev/ublkb902", "900", "--force"],
    );
    assert_eq!(code(&output), 5);
    assert_eq!(stdout(&output), "/dev/ublkb900 is detached\n");
    assert_eq!(
        stderr(&output),
        "ublk-srp: warning: /dev/ublkb900: it was not flushed\nublk-srp: /dev/ublkb901 is in use\n  \
         held by: mke2fs (pid 3)\nublk-srp: /dev/ublkb902: no such device\n"
    );
    let output = run(&socket, &["--json", "detach", "900", "901", "902", "--force"]);
    assert_eq!((code(&output), json_lines(&output).len()), (5, 1));
}

#[test]
fn a_reader_that_stops_is_no_error() {
    let scratch = Scratch::new();
    let mut child = program(&scratch.socket(), &["--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, ""));
}

#[test]
fn a_second_daemon_is_refused() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let _listener = UnixListener::bind(&socket).unwrap();
    let inode = fs::metadata(&socket).unwrap().ino();
    let output = run(&socket, &["daemon"]);
    assert_ne!(code(&output), 0);
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
    // Only a host with ublk gets as far as the socket.
    if !stderr(&output).contains("ublk-srp: another daemon is running") {
        assert_eq!(code(&output), 4, "{}", stderr(&output));
    }
}

#[test]
fn discovering_without_rdma() {
    if Path::new("/sys/class/infiniband").exists() {
        return;
    }
    let scratch = Scratch::new();
    let output = run(&scratch.socket(), &["discover", "--json"]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(json_lines(&output)[0]["error"]["kind"], "host");
    assert!(
        stderr(&output).starts_with("ublk-srp: no RDMA devices"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_daemon_that_says_nothing_sensible() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let listener = UnixListener::bind(&socket).unwrap();
    let start = Instant::now();
    thread::spawn(move || {
        for says in [&b"hello\n"[..], b"", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n"] {
            let (mut stream, _): (UnixStream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(says).unwrap();
        }
    });
    for what in ["makes no sense", "broke before it answered", "makes no sense"] {
        let output = run(&socket, &["status"]);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
    }
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_the_daemon_knows() {
    let scratch = Scratch::new();
    let line = "id_ext=1,ioc_guid=00000000000000a1,dgid=fe8000000000000000000000000000a1,pkey=ffff,service_id=1";
    let socket = daemon(&scratch, |method, _| {
        assert_eq!(method, "targets");
        let line = "id_ext=1,ioc_guid=00000000000000a1,dgid=fe8000000000000000000000000000a1,pkey=ffff,service_id=1";
        Ok(json!({ "period": 60, "attaches": true, "ports": [{
            "port": "mlx5_0/1", "state": "ACTIVE", "scanned_seconds": 3,
            "targets": [{
                "id_ext": "1", "ioc_guid": "00000000000000a1", "lid": 4, "line": line,
                "known_seconds": 70, "missed": 0, "session": 2,
            }],
        }]}))
    });
    let output = run(&socket, &["discover", "--known", "-c"]);
    assert_eq!((code(&output), stdout(&output)), (0, format!("{line}\n").as_str()));
    let output = run(&socket, &["discover", "--known"]);
    assert!(
        stdout(&output).contains("mlx5_0/1 (ACTIVE): scanned 3 s ago"),
        "{output:?}"
    );
    // The members of `discover --json` come as they are.
    let told = &json_lines(&run(&socket, &["discover", "--known", "--json"]))[0]["ports"][0]["targets"][0];
    assert_eq!((&told["lid"], &told["session"]), (&json!(4), &json!(2)));

    let scratch = Scratch::new();
    let socket = daemon(&scratch, |_, _| {
        Ok(json!({ "period": 60, "attaches": false, "ports": [] }))
    });
    let output = run(&socket, &["discover", "--known"]);
    assert_eq!((code(&output), stdout(&output)), (0, ""));
    assert!(stderr(&output).contains("watches no port"), "{output:?}");
    let nobody = run(&Scratch::new().socket(), &["discover", "--known"]);
    assert_eq!(code(&nobody), 3);
}
