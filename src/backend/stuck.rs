//! Channels whose queue pair the HCA does not let go of.
//!
//! Nothing proves that such a queue pair carries no accesses any more, so its requests do not end, and its memory stays
//! (the DMA rule). The control side asks again every few seconds; what ends them otherwise is the end of the daemon, with
//! which the kernel destroys the queue pair.

use srp_initiator::fabric::QueuePairId;
use srp_verbs::queue_pair::NotDestroyed;

/// What is kept of them.
pub(super) struct Stuck<P> {
    kept: Vec<(QueuePairId, P)>,
}

impl<P> Default for Stuck<P> {
    fn default() -> Self {
        Self { kept: Vec::new() }
    }
}

impl<P> Stuck<P> {
    /// Destroys the queue pair of a channel that was released just now, or is here from the last attempt. False when the
    /// HCA still has it.
    pub(super) fn destroy(
        &mut self,
        qp: QueuePairId,
        released: Option<P>,
        destroy: impl FnOnce(P) -> Result<(), NotDestroyed<P>>,
    ) -> bool {
        let place = self.kept.iter().position(|(other, _)| *other == qp);
        let kept = place.map(|place| self.kept.swap_remove(place).1);
        let Some(parts) = released.or(kept) else {
            // It was destroyed before.
            return true;
        };
        let Err(NotDestroyed { cause, kept }) = destroy(parts) else {
            return true;
        };
        tracing::error!(
            error = %cause,
            "a queue pair is not given back: what it carried waits, and it is tried again; if that goes on, reset the HCA or \
             end the daemon"
        );
        self.kept.push((qp, *kept));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use srp_verbs::queue_pair::QueuePairError;

    #[test]
    fn only_a_queue_pair_that_is_gone_counts_as_destroyed() {
        let [qp, other] = [1, 2].map(QueuePairId);
        let refused = |parts: &str| {
            let cause = QueuePairError::Destroy {
                number: 7,
                cause: std::io::Error::from_raw_os_error(libc::EBUSY),
            };
            let kept = Box::new(parts.to_owned());
            Err(NotDestroyed { cause, kept })
        };
        let mut stuck = Stuck::default();
        assert!(!stuck.destroy(qp, Some("parts".to_owned()), |parts| refused(&parts)));
        assert!(stuck.destroy(other, Some("others".to_owned()), |_| Ok(())));
        assert!(!stuck.destroy(qp, None, |parts| refused(&parts)));
        let mut tried = None;
        assert!(stuck.destroy(qp, None, |parts| {
            tried = Some(parts);
            Ok(())
        }));
        assert_eq!(tried.as_deref(), Some("parts"));
        assert!(stuck.destroy(qp, None, |_| unreachable!("it is gone")));
    }
}
