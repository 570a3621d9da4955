use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use serde_json::json;
use tokio::sync::Barrier;

use super::*;
use crate::rpc::client::{CallError, call};
use crate::rpc::connection::MAX_LINE;
use crate::rpc::protocol::{DaemonStatus, ShowParams, method};
use crate::rpc::scratch::Scratch;
use crate::rpc::socket::ControlSocket;

/// `show N` does what N says.
struct Script {
    both: Barrier,
    finished: AtomicU32,
}

const ECHO: u32 = 0;
const MEET: u32 = 1;
const BUSY: u32 = 2;
const PANIC: u32 = 3;
const SLOW: u32 = 4;
const BIG: u32 = 5;

impl Handler for Script {
    async fn call(&self, name: &str, params: Value) -> Result<Value, ErrorData> {
        if name == method::STATUS {
            return Ok(json!({"version": "1", "pid": 1, "reactors": 1, "devices": 0, "sessions": 0}));
        }
        let device = params["device"].as_u64().unwrap_or_default();
        match device as u32 {
            MEET => {
                self.both.wait().await;
            }
            BUSY => {
                return Err(ErrorData {
                    kind: ErrorKind::Busy,
                    message: "held".to_owned(),
                    remedy: None,
                    holders: vec!["mounted on /mnt".to_owned()],
                });
            }
            PANIC => panic!("as the test asked"),
            SLOW => tokio::time::sleep(Duration::from_millis(200)).await,
            BIG => return Ok(json!("x".repeat(2 * MAX_LINE))),
            _ => {}
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(json!({ "method": name, "params": params }))
    }
}

/// A server of the script, and what a client does with it on a thread of its own.
fn with_server(client: impl FnOnce(&Path) + Send + 'static) -> Arc<Script> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let scratch = Scratch::new();
    let path: PathBuf = scratch.path("s");
    let script = Arc::new(Script {
        both: Barrier::new(2),
        finished: AtomicU32::new(0),
    });
    runtime.block_on(async {
        let socket = ControlSocket::bind(&path).unwrap();
        let to = path.clone();
        let client = tokio::task::spawn_blocking(move || client(&to));
        tokio::select! {
            () = serve(socket.listener(), Arc::clone(&script)) => panic!("the server ended"),
            done = client => done.unwrap(),
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("the client hangs"),
        }
    });
    script
}

fn connect(path: &Path) -> (UnixStream, BufReader<UnixStream>) {
    let stream = UnixStream::connect(path).unwrap();
    let reader = BufReader::new(stream.try_clone().unwrap());
    (stream, reader)
}

fn answer(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn show(id: u32, device: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"show\",\"params\":{{\"device\":{device}}}}}\n")
}

#[test]
fn a_client_and_its_daemon() {
    with_server(|path| {
        let status: DaemonStatus = call(path, method::STATUS, &()).unwrap();
        assert_eq!(status.version, "1");
        let echoed: Value = call(path, method::SHOW, &ShowParams { device: ECHO }).unwrap();
        assert_eq!(echoed, json!({"method": "show", "params": {"device": 0}}));
        let busy = call::<_, Value>(path, method::SHOW, &ShowParams { device: BUSY }).unwrap_err();
        assert!(matches!(busy, CallError::Failed(data) if data.holders == ["mounted on /mnt"]));
        let big: String = call(path, method::SHOW, &ShowParams { device: BIG }).unwrap();
        assert_eq!(big.len(), 2 * MAX_LINE);
        let unknown = call::<_, Value>(path, "reboot", &()).unwrap_err();
        assert!(
            matches!(unknown, CallError::Misunderstood { code: -32601, .. }),
            "{unknown:?}"
        );
        let bad = call::<_, Value>(path, method::SHOW, &json!({"device": "x"})).unwrap_err();
        assert!(matches!(bad, CallError::Misunderstood { code: -32602, .. }), "{bad:?}");
    });
}

#[test]
fn calls_run_side_by_side_and_a_panic_is_ones_own() {
    with_server(|path| {
        let (mut stream, mut reader) = connect(path);
        // The first MEET waits for the second; both come on one connection.
        stream
            .write_all([show(1, MEET), show(2, PANIC), show(3, MEET)].concat().as_bytes())
            .unwrap();
        let answers = [answer(&mut reader), answer(&mut reader), answer(&mut reader)];
        for id in [1, 3] {
            let met = answers.iter().find(|answer| answer["id"] == id).unwrap();
            assert_eq!(met["result"]["params"]["device"], MEET);
        }
        let panicked = answers.iter().find(|answer| answer["id"] == 2).unwrap();
        assert_eq!(panicked["error"]["code"], -32603);
        assert_eq!(panicked["error"]["data"]["kind"], "internal");
        // And on two connections.
        let other = path.to_owned();
        let meeting = thread::spawn(move || call::<_, Value>(&other, method::SHOW, &ShowParams { device: MEET }));
        call::<_, Value>(path, method::SHOW, &ShowParams { device: MEET }).unwrap();
        meeting.join().unwrap().unwrap();
    });
}

#[test]
fn garbage_is_answered_and_survived() {
    with_server(|path| {
        let (mut stream, mut reader) = connect(path);
        for (line, code) in [
            (&b"hello\n"[..], -32700),
            (b"\xff\xfe\0\x1b[2J\n", -32700),
            (b"{}\n", -32600),
            (b"[]\n", -32600),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"show\"}\n", -32602),
            (
                b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"params\":[1]}\n",
                -32602,
            ),
            (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.x\"}\n", -32601),
        ] {
            stream.write_all(line).unwrap();
            assert_eq!(answer(&mut reader)["error"]["code"], code, "{}", line.escape_ascii());
        }
        // Blank lines and notifications get no answer, whatever becomes of them.
        stream
            .write_all(b"\n  \r\n{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}\n")
            .unwrap();
        let batch = format!(
            "[{},7,{{\"jsonrpc\":\"2.0\",\"method\":\"list\"}},{}]\n",
            show(5, ECHO).trim(),
            show(6, BUSY).trim()
        );
        stream.write_all(batch.as_bytes()).unwrap();
        let answers = answer(&mut reader);
        let codes: Vec<_> = answers
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["error"]["code"].as_i64())
            .collect();
        assert_eq!(codes.len(), 3);
        assert!(codes.contains(&None) && codes.contains(&Some(-32600)) && codes.contains(&Some(-32000)));
        stream
            .write_all(b"[{\"jsonrpc\":\"2.0\",\"method\":\"list\"}]\n")
            .unwrap();
        // A client that is done talking still gets its answer.
        stream.write_all(show(8, SLOW).trim().as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(answer(&mut reader)["id"], 8);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn lines_have_a_limit() {
    with_server(|path| {
        let (mut stream, mut reader) = connect(path);
        // Exactly as long as allowed.
        let request = show(1, ECHO);
        let padded = format!("{}{request}", " ".repeat(MAX_LINE - request.len()));
        stream.write_all(padded.as_bytes()).unwrap();
        assert_eq!(answer(&mut reader)["id"], 1);
        stream.write_all(format!(" {padded}").as_bytes()).unwrap();
        assert_eq!(answer(&mut reader)["error"]["code"], -32600);
        let chunk = vec![b'x'; 1 << 16];
        for _ in 0..80 {
            stream.write_all(&chunk).unwrap();
        }
        stream.write_all(b"\n").unwrap();
        assert_eq!(answer(&mut reader)["error"]["code"], -32600);
        stream.write_all(show(2, ECHO).as_bytes()).unwrap();
        assert_eq!(answer(&mut reader)["id"], 2);
    });
}

#[test]
fn clients_that_disappear() {
    let script = with_server(|path| {
        for device in [SLOW, SLOW, BIG, PANIC] {
            let (mut stream, _) = connect(path);
            stream.write_all(show(1, device).as_bytes()).unwrap();
        }
        let (mut stream, _) = connect(path);
        stream.write_all(b"{\"jsonrpc\"").unwrap();
        drop(stream);
        // One that asks and asks and never listens holds up nobody else.
        let (mut deaf, _keep) = connect(path);
        deaf.set_nonblocking(true).unwrap();
        for id in 0..1000 {
            if deaf.write_all(show(id, BIG).as_bytes()).is_err() {
                break;
            }
        }
        let _: DaemonStatus = call(path, method::STATUS, &()).unwrap();
        thread::sleep(Duration::from_millis(400));
        let _: DaemonStatus = call(path, method::STATUS, &()).unwrap();
    });
    // Nobody waited for them, and they were done all the same.
    assert_eq!(script.finished.load(Ordering::SeqCst), 2);
}

#[test]
fn who_may_speak() {
    assert!(may_speak(0, 0) && may_speak(0, 1000) && may_speak(1000, 1000));
    assert!(!may_speak(1000, 0) && !may_speak(1001, 1000));
}
