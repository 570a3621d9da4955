//! What the engine tells its caller.

use super::channel::ChannelError;
use super::handover::Handover;
use super::request::{BlockResult, ControlReply, Key, RequestId, SessionKey};
use crate::fabric::{Extent, QueuePairId};
use crate::scsi::BlockError;
use crate::wire::TaskResponse;

/// Names a request towards the engine while its data is with the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub(super) Key);

/// What the engine has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Put the write's data into the extent, then call [`Engine::supplied`](super::Engine::supplied).
    Supply {
        /// The request, towards the caller.
        id: RequestId,
        /// The request, towards the engine.
        handle: Handle,
        /// Whose arena it is.
        qp: QueuePairId,
        /// As long as the data.
        extent: Extent,
    },
    /// A read ended well. Take the data, then call [`Engine::release`](super::Engine::release). `extent.len` is what came, which may
    /// be less than was asked for.
    Data {
        /// The request, towards the caller.
        id: RequestId,
        /// The request, towards the engine.
        handle: Handle,
        /// Whose arena it is.
        qp: QueuePairId,
        /// The data.
        extent: Extent,
    },
    /// A request ended and holds nothing any more: bytes written, or why it failed.
    Done {
        /// The request.
        id: RequestId,
        /// The result.
        result: BlockResult,
    },
    /// A control request was answered.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer, or why there is none.
        result: Result<ControlReply, BlockError>,
    },
    /// A task management function of the control side was answered; only [`TaskResponse::Complete`] says that it
    /// was done.
    TaskDone {
        /// The request.
        id: RequestId,
        /// The answer, or why there is none.
        result: Result<TaskResponse, BlockError>,
    },
    /// A request is to go on where its session has a channel: give it to another engine's
    /// [`Engine::take_over`](super::Engine::take_over), or where it came from to
    /// [`Engine::take_back`](super::Engine::take_back). This engine knows it no more.
    HandOver(Handover),
    /// A channel went down; its requests end as soon as the target cannot touch their memory any more.
    ChannelFailed {
        /// The queue pair.
        qp: QueuePairId,
        /// Its session.
        session: SessionKey,
        /// Why.
        reason: ChannelError,
    },
    /// A channel that went down holds nothing any more: the queue pair and its memory may be destroyed.
    ChannelClosed {
        /// The queue pair.
        qp: QueuePairId,
        /// Its session.
        session: SessionKey,
    },
}
