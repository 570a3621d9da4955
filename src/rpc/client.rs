//! A call to the daemon.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::message::{VERSION, code, request_line};
use super::protocol::{ErrorData, ErrorKind, method};

/// Longest answer taken.
const MAX_ANSWER: u64 = 64 << 20;
/// The id of the one request of a connection.
const ID: u64 = 1;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the daemon is not running: nobody listens on {path}")]
    NotRunning { path: PathBuf },
    #[error("not permitted to control the daemon at {path}")]
    Denied { path: PathBuf },
    #[error("cannot reach the daemon at {path}")]
    Unreachable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the connection to the daemon broke before it answered")]
    Lost(#[source] io::Error),
    #[error("the daemon did not answer within {0:?}")]
    Late(Duration),
    #[error("the daemon's answer makes no sense: {0}")]
    Nonsense(String),
    #[error("the daemon does not understand this program ({code}): {message}")]
    Misunderstood { code: i64, message: String },
    #[error("{}", .0.message)]
    Failed(ErrorData),
}

impl CallError {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> Option<&str> {
        match self {
            Self::NotRunning { .. } => Some("start it with `ublk-srp daemon` or `systemctl start ublk-srp`"),
            Self::Denied { .. } => Some("run this as root"),
            Self::Unreachable { .. } => Some("see that --socket names the daemon's control socket"),
            Self::Lost(_) => Some("look into the daemon's log; `ublk-srp list` tells what is attached"),
            Self::Late(_) => Some("what was asked for may still happen: look with `ublk-srp list`, or into its log"),
            Self::Nonsense(_) | Self::Misunderstood { .. } => {
                Some("see that daemon and command line are of the same version; restart the daemon after an upgrade")
            }
            Self::Failed(data) => data.remedy.as_deref(),
        }
    }
}

/// How long the daemon may think about a method before it is called stuck.
fn patience(name: &str) -> Duration {
    match name {
        // Both are bounded by the daemon, well below this even for many devices.
        method::ATTACH | method::DETACH => Duration::from_secs(600),
        _ => Duration::from_secs(30),
    }
}

/// Calls a method of the daemon that listens at `socket`. Parameters that serialize to null are left out.
pub(crate) fn call<P: Serialize, R: DeserializeOwned>(socket: &Path, method: &str, params: &P) -> Result<R, CallError> {
    let params = serde_json::to_value(params).map_err(|error| CallError::Nonsense(error.to_string()))?;
    exchange(socket, &request_line(ID, method, params), patience(method))
}

fn exchange<R: DeserializeOwned>(socket: &Path, request: &[u8], patience: Duration) -> Result<R, CallError> {
    let end = Instant::now() + patience;
    let mut stream = connect(socket)?;
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CallError::Late(patience),
        _ => CallError::Lost(error),
    };
    stream.set_write_timeout(Some(patience)).map_err(broken)?;
    // A daemon that refuses us may answer without having read.
    let sent = stream.write_all(request);
    let mut answers = BufReader::new(Deadline { stream, end }.take(MAX_ANSWER));
    loop {
        let mut line = Vec::new();
        let read = answers.read_until(b'\n', &mut line);
        if line.last() != Some(&b'\n') {
            sent.map_err(broken)?;
            read.map_err(broken)?;
            return Err(match answers.get_ref().limit() {
                0 => CallError::Nonsense(format!("it is longer than {MAX_ANSWER} bytes")),
                _ => CallError::Lost(io::ErrorKind::UnexpectedEof.into()),
            });
        }
        if let Some(outcome) = understand(&line) {
            return outcome;
        }
    }
}

fn connect(socket: &Path) -> Result<UnixStream, CallError> {
    let path = || socket.to_owned();
    UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::NotRunning { path: path() },
        io::ErrorKind::PermissionDenied => CallError::Denied { path: path() },
        _ => CallError::Unreachable { path: path(), source },
    })
}

/// Reads until a moment, however the bytes trickle.
struct Deadline {
    stream: UnixStream,
    end: Instant,
}

impl Read for Deadline {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

#[derive(Deserialize)]
struct Answer {
    jsonrpc: String,
    id: Value,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    error: Option<AnswerError>,
}

/// Tells `null` from nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct AnswerError {
    code: i64,
    message: String,
    data: Option<ErrorData>,
}

