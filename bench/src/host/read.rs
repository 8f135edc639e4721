//! Thin readers: what the kernel shows in `/proc` and `/sys`, as text that the areas' parsers take apart.

use std::fs;
use std::path::Path;

/// A file's text without the blanks at its ends; nothing where it can't be read.
///
/// Most of what the doctor looks for is absent on some host: absence is an answer, not an error.
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The word in brackets, as in `always [madvise] never`: how `/sys` shows the choice among several.
pub(crate) fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

/// A kernel parameter's yes or no: `Y`, `N`, `1`, `0`.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text {
        "Y" | "y" | "1" => Some(true),
        "N" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// Bytes in the unit that a person would choose.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A share as a percentage: two digits below 10 %, as 0.3 % and 0.04 % differ.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 9.95 => format!("{p:.0} %"),
        p if p >= 0.95 => format!("{p:.1} %"),
        0.0 => "0 %".into(),
        p => format!("{p:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bracketed_word_is_the_choice() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("always madvise"), None);
        assert_eq!(chosen("[none"), None);
    }

    #[test]
    fn sizes_and_shares_read_as_a_person_writes_them() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(24_684_092 * 1024), "23.5 GiB");
        assert_eq!(size(300 << 20), "300 MiB");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.0004), "0.04 %");
        assert_eq!(percent(0.015), "1.5 %");
        assert_eq!(percent(0.42), "42 %");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_answer() {
        assert_eq!(text("/proc/no such file"), None);
    }
}
