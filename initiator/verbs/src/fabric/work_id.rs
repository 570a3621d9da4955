//! What a work request's 64-bit id says: queue pair, kind, slot. And what its status means.

use rdma_sys::ibv_wc_status as status;
use srp_initiator::fabric::{QueuePairId, WorkError, WorkKind};

/// Packs an id: queue pair in the high half, kind in bits 16 and 17, slot in the low 16 bits.
pub(super) const fn pack(qp: QueuePairId, kind: WorkKind, slot: u16) -> u64 {
    let kind = match kind {
        WorkKind::Send => 0,
        WorkKind::Receive => 1,
        WorkKind::Bind => 2,
        WorkKind::Invalidate => 3,
    };
    (qp.0 as u64) << 32 | kind << 16 | slot as u64
}

/// The inverse of [`pack`].
pub(super) const fn unpack(id: u64) -> (QueuePairId, WorkKind, u16) {
    let kind = match id >> 16 & 3 {
        0 => WorkKind::Send,
        1 => WorkKind::Receive,
        2 => WorkKind::Bind,
        _ => WorkKind::Invalidate,
    };
    (QueuePairId((id >> 32) as u32), kind, id as u16)
}

/// The result of a work completion.
pub(super) const fn result(code: status::Type, len: u32) -> Result<u32, WorkError> {
    Err(match code {
        status::IBV_WC_SUCCESS => return Ok(len),
        status::IBV_WC_WR_FLUSH_ERR => WorkError::Flushed,
        status::IBV_WC_RETRY_EXC_ERR => WorkError::RetryExceeded,
        status::IBV_WC_RNR_RETRY_EXC_ERR => WorkError::ReceiverNotReady,
        status::IBV_WC_REM_INV_REQ_ERR
        | status::IBV_WC_REM_ACCESS_ERR
        | status::IBV_WC_REM_OP_ERR
        | status::IBV_WC_REM_INV_RD_REQ_ERR
        | status::IBV_WC_REM_ABORT_ERR => WorkError::Remote,
        status::IBV_WC_LOC_LEN_ERR
        | status::IBV_WC_LOC_QP_OP_ERR
        | status::IBV_WC_LOC_PROT_ERR
        | status::IBV_WC_LOC_ACCESS_ERR => WorkError::Local,
        status::IBV_WC_MW_BIND_ERR => WorkError::Bind,
        other => WorkError::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_round_trip(qp: u32, slot: u16) {
            for kind in [WorkKind::Send, WorkKind::Receive, WorkKind::Bind, WorkKind::Invalidate] {
                prop_assert_eq!(unpack(pack(QueuePairId(qp), kind, slot)), (QueuePairId(qp), kind, slot));
            }
        }

        #[test]
        fn any_id_unpacks(id: u64) {
            let _ = unpack(id);
        }
    }

    #[test]
    fn every_status_has_a_meaning() {
        assert_eq!(result(0, 36), Ok(36));
        assert_eq!(result(5, 0), Err(WorkError::Flushed));
        assert_eq!(result(12, 0), Err(WorkError::RetryExceeded));
        assert_eq!(result(13, 0), Err(WorkError::ReceiverNotReady));
        assert_eq!(result(1, 0), Err(WorkError::Local));
        assert_eq!(result(10, 0), Err(WorkError::Remote));
        assert_eq!(result(6, 0), Err(WorkError::Bind));
        for code in (0..64).chain([u32::MAX]) {
            assert_eq!(result(code, 1).is_ok(), code == 0);
        }
        assert_eq!(result(21, 0), Err(WorkError::Other(21)));
    }
}
