use std::mem::offset_of;

use proptest::prelude::*;
use srp_addressing::PKey;
use zerocopy::FromZeros;

use super::*;

#[test]
fn offsets_of_iba_chapter_15() {
    assert_eq!(offset_of!(SaMad, rmpp), 24);
    assert_eq!(offset_of!(SaMad, sm_key), 36);
    assert_eq!(offset_of!(SaMad, attribute_offset), 44);
    assert_eq!(offset_of!(SaMad, component_mask), 48);
    assert_eq!(offset_of!(SaMad, data), SA_DATA_OFFSET);
    assert_eq!(
        [offset_of!(NodeRecord, node_guid), offset_of!(NodeRecord, port_guid)],
        [16, 24]
    );
    type P = PortInfoRecord;
    assert_eq!(
        [
            offset_of!(P, gid_prefix),
            offset_of!(P, lid),
            offset_of!(P, capability_mask)
        ],
        [12, 20, 24]
    );
    assert_eq!(offset_of!(P, speed_state), 36);
    type R = PathRecord;
    assert_eq!(
        [offset_of!(R, dlid), offset_of!(R, pkey), offset_of!(R, qos_sl)],
        [40, 50, 52]
    );
    type I = InformInfo;
    assert_eq!(
        [offset_of!(I, is_generic), offset_of!(I, trap), offset_of!(I, producer)],
        [22, 26, 32]
    );
    assert_eq!([offset_of!(Notice, trap), offset_of!(Notice, details)], [4, 10]);
}

#[test]
fn questions() {
    let mad = PortInfoRecord::with_device_management();
    let bytes = mad.as_bytes();
    assert_eq!(bytes[..4], [1, 3, 2, 0x12]);
    assert_eq!(bytes[16..24], [0, 0x12, 0, 0, 0x80, 0, 0, 0]);
    assert_eq!(bytes[48..56], [0, 0, 0, 0, 0, 0, 0, 0x80]);
    assert_eq!(bytes[56 + 24..56 + 28], [0, 0x08, 0, 0]);

    let ends = PathComponents::Lids {
        source: 2,
        destination: 7,
    };
    let mad = PathRecord::query(ends, Some(PKey(0x8001)));
    let bytes = mad.as_bytes();
    assert_eq!(bytes[..4], [1, 3, 2, 1]);
    assert_eq!(bytes[48..56], [0, 0, 0, 0, 0, 0, 0x38, 0x30]);
    assert_eq!(bytes[56 + 40..56 + 44], [0, 7, 0, 2]);
    assert_eq!(bytes[56 + 50..56 + 52], [0x80, 1]);

    let lid = NodeRecord::of_lid(0x1234);
    assert_eq!(lid.as_bytes()[48..58], [0, 0, 0, 0, 0, 0, 0, 1, 0x12, 0x34]);
    assert_eq!(NodeRecord::all().as_bytes()[3], 0x12);
    assert_eq!(PortInfoRecord::of_lid(9).as_bytes()[56..58], [0, 9]);

    let on = InformInfo::subscription(64, true);
    assert_eq!(on.as_bytes()[..4], [1, 3, 2, 2]);
    assert_eq!(on.as_bytes()[48..56], [0, 0, 0, 0, 0, 0, 0x10, 0xf2]);
    assert_eq!(
        on.as_bytes()[72..92],
        [0xff, 0xff, 0, 0, 0, 0, 1, 1, 0, 3, 0, 64, 0, 0, 0, 0, 0, 0, 0, 4]
    );
    let off = InformInfo::subscription(144, false);
    assert_eq!(off.as_bytes()[48..56], [0, 0, 0, 0, 0, 0, 0x11, 0xf2]);
    assert_eq!(
        off.as_bytes()[72..92],
        [0xff, 0xff, 0, 0, 0, 0, 1, 0, 0, 4, 0, 144, 0, 0, 1, 0, 0, 0, 0, 1]
    );
}

/// A table answer of one segment, or as the kernel puts several together.
fn table_answer(records: &[u8], offset: u16, flags: u8) -> (Mad, Vec<u8>, usize) {
    let mut mad = SaMad::from_mad(&NodeRecord::all());
    mad.header.method = Method::GET_TABLE_RESP.0;
    mad.rmpp.version = 1;
    mad.rmpp.kind = Rmpp::DATA;
    mad.rmpp.flags = flags;
    mad.rmpp.payload = U32::new(20 + records.len() as u32);
    mad.attribute_offset = U16::new(offset);
    let head = records.len().min(SA_DATA_LEN);
    mad.data[..head].copy_from_slice(&records[..head]);
    (mad.into_mad(), records[head..].to_vec(), SA_DATA_OFFSET + records.len())
}

const ONE: u8 = Rmpp::ACTIVE | Rmpp::FIRST | Rmpp::LAST;
const FIRST: u8 = Rmpp::ACTIVE | Rmpp::FIRST;

fn nodes(count: u16, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for lid in 1..=count {
        let mut record = vec![0; len];
        record[..2].copy_from_slice(&lid.to_be_bytes());
        all.extend(record);
    }
    all
}

