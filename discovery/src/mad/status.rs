//! The status field of an answer.

use std::fmt;

/// The status of a MAD (IBA 13.4.7), with the class-specific bits of device management (IBA 16.3.2).
///
/// [`Display`](fmt::Display) says it in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MadStatus(pub u16);

impl MadStatus {
    /// Done.
    pub const GOOD: Self = Self(0);
    /// No such method.
    pub const BAD_METHOD: Self = Self(0x0008);
    /// No such method for this attribute.
    pub const BAD_METHOD_ATTRIBUTE: Self = Self(0x000c);
    /// A value of the attribute or its modifier is out of range.
    pub const BAD_VALUE: Self = Self(0x001c);
    /// Device management: no controller answers in the slot.
    pub const NO_CONTROLLER: Self = Self(0x0100);

    /// Whether the request was carried out.
    #[must_use]
    pub const fn is_good(self) -> bool {
        self.0 == 0
    }

    /// Whether the agent is busy and discarded the request.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        self.0 & 0x0001 != 0
    }

    /// Whether the request must go elsewhere, to where the answer's ClassPortInfo tells.
    #[must_use]
    pub const fn is_redirect(self) -> bool {
        self.0 & 0x0002 != 0
    }
}

impl fmt::Display for MadStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_good() {
            return f.write_str("success");
        }
        let invalid_field = match (self.0 >> 2) & 7 {
            0 => "",
            1 => "class or class version not supported",
            2 => "method not supported",
            3 => "method not supported for this attribute",
            7 => "value of the attribute or its modifier is invalid",
            _ => "reserved invalid-field code",
        };
        let words = [
            if self.is_busy() {
                "busy, request discarded: try again"
            } else {
                ""
            },
            if self.is_redirect() { "redirected" } else { "" },
            invalid_field,
            if self.0 & 0x00e0 != 0 { "reserved bits set" } else { "" },
            if self.0 & 0x0100 != 0 {
                "no response from the I/O controller in this slot"
            } else {
                ""
            },
            if self.0 & 0x0200 != 0 {
                "no such service entries"
            } else {
                ""
            },
            if self.0 & 0x7c00 != 0 {
                "unknown class-specific status"
            } else {
                ""
            },
            if self.0 & 0x8000 != 0 { "general failure" } else { "" },
        ];
        let mut separator = "";
        for word in words.into_iter().filter(|w| !w.is_empty()) {
            write!(f, "{separator}{word}")?;
            separator = ", ";
        }
        write!(f, " (status 0x{:04x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        let table = [
            (0x0000, "success"),
            (0x0001, "busy, request discarded: try again (status 0x0001)"),
            (0x0002, "redirected (status 0x0002)"),
            (0x0004, "class or class version not supported (status 0x0004)"),
            (0x0008, "method not supported (status 0x0008)"),
            (0x000c, "method not supported for this attribute (status 0x000c)"),
            (
                0x001c,
                "value of the attribute or its modifier is invalid (status 0x001c)",
            ),
            (
                0x0100,
                "no response from the I/O controller in this slot (status 0x0100)",
            ),
            (
                0x8001,
                "busy, request discarded: try again, general failure (status 0x8001)",
            ),
        ];
        for (code, words) in table {
            assert_eq!(MadStatus(code).to_string(), words);
        }
        for code in 1..=u16::MAX {
            let words = MadStatus(code).to_string();
            assert!(!words.starts_with(' ') && words.contains("status 0x"), "{words}");
        }
    }
}
