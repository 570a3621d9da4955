//! Reliable connected queue pairs.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdma_sys::{
    ibv_access_flags as access, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask as mask, ibv_qp_cap, ibv_qp_init_attr,
    ibv_qp_state as state,
};

use crate::cm::{CmError, CmId};
use crate::completion_queue::{CompletionQueue, CompletionQueueError, Reservation};
use crate::errno::{check_pointer, check_value, remedy};
use crate::memory::ProtectionDomain;

/// A queue pair cannot be set up, moved or given back.
#[derive(Debug, thiserror::Error)]
pub enum QueuePairError {
    /// Protection domain, completion queue and connection are not on the same HCA.
    #[error(
        "the connection is on HCA {connection}, the completion queue on {queue}, the protection domain on {domain}"
    )]
    DeviceMismatch {
        /// HCA of the connection.
        connection: String,
        /// HCA of the completion queue.
        queue: String,
        /// HCA of the protection domain.
        domain: String,
    },
    /// More work requests than the HCA takes.
    #[error("HCA {device} takes {limit} work requests per queue, {wanted} are wanted: use a smaller queue size")]
    TooDeep {
        /// The HCA's name.
        device: String,
        /// What it takes.
        limit: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// No room in the completion queue.
    #[error(transparent)]
    CompletionQueue(#[from] CompletionQueueError),
    /// The HCA gave none.
    #[error("HCA {device} gives no queue pair: {cause}{hint}", hint = remedy(.cause))]
    Create {
        /// The HCA's name.
        device: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A change of state failed.
    #[error("queue pair {number} cannot be moved to {state}: {cause}{hint}", hint = remedy(.cause))]
    Move {
        /// The queue pair number.
        number: u32,
        /// INIT, RTR, RTS or ERR.
        state: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The HCA did not give it back: it may still access the memory of its protection domain.
    #[error("queue pair {number} cannot be destroyed: {cause}{hint}", hint = remedy(.cause))]
    Destroy {
        /// The queue pair number.
        number: u32,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// What the HCA does not let go of; here it is back, to be tried again. Dropping it tries once more.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct NotDestroyed<T> {
    /// Why.
    pub cause: QueuePairError,
    /// What was to be destroyed.
    pub kept: Box<T>,
}

/// How large a queue pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairCaps {
    /// Sends in flight.
    pub sends: u32,
    /// Receives posted.
    pub receives: u32,
    /// Bytes a send may carry inside its work request; the HCA may grant more or fewer.
    pub max_inline: u32,
}

/// How long the transport tries before it gives up on a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportTimeout {
    /// The HCA waits 4.096 us x 2^`ack_timeout` for an acknowledgement, in practice up to four times that; 0: for ever.
    pub ack_timeout: u8,
    /// How often it sends again.
    pub retry_count: u8,
}

impl TransportTimeout {
    /// When a dead path has failed the queue pair at the latest; `None` when it never does.
    pub fn gives_up_after(self) -> Option<Duration> {
        if self.ack_timeout == 0 {
            return None;
        }
        let wait = 4096u64 << self.ack_timeout.min(31);
        Some(Duration::from_nanos(wait * 4 * (u64::from(self.retry_count) + 1)))
    }
}

/// An RC queue pair, owned by whoever may post to it.
#[derive(Debug)]
pub struct QueuePair {
    raw: NonNull<ibv_qp>,
    number: u32,
    caps: QueuePairCaps,
    timeout: Option<TransportTimeout>,
    completions: Reservation,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: the verbs on a queue pair may be called from any thread. It is not Sync only so that posts keep their order.
unsafe impl Send for QueuePair {}

impl QueuePair {
    /// Scatter/gather entries of a send: the IU and immediate data.
    pub const SEND_ENTRIES: u32 = 2;

    /// A queue pair for the connection `id`, whose address is resolved. Receives may be posted at once.
    ///
    /// # Errors
    /// See [`QueuePairError`]; [`CmError`] when the connection manager has no parameters for it.
    pub fn create(
        id: &CmId,
        domain: &Arc<ProtectionDomain>,
        queue: &Arc<CompletionQueue>,
        caps: QueuePairCaps,
    ) -> Result<Self, CmError> {
        let device = domain.device();
        let connection = id.local_port().map_or_else(String::new, |port| port.device);
        if device != queue.device() || connection != device.name() {
            return Err(QueuePairError::DeviceMismatch {
                connection,
                queue: queue.device().name().to_owned(),
                domain: device.name().to_owned(),
            }
            .into());
        }
        let limit = device.limits().max_qp_wr;
        let wanted = caps.sends.max(caps.receives);
        if wanted > limit {
            return Err(QueuePairError::TooDeep {
                device: device.name().to_owned(),
                limit,
                wanted,
            }
            .into());
        }
        let completions = queue
            .reserve(caps.sends.max(caps.receives))
            .map_err(QueuePairError::from)?;
        let create = |max_inline| {
            let mut init = ibv_qp_init_attr {
                qp_context: ptr::null_mut(),
                send_cq: queue.sends(),
                recv_cq: queue.receives(),
                srq: ptr::null_mut(),
                cap: ibv_qp_cap {
                    max_send_wr: caps.sends,
                    max_recv_wr: caps.receives,
                    max_send_sge: Self::SEND_ENTRIES,
                    max_recv_sge: 1,
                    max_inline_data: max_inline,
                },
                qp_type: rdma_sys::ibv_qp_type::IBV_QPT_RC,
                sq_sig_all: 0,
            };
            // SAFETY: domain and queue are alive and on one device; the attributes are ours.
            check_pointer(unsafe { rdma_sys::ibv_create_qp(domain.raw(), &mut init) })
                .map(|raw| (raw, init.cap.max_inline_data))
        };
        // Some HCAs refuse a queue pair for the inline size alone.
        let (raw, max_inline) = create(caps.max_inline)
            .or_else(|error| if caps.max_inline > 0 { create(0) } else { Err(error) })
            .map_err(|cause| QueuePairError::Create {
                device: device.name().to_owned(),
                cause,
            })?;
        // SAFETY: the queue pair was just created; its number does not change.
        let number = unsafe { raw.as_ref().qp_num };
        let caps = QueuePairCaps { max_inline, ..caps };
        let mut queue_pair = Self {
            raw,
            number,
            caps,
            timeout: None,
            completions,
            domain: domain.clone(),
        };

        let (mut attributes, bits) = id.queue_pair_attributes(state::IBV_QPS_INIT)?;
        // The connection manager would grant atomics too.
        attributes.qp_access_flags = access::IBV_ACCESS_REMOTE_WRITE.0 | access::IBV_ACCESS_REMOTE_READ.0;
        queue_pair.modify(&mut attributes, bits | mask::IBV_QP_ACCESS_FLAGS.0, "INIT")?;
        Ok(queue_pair)
    }

    /// The queue pair number.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its size, as granted.
    pub const fn caps(&self) -> QueuePairCaps {
        self.caps
    }

    /// The completion queue of its sends and receives.
    pub const fn completion_queue(&self) -> &Arc<CompletionQueue> {
        self.completions.queue()
    }

    /// Its protection domain.
    pub const fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// When the transport gives up, known once the connection is established.
    pub const fn transport_timeout(&self) -> Option<TransportTimeout> {
        self.timeout
    }

    /// INIT to RTR to RTS, with what the connection manager agreed with the peer.
    pub(crate) fn make_ready(&mut self, id: &CmId) -> Result<(), CmError> {
        for (next, name) in [(state::IBV_QPS_RTR, "RTR"), (state::IBV_QPS_RTS, "RTS")] {
            let (mut attributes, bits) = id.queue_pair_attributes(next)?;
            self.modify(&mut attributes, bits, name)?;
            if next == state::IBV_QPS_RTS {
                self.timeout = Some(TransportTimeout {
                    ack_timeout: attributes.timeout,
                    retry_count: attributes.retry_cnt,
                });
            }
        }
        Ok(())
    }

    /// Moves the queue pair to the error state; everything posted will be flushed.
    ///
    /// The state is only set when this returns: the peer's accesses under way may still land. That they have ended is
    /// proven by the flush of a receive posted before, or by [`Self::destroy`].
    ///
    /// # Errors
    /// When the HCA refuses; the queue pair can then only be destroyed.
    pub fn fail(&mut self) -> Result<(), QueuePairError> {
        // SAFETY: the attributes are plain integers; all zeroes is a valid value.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = state::IBV_QPS_ERR;
        self.modify(&mut attributes, mask::IBV_QP_STATE.0, "ERR")
    }

    /// Destroys the queue pair. When this returns `Ok`, neither HCA nor peer accesses memory through it any more (the
    /// DMA rule).
    ///
    /// # Errors
    /// With the queue pair, when the HCA keeps it; memory is then safe once its arenas are deregistered.
    pub fn destroy(self) -> Result<(), NotDestroyed<Self>> {
        let mut queue_pair = ManuallyDrop::new(self);
        if let Err(cause) = queue_pair.end() {
            let kept = Box::new(ManuallyDrop::into_inner(queue_pair));
            return Err(NotDestroyed { cause, kept });
        }
        // SAFETY: `queue_pair` is never dropped, so each field is dropped once, here, and not used afterwards.
        unsafe {
            ptr::drop_in_place(&mut queue_pair.completions);
            ptr::drop_in_place(&mut queue_pair.domain);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), QueuePairError> {
        // SAFETY: the queue pair is alive and destroyed once.
        check_value(unsafe { rdma_sys::ibv_destroy_qp(self.raw.as_ptr()) }).map_err(|cause| QueuePairError::Destroy {
            number: self.number,
            cause,
        })
    }

    fn modify(&mut self, attributes: &mut ibv_qp_attr, bits: u32, state: &'static str) -> Result<(), QueuePairError> {
        // Old kernels set bits 21 to 24 in the connection manager's masks, which user space may not pass on.
        let bits = bits & ((1 << 21) - 1);
        // SAFETY: the queue pair is alive, the attributes are ours.
        check_value(unsafe { rdma_sys::ibv_modify_qp(self.raw.as_ptr(), attributes, bits as libc::c_int) }).map_err(
            |cause| QueuePairError::Move {
                number: self.number,
                state,
                cause,
            },
        )
    }

    pub(crate) const fn raw(&self) -> *mut ibv_qp {
        self.raw.as_ptr()
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a queue pair is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transport_gives_up_after_all_tries() {
        let timeout = |ack_timeout, retry_count| {
            TransportTimeout {
                ack_timeout,
                retry_count,
            }
            .gives_up_after()
        };
        // 67.1 ms, four times that for each of eight tries.
        assert_eq!(timeout(14, 7), Some(Duration::from_nanos(4096 * (1 << 14) * 32)));
        assert_eq!(timeout(0, 7), None);
        assert_eq!(timeout(40, 0), timeout(31, 0));
    }
}
