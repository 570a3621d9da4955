//! ClassPortInfo (IBA 13.4.8.1): what a class offers at a port, and whether it lives elsewhere.

use srp_addressing::{Gid, PKey};
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DATA_LEN;
use super::device_management::prefix;

/// The attribute as it is on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ClassPortInfo {
    /// Base version the agent supports.
    pub base_version: u8,
    /// Class version the agent supports.
    pub class_version: u8,
    /// Capabilities common to all classes (low byte) and of this one.
    pub capability_mask: U16,
    /// Further capabilities (27 bits) and the response time (5 bits).
    pub capability_mask2_resp_time: U32,
    /// Where to send requests instead; zero: here.
    pub redirect_gid: [u8; 16],
    /// Traffic class (8), service level (4), flow label (20) of that place.
    pub redirect_tc_sl_fl: U32,
    /// Its LID; zero: here, or not known.
    pub redirect_lid: U16,
    /// Its partition.
    pub redirect_pkey: U16,
    /// Its queue pair (24 bits).
    pub redirect_qp: U32,
    /// Its Q_Key.
    pub redirect_qkey: U32,
    /// Where traps go: GID.
    pub trap_gid: [u8; 16],
    /// Where traps go: traffic class, service level, flow label.
    pub trap_tc_sl_fl: U32,
    /// Where traps go: LID.
    pub trap_lid: U16,
    /// Where traps go: partition.
    pub trap_pkey: U16,
    /// Where traps go: hop limit (8) and queue pair (24).
    pub trap_hop_qp: U32,
    /// Where traps go: Q_Key.
    pub trap_qkey: U32,
}

const _: () = assert!(size_of::<ClassPortInfo>() == 72 && size_of::<ClassPortInfo>() <= DATA_LEN);

/// Where an agent says its class is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The GID, if one is named.
    pub gid: Option<Gid>,
    /// The LID, if one is named.
    pub lid: u16,
    /// The queue pair; 0 is read as "the usual one".
    pub qpn: u32,
    /// The Q_Key; 0 is read as "the usual one".
    pub qkey: u32,
    /// The partition, if one is named.
    pub pkey: Option<PKey>,
    /// The service level.
    pub sl: u8,
    /// The traffic class for the GRH.
    pub traffic_class: u8,
    /// The flow label for the GRH.
    pub flow_label: u32,
}

impl ClassPortInfo {
    /// Reads the attribute of a MAD.
    #[must_use]
    pub fn from_data(data: &[u8; DATA_LEN]) -> Self {
        zerocopy::transmute!(prefix::<72>(data))
    }

    /// The time the agent may take to answer: 4.096 us * 2^n.
    #[must_use]
    pub fn response_time_exponent(&self) -> u8 {
        (self.capability_mask2_resp_time.get() & 0x1f) as u8
    }

    /// The redirection, if this is one: an agent at home leaves both addresses zero.
    #[must_use]
    pub fn redirect(&self) -> Option<Redirect> {
        let gid = (self.redirect_gid != [0; 16]).then_some(Gid(self.redirect_gid));
        let lid = self.redirect_lid.get();
        if gid.is_none() && lid == 0 {
            return None;
        }
        let route = self.redirect_tc_sl_fl.get();
        let pkey = self.redirect_pkey.get();
        Some(Redirect {
            gid,
            lid,
            qpn: self.redirect_qp.get() & 0x00ff_ffff,
            qkey: self.redirect_qkey.get(),
            pkey: (pkey != 0).then_some(PKey(pkey)),
            sl: ((route >> 20) & 0xf) as u8,
            traffic_class: (route >> 24) as u8,
            flow_label: route & 0x000f_ffff,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_and_redirect() {
        let mut data = [0u8; DATA_LEN];
        data[0] = 1;
        data[1] = 1;
        data[7] = 20;
        let home = ClassPortInfo::from_data(&data);
        assert_eq!(home.response_time_exponent(), 20);
        assert_eq!(home.redirect(), None);

        data[8..24].copy_from_slice(&[0xfe; 16]);
        data[24..28].copy_from_slice(&[0xab, 0x5c, 0xde, 0xf0]);
        data[28..30].copy_from_slice(&[0x00, 0x07]);
        data[30..32].copy_from_slice(&[0x80, 0x01]);
        data[32..36].copy_from_slice(&[0xff, 0x01, 0x02, 0x03]);
        data[36..40].copy_from_slice(&[0x80, 0x01, 0x00, 0x00]);
        let away = ClassPortInfo::from_data(&data).redirect().unwrap();
        let expected = Redirect {
            gid: Some(Gid([0xfe; 16])),
            lid: 7,
            qpn: 0x0001_0203,
            qkey: 0x8001_0000,
            pkey: Some(PKey(0x8001)),
            sl: 5,
            traffic_class: 0xab,
            flow_label: 0xc_def0,
        };
        assert_eq!(away, expected);
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), DATA_LEN)) {
            let data: [u8; DATA_LEN] = data.try_into().unwrap();
            let info = ClassPortInfo::from_data(&data);
            prop_assert_eq!(info.as_bytes(), &data[..72]);
            let _ = info.redirect();
        }
    }
}
