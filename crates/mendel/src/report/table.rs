//! Plain-text tables, and numbers as people read them.

use std::fmt;

/// What stands in a cell that has no value.
pub const NO_VALUE: &str = "–";

/// A table of text: labels in the first column, flush left, and numbers in the others, flush right.
///
/// ```
/// use mendel::report::table::{Table, measure};
///
/// let mut table = Table::new(["", "standard"]);
/// table.row(["MRR@10", &measure(0.31417)]);
/// assert_eq!(table.to_string(), "        standard\n────────────────\nMRR@10    0.3142\n");
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new<Cell: Into<String>>(header: impl IntoIterator<Item = Cell>) -> Table {
        Table { header: one_line(header), rows: Vec::new() }
    }

    /// Adds a row. Cells that it lacks stay empty, and cells beyond the header make columns without a title.
    pub fn row<Cell: Into<String>>(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(one_line(cells));
    }

    /// The titles of the columns.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// As a table of Markdown, in which every text is shown as it is.
    pub fn markdown(&self) -> String {
        let columns = self.header.len();
        let line = |cells: &[String]| {
            let cells: Vec<String> = (0..columns).map(|column| escaped(cell(cells, column))).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|{}\n", " --- |".repeat(columns));
        line(&self.header) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).chain([self.header.len()]).max().unwrap_or(0);
        let lines = || self.rows.iter().chain([&self.header]);
        (0..columns).map(|column| lines().map(|line| width(cell(line, column))).max().unwrap_or(0)).collect()
    }
}

/// Two spaces between columns, a rule under the header, no space at the end of a line.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let rule = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        write_line(f, &self.header, &widths)?;
        writeln!(f, "{}", "─".repeat(rule))?;
        self.rows.iter().try_for_each(|row| write_line(f, row, &widths))
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    let mut line = String::new();
    for (column, &wide) in widths.iter().enumerate() {
        let text = cell(cells, column);
        let padding = " ".repeat(wide - width(text));
        match column {
            0 => line.extend([text, &padding]),
            _ => line.extend(["  ", &padding, text]),
        }
    }
    writeln!(f, "{}", line.trim_end())
}

fn cell(cells: &[String], column: usize) -> &str {
    cells.get(column).map_or("", String::as_str)
}

/// Characters, which is right for all that this program writes; wide scripts in a label shift only their own line.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// A line break or other control character in a cell would break the table, so it becomes a space.
fn one_line<Cell: Into<String>>(cells: impl IntoIterator<Item = Cell>) -> Vec<String> {
    cells.into_iter().map(|cell| cell.into().replace(char::is_control, " ")).collect()
}

/// A text that is shown as it is: nothing in it is HTML, a link, a table or emphasis.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '!' | '#' | '~' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A measure: `0.3142`.
pub fn measure(value: f64) -> String {
    finite(value, |value| unsigned_zero(format!("{value:.4}")))
}

/// A p-value: `0.0312`, and `<0.0001` where it rounds to nothing.
pub fn p_value(p: f64) -> String {
    if p < 0.00005 { "<0.0001".into() } else { measure(p) }
}

/// A difference of measures, with its sign: `+0.0123`, `-0.0123`; `0.0000` where it rounds to nothing.
pub fn difference(value: f64) -> String {
    finite(value, |value| unsigned_zero(format!("{value:+.4}")))
}

/// A difference as a share of what it differs from: `+12.3%` of `relative_difference(1.123, 1.0)`.
pub fn relative_difference(value: f64, from: f64) -> String {
    finite(100.0 * (value - from) / from, |percent| unsigned_zero(format!("{percent:+.1}")) + "%")
}

/// A time in seconds: `45 ms`, `12.3s`, `1m 23s`, `2h 05m 09s`.
pub fn duration(seconds: f64) -> String {
    finite(seconds, |seconds| {
        if seconds < 0.9995 {
            return format!("{:.0} ms", 1000.0 * seconds);
        }
        if seconds < 59.95 {
            return format!("{seconds:.1}s");
        }
        let whole = seconds.round() as u64;
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        match hours {
            0 => format!("{minutes}m {seconds:02}s"),
            _ => format!("{hours}h {minutes:02}m {seconds:02}s"),
        }
    })
}

/// An amount of memory in GB: `1.25 GB`.
pub fn gigabytes(value: f64) -> String {
    finite(value, |value| format!("{value:.2} GB"))
}

/// A rate such as pairs per second: `12.3`, `1234`.
pub fn rate(value: f64) -> String {
    finite(value, |value| if value.abs() < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") })
}

fn finite(value: f64, format: impl Fn(f64) -> String) -> String {
    if value.is_finite() { format(value) } else { NO_VALUE.into() }
}

/// A sign before a number that rounded to zero would show a difference where none is seen.
fn unsigned_zero(number: String) -> String {
    match number.strip_prefix(['+', '-']) {
        Some(digits) if digits.chars().all(|digit| matches!(digit, '0' | '.')) => digits.into(),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_flush_left_and_numbers_flush_right() {
        let mut table = Table::new(["", "untrained", "standard", "difference"]);
        table.row(["MRR@10", "0.1000", "0.3000", "+0.2000"]);
        table.row(["training time", NO_VALUE, "1m 23s"]);
        let expected = "               untrained  standard  difference
──────────────────────────────────────────────
MRR@10            0.1000    0.3000     +0.2000
training time          –    1m 23s
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn any_row_keeps_to_its_line() {
        let mut table = Table::new(["é"]);
        table.row(["two\nlines", "beyond\tthe header"]);
        table.row(Vec::<String>::new());
        assert_eq!(table.to_string().lines().count(), 4);
    }

    #[test]
    fn differences_have_a_sign_unless_they_round_to_nothing() {
        assert_eq!(difference(0.01234), "+0.0123");
        assert_eq!(difference(-0.01236), "-0.0124");
        assert_eq!(difference(-0.00001), "0.0000");
        assert_eq!(measure(-0.0), "0.0000");
        assert_eq!(relative_difference(3.0, 2.0), "+50.0%");
        assert_eq!(relative_difference(2.0, 2.0), "0.0%");
        assert_eq!(relative_difference(2.0, 0.0), NO_VALUE);
        assert_eq!(difference(f64::NAN), NO_VALUE);
    }

    #[test]
    fn times_carry_over_at_the_minute_and_the_hour() {
        assert_eq!(duration(0.045), "45 ms");
        assert_eq!(duration(0.9996), "1.0s");
        assert_eq!(duration(12.34), "12.3s");
        assert_eq!(duration(59.94), "59.9s");
        assert_eq!(duration(59.96), "1m 00s");
        assert_eq!(duration(83.4), "1m 23s");
        assert_eq!(duration(3599.6), "1h 00m 00s");
        assert_eq!(duration(7509.0), "2h 05m 09s");
    }

    #[test]
    fn rates_and_memory_keep_the_digits_that_matter() {
        assert_eq!(rate(12.34), "12.3");
        assert_eq!(rate(99.96), "100");
        assert_eq!(gigabytes(1.254), "1.25 GB");
    }
}
