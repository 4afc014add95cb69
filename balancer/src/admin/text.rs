//! Tables for people: aligned columns under their names.

use std::fmt::Write;

/// A row that can be shown in columns.
pub(super) trait Columns {
    /// The columns, called as the fields in JSON.
    const NAMES: &'static [&'static str];
    /// One cell per column; never empty and without line ends.
    fn cells(&self) -> Vec<String>;
}

/// The rows under their header.
pub(super) fn table<R: Columns>(rows: &[R]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(Columns::cells).collect();
    let mut widths: Vec<usize> = R::NAMES.iter().map(|name| name.len()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, R::NAMES.iter().copied(), &widths);
    for row in &rows {
        line(&mut text, row.iter().map(String::as_str), &widths);
    }
    text
}

fn line<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let start = text.len();
    for (cell, width) in cells.zip(widths) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{cell:width$}  ");
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(&'static str, u32);

    impl Columns for Row {
        const NAMES: &'static [&'static str] = &["name", "n"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.into(), self.1.to_string()]
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(table(&[Row("a", 1), Row("longer", 22)]), "name    n\na       1\nlonger  22\n");
        assert_eq!(table::<Row>(&[]), "name  n\n");
    }
}
