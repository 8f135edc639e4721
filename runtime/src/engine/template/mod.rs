//! Texts with blanks to fill in: `{{.Names}} runs {{json .Image}}`.
//!
//! docker's users say what they want to see in the template language of Go (package text/template), and their scripts rely
//! on it. This is the part of it that such texts use: fields, variables, `if`, `range`, `with`, pipes and functions.
//! Templates within templates (`define`, `template`, `block`) and methods are not known here, and refused.
//!
//! ```text
//! lexer       a text -> pieces
//! parser      pieces -> a tree
//! eval        a tree and a value -> a text
//! functions   what can be called; printf formats
//! ```

mod eval;
mod functions;
mod lexer;
mod parser;
mod printf;
#[cfg(test)]
mod tests;

use serde_json::Value;

use parser::Node;

/// A text with blanks to fill in.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    nodes: Vec<Node>,
}

/// Why a template cannot be read or filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template cannot be used, at character {at}: {problem}")]
pub struct TemplateError {
    /// Which character it is, counted from 1.
    pub at: usize,
    /// What is wrong.
    pub problem: String,
}

impl TemplateError {
    /// While a template is worked on, places are counted in bytes.
    fn new(at: usize, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }

    /// For people they are counted in characters, from 1.
    fn counted(self, text: &str) -> Self {
        let before = text.char_indices().take_while(|(at, _)| *at < self.at).count();
        Self { at: before + 1, problem: self.problem }
    }

    /// What to try next.
    pub fn hint(&self) -> String {
        "`--format json` shows all that there is; write {{.Name}} for one of it, as for docker".to_owned()
    }
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let nodes = lexer::split(text).and_then(parser::parse).map_err(|error| error.counted(text))?;
        Ok(Self { text: text.to_owned(), nodes })
    }

    /// Fills it in. A field that the value lacks is an error where it would be printed, and empty where it is asked for
    /// by `if`, `with` or `range`.
    pub fn render(&self, value: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, value).map_err(|error| error.counted(&self.text))
    }
}
