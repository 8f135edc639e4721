//! What the command says when something is wrong.

use std::io;
use std::path::PathBuf;

use isolab_runtime::build::BuildError;
use isolab_runtime::container::ShieldError;
use isolab_runtime::engine::template::TemplateError;
use isolab_runtime::engine::{EngineError, WishError};
use isolab_runtime::image::{DiskError, ImageError, ReferenceError};
use isolab_runtime::network::NetworkError;
use isolab_runtime::registry::client::ClientError;
use isolab_runtime::registry::server::ServeError;

/// docker's status for what fails at its own work.
const FAILED: u8 = 1;
/// Its statuses for what was said wrongly, and for a program that never began: `run` failed itself; `exec` did; the program is
/// not there.
const MISTAKEN: u8 = 125;
const NOT_RUN: u8 = 125;
const NOT_EXECUTED: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What the command itself can say went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("SOURCE_DATE_EPOCH is {text:?}, and it must be a number of seconds since 1970")]
    Epoch { text: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Wish(#[from] WishError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("no port can be published: with the network {network} the container has none of its own")]
    NoPorts { network: String },
    #[error(
        "of the networks {names} one must be the only one: none, host and another container's leave no room for more"
    )]
    NotAlone { names: String },
    #[error("{text:?} says no network: write NAME, or name=NAME,alias=NAME,ip=ADDRESS,mac-address=MAC")]
    NetworkText { text: String },
    #[error("port {port} of container {container} is not published")]
    NotPublished { container: String, port: String },
    #[error("cannot fetch image {image}")]
    Fetch { image: String, source: Box<Failure> },
    #[error("there is neither a container nor an image {name}")]
    NoObject { name: String },
    #[error("there is a file {path} already, which may have the id of another container")]
    IdFile { path: String },
    #[error("a terminal is asked for, and standard input is none")]
    NoTerminal,
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("there is no folder to keep images in: this user has neither $XDG_DATA_HOME nor $HOME")]
    NoHome,
    #[error(transparent)]
    Shield(#[from] ShieldError),
    #[error("cannot record steps")]
    Recorder(#[source] io::Error),
    #[error("{id} has several names: {}", names.join(", "))]
    SeveralNames { id: String, names: Vec<String> },
    #[error("image {image} has no {}", path.display())]
    NoPath { image: String, path: PathBuf },
    #[error("an archive is nothing to look at in a terminal")]
    Terminal,
    #[error("there is no {what}, and no terminal to ask in")]
    NoAnswer { what: &'static str, hint: &'static str },
    #[error("{text:?} is no secret: write id=NAME,src=FILE, or id=NAME,env=VARIABLE of a variable that is set")]
    Secret { text: String },
    #[error("{text:?} is no filter: write dangling=true, reference=PATTERN, label=NAME, before=IMAGE or since=IMAGE")]
    Filter { text: String },
    #[error("{text:?} is no mirror: write [REGISTRY=]HOST[:PORT]")]
    Mirror { text: String },
    #[error("cannot read {from}")]
    Read { from: String, source: io::Error },
    #[error("cannot write {to}")]
    Write { to: String, source: io::Error },
}

impl Failure {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            Self::Build(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::NotPublished { container, .. } => Some(format!("`isolab-ctr port {container}` shows those that are")),
            Self::Fetch { source, .. } => source.hint(),
            Self::NoObject { .. } => Some("`isolab-ctr ps -a` and `isolab-ctr images` show what there is".to_owned()),
            Self::IdFile { .. } => Some("remove it, or choose another for --cidfile".to_owned()),
            Self::NoTerminal => Some("leave -t away, or start it from a terminal".to_owned()),
            Self::Template(error) => Some(error.hint()),
            Self::Reference(error) => Some(error.hint()),
            Self::Client(error) => error.hint(),
            Self::NoAnswer { hint, .. } => Some((*hint).to_owned()),
            Self::Serve(error) => error.hint().map(str::to_owned),
            Self::NoHome => Some("name one with --root DIR".to_owned()),
            Self::SeveralNames { .. } => Some("remove it by one of them, or all with --force".to_owned()),
            Self::Terminal => Some("name a file with --output, or redirect standard output".to_owned()),
            Self::NoPorts { .. } => Some("leave -p away, or choose --network bridge".to_owned()),
            Self::Wish(_)
            | Self::NotAlone { .. }
            | Self::NetworkText { .. }
            | Self::Epoch { .. }
            | Self::Filter { .. }
            | Self::Secret { .. }
            | Self::Mirror { .. }
            | Self::NoPath { .. }
            | Self::Shield(_)
            | Self::Recorder(_)
            | Self::Read { .. }
            | Self::Write { .. } => None,
        }
    }
}

/// `error:` with the whole chain and, where there is one, `hint:`.
pub(crate) fn complain(failure: &Failure) {
    eprintln!("error: {}", isolab_runtime::chain(failure));
    if let Some(hint) = failure.hint() {
        eprintln!("hint: {hint}");
    }
}

/// The status of a verb that failed, as docker's. Whoever runs a program has to tell its statuses from the verb's own; other
/// verbs have one for what was said wrongly, and one for what could not be done.
pub(crate) fn status(verb: Option<&str>, failure: &Failure) -> u8 {
    let code = match failure {
        Failure::Build(error) => error.code(),
        Failure::Engine(error) => error.code(),
        _ => FAILED,
    };
    let mistaken = matches!(
        failure,
        Failure::Wish(_)
            | Failure::Engine(EngineError::Wish(_))
            | Failure::NoPorts { .. }
            | Failure::NotAlone { .. }
            | Failure::NetworkText { .. }
    );
    match verb {
        Some("build") => code,
        _ if matches!(failure, Failure::NoTerminal) => FAILED,
        Some("run") if !matches!(code, NOT_EXECUTED | NOT_FOUND) => NOT_RUN,
        _ if mistaken => MISTAKEN,
        Some("exec") if code == NOT_RUN => NOT_EXECUTED,
        Some("run" | "exec") => code,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use isolab_runtime::engine::EngineError;

    use super::{Failure, status};

    #[test]
    fn a_verb_that_runs_a_program_has_statuses_of_its_own() {
        let missing = || Failure::Engine(EngineError::NoContainer { name: "web".to_owned() });
        let taken = || Failure::Engine(EngineError::NameTaken { name: "web".to_owned(), id: "1".to_owned() });
        let not_found = || Failure::Engine(EngineError::Told { message: String::new(), code: 127, hint: None });
        let table = [
            ("run", missing(), 125),
            ("run", taken(), 125),
            ("run", not_found(), 127),
            ("run", Failure::NoTerminal, 1),
            ("exec", missing(), 1),
            ("exec", not_found(), 127),
            ("create", taken(), 1),
            ("rename", taken(), 1),
            ("start", not_found(), 1),
        ];
        for (verb, failure, expected) in table {
            assert_eq!(status(Some(verb), &failure), expected, "{verb}: {failure}");
        }
    }
}
