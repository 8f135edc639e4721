//! From a tree and a value to a text.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::{call, is_function};
use super::parser::{Base, Branches, Node, Pipeline, Term};
use super::{TemplateError, printf};

/// What a term comes to.
#[derive(Debug, Clone)]
pub(super) enum Datum<'a> {
    Value(Cow<'a, Value>),
    /// A field that is not there: which, and what there is.
    Missing(String),
}

impl Datum<'_> {
    /// Go's truth: what is zero, empty or nothing is not.
    fn is_true(&self) -> bool {
        match self {
            Datum::Missing(_) => false,
            Datum::Value(value) => is_true(value),
        }
    }
}

/// Go's truth of a value.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
    }
}

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, TemplateError> {
    let root = Datum::Value(Cow::Borrowed(value));
    let mut filling = Filling { out: String::new(), variables: vec![(String::new(), root.clone())] };
    filling.nodes(nodes, &root)?;
    Ok(filling.out)
}

/// How a list of nodes was left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    AtEnd,
    Break,
    Continue,
}

struct Filling<'a> {
    out: String,
    /// The innermost last; the first is `$`.
    variables: Vec<(String, Datum<'a>)>,
}

impl<'a> Filling<'a> {
    fn nodes(&mut self, nodes: &[Node], dot: &Datum<'a>) -> Result<Left, TemplateError> {
        let known = self.variables.len();
        for node in nodes {
            let left = self.node(node, dot)?;
            if left != Left::AtEnd {
                self.variables.truncate(known);
                return Ok(left);
            }
        }
        self.variables.truncate(known);
        Ok(Left::AtEnd)
    }

    fn node(&mut self, node: &Node, dot: &Datum<'a>) -> Result<Left, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Break => return Ok(Left::Break),
            Node::Continue => return Ok(Left::Continue),
            Node::Output(pipeline) => {
                let datum = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    let value = present(datum, start(pipeline))?;
                    self.out.push_str(&printf::plain(&value));
                } else {
                    self.set(pipeline, 0, datum)?;
                }
            }
            Node::If(branches) => return self.branch(branches, dot, false),
            Node::With(branches) => return self.branch(branches, dot, true),
            Node::Range(branches) => return self.range(branches, dot),
        }
        Ok(Left::AtEnd)
    }

    fn branch(&mut self, branches: &Branches, dot: &Datum<'a>, enters: bool) -> Result<Left, TemplateError> {
        let known = self.variables.len();
        let datum = self.pipeline(&branches.pipeline, dot)?;
        if !branches.pipeline.variables.is_empty() {
            self.set(&branches.pipeline, 0, datum.clone())?;
        }
        let left = match (datum.is_true(), enters) {
            (true, true) => self.nodes(&branches.then, &datum),
            (true, false) => self.nodes(&branches.then, dot),
            (false, _) => self.nodes(&branches.otherwise, dot),
        };
        self.variables.truncate(known);
        left
    }

    fn range(&mut self, branches: &Branches, dot: &Datum<'a>) -> Result<Left, TemplateError> {
        let pipeline = &branches.pipeline;
        let datum = self.pipeline(pipeline, dot)?;
        let items = items(datum, start(pipeline))?;
        if items.is_empty() {
            return self.nodes(&branches.otherwise, dot);
        }
        for (key, item) in items {
            let known = self.variables.len();
            let item = Datum::Value(item);
            match pipeline.variables.len() {
                0 => {}
                1 => self.set(pipeline, 0, item.clone())?,
                _ => {
                    self.set(pipeline, 0, Datum::Value(Cow::Owned(key)))?;
                    self.set(pipeline, 1, item.clone())?;
                }
            }
            let left = self.nodes(&branches.then, &item)?;
            self.variables.truncate(known);
            if left == Left::Break {
                break;
            }
        }
        Ok(Left::AtEnd)
    }

    fn set(&mut self, pipeline: &Pipeline, number: usize, datum: Datum<'a>) -> Result<(), TemplateError> {
        let name = pipeline.variables.get(number).cloned().unwrap_or_default();
        if pipeline.declares {
            self.variables.push((name, datum));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = datum,
            None => return Err(TemplateError::new(start(pipeline), format!("there is no variable ${name}"))),
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Datum<'a>) -> Result<Datum<'a>, TemplateError> {
        let mut given: Option<Datum<'a>> = None;
        for command in &pipeline.commands {
            given = Some(self.command(command, given, dot)?);
        }
        given.ok_or_else(|| TemplateError::new(0, "a value is missing"))
    }

    /// A function with its arguments, of which what came of the command before is the last; or a value alone.
    fn command(&self, terms: &[Term], given: Option<Datum<'a>>, dot: &Datum<'a>) -> Result<Datum<'a>, TemplateError> {
        let Some((first, rest)) = terms.split_first() else { return Err(TemplateError::new(0, "a value is missing")) };
        let Base::Function(name) = &first.base else {
            if given.is_some() || !rest.is_empty() {
                return Err(TemplateError::new(first.at, "this is no function, and cannot be given anything"));
            }
            return self.term(first, dot);
        };
        if !is_function(name) {
            return Err(TemplateError::new(first.at, format!("there is no function {name}")));
        }
        let arguments = rest.iter().map(|term| self.term(term, dot)).chain(given.map(Ok));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        // These ask whether something is there, so nothing is a good answer.
        let asks = matches!(name.as_str(), "and" | "or" | "not");
        let arguments = arguments.into_iter().map(|datum| match datum {
            Datum::Missing(_) if asks => Ok(Value::Null),
            datum => present(datum, first.at).map(Cow::into_owned),
        });
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let value = call(name, arguments).map_err(|problem| TemplateError::new(first.at, problem))?;
        Ok(Datum::Value(Cow::Owned(value)))
    }

    fn term(&self, term: &Term, dot: &Datum<'a>) -> Result<Datum<'a>, TemplateError> {
        let mut datum = match &term.base {
            Base::Dot => dot.clone(),
            Base::Value(value) => Datum::Value(Cow::Owned(value.clone())),
            Base::Nested(pipeline) => self.pipeline(pipeline, dot)?,
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(other, _)| other == name);
                let missing = || TemplateError::new(term.at, format!("there is no variable ${name}"));
                found.map(|(_, datum)| datum.clone()).ok_or_else(missing)?
            }
            Base::Function(name) => {
                return Err(TemplateError::new(term.at, format!("{name} wants parentheses around it here")));
            }
        };
        for field in &term.fields {
            datum = field_of(datum, field, term.at)?;
        }
        Ok(datum)
    }
}

