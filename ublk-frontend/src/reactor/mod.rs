//! Reactors: the threads that serve device queues.
//!
//! A reactor is one thread with one io_uring, which only that thread creates and enters, and one [`Backend`] value. It
//! owns any number of queues of any number of devices. Everything else reaches it through its [`ReactorHandle`].
//!
//! [`Backend`]: crate::backend::Backend

mod actions;
mod gauges;
mod handle;
mod mailbox;
mod pass;
mod patience;
mod placement;
mod served;
mod watches;

use std::error::Error;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

pub use handle::{AddAreaError, AddQueue, AddQueueError, Counters, Gone, ReactorHandle, RemoveAreaError, Reply, wait};

use crate::backend::Backend;
use crate::ring::{DataPlane, SetupError, block_signals};
use pass::Pass;

/// How a reactor is made.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Its number; its thread is called `srp-reactor/N`.
    pub index: u16,
    /// How long it keeps looking for work before it sleeps, while work usually comes within that time.
    pub spin: Duration,
    /// Entries of the submission queue; a full one costs an extra system call.
    pub submissions: u32,
    /// Entries of the completion queue (the kernel's limit is 65,536); beyond it completions are kept, slowly.
    pub completions: u32,
}

impl ReactorConfig {
    /// About twice what waking a thread takes.
    pub const SPIN: Duration = Duration::from_micros(30);

    /// The defaults for reactor `index`.
    #[must_use]
    pub const fn new(index: u16) -> Self {
        Self {
            index,
            spin: Self::SPIN,
            submissions: 1024,
            completions: 16_384,
        }
    }
}

/// Why a reactor did not start.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// No thread.
    #[error("no thread for reactor {index}: {source}; raise the task limit (TasksMax= of the service)")]
    Thread {
        /// The reactor.
        index: u16,
        /// The cause.
        source: std::io::Error,
    },
    /// No io_uring.
    #[error("reactor {index}: {source}")]
    Ring {
        /// The reactor.
        index: u16,
        /// The cause.
        source: SetupError,
    },
    /// No eventfd.
    #[error("reactor {index} cannot create its eventfd: {source}; raise the limit of open files (LimitNOFILE=)")]
    Doorbell {
        /// The reactor.
        index: u16,
        /// The cause.
        source: std::io::Error,
    },
    /// The backend did not start.
    #[error("the backend of reactor {index} did not start: {source}")]
    Backend {
        /// The reactor.
        index: u16,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a reactor ended by itself.
#[derive(Debug, Error)]
pub enum ReactorError {
    /// Its ring no longer works.
    #[error("{0}")]
    Ring(#[source] Box<dyn Error + Send + Sync>),
    /// A panic; its message is in the log.
    #[error("the reactor's thread panicked: this is a defect, please report it with the log")]
    Panicked,
}

/// A running reactor.
#[derive(Debug)]
pub struct Reactor<M> {
    handle: ReactorHandle<M>,
    thread: JoinHandle<Result<(), ReactorError>>,
}

impl<M: Send + 'static> Reactor<M> {
    /// Starts the thread; `make` builds the backend there. Returns when both stand.
    pub fn spawn<B, F>(config: ReactorConfig, make: F) -> Result<Self, SpawnError>
    where
        B: Backend<Message = M>,
        F: FnOnce() -> Result<B, Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let index = config.index;
        let (handle, mailbox) = mailbox::open().map_err(|source| SpawnError::Doorbell { index, source })?;
        let (ready, started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("srp-reactor/{index}"))
            .spawn(move || {
                prepare_thread();
                let made = DataPlane::new(config.submissions, config.completions)
                    .map_err(|source| SpawnError::Ring { index, source })
                    .and_then(|plane| Ok((plane, make().map_err(|source| SpawnError::Backend { index, source })?)));
                let (plane, backend) = match made {
                    Ok(made) => made,
                    Err(error) => {
                        // The spawner waits for this; should it be gone, there is nobody to tell.
                        drop(ready.send(Err(error)));
                        return Ok(());
                    }
                };
                drop(ready.send(Ok(())));
                Pass::new(plane, backend, mailbox, config.spin).run()
            })
            .map_err(|source| SpawnError::Thread { index, source })?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { handle, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SpawnError::Backend {
                index,
                source: "its construction panicked".into(),
            }),
        }
    }

    /// The way to it.
    #[must_use]
    pub const fn handle(&self) -> &ReactorHandle<M> {
        &self.handle
    }

    /// Waits for the end of the thread.
    pub fn join(self) -> Result<(), ReactorError> {
        self.thread.join().unwrap_or(Err(ReactorError::Panicked))
    }
}

/// No signals here, and no waiting for writeback that waits for us: `PR_SET_IO_FLUSHER` marks a thread that serves
/// block I/O, so that its own allocations do not start any.
fn prepare_thread() {
    block_signals();
    if let Err(errno) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::warn!(%errno, "PR_SET_IO_FLUSHER refused (CAP_SYS_RESOURCE is missing): the host may stall when memory is short");
    }
}
