//! Work that may block for longer than anyone wants to wait.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::ring::block_signals;

/// Why there is no result.
#[derive(Debug, Error)]
pub(super) enum Unfinished {
    #[error("no thread for it: {0}; raise the task limit (TasksMax= of the service)")]
    Thread(#[source] io::Error),
    #[error("no answer from the kernel within {0:?}")]
    TimedOut(Duration),
    #[error("the thread panicked: this is a defect, please report it with the log")]
    Panicked,
}

/// Runs `work` on a thread of its own. When the time is up it goes on alone; what it brings in the end goes to `late`.
pub(super) fn bounded<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    late: impl FnOnce(T) + Send + 'static,
) -> Result<T, Unfinished> {
    // A rendezvous: the value is either taken by us or handed back to the thread.
    let (sender, receiver) = mpsc::sync_channel(0);
    thread::Builder::new()
        .name("ublk-control".into())
        .spawn(move || {
            block_signals();
            if let Err(errno) = rustix::process::configure_io_flusher_behavior(true) {
                tracing::debug!(%errno, "PR_SET_IO_FLUSHER refused");
            }
            if let Err(mpsc::SendError(value)) = sender.send(work()) {
                late(value);
            }
        })
        .map_err(Unfinished::Thread)?;
    receiver.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => Unfinished::TimedOut(limit),
        RecvTimeoutError::Disconnected => Unfinished::Panicked,
    })
}

#[cfg(test)]
mod tests {
    use super::{Unfinished, bounded};
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn brings_what_comes_in_time() {
        assert_eq!(bounded(Duration::from_secs(10), || 7, |_| ()).unwrap(), 7);
    }

    #[test]
    fn what_comes_late_is_cleaned_up() {
        let (go, gate) = mpsc::channel::<()>();
        let (late, came) = mpsc::channel();
        let result = bounded(
            Duration::from_millis(5),
            move || gate.recv().map(|()| 7),
            move |value| late.send(value).unwrap(),
        );
        assert!(matches!(result, Err(Unfinished::TimedOut(_))));
        go.send(()).unwrap();
        assert_eq!(came.recv().unwrap(), Ok(7));
    }

    #[test]
    fn a_panic_is_an_answer() {
        let result = bounded(Duration::from_secs(10), || panic!("expected in this test"), |()| ());
        assert!(matches!(result, Err(Unfinished::Panicked)));
    }
}
