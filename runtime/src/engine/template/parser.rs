//! From pieces to a tree.

use serde_json::Value;

use super::TemplateError;
use super::lexer::{Kind, Piece, Token};

/// Nobody nests deeper; who does wants the stack to end.
const DEEPEST: usize = 50;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// Prints what comes of it, unless it only sets variables.
    Output(Pipeline),
    If(Branches),
    With(Branches),
    Range(Branches),
    Break,
    Continue,
}

/// What is done if something is there, and what otherwise.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branches {
    pub(super) pipeline: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each of which gets what came of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    /// The variables that are set, of which `range` can have two.
    pub(super) variables: Vec<String>,
    /// Whether they are new (`:=`).
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Term>>,
}

/// A value, or what is called.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Term {
    pub(super) base: Base,
    /// The way from there.
    pub(super) fields: Vec<String>,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Value(Value),
    Function(String),
    Nested(Box<Pipeline>),
}

/// What ends a list of nodes.
#[derive(Debug, PartialEq)]
enum Stop {
    End,
    /// With the words behind `else`.
    Else(Vec<Token>, usize),
    Whole,
}

pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0, loops: 0 };
    match parser.nodes(0)? {
        (nodes, Stop::Whole, _) => Ok(nodes),
        (_, _, at) => Err(TemplateError::new(at, "it ends something that has not begun")),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
    loops: usize,
}

impl Parser {
    /// Nodes up to what ends them, and where that is.
    fn nodes(&mut self, from: usize) -> Result<(Vec<Node>, Stop, usize), TemplateError> {
        let mut nodes = Vec::new();
        let mut last = from;
        while let Some(piece) = self.pieces.next() {
            let (tokens, at) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, at) => (tokens, at),
            };
            last = at;
            let keyword = match tokens.first().map(|token| &token.kind) {
                Some(Kind::Name(name)) => name.as_str(),
                _ => "",
            };
            let rest = || tokens.iter().skip(1).cloned().collect::<Vec<_>>();
            match keyword {
                "end" => return Ok((nodes, Stop::End, at)),
                "else" => return Ok((nodes, Stop::Else(rest(), at), at)),
                "if" => nodes.push(Node::If(self.branches(rest(), at, "if")?)),
                "with" => nodes.push(Node::With(self.branches(rest(), at, "with")?)),
                "range" => {
                    self.loops += 1;
                    let branches = self.branches(rest(), at, "range")?;
                    self.loops -= 1;
                    nodes.push(Node::Range(branches));
                }
                "break" | "continue" if self.loops == 0 => {
                    return Err(TemplateError::new(at, format!("{keyword} stands outside of a range")));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "template" | "block" => {
                    return Err(TemplateError::new(at, format!("{keyword} is not known here")));
                }
                _ => nodes.push(Node::Output(Self::pipeline(tokens, at)?)),
            }
        }
        Ok((nodes, Stop::Whole, last))
    }

    fn branches(&mut self, tokens: Vec<Token>, at: usize, keyword: &'static str) -> Result<Branches, TemplateError> {
        self.deeper(at)?;
        let pipeline = Self::pipeline(tokens, at)?;
        if pipeline.variables.len() > 1 && keyword != "range" {
            return Err(TemplateError::new(at, format!("{keyword} sets one variable, and not two")));
        }
        let (then, stop, _) = self.nodes(at)?;
        let otherwise = match stop {
            Stop::End => Vec::new(),
            Stop::Else(tokens, at) => self.otherwise(tokens, at)?,
            Stop::Whole => return Err(TemplateError::new(at, format!("{keyword} has no {{{{end}}}}"))),
        };
        self.depth -= 1;
        Ok(Branches { pipeline, then, otherwise })
    }

    /// What follows an `else`; `else if` and `else with` are branches of their own, with one `end` for all.
    fn otherwise(&mut self, tokens: Vec<Token>, at: usize) -> Result<Vec<Node>, TemplateError> {
        let mut words = tokens.into_iter();
        match words.next().map(|token| token.kind) {
            None => match self.nodes(at)? {
                (nodes, Stop::End, _) => Ok(nodes),
                (_, Stop::Else(..), at) => Err(TemplateError::new(at, "a second else")),
                (_, Stop::Whole, _) => Err(TemplateError::new(at, "else has no {{end}}")),
            },
            Some(Kind::Name(name)) if name == "if" => Ok(vec![Node::If(self.branches(words.collect(), at, "if")?)]),
            Some(Kind::Name(name)) if name == "with" => {
                Ok(vec![Node::With(self.branches(words.collect(), at, "with")?)])
            }
            Some(_) => Err(TemplateError::new(at, "behind else can stand if or with, and nothing else")),
        }
    }

    fn deeper(&mut self, at: usize) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(TemplateError::new(at, "it is nested too deeply")) } else { Ok(()) }
    }

    fn pipeline(tokens: Vec<Token>, at: usize) -> Result<Pipeline, TemplateError> {
        let mut words = Words { tokens: tokens.into_iter().peekable(), at, depth: 0 };
        let pipeline = words.pipeline()?;
        match words.tokens.next() {
            None => Ok(pipeline),
            Some(token) => Err(TemplateError::new(token.at, "a parenthesis is closed that is not open")),
        }
    }
}

