//! Log lines written by a thread of their own.
//!
//! The journal may be on a disk that this daemon serves: a thread that waits for the log to be written might wait
//! for itself. So lines are handed over, and dropped and counted when nobody takes them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most.
const WAITING: usize = 1024;
/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Everything before this is written.
    Reached(SyncSender<()>),
}

/// Where the log's lines are handed over.
#[derive(Clone)]
pub(super) struct Lossy {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Lossy {
    /// Starts the thread that writes to `sink`.
    pub(super) fn start(mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        thread::Builder::new().name("ublk-srp-log".to_owned()).spawn(move || {
            for message in lines {
                // Where the log itself fails there is nobody to tell.
                let _ = match message {
                    Message::Line(line) => sink.write_all(&line),
                    Message::Reached(reply) => reply.try_send(()).map_err(io::Error::other),
                };
                let lost = count.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(
                        sink,
                        "{lost} log lines were dropped: they came faster than they were written"
                    );
                }
            }
        })?;
        Ok(Self { queue, dropped })
    }

    /// Waits a moment for what was logged to be written.
    fn flush(&self) {
        let (reply, reached) = mpsc::sync_channel(1);
        // A full queue means that the sink is stuck; then nothing is waited for.
        if self.queue.try_send(Message::Reached(reply)).is_ok() {
            let _ = reached.recv_timeout(LAST_LINES);
        }
    }
}

impl<'a> MakeWriter<'a> for Lossy {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lossy {
    /// Takes one whole event, which is how they are written.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Line(line.to_owned())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the last lines when it is dropped.
#[must_use]
pub(in crate::cli) struct LastLines(pub(super) Lossy);

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A sink that is stuck as long as its gate is locked.
    #[derive(Clone, Default)]
    struct Sink {
        gate: Arc<Mutex<()>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_sink_stops_nobody() {
        let sink = Sink::default();
        let mut log = Lossy::start(sink.clone()).unwrap();
        let gate = sink.gate.lock().unwrap();
        for n in 0..WAITING + 100 {
            log.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        drop(gate);
        // Room for the word behind the lines comes with the first line written.
        while sink.written.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50));
        drop(LastLines(log));
        let text = String::from_utf8(sink.written.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"), "{text}");
        assert!(text.contains(" log lines were dropped"), "{text}");
        assert!(text.lines().count() <= WAITING + 3);
    }
}
