//! From a text to its pieces: what stands as it is, and the words between `{{` and `}}`.

use serde_json::{Number, Value};

use super::TemplateError;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// What is printed as it is.
    Text(String),
    /// What is between two pairs of braces, and where that begins.
    Action(Vec<Token>, usize),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Whether a blank stands before it: `.a.b` is a field of a field, `.a .b` are two words.
    pub(super) spaced: bool,
    /// How many bytes of the template stand before it.
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Dot,
    Field(String),
    Variable(String),
    Name(String),
    Value(Value),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

/// Splits a template.
pub(super) fn split(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut trim) = (text, false);
    loop {
        let (before, behind) = rest.split_once(OPEN).map_or((rest, None), |(before, behind)| (before, Some(behind)));
        let begun = before.trim_start();
        let mut plain = if trim { begun } else { before };
        let Some(behind) = behind else {
            push_text(&mut pieces, plain);
            return Ok(pieces);
        };
        let at = text.len() - behind.len();
        let dash = behind.strip_prefix('-').filter(|rest| rest.starts_with(|letter: char| letter.is_whitespace()));
        if dash.is_some() {
            plain = plain.trim_end();
        }
        push_text(&mut pieces, plain);
        let inside = dash.unwrap_or(behind);
        let (action, after) = match comment(inside) {
            Some(comment) => (Vec::new(), comment),
            None => words(text, inside)?,
        };
        (rest, trim) = end(after).ok_or_else(|| TemplateError::new(at, "a pair of braces is not closed"))?;
        if !action.is_empty() {
            pieces.push(Piece::Action(action, at));
        } else if comment(inside).is_none() {
            return Err(TemplateError::new(at, "nothing stands between the braces"));
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// What follows a comment.
fn comment(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix("/*")?.split_once("*/").map(|(_, rest)| rest)
}

/// What follows the end of an action, and whether blanks are to be left out there.
fn end(text: &str) -> Option<(&str, bool)> {
    let trimmed = text.trim_start();
    match trimmed.strip_prefix(CLOSE) {
        Some(rest) => Some((rest, false)),
        None if trimmed.len() < text.len() => Some((trimmed.strip_prefix('-')?.strip_prefix(CLOSE)?, true)),
        None => None,
    }
}

/// The words of an action, and what stands behind them: its end.
fn words<'a>(whole: &str, text: &'a str) -> Result<(Vec<Token>, &'a str), TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        if trimmed.is_empty() {
            return Err(TemplateError::new(whole.len() - text.len(), "a pair of braces is not closed"));
        }
        if end(rest).is_some() {
            return Ok((tokens, rest));
        }
        let offset = whole.len() - trimmed.len();
        let (kind, after) = word(trimmed).map_err(|problem| TemplateError::new(offset, problem))?;
        tokens.push(Token { kind, spaced: trimmed.len() < rest.len(), at: offset });
        rest = after;
    }
}

fn word(text: &str) -> Result<(Kind, &str), String> {
    for (sign, kind) in [
        (":=", Kind::Declare),
        ("=", Kind::Assign),
        ("|", Kind::Pipe),
        ("(", Kind::Open),
        (")", Kind::Close),
        (",", Kind::Comma),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return Ok((kind, rest));
        }
    }
    let mut letters = text.chars();
    match letters.next().unwrap_or_default() {
        '.' if letters.clone().next().is_some_and(is_letter) => {
            let (name, rest) = name(letters.as_str());
            Ok((Kind::Field(name), rest))
        }
        '.' if !letters.clone().next().is_some_and(|letter| letter.is_ascii_digit()) => {
            Ok((Kind::Dot, letters.as_str()))
        }
        '$' => {
            let (name, rest) = name(letters.as_str());
            Ok((Kind::Variable(name), rest))
        }
        '"' => quoted(text),
        '`' => {
            let (raw, rest) = letters.as_str().split_once('`').ok_or("a text in back quotes is not closed")?;
            Ok((Kind::Value(raw.into()), rest))
        }
        letter if letter.is_ascii_digit() || matches!(letter, '+' | '-' | '.') => number(text),
        letter if is_letter(letter) => {
            let (name, rest) = name(text);
            let kind = match name.as_str() {
                "true" => Kind::Value(Value::Bool(true)),
                "false" => Kind::Value(Value::Bool(false)),
                "nil" => Kind::Value(Value::Null),
                _ => Kind::Name(name),
            };
            Ok((kind, rest))
        }
        letter => Err(format!("{letter:?} means nothing here")),
    }
}

fn is_letter(letter: char) -> bool {
    letter == '_' || letter.is_alphabetic()
}

fn name(text: &str) -> (String, &str) {
    let end = text.find(|letter: char| !is_letter(letter) && !letter.is_numeric()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (name.to_owned(), rest)
}

fn number(text: &str) -> Result<(Kind, &str), String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.' | '_');
    let (digits, rest) = text.split_at(text.find(|letter| !is_part(letter)).unwrap_or(text.len()));
    let whole = digits.parse::<i64>().ok().map(Value::from);
    let value = whole.or_else(|| digits.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number));
    value.map(|value| (Kind::Value(value), rest)).ok_or_else(|| format!("{digits:?} is no number"))
}

/// A text in double quotes, with Go's escapes.
fn quoted(text: &str) -> Result<(Kind, &str), String> {
    let mut value = String::new();
    let mut letters = text.chars();
    letters.next();
    loop {
        match letters.next() {
            None | Some('\n') => return Err("a text in quotes is not closed".to_owned()),
            Some('"') => return Ok((Kind::Value(value.into()), letters.as_str())),
            Some('\\') => value.push(escaped(&mut letters)?),
            Some(letter) => value.push(letter),
        }
    }
}

fn escaped(letters: &mut std::str::Chars<'_>) -> Result<char, String> {
    let letter = letters.next().unwrap_or_default();
    let digits = match letter {
        'n' => return Ok('\n'),
        't' => return Ok('\t'),
        'r' => return Ok('\r'),
        '\\' | '"' | '\'' => return Ok(letter),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return Err(format!("\\{letter} is no escape")),
    };
    let code: String = letters.by_ref().take(digits).collect();
    let number = if code.len() == digits { u32::from_str_radix(&code, 16).ok() } else { None };
    number.and_then(char::from_u32).ok_or_else(|| format!("\\{letter}{code} is no character"))
}
