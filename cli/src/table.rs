//! Tables and numbers for people.

use std::fmt::Write;
use std::time::Duration;

/// A table: columns as wide as their widest cell, numbers to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    headed: bool,
}

impl Table {
    /// A table without a head.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A table with a head.
    pub(crate) fn headed(head: &[&str]) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            headed: true,
        };
        table.row(head);
        table
    }

    /// Adds a row.
    pub(crate) fn row<T: ToString>(&mut self, cells: &[T]) {
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
    }

    /// The table as text, a line per row.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let body = self.rows.get(usize::from(self.headed)..).unwrap_or(&[]);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |column| {
            cells(column)
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let numeric = |column: usize| {
            let mut cells = body.iter().filter_map(|row| row.get(column)).peekable();
            cells.peek().is_some()
                && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()))
        };
        let to_the_right: Vec<bool> = (0..columns).map(numeric).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let width = widths[column];
                let _ = if to_the_right[column] {
                    write!(line, "{gap}{cell:>width$}")
                } else {
                    write!(line, "{gap}{cell:<width$}")
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A whole number with separators: `1,234,567`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of a thing: `1 cut`, `1,234 cuts`, `2 entries`.
pub(crate) fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// A duration in a unit that fits: `812 ns`, `4.2 µs`, `17 ms`, `3.1 s`.
pub(crate) fn duration(span: Duration) -> String {
    let ns = span.as_nanos() as f64;
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    if value < 10.0 && unit != "ns" {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Bytes in a unit that fits: `7.2 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A rate per second of `count` things in `span`.
pub(crate) fn per_second(count: u64, span: Duration) -> u64 {
    let seconds = span.as_secs_f64();
    if seconds > 0.0 {
        (count as f64 / seconds) as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::headed(&["shard", "records", "state"]);
        table.row(&["0", "1,234", "open"]);
        table.row(&["10", "7", "closed for µs"]);
        assert_eq!(
            table.render(),
            "shard  records  state\n    0    1,234  open\n   10        7  closed for µs\n"
        );
        let mut plain = Table::new();
        plain.row(&["a", "b"]);
        plain.row(&["ccc"]);
        assert_eq!(plain.render(), "a    b\nccc\n");
        assert_eq!(Table::new().render(), "");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [
                count(1, "entry", "entries"),
                count(2_000, "entry", "entries")
            ],
            ["1 entry", "2,000 entries"]
        );
        let nanos = |ns| duration(Duration::from_nanos(ns));
        assert_eq!(
            [812, 4_200, 17_000_000, 3_140_000_000].map(nanos),
            ["812 ns", "4.2 µs", "17 ms", "3.1 s"]
        );
        assert_eq!(
            [0, 1023, 7_519_149, 64 << 20, 500 << 30].map(size),
            ["0 B", "1023 B", "7.2 MiB", "64.0 MiB", "500 GiB"]
        );
        assert_eq!(per_second(100, Duration::from_millis(500)), 200);
        assert_eq!(per_second(100, Duration::ZERO), 0);
    }
}
