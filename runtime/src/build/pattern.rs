//! Patterns of paths: those of `.dockerignore`, and those that COPY may have in its sources (Go's `path.Match`, with `**`
//! for any number of folders).

use std::path::{Component, Path};

/// A list of patterns, of which the last that fits decides.
#[derive(Debug, Default, Clone)]
pub(super) struct Ignore {
    rules: Vec<(bool, Vec<String>)>,
}

impl Ignore {
    /// Reads a `.dockerignore`: a pattern a line, `#` for comments, `!` for exceptions.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        Self::of(lines.filter(|line| !line.is_empty() && !line.starts_with('#')))
    }

    /// Takes patterns, one by one.
    pub(super) fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let rule = |line: &str| {
            let (keeps, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            (keeps, clean(pattern))
        };
        let rules = patterns.into_iter().map(rule).filter(|(_, parts)| !parts.is_empty());
        Self { rules: rules.collect() }
    }

    /// Whether a path is left out. A pattern that fits a folder fits all that is in it.
    pub(super) fn hides(&self, path: &Path) -> bool {
        let parts = parts(path);
        let fits = |pattern: &Vec<String>| (1..=parts.len()).any(|end| all(pattern, parts.get(..end).unwrap_or(&[])));
        let last = self.rules.iter().rev().find(|(_, pattern)| fits(pattern));
        last.is_some_and(|(keeps, _)| !keeps)
    }

    /// Whether something in a folder that is left out could be kept nevertheless.
    pub(super) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(keeps, _)| *keeps)
    }
}

/// Whether a path, its parts separated by slashes, fits a pattern.
pub fn fits(pattern: &str, path: &Path) -> bool {
    all(&clean(pattern), &parts(path))
}

/// Whether a text is a pattern and not just a path.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn clean(pattern: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts
}

fn parts(path: &Path) -> Vec<String> {
    let normal =
        |part| if let Component::Normal(name) = part { Some(name.to_string_lossy().into_owned()) } else { None };
    path.components().filter_map(normal).collect()
}

/// Both lists part by part. A table instead of trying: many `**` would take for ever otherwise.
fn all(pattern: &[String], path: &[String]) -> bool {
    // reached[n]: the patterns so far fit the first n parts of the path.
    let mut reached: Vec<bool> = (0..=path.len()).map(|n| n == 0).collect();
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        let mut seen = false;
        for (n, was) in reached.iter().enumerate() {
            if part == "**" {
                seen |= was;
                if let Some(place) = next.get_mut(n) {
                    *place = seen;
                }
            } else if *was && let (Some(name), Some(place)) = (path.get(n), next.get_mut(n + 1)) {
                *place = one(part, name);
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

/// What one letter of a pattern stands for.
enum Letter {
    Any,
    Many,
    Is(char),
    In(bool, Vec<(char, char)>),
}

fn one(pattern: &str, name: &str) -> bool {
    let Some(letters) = letters(pattern) else { return pattern == name };
    let name: Vec<char> = name.chars().collect();
    let mut reached: Vec<bool> = (0..=name.len()).map(|n| n == 0).collect();
    for letter in &letters {
        let mut next = vec![false; name.len() + 1];
        let mut seen = false;
        for (n, was) in reached.iter().enumerate() {
            seen |= was;
            let (place, fits) = match (letter, name.get(n)) {
                (Letter::Many, _) => (n, seen),
                (_, None) => continue,
                (Letter::Any, Some(_)) => (n + 1, *was),
                (Letter::Is(own), Some(other)) => (n + 1, *was && own == other),
                (Letter::In(not, ranges), Some(other)) => {
                    let inside = ranges.iter().any(|(first, last)| (first..=last).contains(&other));
                    (n + 1, *was && inside != *not)
                }
            };
            if let Some(place) = next.get_mut(place) {
                *place = fits;
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

/// Nothing for a pattern with a bracket that is never closed.
fn letters(pattern: &str) -> Option<Vec<Letter>> {
    let mut letters = Vec::new();
    let mut from = pattern.chars().peekable();
    while let Some(letter) = from.next() {
        letters.push(match letter {
            '*' => Letter::Many,
            '?' => Letter::Any,
            '\\' => Letter::Is(from.next()?),
            '[' => {
                let not = from.next_if(|next| matches!(next, '^' | '!')).is_some();
                let mut ranges = Vec::new();
                loop {
                    let first = match from.next()? {
                        ']' => break,
                        '\\' => from.next()?,
                        other => other,
                    };
                    let last = if from.next_if_eq(&'-').is_some() { from.next()? } else { first };
                    ranges.push((first, last));
                }
                Letter::In(not, ranges)
            }
            other => Letter::Is(other),
        });
    }
    Some(letters)
}

#[cfg(test)]
mod tests {
    use super::{Ignore, fits};
    use std::path::Path;

    #[test]
    fn a_pattern_fits_as_documented() {
        for (pattern, path, expected) in [
            ("*.rs", "a.rs", true),
            ("*.rs", "b/a.rs", false),
            ("**/*.rs", "a.rs", true),
            ("**/*.rs", "b/c/a.rs", true),
            ("a/**/z", "a/z", true),
            ("a?c", "abc", true),
            ("a[b-d]c", "acc", true),
            ("a[^b-d]c", "acc", false),
            (r"a\*c", "abc", false),
            (r"a\*c", "a*c", true),
            ("/a/./b/../c", "a/c", true),
            ("a*b*c", "aXbbYc", true),
        ] {
            assert_eq!(fits(pattern, Path::new(path)), expected, "{pattern} {path}");
        }
        assert!(!fits(&"*a".repeat(40), Path::new(&"a".repeat(39))), "and soon");
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let ignore = Ignore::parse("# no comment\n*.md\n!README.md\n/target\n**/secret\n");
        for (path, hidden) in [
            ("a.md", true),
            ("README.md", false),
            ("target/x/y", true),
            ("x/target", false),
            ("x/secret/y", true),
            ("src/a", false),
        ] {
            assert_eq!(ignore.hides(Path::new(path)), hidden, "{path}");
        }
    }
}
