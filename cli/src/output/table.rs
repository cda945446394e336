//! Aligned tables and lists, without lines: they can be read and cut.

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

/// A table with a head; columns in `right` hold numbers.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut builder = Builder::default();
    builder.push_record(head.iter().copied());
    for row in rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    for column in right {
        table.modify(Columns::one(*column), Alignment::right());
    }
    trimmed(&table.to_string())
}

/// Names and values.
pub(crate) fn list(rows: Vec<(String, String)>) -> String {
    let mut builder = Builder::default();
    for (name, value) in rows {
        builder.push_record([name, value]);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    trimmed(&table.to_string())
}

fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_text_does() {
        let text =
            table(&["PEER", "SHARDS"], vec![vec!["a".into(), "12".into()], vec!["long".into(), "7".into()]], &[1]);
        assert_eq!(text, "PEER  SHARDS\na         12\nlong       7");
        assert_eq!(list(vec![("a".into(), "1".into()), ("long".into(), "2".into())]), "a     1\nlong  2");
    }
}
