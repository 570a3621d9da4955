//! Text from outside, made safe to show.

use std::fmt::{self, Write as _};

/// Shows text with everything that moves a cursor, ends a line or turns the writing direction escaped.
pub(super) fn printable(text: &str) -> impl fmt::Display + '_ {
    Printable(text)
}

struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                _ if !is_harmful(c) => f.write_char(c)?,
                '\0'..='\u{7f}' => write!(f, "\\x{:02x}", u32::from(c))?,
                _ => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            }
        }
        Ok(())
    }
}

/// JSON text as serde_json writes it, with what is harmful to a terminal as `\uXXXX`, which means the same.
pub(super) fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_harmful(c) {
            // Outside of strings JSON is plain ASCII without control characters; inside this is its own escape.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn is_harmful(c: char) -> bool {
    // Besides the control characters: line and paragraph separators, marks and overrides of direction, and
    // characters that cannot be seen.
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(printable("plain é 漢").to_string(), "plain é 漢");
        assert_eq!(printable("a\x1b[2J\r\n\x7f").to_string(), r"a\x1b[2J\x0d\x0a\x7f");
        assert_eq!(printable("\u{9b}31m\u{202e}x").to_string(), r"\u{9b}31m\u{202e}x");
        let value = serde_json::json!({ "a\u{9b}": "\u{7f}\u{202e}\u{e0041}\x1b\"" });
        let text = printable_json(&value.to_string());
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
