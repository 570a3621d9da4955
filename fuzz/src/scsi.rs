//! What logical units say of themselves and of failures.

use srp_initiator::scsi::capacity::Capacity;
use srp_initiator::scsi::inquiry::StandardInquiry;
use srp_initiator::scsi::mode::ModeParameters;
use srp_initiator::scsi::outcome;
use srp_initiator::scsi::report_luns::LunList;
use srp_initiator::scsi::sense::Sense;
use srp_initiator::scsi::{Lun, vpd};

pub(crate) fn sense(input: &[u8]) {
    let Ok(sense) = Sense::parse(input) else { return };
    let _ = sense.to_string();
    let fixed = Sense::parse(&sense.to_fixed());
    let same = |again: Sense| (again.key, again.asc, again.ascq) == (sense.key, sense.asc, sense.ascq);
    assert!(fixed.is_ok_and(same), "{sense:?}, {fixed:?}");
    for status in [outcome::GOOD, outcome::CHECK_CONDITION, outcome::BUSY, 0xff] {
        let _ = outcome::judge(status, Some(&sense), 512);
        let _ = outcome::judge_deallocation(status, Some(&sense), 512);
    }
}

pub(crate) fn inquiry(input: &[u8]) {
    if let Ok(inquiry) = StandardInquiry::parse(input) {
        // Texts are of fixed fields; a byte becomes at most 3.
        let len = inquiry.vendor.len() + inquiry.product.len() + inquiry.revision.len();
        assert!(len <= 3 * 28, "{inquiry:?}");
    }
}

pub(crate) fn vpd(input: &[u8]) {
    for page in [0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2] {
        if let Ok(body) = vpd::body(input, page) {
            assert!(body.len() + 4 <= input.len());
        }
    }
    let _ = vpd::unit_serial_number(input);
    if let Ok(designators) = vpd::designators(input) {
        let mut total = 0;
        for designator in designators {
            total += 4 + designator.value.len();
            let _ = designator.identifier();
        }
        assert!(total <= input.len(), "designators do not overlap");
    }
    let _ = vpd::best_identifier(input);
    let _ = vpd::BlockLimits::parse(input);
    let _ = vpd::rotational(input);
    let _ = vpd::Provisioning::parse(input);
}

pub(crate) fn capacity(input: &[u8]) {
    for capacity in [Capacity::parse_10(input).ok(), Capacity::parse_16(input).ok()]
        .into_iter()
        .flatten()
    {
        if let Ok(size) = capacity.usable_block_size() {
            assert!(size >= 512 && size.is_power_of_two(), "{capacity:?}");
        }
    }
}

pub(crate) fn mode(input: &[u8]) {
    let _ = ModeParameters::parse_6(input);
    let _ = ModeParameters::parse_10(input);
}

pub(crate) fn report_luns(input: &[u8]) {
    let Ok(list) = LunList::parse(input) else { return };
    assert!(list.luns.len() * 8 <= input.len() && list.luns.len() <= list.listed);
    let again = LunList::parse(&LunList::encode(&list.luns));
    assert_eq!(again.map(|again| again.luns), Ok(list.luns.clone()));
    for lun in &list.luns {
        let _ = (lun.to_string(), lun.address(), lun.index());
        assert_eq!(Lun::from_number(lun.number()).number(), lun.number());
    }
}