fn field_of<'a>(datum: Datum<'a>, field: &str, at: usize) -> Result<Datum<'a>, TemplateError> {
    let value = match datum {
        // What is nothing has no fields, but whoever asks shall hear what was missing first.
        Datum::Missing(_) => return Ok(datum),
        Datum::Value(value) => value,
    };
    let found = match &value {
        Cow::Borrowed(Value::Object(all)) => all.get(field).map(Cow::Borrowed),
        Cow::Owned(Value::Object(all)) => all.get(field).cloned().map(Cow::Owned),
        _ => None,
    };
    match (found, value.as_ref()) {
        (Some(found), _) => Ok(Datum::Value(found)),
        (None, Value::Object(all)) => {
            let known = all.keys().take(40).cloned().collect::<Vec<_>>().join(", ");
            Ok(Datum::Missing(format!("there is no {field}, only {known}")))
        }
        (None, Value::Null) => Ok(Datum::Missing(format!("what {field} is asked of is not there"))),
        (None, other) => {
            Err(TemplateError::new(at, format!("{} has no field {field}", printf::plain(&Cow::Borrowed(other)))))
        }
    }
}

fn present(datum: Datum<'_>, at: usize) -> Result<Cow<'_, Value>, TemplateError> {
    match datum {
        Datum::Value(value) => Ok(value),
        Datum::Missing(problem) => Err(TemplateError::new(at, problem)),
    }
}

/// What a range goes through, with numbers or names.
fn items(datum: Datum<'_>, at: usize) -> Result<Vec<(Value, Cow<'_, Value>)>, TemplateError> {
    let numbered = |number: usize| Value::from(number as u64);
    match datum {
        Datum::Missing(_) => Ok(Vec::new()),
        Datum::Value(Cow::Borrowed(Value::Array(all))) => {
            Ok(all.iter().enumerate().map(|(number, item)| (numbered(number), Cow::Borrowed(item))).collect())
        }
        Datum::Value(Cow::Owned(Value::Array(all))) => {
            Ok(all.into_iter().enumerate().map(|(number, item)| (numbered(number), Cow::Owned(item))).collect())
        }
        Datum::Value(Cow::Borrowed(Value::Object(all))) => {
            Ok(all.iter().map(|(name, item)| (Value::from(name.as_str()), Cow::Borrowed(item))).collect())
        }
        Datum::Value(Cow::Owned(Value::Object(all))) => {
            Ok(all.into_iter().map(|(name, item)| (Value::from(name), Cow::Owned(item))).collect())
        }
        Datum::Value(value) if value.is_null() => Ok(Vec::new()),
        Datum::Value(value) => {
            Err(TemplateError::new(at, format!("range goes through lists, and {} is none", printf::plain(&value))))
        }
    }
}

fn start(pipeline: &Pipeline) -> usize {
    pipeline.commands.first().and_then(|terms| terms.first()).map_or(0, |term| term.at)
}
