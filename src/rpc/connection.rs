//! One control connection: lines in, answers out, several calls at a time.

use std::io;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::message::{Incoming, Item, Request, RpcError, answer, code, failure, line};
use super::params::Params;
use super::protocol::{ErrorData, ErrorKind};
use super::server::Handler;

/// Longest line taken, newline included.
pub(super) const MAX_LINE: usize = 1 << 20;
/// Lines of one connection being worked on; the next is read when one is done.
const MAX_CALLS: usize = 32;

/// An answer on its way, with the place it occupies until it is written.
type Outgoing = (Vec<u8>, OwnedSemaphorePermit);

/// Serves a connection until the client closes its side and has its answers.
pub(super) async fn run<H: Handler>(stream: UnixStream, handler: Arc<H>) -> io::Result<()> {
    let (input, output) = stream.into_split();
    let (answers, queue) = mpsc::channel(MAX_CALLS);
    // Each half ends the other: a client that does not take its answers is not listened to.
    let reading = read(BufReader::new(input), handler, answers);
    let (read, written) = tokio::join!(reading, write(output, queue));
    read.and(written)
}

/// Tells a client why it is not served.
pub(super) async fn refuse(mut stream: UnixStream, refusal: &Value) -> io::Result<()> {
    stream.write_all(&line(refusal)).await?;
    stream.shutdown().await
}

async fn write(mut output: OwnedWriteHalf, mut queue: mpsc::Receiver<Outgoing>) -> io::Result<()> {
    while let Some((answer, place)) = queue.recv().await {
        output.write_all(&answer).await?;
        drop(place);
    }
    output.shutdown().await
}

async fn read<H: Handler>(
    mut input: impl AsyncBufRead + Unpin,
    handler: Arc<H>,
    answers: mpsc::Sender<Outgoing>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CALLS));
    let mut buffer = Vec::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        buffer.clear();
        let next = tokio::select! {
            next = read_line(&mut input, &mut buffer) => next?,
            () = answers.closed() => return Ok(()),
        };
        match next {
            Line::End => return Ok(()),
            Line::TooLong => {
                let text = format!("a message may be {MAX_LINE} bytes long, and this one is longer");
                let refusal = failure(Value::Null, &RpcError::new(code::INVALID_REQUEST, text));
                let _ = answers.send((line(&refusal), place)).await;
            }
            Line::Whole if buffer.trim_ascii().is_empty() => {}
            Line::Whole => {
                let incoming = Incoming::parse(&buffer);
                // What a long line needed is not kept for the short ones.
                buffer.shrink_to(4096);
                let (handler, answers) = (Arc::clone(&handler), answers.clone());
                // Not tied to the connection: a call that began is finished.
                tokio::spawn(async move {
                    if let Some(message) = settle(incoming, &handler).await {
                        let _ = answers.send((line(&message), place)).await;
                    }
                });
            }
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads up to the next newline; of a line that is too long only the start is kept.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Line> {
    let mut length = 0;
    loop {
        let bytes = input.fill_buf().await?;
        if bytes.is_empty() {
            // A last line without newline was cut off, or typed by hand.
            return Ok(if length == 0 { Line::End } else { whole_or_long(length) });
        }
        let newline = bytes.iter().position(|b| *b == b'\n');
        let taken = newline.map_or(bytes.len(), |at| at + 1);
        if length + taken <= MAX_LINE {
            buffer.extend_from_slice(&bytes[..taken]);
        }
        length = (length + taken).min(MAX_LINE + 1);
        input.consume(taken);
        if newline.is_some() {
            return Ok(whole_or_long(length));
        }
    }
}

fn whole_or_long(length: usize) -> Line {
    if length > MAX_LINE { Line::TooLong } else { Line::Whole }
}

async fn settle<H: Handler>(incoming: Incoming, handler: &Arc<H>) -> Option<Value> {
    match incoming {
        Incoming::Single(item) => settle_one(item, handler).await,
        Incoming::Batch(items) => {
            let mut calls = JoinSet::new();
            for item in items {
                let handler = Arc::clone(handler);
                calls.spawn(async move { settle_one(item, &handler).await });
            }
            let answers: Vec<Value> = calls.join_all().await.into_iter().flatten().collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
    }
}

async fn settle_one<H: Handler>(item: Item, handler: &Arc<H>) -> Option<Value> {
    match item {
        Ok(Request { id, method, params }) => answer(id, call(method, params, handler).await),
        Err(refusal) => Some(refusal),
    }
}

async fn call<H: Handler>(method: String, params: Value, handler: &Arc<H>) -> Result<Value, RpcError> {
    match Params::check(&method, &params) {
        Params::Good => {}
        Params::NoSuchMethod => {
            let text = format!("there is no method {method:?}");
            return Err(RpcError::new(code::METHOD_NOT_FOUND, text));
        }
        Params::Bad(why) => {
            let text = format!("{method}: {why}");
            return Err(RpcError::new(code::INVALID_PARAMS, text));
        }
    }
    let handler = Arc::clone(handler);
    // A task of its own, so that a panic is that call's failure and nobody else's.
    let outcome = tokio::spawn(async move { handler.call(&method, params).await }).await;
    match outcome {
        Ok(outcome) => outcome.map_err(RpcError::from),
        Err(error) => {
            tracing::error!(%error, "a control call did not finish");
            let data = ErrorData {
                kind: ErrorKind::Internal,
                message: "the daemon failed while it worked on this".to_owned(),
                remedy: Some("look into the daemon's log; this is a defect worth reporting".to_owned()),
                holders: Vec::new(),
            };
            Err(RpcError {
                code: code::INTERNAL_ERROR,
                ..data.into()
            })
        }
    }
}
