//! One command with its retries.

use std::time::Duration;

use super::{BringUpError, Execute};
use crate::scsi::outcome::{Verdict, judge};
use crate::scsi::sense::{Sense, SenseKey};
use crate::scsi::{Cdb, Lun};

/// A logical unit queues several unit attentions (power on, nexus loss, LUNs changed) and reports one per command.
const UNIT_ATTENTIONS: u32 = 10;
/// How often a logical unit that is becoming ready or busy is asked again: ten seconds in all.
const PAUSES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// How a command ended that got an answer.
pub(super) enum Answer {
    /// It succeeded, with at most the bytes asked for.
    Data(Vec<u8>),
    /// ILLEGAL REQUEST: the logical unit does not know it, or not like this.
    Refused {
        /// SCSI status.
        status: u8,
        /// Why.
        sense: Option<Sense>,
    },
}

/// Sends a command until it succeeds, fails, or has been retried enough.
pub(super) async fn run<E: Execute + Sync>(
    exec: &E,
    lun: Lun,
    cdb: Cdb,
    data_in: u32,
    command: &'static str,
) -> Result<Answer, BringUpError> {
    let (mut at_once, mut pauses) = (0, 0);
    loop {
        let mut reply = exec
            .execute(lun, cdb, data_in)
            .await
            .map_err(|source| BringUpError::Execute { command, source })?;
        reply.data.truncate(usize::try_from(data_in).unwrap_or(usize::MAX));
        let (status, sense) = (reply.status, reply.sense);
        let pause = match judge(status, sense.as_ref(), 0) {
            Verdict::Done { .. } => return Ok(Answer::Data(reply.data)),
            Verdict::RetryNow(_) => false,
            Verdict::RetryAfterBackoff(_) => true,
            Verdict::Fail(_) if sense.is_some_and(|s| s.key == SenseKey::IllegalRequest) => {
                return Ok(Answer::Refused { status, sense });
            }
            Verdict::Fail(_) => return Err(BringUpError::Failed { command, status, sense }),
        };
        if pause {
            pauses += 1;
        } else {
            at_once += 1;
        }
        if at_once > UNIT_ATTENTIONS || pauses > PAUSES {
            let attempts = at_once + pauses;
            return Err(BringUpError::Exhausted {
                command,
                attempts,
                status,
                sense,
            });
        }
        if pause {
            exec.pause(PAUSE).await;
        }
    }
}

/// As [`run`], for a command the logical unit must know.
pub(super) async fn required<E: Execute + Sync>(
    exec: &E,
    lun: Lun,
    cdb: Cdb,
    data_in: u32,
    command: &'static str,
) -> Result<Vec<u8>, BringUpError> {
    match run(exec, lun, cdb, data_in, command).await? {
        Answer::Data(data) => Ok(data),
        Answer::Refused { status, sense } => Err(BringUpError::Failed { command, status, sense }),
    }
}

/// As [`run`], for a command whose answer can be done without: only a lost path is an error.
pub(super) async fn optional<E: Execute + Sync>(
    exec: &E,
    lun: Lun,
    cdb: Cdb,
    data_in: u32,
    command: &'static str,
) -> Result<Option<Vec<u8>>, BringUpError> {
    match run(exec, lun, cdb, data_in, command).await {
        Ok(Answer::Data(data)) => Ok(Some(data)),
        Err(error @ BringUpError::Execute { .. }) => Err(error),
        Ok(Answer::Refused { sense, .. }) => {
            tracing::debug!(%lun, command, ?sense, "not supported by the logical unit");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(%lun, %error, "going on without what this would have said");
            Ok(None)
        }
    }
}