fn lids((mad, tail, len): &(Mad, Vec<u8>, usize)) -> Result<Vec<u16>, TableError> {
    let table = Table::parse(mad, tail, *len, NodeRecord::LEN)?;
    let records: Vec<NodeRecord> = table.records().collect();
    assert_eq!(records.len(), table.len());
    Ok(records.iter().map(|r| r.lid.get()).collect())
}

#[test]
fn tables() {
    assert_eq!(lids(&table_answer(&nodes(1, 112), 14, ONE)), Ok(vec![1]));
    assert_eq!(lids(&table_answer(&nodes(5, 112), 14, FIRST)), Ok(vec![1, 2, 3, 4, 5]));
    // Some SAs lay records out wider or narrower than others.
    assert_eq!(lids(&table_answer(&nodes(3, 160), 20, FIRST)), Ok(vec![1, 2, 3]));
    assert_eq!(lids(&table_answer(&[], 0, ONE)), Ok(vec![]));
    assert_eq!(lids(&table_answer(&[], 14, ONE)), Ok(vec![]));
    assert_eq!(lids(&table_answer(&nodes(1, 112), 0, ONE)), Ok(vec![1]));

    // One segment in a full datagram: what is beyond its length is no record.
    let (mad, _, _) = table_answer(&nodes(1, 48), 6, ONE);
    assert_eq!(lids(&(mad, vec![], MAD_LEN)), Ok(vec![1]));

    let cut = table_answer(&nodes(1, 112), 14, FIRST);
    assert_eq!(lids(&(cut.0, vec![], MAD_LEN)), Err(TableError::Cut { got: 200 }));
    let short = lids(&table_answer(&nodes(3, 40), 5, ONE));
    assert_eq!(short, Err(TableError::ShortRecords { got: 40, need: 44 }));
    for flags in [0, Rmpp::FIRST | Rmpp::LAST] {
        let none = lids(&table_answer(&nodes(1, 112), 14, flags));
        assert!(matches!(none, Err(TableError::NotATable { .. })), "{none:?}");
    }
}

fn report(trap: u16, put: &[(usize, &[u8])]) -> Mad {
    let mut notice = Notice::new_zeroed();
    notice.generic_kind = 0x83;
    notice.trap = U16::new(trap);
    for (at, bytes) in put {
        notice.details[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    SaMad::request(Method::REPORT, Attribute::NOTICE, 0, 0, &notice).into_mad()
}

#[test]
fn notices() {
    let kind = |mad: &Mad| Notice::of_report(mad).unwrap().kind();
    let gid = [7; 16];
    assert_eq!(
        kind(&report(64, &[(6, &gid)])),
        NoticeKind::InService(srp_addressing::Gid(gid))
    );
    assert_eq!(
        kind(&report(65, &[(6, &gid)])),
        NoticeKind::OutOfService(srp_addressing::Gid(gid))
    );
    let with = report(144, &[(2, &[0, 9]), (6, &[0, 8, 0, 0])]);
    assert_eq!(
        kind(&with),
        NoticeKind::Capabilities {
            lid: 9,
            device_management: true
        }
    );
    let without = report(144, &[(2, &[0, 9]), (6, &[0, 4, 0, 0])]);
    assert_eq!(
        kind(&without),
        NoticeKind::Capabilities {
            lid: 9,
            device_management: false
        }
    );
    assert_eq!(kind(&report(128, &[])), NoticeKind::Other(128));
    assert_eq!(Notice::of_report(&NodeRecord::all()), None);
    let answer = Notice::response(&with);
    assert_eq!(answer.header.method, 0x86);
    assert_eq!(answer.as_bytes()[24..], with.as_bytes()[24..]);
}

#[test]
fn statuses() {
    assert_eq!(SaStatus(0x0300).to_string(), "no record fits (status 0x0300)");
    assert!(SaStatus(0x0300).is_nothing() && SaStatus(0x0100).is_busy() && SaStatus(0x0001).is_busy());
    assert!(
        SaStatus(0x000c)
            .to_string()
            .contains("not supported for this attribute")
    );
    assert!(!SaStatus(0x0700).is_nothing() && !SaStatus(0x0700).is_busy());
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 256..1200), len in 0_usize..2000) {
        let mad = Mad::parse(&bytes).unwrap();
        for need in [NodeRecord::LEN, PortInfoRecord::LEN] {
            if let Ok(table) = Table::parse(mad, &bytes[256..], len, need) {
                prop_assert!(table.len() * need <= bytes.len());
                prop_assert!(table.records::<NodeRecord>().count() <= table.len());
            }
        }
        let sa = SaMad::from_mad(mad);
        let _ = SaStatus(sa.header.status.get()).to_string();
        let path: PathRecord = sa.record();
        let _ = (path.sl(), path.pkey(), path.is_routed());
        let notice: Notice = sa.record();
        let _ = notice.kind();
        let again = sa.into_mad();
        prop_assert_eq!(again.as_bytes(), &bytes[..256]);
    }
}