/// What a line says to our request; `None` if it is about something else.
fn understand<R: DeserializeOwned>(line: &[u8]) -> Option<Result<R, CallError>> {
    let nonsense = |error: serde_json::Error| CallError::Nonsense(error.to_string());
    let answer: Answer = match serde_json::from_slice(line) {
        Ok(answer) => answer,
        Err(error) => return Some(Err(nonsense(error))),
    };
    // Without an id it is about the connection as a whole.
    if answer.id != ID && !(answer.id.is_null() && answer.error.is_some()) {
        return None;
    }
    Some(match (answer.result, answer.error) {
        _ if answer.jsonrpc != VERSION => Err(CallError::Nonsense("it is no JSON-RPC 2.0".to_owned())),
        (Some(result), None) => serde_json::from_value(result).map_err(nonsense),
        (None, Some(error)) => Err(failed(error)),
        _ => Err(CallError::Nonsense(
            "it has neither one result nor one error".to_owned(),
        )),
    })
}

fn failed(error: AnswerError) -> CallError {
    let AnswerError { code, message, data } = error;
    match (data, code) {
        (Some(data), _) => CallError::Failed(data),
        (None, code::APPLICATION | code::INTERNAL_ERROR) => CallError::Failed(ErrorData {
            kind: ErrorKind::Internal,
            message,
            remedy: None,
            holders: Vec::new(),
        }),
        (None, code) => CallError::Misunderstood { code, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// What a client makes of a daemon that says exactly this, and then hangs up.
    fn told(says: &'static [u8]) -> Result<Value, CallError> {
        let scratch = Scratch::new();
        let path = scratch.path("s");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(says).unwrap();
            line
        });
        let result = call(&path, method::LIST, &());
        assert_eq!(
            daemon.join().unwrap(),
            "{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"list\"}\n"
        );
        result
    }

    #[test]
    fn answers() {
        assert_eq!(told(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":7}\n").unwrap(), 7);
        assert_eq!(
            told(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}\n").unwrap(),
            Value::Null
        );
        let other_first = b"{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":1}\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":2}\n";
        assert_eq!(told(other_first).unwrap(), 2);
        let busy = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"m\",\
            \"data\":{\"kind\":\"busy\",\"message\":\"held\",\"remedy\":\"umount\"}}}\n";
        let error = told(busy).unwrap_err();
        assert_eq!(error.remedy(), Some("umount"));
        assert!(matches!(error, CallError::Failed(data) if data.kind == ErrorKind::Busy));
        let unknown = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32601,\"message\":\"no\"}}\n";
        assert!(matches!(
            told(unknown),
            Err(CallError::Misunderstood { code: -32601, .. })
        ));
    }

    #[test]
    fn nonsense() {
        for says in [
            &b"hello\n"[..],
            b"{}\n",
            b"{\"jsonrpc\":\"2.0\",\"id\":1}\n",
            b"{\"jsonrpc\":\"1.0\",\"id\":1,\"result\":1}\n",
            b"\xff\n",
        ] {
            assert!(matches!(told(says), Err(CallError::Nonsense(_))), "{says:?}");
        }
        for says in [&b""[..], b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":7}"] {
            assert!(matches!(told(says), Err(CallError::Lost(_))), "{says:?}");
        }
    }

    #[test]
    fn no_daemon() {
        let scratch = Scratch::new();
        let path = scratch.path("s");
        let missing = call::<_, Value>(&path, method::LIST, &()).unwrap_err();
        assert!(matches!(missing, CallError::NotRunning { .. }));
        assert!(missing.remedy().unwrap().contains("systemctl start ublk-srp"));
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(
            call::<_, Value>(&path, method::LIST, &()),
            Err(CallError::NotRunning { .. })
        ));
        let below = call::<_, Value>(&path.join("x"), method::LIST, &());
        assert!(matches!(below, Err(CallError::Unreachable { .. })), "{below:?}");
    }

    #[test]
    fn a_silent_daemon() {
        let scratch = Scratch::new();
        let path = scratch.path("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let late = exchange::<Value>(&path, b"x\n", Duration::from_millis(50));
        assert!(matches!(late, Err(CallError::Late(_))), "{late:?}");
    }
}
