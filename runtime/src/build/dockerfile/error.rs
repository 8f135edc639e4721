//! What can be wrong with a Dockerfile, where, and what to write instead.

/// A mistake in a Dockerfile.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub struct DockerfileError {
    /// Where the instruction begins, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// No FROM in the whole file.
    #[error("the file has no FROM, so there is nothing to build")]
    NoStage,
    /// Something before the first FROM that needs an image.
    #[error("{keyword} before the first FROM")]
    BeforeFrom {
        /// The instruction.
        keyword: String,
    },
    /// No such instruction.
    #[error("{keyword} is no instruction")]
    Unknown {
        /// What stands there.
        keyword: String,
    },
    /// An instruction whose arguments have another form.
    #[error("{keyword} wants {form}")]
    Form {
        /// The instruction.
        keyword: &'static str,
        /// What its arguments look like.
        form: &'static str,
    },
    /// A flag that the instruction doesn't have.
    #[error("{keyword} has no flag {flag}")]
    Flag {
        /// The instruction.
        keyword: &'static str,
        /// The flag.
        flag: String,
    },
    /// A value of a flag that means nothing.
    #[error("{flag} is set to {value:?}, and it wants {form}")]
    Value {
        /// The flag or the argument.
        flag: &'static str,
        /// What it was given.
        value: String,
        /// What it wants.
        form: &'static str,
    },
    /// A quote without its other.
    #[error("a quote {0} is never closed")]
    Quote(char),
    /// A here-document without its end.
    #[error("the here-document {name} never ends")]
    HereDocument {
        /// The line that would end it.
        name: String,
    },
    /// Two stages of one name.
    #[error("a stage named {name} is there already")]
    StageTwice {
        /// The name.
        name: String,
    },
    /// A name that no stage may have.
    #[error("{name:?} cannot be the name of a stage")]
    StageName {
        /// The name.
        name: String,
    },
    /// A substitution that cannot be understood.
    #[error("{text:?} is no substitution of a variable")]
    Substitution {
        /// From the dollar sign on.
        text: String,
    },
    /// A variable that has to be set, and isn't (`${x:?why}`).
    #[error("variable {name} is not set: {why}")]
    Unset {
        /// The variable.
        name: String,
        /// What the file says about that.
        why: String,
    },
    /// An escape directive with something else than the two characters that are allowed.
    #[error("the escape directive says {0:?}")]
    Escape(String),
    /// ONBUILD of what cannot be put off.
    #[error("ONBUILD cannot put {keyword} off")]
    Onbuild {
        /// The instruction.
        keyword: String,
    },
}

impl DockerfileError {
    pub(super) fn at(line: usize, problem: Problem) -> Self {
        Self { line, problem }
    }

    /// What to write instead, where that can be guessed.
    pub fn hint(&self) -> Option<String> {
        let text = match &self.problem {
            Problem::NoStage => "begin with `FROM scratch`, or with an image that `isolab-ctr images` shows",
            Problem::BeforeFrom { .. } => "only ARG may come before FROM: what else would it change?",
            Problem::Unknown { keyword } => return guess(keyword),
            Problem::Quote(_) => "put a backslash before a quote that is meant as a letter",
            Problem::HereDocument { name } => {
                return Some(format!("end it by a line with {name} and nothing else, not even blanks"));
            }
            Problem::StageTwice { .. } | Problem::StageName { .. } => {
                "a stage's name begins with a letter and goes on with letters, digits, `-`, `_` or `.`"
            }
            Problem::Substitution { .. } => {
                "known are $x, ${x}, ${x:-default}, ${x:+other} and ${x:?message}; `\\$` is a dollar sign"
            }
            Problem::Unset { name, .. } => return Some(format!("give it: --build-arg {name}=VALUE")),
            Problem::Escape(_) => "it can be a backslash or a backtick",
            Problem::Onbuild { .. } => "it can put off anything but FROM, MAINTAINER and ONBUILD",
            Problem::Form { .. } | Problem::Flag { .. } | Problem::Value { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// The instruction that was likely meant: the one with the fewest letters to change.
fn guess(keyword: &str) -> Option<String> {
    let near = super::instruction::KEYWORDS.iter().map(|known| (distance(keyword, known), known)).min()?;
    let hint = if near.0 <= 2 {
        format!("did you mean {}?", near.1)
    } else {
        "if the line goes on from the one before, that one must end with a backslash".to_owned()
    };
    Some(hint)
}

/// How many letters have to be added, taken away or changed (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut next = vec![index + 1];
        for (place, (letter_there, above)) in other.iter().zip(row.windows(2)).enumerate() {
            let [before, over] = above else { continue };
            let changed = before + usize::from(letter != *letter_there);
            let left = next.get(place).copied().unwrap_or(usize::MAX - 1);
            next.push(changed.min(over + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
