//! Additional sense codes in words (SPC-4): the ones block storage is seen to send.

/// Code, `(ASC << 8) | ASCQ`, and words.
const WORDS: &[(u16, &str)] = &[
    (0x0000, "no additional sense information"),
    (0x0400, "logical unit not ready, cause not reportable"),
    (0x0401, "logical unit is becoming ready"),
    (0x0402, "logical unit not ready, initializing command required"),
    (0x0403, "logical unit not ready, manual intervention required"),
    (0x0404, "logical unit not ready, format in progress"),
    (0x0405, "logical unit not ready, rebuild in progress"),
    (0x0407, "logical unit not ready, operation in progress"),
    (0x0409, "logical unit not ready, self-test in progress"),
    (
        0x040a,
        "logical unit not accessible, asymmetric access state transition",
    ),
    (0x040b, "logical unit not accessible, target port in standby state"),
    (0x040c, "logical unit not accessible, target port in unavailable state"),
    (0x0414, "logical unit not ready, space allocation in progress"),
    (0x041b, "logical unit not ready, sanitize in progress"),
    (0x0500, "logical unit does not respond to selection"),
    (0x0800, "logical unit communication failure"),
    (0x0801, "logical unit communication time-out"),
    (0x0b00, "warning"),
    (0x0b01, "warning, specified temperature exceeded"),
    (0x0c00, "write error"),
    (0x0c02, "write error, auto reallocation failed"),
    (0x0d00, "error detected by third party temporary initiator"),
    (0x1001, "logical block guard check failed"),
    (0x1002, "logical block application tag check failed"),
    (0x1003, "logical block reference tag check failed"),
    (0x1100, "unrecovered read error"),
    (0x1101, "read retries exhausted"),
    (0x1104, "unrecovered read error, auto reallocate failed"),
    (0x1400, "recorded entity not found"),
    (0x1401, "record not found"),
    (0x1701, "recovered data with retries"),
    (0x1a00, "parameter list length error"),
    (0x1d00, "miscompare during verify operation"),
    (0x2000, "invalid command operation code"),
    (0x2002, "access denied, no access rights"),
    (0x2100, "logical block address out of range"),
    (0x2400, "invalid field in CDB"),
    (0x2500, "logical unit not supported"),
    (0x2600, "invalid field in parameter list"),
    (0x2602, "parameter value invalid"),
    (0x2604, "invalid release of persistent reservation"),
    (0x2700, "write protected"),
    (0x2701, "hardware write protected"),
    (0x2702, "logical unit software write protected"),
    (0x2707, "space allocation failed, write protect"),
    (0x2800, "not ready to ready change, medium may have changed"),
    (0x2900, "power on, reset, or bus device reset occurred"),
    (0x2901, "power on occurred"),
    (0x2902, "SCSI bus reset occurred"),
    (0x2903, "bus device reset function occurred"),
    (0x2904, "device internal reset"),
    (0x2907, "I_T nexus loss occurred"),
    (0x2a00, "parameters changed"),
    (0x2a01, "mode parameters changed"),
    (0x2a03, "reservations preempted"),
    (0x2a04, "reservations released"),
    (0x2a05, "registrations preempted"),
    (0x2a06, "asymmetric access state changed"),
    (0x2a07, "implicit asymmetric access state transition failed"),
    (0x2a09, "capacity data has changed"),
    (0x2c00, "command sequence error"),
    (0x2f00, "commands cleared by another initiator"),
    (0x3100, "medium format corrupted"),
    (0x3200, "no defect spare location available"),
    (0x3807, "thin provisioning soft threshold reached"),
    (0x3900, "saving parameters not supported"),
    (0x3a00, "medium not present"),
    (0x3e00, "logical unit has not self-configured yet"),
    (0x3e01, "logical unit failure"),
    (0x3f00, "target operating conditions have changed"),
    (0x3f01, "microcode has been changed"),
    (0x3f03, "inquiry data has changed"),
    (0x3f05, "device identifier changed"),
    (0x3f0e, "reported LUNs data has changed"),
    (0x4300, "message error"),
    (0x4400, "internal target failure"),
    (0x4700, "SCSI parity error"),
    (0x4900, "invalid message error"),
    (0x4b00, "data phase error"),
    (0x4e00, "overlapped commands attempted"),
    (0x5500, "system resource failure"),
    (0x5503, "insufficient resources"),
    (0x5d00, "failure prediction threshold exceeded"),
    (0x6700, "configuration failure"),
];

/// The words of a code, or of its ASC alone, if known.
pub(super) fn words(asc: u8, ascq: u8) -> Option<&'static str> {
    let find = |code: u16| WORDS.iter().find(|(known, _)| *known == code).map(|(_, words)| *words);
    find(u16::from_be_bytes([asc, ascq])).or_else(|| match asc {
        // A qualifier we do not know refines a condition we do.
        0x04 | 0x0c | 0x11 | 0x21 | 0x24 | 0x26 | 0x27 | 0x29 | 0x2a | 0x3f | 0x55 => {
            find(u16::from_be_bytes([asc, 0]))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_partly_known_unknown() {
        assert_eq!(words(0x11, 0x00), Some("unrecovered read error"));
        assert_eq!(words(0x29, 0x7f), Some("power on, reset, or bus device reset occurred"));
        assert_eq!(words(0xee, 0x01), None);
        for (i, (code, _)) in WORDS.iter().enumerate() {
            assert!(
                WORDS[i + 1..].iter().all(|(other, _)| other != code),
                "{code:#06x} twice"
            );
        }
    }
}
