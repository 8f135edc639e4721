//! Containers of images: what is between a name such as `web:1` and the bundle that the runtime wants.
//!
//! [`Container::prepare`] reads as the list of what that takes. `document` is what an image says about itself, `user`
//! looks names up in its lists, `specification` writes the runtime's configuration, `place` is the folder that holds it
//! all.

pub mod document;
mod error;
mod layered;
mod place;
mod specification;
mod user;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::info_span;

pub use document::{Document, RunConfig};
pub use error::EngineError;
pub(crate) use error::io_error;
pub(crate) use layered::has;
pub use place::{Place, prune};
pub use specification::PATH;
pub use user::{Identity, identify};

use crate::container::{Bundle, ContainerId, Ending, Runtime};
use document::set_variable;
use specification::Parts;

/// How a container sees the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Only itself.
    #[default]
    None,
    /// As the host does: nothing is kept apart.
    Host,
}

/// A file or folder of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On the host.
    pub from: PathBuf,
    /// In the container.
    pub to: PathBuf,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// What a user wants otherwise than the image has it.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The container's name; one is made up where it is absent.
    pub name: Option<String>,
    /// Arguments, in place of the image's.
    pub command: Vec<String>,
    /// The program, in place of the image's; with it the image's arguments are gone too.
    pub entrypoint: Option<Vec<String>>,
    /// Variables to set.
    pub environment: Vec<(String, String)>,
    /// Where the program runs.
    pub folder: Option<String>,
    /// As whom.
    pub user: Option<String>,
    /// What the container calls itself.
    pub hostname: Option<String>,
    /// What it sees of the host's files.
    pub mounts: Vec<Mount>,
    /// Whether its root can only be read.
    pub read_only: bool,
    /// Its network.
    pub network: Network,
    /// Whether its program gets a terminal.
    pub terminal: bool,
}

/// A container that could run now. Its folder is gone with it.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
    place: Place,
}

impl Container {
    /// Everything that a container of an image needs before the runtime is called. `layers` are the image's folders, the
    /// uppermost first; `data` is where images lie.
    pub fn prepare(data: &Path, config: &RunConfig, layers: &[PathBuf], wishes: &Wishes) -> Result<Self, EngineError> {
        let _span = info_span!(
            "engine.prepare",
            call = "mkdir(2), write(2)",
            why = "an image says what to run; a bundle says it in the runtime's words, with this user's wishes in it"
        )
        .entered();
        let random = place::random_name()?;
        let id: ContainerId = wishes.name.as_deref().unwrap_or(&random).parse()?; //  1. a name
        let arguments = arguments(config, wishes)?; //                                2. what to run
        let identity = identify(wishes.user.as_deref().unwrap_or(&config.user), layers)?; // 3. as whom
        let place = Place::make(data, layers.first().map(PathBuf::as_path))?; //      4. a folder for what it writes
        let hostname = wishes.hostname.clone().unwrap_or_else(|| place::hostname(wishes.network, &random));
        let mut mounts = place.network_files(wishes.network, &hostname)?; //          5. names of hosts
        mounts.extend(wishes.mounts.iter().cloned());
        let folder = wishes.folder.as_deref().unwrap_or(&config.working_dir);
        let parts = Parts {
            arguments,
            environment: environment(config, wishes, &identity, &hostname),
            folder: if folder.is_empty() { "/".to_owned() } else { folder.to_owned() },
            identity: &identity,
            terminal: wishes.terminal,
            read_only: wishes.read_only,
            hostname: &hostname,
            network: wishes.network,
            mounts: &mounts,
            lower: if layers.is_empty() { std::slice::from_ref(&place.empty) } else { layers },
            upper: &place.upper,
            work: &place.work,
        };
        place.write_configuration(&parts.specification())?; //                        6. all of it, in the runtime's words
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

/// The program and its arguments. An entry point stays before whatever arguments are given.
fn arguments(config: &RunConfig, wishes: &Wishes) -> Result<Vec<String>, EngineError> {
    let image_command = config.cmd.clone().unwrap_or_default();
    let mut all = wishes.entrypoint.clone().or_else(|| config.entrypoint.clone()).unwrap_or_default();
    match (wishes.command.is_empty(), &wishes.entrypoint) {
        (false, _) => all.extend(wishes.command.iter().cloned()),
        (true, None) => all.extend(image_command),
        (true, Some(_)) => {}
    }
    if all.is_empty() { Err(EngineError::NoCommand) } else { Ok(all) }
}

fn environment(config: &RunConfig, wishes: &Wishes, identity: &Identity, hostname: &str) -> Vec<String> {
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

/// Reads a `-v` mount: `/host:/container[:ro]`.
pub fn parse_mount(text: &str) -> Result<Mount, EngineError> {
    let failed = |problem| EngineError::Volume { text: text.to_owned(), problem };
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, options) = match parts.as_slice() {
        [from, to] => (*from, *to, ""),
        [from, to, options] => (*from, *to, *options),
        _ => return Err(failed("it has no colon, or too many")),
    };
    if !from.starts_with('/') {
        return Err(failed("the host's side must be an absolute path"));
    }
    if !to.starts_with('/') || to.trim_matches('/').is_empty() {
        return Err(failed("the container's side must be an absolute path below /"));
    }
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // Labels for a security module, and how mounts travel: there is nothing to do for them here.
            "rw" | "z" | "Z" | "rprivate" | "private" => {}
            _ => return Err(failed("its options can be ro and rw")),
        }
    }
    Ok(Mount { from: from.into(), to: to.into(), read_only })
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

/// Reads an image's configuration.
pub fn read_document(name: &str, text: &[u8]) -> Result<Document, EngineError> {
    serde_json::from_slice(text).map_err(|source| EngineError::Configuration { name: name.to_owned(), source })
}

pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::{RunConfig, Wishes, arguments, parse_mount};

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

    #[test]
    fn a_mount_has_two_sides() {
        assert!(parse_mount("/a:/b:ro").is_ok_and(|mount| mount.read_only));
        for text in ["/a", "a:/b", "/a:b", "/a:/", "/a:/b:x", "/a:/b:ro:rw", ""] {
            assert!(parse_mount(text).is_err(), "{text:?}");
        }
    }
}
