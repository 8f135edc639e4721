//! What a variable's value is, at a place in a Dockerfile.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::dockerfile::{Dockerfile, DockerfileError, Instruction, Problem, Substitution};
use crate::engine::RunConfig;
use crate::engine::document::Document;

/// Variables that every RUN may be given without any ARG, and that leave no trace in the image: they tell how this
/// machine reaches the network, which is no property of what is built.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What is set before the first stage, and by the user.
#[derive(Debug)]
pub(super) struct Globals {
    set: BTreeMap<String, String>,
    given: BTreeMap<String, String>,
    used: RefCell<BTreeSet<String>>,
}

impl Globals {
    /// Reads the ARGs before the first FROM.
    pub(super) fn read(file: &Dockerfile, given: &BTreeMap<String, String>) -> Result<Self, DockerfileError> {
        let machine = Document::scratch();
        let platform = format!("{}/{}", machine.os, machine.architecture);
        let mut set = BTreeMap::new();
        for side in ["TARGET", "BUILD"] {
            set.insert(format!("{side}PLATFORM"), platform.clone());
            set.insert(format!("{side}OS"), machine.os.clone());
            set.insert(format!("{side}ARCH"), machine.architecture.clone());
            set.insert(format!("{side}VARIANT"), String::new());
        }
        let mut globals = Self { set, given: given.clone(), used: RefCell::default() };
        for step in &file.before {
            let Instruction::Arg(arguments) = &step.instruction else { continue };
            for (name, default) in arguments {
                let value = match (globals.given(name), default) {
                    (Some(value), _) => Some(value),
                    (None, Some(text)) => Some(globals.substitute(text, file.escape, step.line)?),
                    (None, None) => None,
                };
                globals.set.extend(value.map(|value| (name.clone(), value)));
            }
        }
        Ok(globals)
    }

    /// Where no Dockerfile is: nothing is set.
    pub(super) fn none() -> Self {
        Self { set: BTreeMap::new(), given: BTreeMap::new(), used: RefCell::default() }
    }

    /// What each stage stands on.
    pub(super) fn bases(&self, file: &Dockerfile) -> Result<Vec<String>, DockerfileError> {
        let base = |stage: &super::dockerfile::Stage| self.substitute(&stage.base, file.escape, stage.line);
        file.stages.iter().map(base).collect()
    }

    pub(super) fn substitute(&self, text: &str, escape: char, line: usize) -> Result<String, DockerfileError> {
        let lookup = |name: &str| self.set.get(name).cloned();
        Substitution { escape, lookup: &lookup }.word(text).map_err(|problem| DockerfileError { line, problem })
    }

    /// What a user gave that nobody asked for.
    pub(super) fn unused(&self, given: &BTreeMap<String, String>) -> Vec<String> {
        let used = self.used.borrow();
        let unused = given.keys().filter(|name| !used.contains(*name) && !PREDEFINED.contains(&name.as_str()));
        unused.cloned().collect()
    }

    fn given(&self, name: &str) -> Option<String> {
        let value = self.given.get(name).cloned()?;
        self.used.borrow_mut().insert(name.to_owned());
        Some(value)
    }
}

/// A stage's own: what its ARGs have declared so far.
#[derive(Debug, Default)]
pub(super) struct Scope {
    arguments: BTreeMap<String, String>,
}

impl Scope {
    /// An ARG of the stage. `default` has been substituted.
    pub(super) fn declare(&mut self, globals: &Globals, name: &str, default: Option<String>) {
        let value = globals.given(name).or(default).or_else(|| globals.set.get(name).cloned());
        self.arguments.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// Replaces the variables of a word. The image's own come before the build's.
    pub(super) fn word(&self, text: &str, config: &RunConfig, escape: char) -> Result<String, Problem> {
        let lookup = |name: &str| self.value(name, config);
        Substitution { escape, lookup: &lookup }.word(text)
    }

    /// Replaces the variables of a document.
    pub(super) fn document(&self, text: &str, config: &RunConfig, escape: char) -> Result<String, Problem> {
        let lookup = |name: &str| self.value(name, config);
        Substitution { escape, lookup: &lookup }.document(text)
    }

    fn value(&self, name: &str, config: &RunConfig) -> Option<String> {
        config.variable(name).map(str::to_owned).or_else(|| self.arguments.get(name).cloned())
    }

    /// What a program of the build gets besides the image's variables.
    pub(super) fn environment(&self, config: &RunConfig) -> Vec<(String, String)> {
        let own = self.arguments.iter().filter(|(name, _)| config.variable(name).is_none());
        own.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What it gets that the image must not depend on.
    pub(super) fn proxies(globals: &Globals) -> Vec<(String, String)> {
        let given = globals.given.iter().filter(|(name, _)| PREDEFINED.contains(&name.as_str()));
        given.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
