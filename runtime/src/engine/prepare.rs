//! What stands between an image and a bundle: the program, its environment, the files of the host, all in one folder.

use std::path::{Path, PathBuf};

use tracing::info_span;

use super::document::{RunConfig, set_variable};
use super::error::{EngineError, io_error};
use super::place::{self, Place};
use super::specification::{INIT, PATH, Parts};
use super::user::{Identity, identify, join_groups};
use super::wishes::{Mount, Sharing, Wishes};
use crate::container::{Bundle, ContainerId, Ending, Runtime};

/// A container that lives no longer than the command that makes it, such as a step of a build. Its folder is gone with it.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
    place: Place,
}

impl Container {
    /// Everything that a container of an image needs before the runtime is called. `layers` are the image's folders, the
    /// uppermost first; `data` is where images lie.
    pub fn prepare(data: &Path, config: &RunConfig, layers: &[PathBuf], wishes: &Wishes) -> Result<Self, EngineError> {
        let random = place::random_name()?;
        let id = wishes.name.as_deref().unwrap_or(&random).parse()?;
        let place = Place::make(data, layers.first().map(PathBuf::as_path))?;
        let mounts = &wishes.mounts;
        let recipe = Recipe { name: &random, config, wishes, layers, mounts, init: None, joined: &[], hosts: None };
        recipe.write(&place)?;
        Ok(Self { id, place })
    }

    /// Runs it to its end.
    pub fn run(&self, runtime: &Runtime) -> Result<Ending, EngineError> {
        let bundle = Bundle::load(self.place.folder())?;
        Ok(runtime.run(&self.id, &bundle)?)
    }

    /// The folder that has what it wrote.
    pub fn upper(&self) -> &Path {
        &self.place.upper
    }
}

/// What a bundle is made of.
#[derive(Debug)]
pub(super) struct Recipe<'a> {
    /// What the container is called where nothing else is said: the first digits of its id.
    pub(super) name: &'a str,
    pub(super) config: &'a RunConfig,
    pub(super) wishes: &'a Wishes,
    /// The layers' folders, the uppermost first.
    pub(super) layers: &'a [PathBuf],
    /// What it sees of the host's files.
    pub(super) mounts: &'a [Mount],
    /// The small first process, where one is wanted.
    pub(super) init: Option<&'a Path>,
    /// Namespaces of others that it joins: the kind, and the path.
    pub(super) joined: &'a [(&'static str, PathBuf)],
    /// The folder with another's files of names, where it shares that one's network.
    pub(super) hosts: Option<&'a Path>,
}

impl Recipe<'_> {
    /// Writes the bundle into a furnished place.
    pub(super) fn write(&self, place: &Place) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.prepare",
            call = "mkdir(2), write(2)",
            why = "an image says what to run; a bundle says it in the runtime's words, with this user's wishes in it"
        )
        .entered();
        let (config, wishes) = (self.config, self.wishes);
        let mut arguments = arguments(config, wishes)?; //                                 1. what to run
        let mut identity = identify(wishes.user.as_deref().unwrap_or(&config.user), self.layers)?; // 2. as whom
        join_groups(&mut identity, &wishes.groups, self.layers)?;
        let own = || place::hostname(wishes.network, self.name);
        let hostname = match wishes.uts {
            Sharing::Private => wishes.hostname.clone().unwrap_or_else(own),
            _ => place::hostname(super::Network::Host, self.name),
        };
        let mut mounts = place.network_files(wishes, &hostname, self.hosts)?; //                       3. names of hosts
        if wishes.init {
            arguments = [INIT, "init", "--"].map(str::to_owned).into_iter().chain(arguments).collect();
            let from = self.init.ok_or(EngineError::NoCommand)?.to_owned();
            mounts.push(Mount { from, to: INIT.into(), read_only: true, volume: None });
        }
        mounts.extend(self.mounts.iter().cloned()); //                                     4. the host's files
        let folder = wishes.folder.as_deref().unwrap_or(&config.working_dir);
        let parts = Parts {
            arguments,
            environment: environment(config, wishes, &identity, &hostname),
            folder: if folder.is_empty() { "/".to_owned() } else { folder.to_owned() },
            identity: &identity,
            hostname: &hostname,
            wishes,
            mounts: &mounts,
            lower: if self.layers.is_empty() { std::slice::from_ref(&place.empty) } else { self.layers },
            upper: &place.upper,
            work: &place.work,
            joined: self.joined,
        };
        place.write_configuration(&parts.specification()) //                               5. all of it, in the runtime's words
    }
}

/// The program and its arguments. An entry point stays before whatever arguments are given.
pub(super) fn arguments(config: &RunConfig, wishes: &Wishes) -> Result<Vec<String>, EngineError> {
    let image_command = config.cmd.clone().unwrap_or_default();
    let mut all = wishes.entrypoint.clone().or_else(|| config.entrypoint.clone()).unwrap_or_default();
    match (wishes.command.is_empty(), &wishes.entrypoint) {
        (false, _) => all.extend(wishes.command.iter().cloned()),
        (true, None) => all.extend(image_command),
        (true, Some(_)) => {}
    }
    if all.is_empty() { Err(EngineError::NoCommand) } else { Ok(all) }
}

pub(super) fn environment(config: &RunConfig, wishes: &Wishes, identity: &Identity, hostname: &str) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if wishes.terminal {
        env.push("TERM=xterm".to_owned());
    }
    env.push(format!("HOME={}", identity.home));
    for pair in &config.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set_variable(&mut env, name, value);
    }
    for (name, value) in &wishes.environment {
        set_variable(&mut env, name, value);
    }
    env
}

/// Reads a file of variables: `NAME=VALUE` a line; a name alone means the caller's own; `#` begins a comment.
pub fn read_environment(path: &Path) -> Result<Vec<(String, String)>, EngineError> {
    let text = std::fs::read_to_string(path).map_err(io_error("read", path))?;
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let failed = |problem| EngineError::EnvironmentFile { path: path.to_owned(), line: index + 1, problem };
        match line.split_once('=') {
            Some((name, _)) if name.is_empty() || name.contains(char::is_whitespace) => {
                return Err(failed("a variable's name has no blanks"));
            }
            Some((name, value)) => pairs.push((name.to_owned(), value.to_owned())),
            None => pairs.extend(std::env::var(line.trim_end()).ok().map(|value| (line.trim_end().to_owned(), value))),
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::{RunConfig, Wishes, arguments};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_command_replaces_arguments_and_an_entry_point_both() {
        let config = RunConfig { entrypoint: Some(words("/e")), cmd: Some(words("a b")), ..RunConfig::default() };
        let with = |entrypoint: Option<&str>, command: &str| {
            let wishes = Wishes { entrypoint: entrypoint.map(words), command: words(command), ..Wishes::default() };
            arguments(&config, &wishes).ok()
        };
        assert_eq!(with(None, ""), Some(words("/e a b")));
        assert_eq!(with(None, "c"), Some(words("/e c")));
        assert_eq!(with(Some("/x"), ""), Some(words("/x")));
        assert_eq!(with(Some("/x"), "c"), Some(words("/x c")));
        assert_eq!(with(Some(""), ""), None);
    }
}