/// The words of one action.
struct Words {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    at: usize,
    depth: usize,
}

impl Words {
    /// A pipeline, up to the end or to a closing parenthesis.
    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TemplateError::new(self.at, "it is nested too deeply"));
        }
        let (variables, declares) = self.variables()?;
        let mut commands = vec![self.command()?];
        while self.tokens.next_if(|token| token.kind == Kind::Pipe).is_some() {
            commands.push(self.command()?);
        }
        self.depth -= 1;
        Ok(Pipeline { variables, declares, commands })
    }

    /// `$x :=`, `$i, $x :=` or `$x =`.
    fn variables(&mut self) -> Result<(Vec<String>, bool), TemplateError> {
        let ahead: Vec<Kind> = self.tokens.clone().take(4).map(|token| token.kind).collect();
        let (names, declares) = match ahead.as_slice() {
            [Kind::Variable(name), Kind::Declare, ..] => (vec![name.clone()], true),
            [Kind::Variable(name), Kind::Assign, ..] => (vec![name.clone()], false),
            [Kind::Variable(first), Kind::Comma, Kind::Variable(second), Kind::Declare] => {
                (vec![first.clone(), second.clone()], true)
            }
            _ => return Ok((Vec::new(), false)),
        };
        for _ in 0..names.len() * 2 {
            self.tokens.next();
        }
        if names.iter().any(String::is_empty) {
            return Err(TemplateError::new(self.at, "a variable has no name"));
        }
        Ok((names, declares))
    }

    fn command(&mut self) -> Result<Vec<Term>, TemplateError> {
        let mut terms: Vec<Term> = Vec::new();
        while let Some(token) = self.tokens.next_if(|token| !matches!(token.kind, Kind::Pipe | Kind::Close)) {
            self.at = token.at;
            let (spaced, at) = (token.spaced, token.at);
            let base = match token.kind {
                Kind::Field(name) => {
                    match terms.last_mut() {
                        Some(term) if !spaced => {
                            if matches!(term.base, Base::Value(_) | Base::Function(_)) {
                                return Err(TemplateError::new(at, "what stands before the field has none"));
                            }
                            term.fields.push(name);
                        }
                        _ => terms.push(Term { base: Base::Dot, fields: vec![name], at }),
                    }
                    continue;
                }
                Kind::Dot => Base::Dot,
                Kind::Variable(name) => Base::Variable(name),
                Kind::Name(name) => Base::Function(name),
                Kind::Value(value) => Base::Value(value),
                Kind::Open => {
                    let nested = self.pipeline()?;
                    if self.tokens.next_if(|token| token.kind == Kind::Close).is_none() {
                        return Err(TemplateError::new(at, "a parenthesis is not closed"));
                    }
                    Base::Nested(Box::new(nested))
                }
                Kind::Comma | Kind::Declare | Kind::Assign | Kind::Pipe | Kind::Close => {
                    return Err(TemplateError::new(at, "a sign stands where a value should"));
                }
            };
            terms.push(Term { base, fields: Vec::new(), at });
        }
        if terms.is_empty() { Err(TemplateError::new(self.at, "a value is missing")) } else { Ok(terms) }
    }
}
