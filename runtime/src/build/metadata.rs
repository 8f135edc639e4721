//! Instructions that change no file, only what the image says about itself.

use super::dockerfile::{Command, Health, Instruction};
use super::error::BuildError;
use super::scope::{Globals, Scope};
use crate::container::parse_signal;
use crate::engine::document::{Document, Healthcheck, set_variable};
use serde_json::json;
use std::time::Duration;

/// What runs a line where the image names no other shell.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A stage's image while it is being made.
#[derive(Debug)]
pub(super) struct Making<'a> {
    pub(super) document: Document,
    pub(super) scope: Scope,
    pub(super) globals: &'a Globals,
    pub(super) escape: char,
    /// Whether CMD has been said in this stage: ENTRYPOINT takes only an older one away.
    pub(super) own_command: bool,
}

impl Making<'_> {
    /// Replaces the variables of a word.
    pub(super) fn word(&self, text: &str) -> Result<String, BuildError> {
        self.scope.word(text, &self.document.config, self.escape).map_err(BuildError::Variable)
    }

    pub(super) fn words(&self, texts: &[String]) -> Result<Vec<String>, BuildError> {
        texts.iter().map(|text| self.word(text)).collect()
    }

    /// A command as a list of words: a line is for the shell.
    pub(super) fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let shell = self.document.config.shell.clone();
                let mut words = shell.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
                words.push(line.clone());
                words
            }
        }
    }

    /// The folder that an instruction means.
    pub(super) fn absolute(&self, path: &str) -> String {
        let current = Some(self.document.config.working_dir.as_str()).filter(|path| !path.is_empty()).unwrap_or("/");
        let joined = if path.starts_with('/') { path.to_owned() } else { format!("{current}/{path}") };
        let mut parts: Vec<&str> = Vec::new();
        for part in joined.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// Does an instruction that changes no file. Others change nothing here.
    pub(super) fn apply(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        match instruction {
            Instruction::Arg(arguments) => {
                for (name, default) in arguments {
                    let default = default.as_ref().map(|text| self.word(text)).transpose()?;
                    self.scope.declare(self.globals, name, default);
                }
            }
            Instruction::Env(pairs) => {
                // All are read before any is set: `ENV a=1 b=$a` means the old a.
                let pairs = self.pairs(pairs)?;
                for (name, value) in &pairs {
                    set_variable(&mut self.document.config.env, name, value);
                }
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(pairs)?;
                self.document.config.labels.extend(pairs);
            }
            Instruction::Workdir(path) => self.document.config.working_dir = self.absolute(&self.word(path)?),
            Instruction::User(user) => self.document.config.user = self.word(user)?,
            Instruction::Entrypoint(command) => {
                let words = self.command(command);
                self.document.config.entrypoint = Some(words).filter(|words| !words.is_empty());
                if !self.own_command {
                    self.document.config.cmd = None;
                }
            }
            Instruction::Cmd(command) => {
                self.document.config.cmd = Some(self.command(command));
                self.own_command = true;
            }
            Instruction::Expose(ports) => {
                for port in self.words(ports)? {
                    for one in port.split_whitespace() {
                        self.expose(one)?;
                    }
                }
            }
            Instruction::Volume(paths) => {
                let paths = self.words(paths)?;
                self.document.config.volumes.extend(paths.into_iter().map(|path| (path, json!({}))));
            }
            Instruction::Shell(words) => self.document.config.shell = Some(words.clone()),
            Instruction::StopSignal(signal) => {
                let value = self.word(signal)?;
                if parse_signal(&value).is_err() {
                    let form = "a signal's name or number, such as SIGTERM";
                    return Err(BuildError::Value { what: "STOPSIGNAL", value, form });
                }
                self.document.config.stop_signal = value;
            }
            Instruction::Healthcheck(health) => self.document.config.healthcheck = Some(Self::test_of(health)),
            Instruction::Onbuild(text) => self.document.config.on_build.push(text.clone()),
            Instruction::Maintainer(name) => self.document.author = Some(self.word(name)?),
            Instruction::From { .. } | Instruction::Run(_) | Instruction::Copy(_) => {}
        }
        Ok(())
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, BuildError> {
        pairs.iter().map(|(name, value)| Ok((self.word(name)?, self.word(value)?))).collect()
    }

    /// A port or a range of them, of TCP where nothing is said.
    fn expose(&mut self, text: &str) -> Result<(), BuildError> {
        let form = "a port or a range, such as 80, 53/udp or 8000-8010";
        let wrong = || BuildError::Value { what: "EXPOSE", value: text.to_owned(), form };
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(wrong());
        }
        let ports = (first..=last).map(|port| (format!("{port}/{protocol}"), json!({})));
        self.document.config.exposed_ports.extend(ports);
        Ok(())
    }

    fn test_of(health: &Health) -> Healthcheck {
        let nanos = |time: Option<Duration>| time.map_or(0, |time| time.as_nanos() as u64);
        let test = match &health.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
            Some(Command::Exec(words)) => ["CMD".to_owned()].into_iter().chain(words.iter().cloned()).collect(),
        };
        Healthcheck {
            test,
            interval: nanos(health.interval),
            timeout: nanos(health.timeout),
            start_period: nanos(health.start_period),
            start_interval: nanos(health.start_interval),
            retries: health.retries.unwrap_or(0).into(),
        }
    }
}
