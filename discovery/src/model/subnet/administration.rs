//! What subnet administration has to say, and how it fails to.

use std::time::{Duration, Instant};

use srp_addressing::{Gid, Guid, PKey};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::{PREFIX, Subnet, Trouble};
use crate::mad::*;

impl Subnet {
    fn lid_of(&self, gid: [u8; 16]) -> Option<u16> {
        let guid = Gid(gid).interface().0;
        self.ports.iter().find(|(_, p)| p.guid == guid).map(|(lid, _)| *lid)
    }

    fn port_info(&self, lid: u16) -> Vec<u8> {
        let mut record = PortInfoRecord::new_zeroed();
        record.end_port_lid = U16::new(lid);
        record.lid = U16::new(lid);
        record.gid_prefix = U64::new(PREFIX);
        record.capability_mask = U32::new(self.ports[&lid].capability_mask);
        self.laid_out(record.as_bytes(), 64)
    }

    fn node(&self, lid: u16) -> Vec<u8> {
        let mut record = NodeRecord::new_zeroed();
        record.lid = U16::new(lid);
        record.node_type = if self.ports[&lid].switch { 2 } else { 1 };
        record.port_guid = U64::new(self.ports[&lid].guid);
        record.node_guid = U64::new(self.ports[&lid].guid + 0x1000);
        record.system_guid = U64::new(self.ports[&lid].guid + 0x2000);
        record.port_vendor = U32::new(0x0200_02c9);
        self.laid_out(record.as_bytes(), 112)
    }

    fn laid_out(&self, start: &[u8], len: usize) -> Vec<u8> {
        let mut record = start.to_vec();
        record.resize(len + usize::from(self.wider) * 8, 0);
        record
    }

    fn path(&self, asked: &PathRecord, any_partition: bool) -> Option<Vec<u8>> {
        let lid = match asked.dlid.get() {
            0 => self.lid_of(asked.dgid)?,
            lid => lid,
        };
        let port = self.ports.get(&lid)?;
        let wanted = asked.pkey();
        // Limited members do not see each other.
        let shares = |key: &&u16| {
            let key = PKey(**key);
            any_partition || key.partition() == wanted.partition() && (key.is_full_member() || wanted.is_full_member())
        };
        let shared = port.pkeys.iter().find(shares)?;
        let mut record = *asked;
        if any_partition {
            record.pkey = U16::new(*shared);
        }
        record.dlid = U16::new(lid);
        record.dgid = Gid::new(PREFIX, Guid(port.guid)).0;
        record.qos_sl = U16::new(2);
        Some(record.as_bytes().to_vec())
    }

    /// The records that answer a question, and the status.
    fn records(&self, asked: &SaMad, attribute: Attribute) -> (Vec<Vec<u8>>, u16) {
        let by_lid = u16::from_be_bytes([asked.data[0], asked.data[1]]);
        let known = self.ports.contains_key(&by_lid);
        let masked = asked.header.modifier.get() == 1 << 31;
        match attribute {
            Attribute::PORT_INFO_RECORD if masked => {
                let all = self.trouble == Trouble::IgnoresMask;
                let wanted = self
                    .ports
                    .iter()
                    .filter(|(_, p)| all || p.capability_mask & IS_DEVICE_MANAGEMENT_SUPPORTED != 0);
                (wanted.map(|(lid, _)| self.port_info(*lid)).collect(), 0)
            }
            Attribute::NODE_RECORD if asked.header.method == Method::GET_TABLE.0 => {
                (self.ports.keys().map(|lid| self.node(*lid)).collect(), 0)
            }
            Attribute::PORT_INFO_RECORD if known => (vec![self.port_info(by_lid)], 0),
            Attribute::NODE_RECORD if known => (vec![self.node(by_lid)], 0),
            Attribute::PATH_RECORD => match self.path(&asked.record(), asked.component_mask.get() & (1 << 13) == 0) {
                Some(path) => (vec![path], 0),
                None => (vec![], 0x0300),
            },
            Attribute::INFORM_INFO => (vec![asked.data.to_vec()], 0),
            Attribute::SA_CLASS_PORT_INFO => {
                let info = ClassPortInfo {
                    base_version: 1,
                    class_version: 2,
                    capability_mask: U16::new(if self.matches_mask {
                        SA_MATCHES_CAPABILITY_MASK
                    } else {
                        0
                    }),
                    ..ClassPortInfo::default()
                };
                (vec![info.as_bytes().to_vec()], 0)
            }
            Attribute::PORT_INFO_RECORD | Attribute::NODE_RECORD => (vec![], 0x0300),
            _ => (vec![], 0x000c),
        }
    }

    /// The bytes of an answer, as the kernel hands them out.
    fn subnet_answer(&self, asked: &SaMad, attribute: Attribute) -> Vec<u8> {
        let (records, mut status) = self.records(asked, attribute);
        if let Trouble::Refuses(what, with) = self.trouble
            && what == attribute
        {
            status = with;
        }
        let table = asked.header.method == Method::GET_TABLE.0;
        let data = records.concat();
        let mut answer = *asked;
        answer.header.method = Method(asked.header.method).response().0;
        answer.header.status = U16::new(status);
        answer.data = [0; SA_DATA_LEN];
        if status != 0 {
            return answer.as_bytes().to_vec();
        }
        let head = data.len().min(SA_DATA_LEN);
        answer.data[..head].copy_from_slice(&data[..head]);
        if !table {
            return answer.as_bytes().to_vec();
        }
        answer.attribute_offset = U16::new(records.first().map_or(0, |r| (r.len() / 8) as u16));
        answer.rmpp = Rmpp {
            version: 1,
            kind: Rmpp::DATA,
            flags: Rmpp::ACTIVE | Rmpp::FIRST,
            segment: U32::new(1),
            payload: U32::new(20 + data.len() as u32),
            ..Rmpp::default()
        };
        if data.len() <= SA_DATA_LEN {
            answer.rmpp.flags |= Rmpp::LAST;
        }
        let mut bytes = answer.as_bytes().to_vec();
        bytes.truncate(SA_DATA_OFFSET + head);
        if self.trouble != Trouble::Cuts {
            bytes.extend(&data[head..]);
        }
        bytes
    }

    /// When the administration answers a question, and how; it may not.
    pub(super) fn ask_administration(&mut self, asked: &SaMad, attribute: Attribute) -> Option<(Instant, Vec<u8>)> {
        self.answered += 1;
        let lid = u16::from_be_bytes([asked.data[0], asked.data[1]]);
        let by_lid = matches!(attribute, Attribute::PORT_INFO_RECORD | Attribute::NODE_RECORD);
        match self.trouble {
            Trouble::Silent => return None,
            Trouble::Dies(after) if self.answered > after => return None,
            Trouble::SilentAbout(silent) if by_lid && lid == silent => return None,
            _ => {}
        }
        self.busy_until = self.busy_until.max(self.now + self.latency) + self.service;
        let mut at = self.busy_until + self.latency;
        if self.trouble == Trouble::SlowAbout(lid) && by_lid {
            at += Duration::from_millis(100);
        }
        if let Trouble::Busy(times) = self.trouble
            && self.answered <= times
        {
            let mut busy = *asked;
            busy.header.method = Method(asked.header.method).response().0;
            busy.header.status = U16::new(1);
            return Some((at, busy.as_bytes().to_vec()));
        }
        Some((at, self.subnet_answer(asked, attribute)))
    }
}
