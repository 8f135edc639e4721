//! Text from a run, made fit for a page, a table or a terminal: a run is data, and may come from anyone.

/// The text without what no page may hold: control characters, which XML forbids and a terminal would obey, become `�`.
pub(crate) fn printable(text: &str) -> String {
    let printable = |character: char| {
        let plain = matches!(character, '\n' | '\t') || !character.is_control();
        let allowed = plain && !matches!(character, '\u{fffe}' | '\u{ffff}');
        if allowed { character } else { '\u{fffd}' }
    };
    text.chars().map(printable).collect()
}

/// The text as XML content.
pub(crate) fn escaped(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text on one line of at most so many characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_never_obeyed() {
        assert_eq!(printable("a\u{1b}[31mb\0\tc\u{85}"), "a\u{fffd}[31mb\u{fffd}\tc\u{fffd}");
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=\"x\"&gt;&amp;");
    }

    #[test]
    fn a_long_text_is_cut_where_a_reader_sees_it() {
        assert_eq!(shortened("one\n two", 10), "one two");
        assert_eq!(shortened("a long name of a cell", 8), "a long …");
    }
}
