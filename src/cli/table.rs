//! Columns of text.

use super::printable::printable;

/// Rows of cells, shown in columns as wide as their widest cell.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table under a line of column names.
    pub(super) fn under(names: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(names.iter().copied());
        table
    }

    /// A row; its cells may be text from outside.
    pub(super) fn row<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| printable(cell.as_ref()).to_string())
                .collect(),
        );
    }

    /// The lines, each after `indent`.
    pub(super) fn text(&self, indent: &str) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let padded: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            text.push_str(indent);
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let mut table = Table::under(&["A", "LONG", "C"]);
        table.row(["long cell", "é", ""]);
        table.row(["x", "\x1b", "end"]);
        assert_eq!(
            table.text("> "),
            "> A          LONG  C\n> long cell  é\n> x          \\x1b  end\n"
        );
        assert_eq!(Table::default().text(""), "");
    }
}
