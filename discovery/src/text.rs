//! Text that came from a fabric: shown, never trusted.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

/// Bytes a peer put into a name or id field, up to the first NUL.
///
/// [`Display`](fmt::Display) and [`Serialize`] write printable ASCII as it is and every other byte as `\xNN`, so that
/// no peer can move a terminal's cursor or forge a line. A backslash is `\\` to programs ([`Serialize`]), which can
/// so tell what came; people see it as `ibsrpdm` shows it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct FabricText(Vec<u8>);

impl FabricText {
    /// The text of a NUL-padded field.
    #[must_use]
    pub fn from_field(field: &[u8]) -> Self {
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        Self(field[..end].to_vec())
    }

    /// The bytes as they came, without padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FabricText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in &self.0 {
            match byte {
                b' '..=b'~' => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FabricText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The text with what could be taken for an escape escaped.
fn reversible(text: &FabricText) -> String {
    let parts = text.0.split(|byte| *byte == b'\\');
    let parts: Vec<String> = parts.map(|part| FabricText(part.to_vec()).to_string()).collect();
    parts.join("\\\\")
}

impl Serialize for FabricText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&reversible(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_bytes_are_escaped() {
        let text = FabricText::from_field(b"a\x1b[2J\n\\\xff\0rest");
        assert_eq!(text.to_string(), r"a\x1b[2J\x0a\\xff");
        assert_eq!(serde_json::to_value(&text).unwrap(), r"a\x1b[2J\x0a\\\xff");
        assert_eq!(text.as_bytes(), b"a\x1b[2J\n\\\xff");
        assert_eq!(FabricText::from_field(b"").to_string(), "");
    }

    proptest! {
        #[test]
        fn only_printable_ascii_leaves(bytes: Vec<u8>) {
            let text = FabricText::from_field(&bytes).to_string();
            prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
            let text = reversible(&FabricText(bytes));
            prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
    }
}
