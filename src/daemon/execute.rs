//! SCSI commands of the control side, run by a reactor on a session's channel.

use std::time::Duration;

use srp_initiator::scsi::bringup::{Execute, ExecuteError, Reply};
use srp_initiator::scsi::sense::Sense;
use srp_initiator::scsi::{BlockError, Cdb, Lun};
use srp_initiator::session::{ControlRequest, RequestId, SessionKey};
use tokio::sync::oneshot;

use super::reactors::Reactor;
use crate::backend::Message;

/// Longest wait for one command of the bring-up.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// A session as seen by `scsi::bringup`.
pub(crate) struct SessionCommands {
    pub(crate) session: SessionKey,
    pub(crate) reactor: Reactor,
}

impl Execute for SessionCommands {
    async fn execute(&self, lun: Lun, cdb: Cdb, data_in: u32) -> Result<Reply, ExecuteError> {
        let (reply, answer) = oneshot::channel();
        let request = ControlRequest {
            id: RequestId(0),
            session: self.session,
            lun,
            cdb,
            data_in,
            timeout: COMMAND_TIMEOUT,
        };
        self.reactor.send(Message::Control(request, reply));
        match answer.await {
            Ok(Ok(reply)) => {
                let sense = Sense::parse(&reply.sense).ok();
                Ok(Reply {
                    status: reply.status,
                    sense,
                    data: reply.data,
                })
            }
            Ok(Err(error)) => Err(ExecuteError::from(error)),
            Err(_) => Err(ExecuteError::from(BlockError::Transport)),
        }
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
