//! Serves the control socket: connections, the requests on each, and who may speak.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection;
use super::message::{self, RpcError};
use super::protocol::{ErrorData, ErrorKind};

/// Connections served at a time; more wait.
const MAX_CONNECTIONS: usize = 128;
/// Wait after an accept that failed: most often descriptors are short, and come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers the calls.
///
/// Only the methods of [`protocol::method`](super::protocol::method) arrive, with parameters that are an object of
/// the right shape. A call is never cancelled: it runs on when its client is gone.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The result of a call.
    fn call(&self, method: &str, params: Value) -> impl Future<Output = Result<Value, ErrorData>> + Send;
}

/// Serves a listening socket; ends only by being dropped.
///
/// Dropping it closes the connections; calls already begun run on, their answers are lost. Nothing a client does
/// ends it.
pub(crate) async fn serve<H: Handler>(listener: &UnixListener, handler: Arc<H>) {
    let own = rustix::process::geteuid().as_raw();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let ended = match admit(&stream, own) {
                Ok(()) => connection::run(stream, handler).await,
                Err(refusal) => {
                    tracing::warn!("{}", refusal.message);
                    connection::refuse(stream, &message::failure(Value::Null, &RpcError::from(refusal))).await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a control connection broke");
            }
            drop(place);
        });
    }
}

fn admit(stream: &UnixStream, own: u32) -> Result<(), ErrorData> {
    let refused = |message| ErrorData {
        kind: ErrorKind::Host,
        message,
        remedy: Some("run this as root, or as the user the daemon runs as".to_owned()),
        holders: Vec::new(),
    };
    let peer = stream
        .peer_cred()
        .map_err(|error: io::Error| refused(format!("cannot tell who is at the control socket: {error}")))?;
    if may_speak(peer.uid(), own) {
        Ok(())
    } else {
        Err(refused(format!("user {} may not control the daemon", peer.uid())))
    }
}

fn may_speak(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

#[cfg(test)]
mod tests;
