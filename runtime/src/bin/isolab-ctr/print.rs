//! What goes to standard output.

use std::io::{self, Write};

use console::Term;

use crate::voice::Failure;

/// What is left of a text that is cut, at the least.
const CUT: usize = 10;

/// Writes a text. Who reads no further, such as head(1), has seen enough: that is no failure.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| Failure::Write { to: "standard output".to_owned(), source }),
    }
}

/// Rows under a heading, each column as wide as its widest text. In a terminal no wider than that, if it can be.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let terminal = Term::stdout();
    let most = terminal.size_checked().filter(|_| terminal.is_term()).map(|(_, columns)| usize::from(columns));
    table(rows, most.unwrap_or(usize::MAX))
}

/// The same, so wide at the most: first the columns move together, then those are cut in which there is more to read than
/// a word. A word may be wanted for the next command.
fn table(rows: &[Vec<String>], most: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let length = |cell: &String| cell.chars().count();
    let mut widths: Vec<usize> = (0..count).map(|column| cells(column).map(length).max().unwrap_or(0)).collect();
    let least = |column: usize| {
        let read = |(row, cell): &(usize, &String)| *row > 0 && cell.trim().contains(' ');
        let kept = cells(column).enumerate().filter(|it| !read(it)).map(|(_, cell)| length(cell)).max();
        kept.unwrap_or(0).max(CUT)
    };
    let least: Vec<usize> = (0..count).map(least).collect();
    let wide = |widths: &[usize], gap: usize| widths.iter().sum::<usize>() + gap * count.saturating_sub(1);
    let gap = [3, 2].into_iter().find(|gap| wide(&widths, *gap) <= most).unwrap_or(1);
    let narrow: Vec<usize> = widths.iter().zip(&least).map(|(width, least)| *width.min(least)).collect();
    // What does not fit anyway is at least told in full.
    while wide(&widths, gap) > most && wide(&narrow, gap) <= most {
        let cuttable = (0..count).filter(|column| widths[*column] > narrow[*column]);
        let Some(widest) = cuttable.max_by_key(|column| widths[*column]) else { break };
        widths[widest] -= 1;
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", shorten(cell, *width)));
        text.push_str(cells.collect::<Vec<_>>().join(&" ".repeat(gap)).trim_end());
        text.push('\n');
    }
    text
}

/// At most so many characters of a text.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// A size for people, in powers of two, as docker prints memory: `1.23MiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    let digits = match value {
        _ if unit == "B" => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}{unit}")
}

/// A size for people, in powers of ten, as docker prints it: `1.23MB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        // What would be rounded up to 1000 is one of the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let digits = if unit == "B" || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::{size, table};

    #[test]
    fn a_table_fits_into_its_terminal_and_no_word_is_cut() {
        let rows = [["ID", "COMMAND", "NAMES"], ["0123456789ab", "sh -c 'sleep 1000; true'", "a-rather-long-name"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let widest = |most: usize| table(&rows, most).lines().map(|line| line.chars().count()).max();
        assert_eq!([usize::MAX, 59, 58, 50, 42, 10].map(widest), [60, 58, 58, 50, 42, 56].map(Some));
        assert!(table(&rows, 42).contains("0123456789ab sh -c 'sl… a-rather-long-name\n"), "{}", table(&rows, 42));
    }

    #[test]
    fn a_size_has_three_digits() {
        let told = [0, 999, 1000, 12_345, 999_499, 999_501, 1_230_000, 54_000_000_000].map(size);
        assert_eq!(told, ["0B", "999B", "1.00kB", "12.3kB", "999kB", "1.00MB", "1.23MB", "54.0GB"]);
    }
}
