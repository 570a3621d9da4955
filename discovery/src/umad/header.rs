//! `struct ib_user_mad_hdr` of `<rdma/ib_user_mad.h>`, in the form with a P_Key index.

use srp_addressing::Gid;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::transport::{Address, Patience, Source};

/// What stands before each MAD read or written. Fields about the wire are big-endian, the others the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct UserMadHeader {
    id: u32,
    /// 0, or why the request that comes back has failed.
    pub(super) status: u32,
    timeout_ms: u32,
    retries: u32,
    length: u32,
    qpn: U32,
    qkey: U32,
    lid: U16,
    sl: u8,
    path_bits: u8,
    grh_present: u8,
    gid_index: u8,
    hop_limit: u8,
    traffic_class: u8,
    gid: [u8; 16],
    flow_label: U32,
    pkey_index: u16,
    reserved: [u8; 6],
}

const _: () = assert!(size_of::<UserMadHeader>() == 64);

impl UserMadHeader {
    /// The header of a request of `agent` to `to`.
    pub(super) fn request(agent: u32, to: &Address, patience: Patience) -> Self {
        Self {
            // 0 would mean that no answer is expected.
            timeout_ms: u32::try_from(patience.timeout.as_millis()).unwrap_or(u32::MAX).max(1),
            retries: patience.retries,
            ..Self::answer(agent, to)
        }
    }

    /// The header of an answer of `agent` to `to`, after which nothing is expected.
    pub(super) fn answer(agent: u32, to: &Address) -> Self {
        Self {
            id: agent,
            status: 0,
            timeout_ms: 0,
            retries: 0,
            length: 0,
            qpn: U32::new(to.qpn),
            qkey: U32::new(to.qkey),
            lid: U16::new(to.lid),
            sl: to.sl,
            path_bits: 0,
            grh_present: to.grh.is_some().into(),
            gid_index: to.grh.map_or(0, |grh| grh.source_index),
            hop_limit: to.grh.map_or(0, |grh| grh.hop_limit),
            traffic_class: to.grh.map_or(0, |grh| grh.traffic_class),
            gid: to.grh.map_or([0; 16], |grh| grh.gid.0),
            flow_label: U32::new(to.grh.map_or(0, |grh| grh.flow_label)),
            pkey_index: to.pkey_index,
            reserved: [0; 6],
        }
    }

    /// Header and MAD of what was read; `None` when there is not even a header.
    pub(super) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Self::read_from_prefix(bytes).ok()
    }

    /// How long header and MAD are together, also when the reader's buffer was too small for them.
    pub(super) fn total_len(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Where the MAD came from.
    pub(super) fn source(&self) -> Source {
        let gid = (self.grh_present != 0).then_some(Gid(self.gid));
        Source {
            lid: self.lid.get(),
            qpn: self.qpn.get(),
            gid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::mem::offset_of;
    use std::time::Duration;

    #[test]
    fn layout_of_the_kernel() {
        type H = UserMadHeader;
        assert_eq!(
            [offset_of!(H, qpn), offset_of!(H, qkey), offset_of!(H, lid)],
            [20, 24, 28]
        );
        assert_eq!([offset_of!(H, grh_present), offset_of!(H, gid)], [32, 36]);
        assert_eq!([offset_of!(H, flow_label), offset_of!(H, pkey_index)], [52, 56]);
        let gid: Gid = "fe80::1".parse().unwrap();
        let patience = Patience {
            timeout: Duration::from_millis(1500),
            retries: 2,
        };
        let header = H::request(7, &Address::roce(gid, 3, 1), patience);
        let bytes = header.as_bytes();
        assert_eq!(bytes[8..16], [1500_u32.to_ne_bytes(), 2_u32.to_ne_bytes()].concat());
        assert_eq!(bytes[20..28], [0, 0, 0, 1, 0x80, 1, 0, 0]);
        assert_eq!(bytes[32..36], [1, 3, 64, 0]);
        assert_eq!(bytes[36..52], gid.0);
        assert_eq!(
            header.source(),
            Source {
                lid: 0,
                qpn: 1,
                gid: Some(gid)
            }
        );
        let lid = H::request(7, &Address::infiniband(0x1234, 0), patience);
        assert_eq!(lid.as_bytes()[28..33], [0x12, 0x34, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let split = UserMadHeader::split(&bytes);
            prop_assert_eq!(split.is_some(), bytes.len() >= 64);
            if let Some((header, mad)) = split {
                prop_assert_eq!(header.as_bytes().len() + mad.len(), bytes.len());
                let _ = header.source();
            }
        }
    }
}
