//! From a text to lines that each hold one instruction whole.

use super::error::{DockerfileError, Problem};
use super::words;

/// An instruction's line, with what continues it and the documents that follow it.
#[derive(Debug)]
pub(super) struct Line {
    /// Where it begins, counted from 1.
    pub(super) number: usize,
    /// As written, continued lines put together.
    pub(super) text: String,
    /// In upper case.
    pub(super) keyword: String,
    /// The `--name=value` before the arguments, without the dashes; a flag without a value has none.
    pub(super) flags: Vec<(String, Option<String>)>,
    /// What comes then.
    pub(super) rest: String,
    pub(super) documents: Vec<HereDocument>,
}

/// A text that stands below its instruction instead of in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereDocument {
    /// The line that ends it, and for COPY the name of the file.
    pub name: String,
    /// Whether variables in it are substituted: its name stood there without quotes.
    pub expand: bool,
    /// The lines, each with its end.
    pub text: String,
    /// The word that announced it, such as `<<EOF`.
    pub word: String,
    /// Whether tabs before each line were taken away (`<<-`).
    pub tabs: bool,
}

impl HereDocument {
    /// As it stands below its instruction, its end included.
    pub(crate) fn below(&self) -> String {
        format!("\n{}{}", self.text, self.name)
    }
}

/// Reads the directives at the top, then lines to the end. Answers what escapes, and the lines.
pub(super) fn read(text: &str) -> Result<(char, Vec<Line>), DockerfileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let escape = directives(&physical)?;
    let mut reader = Reader { physical: &physical, next: 0, escape };
    let mut lines = Vec::new();
    while let Some((number, text)) = reader.logical() {
        lines.push(reader.line(number, text)?);
    }
    Ok((escape, lines))
}

/// The escape character. Directives are comments of a special form; the first line of another form ends them.
fn directives(lines: &[&str]) -> Result<char, DockerfileError> {
    for (index, line) in lines.iter().enumerate() {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        match (key.trim().to_ascii_lowercase().as_str(), value.trim()) {
            ("escape", "`") => return Ok('`'),
            ("escape", other) if other != "\\" => {
                return Err(DockerfileError::at(index + 1, Problem::Escape(other.to_owned())));
            }
            // Another reader of Dockerfiles is asked for, or none of its warnings: neither changes what this one does.
            ("escape" | "syntax" | "check", _) => {}
            _ => break,
        }
    }
    Ok('\\')
}

struct Reader<'a> {
    physical: &'a [&'a str],
    next: usize,
    escape: char,
}

impl Reader<'_> {
    /// The next line that is neither empty nor a comment, with the lines that continue it.
    fn logical(&mut self) -> Option<(usize, String)> {
        let mut number = 0;
        let mut text = String::new();
        while let Some(line) = self.physical.get(self.next) {
            self.next += 1;
            let trimmed = line.trim();
            // Comments and empty lines may stand in the middle of a continued line: they are not part of it.
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            if number == 0 {
                number = self.next;
            }
            let line = if text.is_empty() { line.trim_start() } else { line };
            let line = line.trim_end();
            let begun = line.strip_suffix(self.escape);
            text.push_str(begun.unwrap_or(line));
            if begun.is_none() {
                return Some((number, text));
            }
        }
        (number != 0).then_some((number, text))
    }

    fn line(&mut self, number: usize, text: String) -> Result<Line, DockerfileError> {
        let failed = |problem| DockerfileError::at(number, problem);
        let (keyword, rest) = first_word(&text);
        let keyword = keyword.to_ascii_uppercase();
        let (flags, rest) = flags(rest);
        let what = if keyword == "ONBUILD" { first_word(rest).0.to_ascii_uppercase() } else { keyword.clone() };
        let mut documents = Vec::new();
        if matches!(what.as_str(), "RUN" | "COPY" | "ADD") && rest.contains("<<") {
            for word in words::split(rest, self.escape).map_err(failed)? {
                if let Some(announced) = announced(&word) {
                    documents.push(self.document(announced).map_err(failed)?);
                }
            }
        }
        let rest = rest.to_owned();
        Ok(Line { number, text, keyword, flags, rest, documents })
    }

    /// Fills a document with the lines up to its end.
    fn document(&mut self, mut document: HereDocument) -> Result<HereDocument, Problem> {
        while let Some(line) = self.physical.get(self.next) {
            self.next += 1;
            let line = if document.tabs { line.trim_start_matches('\t') } else { line };
            if line == document.name {
                return Ok(document);
            }
            document.text.push_str(line);
            document.text.push('\n');
        }
        Err(Problem::HereDocument { name: document.name })
    }
}

/// The document that a word such as `<<EOF`, `<<-"EOF"` or `3<<EOF` announces.
fn announced(word: &str) -> Option<HereDocument> {
    let name = word.trim_start_matches(|letter: char| letter.is_ascii_digit()).strip_prefix("<<")?;
    let (tabs, name) = name.strip_prefix('-').map_or((false, name), |name| (true, name));
    let bare: String = name.chars().filter(|letter| !matches!(letter, '"' | '\'')).collect();
    // `<<<` is a shell's own: a string, not a document.
    if bare.is_empty() || bare.contains('<') {
        return None;
    }
    let expand = bare.len() == name.len();
    Some(HereDocument { name: bare, expand, text: String::new(), word: word.to_owned(), tabs })
}

/// The first word and what comes behind it.
pub(super) fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start())
}

fn flags(mut rest: &str) -> (Vec<(String, Option<String>)>, &str) {
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (word, behind) = first_word(rest);
        rest = behind;
        let Some(word) = word.strip_prefix("--").filter(|word| !word.is_empty()) else { break };
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let unquoted = |value: &str| {
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            inner.unwrap_or(value).to_owned()
        };
        flags.push((name.to_owned(), value.map(unquoted)));
    }
    (flags, rest)
}
