//! Words of a line, and the variables in them.
//!
//! As in a shell: blanks separate words unless they are quoted; nothing is substituted between single quotes; the escape
//! character takes the meaning from the one behind it.

use std::iter::Peekable;
use std::str::Chars;

use super::error::Problem;

/// So many variables may stand within each other's defaults: each takes room on the stack.
const DEPTH_MAX: u32 = 50;

/// Splits at blanks that are not quoted. Quotes and escapes stay in the words: substitution needs them.
pub(super) fn split(text: &str, escape: char) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match quote {
            None if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            _ => {}
        }
        word.push(letter);
        if letter == escape && quote != Some('\'') {
            word.extend(letters.next());
        }
    }
    if let Some(open) = quote {
        return Err(Problem::Quote(open));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// How variables are replaced in a text.
pub struct Substitution<'a> {
    /// What escapes.
    pub escape: char,
    /// The value of a variable; nothing for one that is not set.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Substitution<'_> {
    /// One word: quotes and escapes are taken away, variables replaced.
    pub fn word(&self, text: &str) -> Result<String, Problem> {
        let mut out = String::new();
        self.until(&mut text.chars().peekable(), 0, false, &mut out)?;
        Ok(out)
    }

    /// A document: variables are replaced, all else stays as it is.
    pub fn document(&self, text: &str) -> Result<String, Problem> {
        let mut out = String::new();
        self.until(&mut text.chars().peekable(), 0, true, &mut out)?;
        Ok(out)
    }

    /// Copies up to the end, or within `depth` variables up to a closing brace.
    fn until(
        &self,
        letters: &mut Peekable<Chars<'_>>,
        depth: u32,
        keep: bool,
        out: &mut String,
    ) -> Result<(), Problem> {
        let end = (depth > 0).then_some('}');
        if depth > DEPTH_MAX {
            return Err(Problem::Substitution { text: format!("more than {DEPTH_MAX} within each other") });
        }
        let mut double = false;
        while let Some(letter) = letters.next() {
            match letter {
                _ if Some(letter) == end && !double => return Ok(()),
                '\'' if !keep && !double => loop {
                    match letters.next() {
                        Some('\'') => break,
                        Some(inner) => out.push(inner),
                        None => return Err(Problem::Quote('\'')),
                    }
                },
                '"' if !keep => double = !double,
                '$' => self.variable(letters, depth, keep, out)?,
                _ if letter == self.escape => self.escaped(letters, keep, double, out),
                _ => out.push(letter),
            }
        }
        match (double, end) {
            (true, _) => Err(Problem::Quote('"')),
            (false, Some(_)) => Err(Problem::Substitution { text: format!("${{{out}") }),
            (false, None) => Ok(()),
        }
    }

    fn escaped(&self, letters: &mut Peekable<Chars<'_>>, keep: bool, double: bool, out: &mut String) {
        let Some(next) = letters.next() else { return out.push(self.escape) };
        // Between double quotes, and in documents, it is a letter like others unless it protects something.
        let protects = if keep { next == '$' } else { !double || matches!(next, '"' | '$') || next == self.escape };
        if !protects {
            out.push(self.escape);
        }
        out.push(next);
    }

    /// A variable; the dollar sign has been read.
    fn variable(
        &self,
        letters: &mut Peekable<Chars<'_>>,
        depth: u32,
        keep: bool,
        out: &mut String,
    ) -> Result<(), Problem> {
        if letters.next_if_eq(&'{').is_none() {
            let name = name(letters);
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&(self.lookup)(&name).unwrap_or_default());
            }
            return Ok(());
        }
        let name = name(letters);
        let wrong = |behind: &str| Problem::Substitution { text: format!("${{{name}{behind}") };
        if name.is_empty() {
            return Err(wrong(&letters.collect::<String>()));
        }
        let value = (self.lookup)(&name);
        let colon = letters.next_if_eq(&':').is_some();
        let operator = letters.next();
        if operator == Some('}') && !colon {
            out.push_str(&value.unwrap_or_default());
            return Ok(());
        }
        let Some(operator @ ('-' | '+' | '?')) = operator else {
            let rest: String = colon.then_some(':').into_iter().chain(operator).chain(letters).collect();
            return Err(wrong(&rest));
        };
        // With a colon an empty value is as good as none.
        let value = value.filter(|value| !colon || !value.is_empty());
        let mut other = String::new();
        self.until(letters, depth + 1, keep, &mut other)?;
        match (operator, value) {
            ('-' | '?', Some(value)) => out.push_str(&value),
            ('-', None) | ('+', Some(_)) => out.push_str(&other),
            ('?', None) => return Err(Problem::Unset { name, why: other }),
            _ => {}
        }
        Ok(())
    }
}

/// A variable's name; for arguments of a program also a digit or `@`, as shells have them.
fn name(letters: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(letter) = letters.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
        name.push(letter);
    }
    name
}
