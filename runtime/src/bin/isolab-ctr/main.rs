//! `isolab-ctr`: images and containers with docker's command line, and no daemon.

mod bars;
mod build;
mod checkpoint;
mod cli;
mod containers;
mod format;
mod groups;
mod images;
mod manifest;
mod network;
mod print;
mod registry;
mod strangers;
mod system;
mod voice;
mod volume;
mod whole;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;
use isolab_runtime::container::shield;
use isolab_runtime::engine::{self, Engine};
use isolab_runtime::image::Store;
use isolab_runtime::spans::{self, Recorder};

use cli::{Arguments, Command, RunArguments};
use voice::Failure;

fn main() -> ExitCode {
    if let Some(code) = small() {
        return code;
    }
    let words = groups::plain(std::env::args_os().collect());
    // Before anything is opened.
    if enters_containers(&words)
        && let Err(error) = shield()
    {
        return fail(None, &Failure::Shield(error));
    }
    let verb = groups::verb_of(&words).and_then(|verb| verb.to_str()).map(str::to_owned);
    let parsed = if verb.as_deref() == Some("run") {
        RunArguments::try_parse_from(words).map(Arguments::from)
    } else {
        Arguments::try_parse_from(words)
    };
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return strangers::tell(&error),
    };
    let explain = arguments.global.explain;
    #[cfg(feature = "fault")]
    let explain = explain | arm_fault();
    let recorder = match explain.then(Recorder::install).transpose() {
        Ok(recorder) => recorder,
        Err(error) => return fail(None, &Failure::Recorder(error)),
    };
    let tell = || match &recorder {
        Some(recorder) if arguments.global.explain => {
            recorder.explain(&mut BufWriter::new(io::stderr().lock()), spans::width())
        }
        _ => Ok(()),
    };
    let mut outcome = obey(&arguments, || drop(tell()));
    if arguments.is_of_people() {
        let told = tell().map_err(|source| Failure::Write { to: "standard error".to_owned(), source });
        outcome = outcome.and_then(|code| told.map(|()| code));
    }
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(verb.as_deref(), &failure),
    }
}

/// Complains, and answers the status to end with.
fn fail(verb: Option<&str>, failure: &Failure) -> ExitCode {
    voice::complain(failure);
    voice::status(verb, failure).into()
}

/// `told` is called where a process has told all of its story that anybody waits for, and goes on.
fn obey(arguments: &Arguments, told: impl FnOnce()) -> Result<u8, Failure> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Containers(verb) => containers::obey(verb, global, told),
        Command::Checkpoint(verb) => checkpoint::obey(verb, &global.engine()?),
        Command::Manifest(verb) => manifest::obey(verb),
        Command::Images(verb) => images::obey(verb, &global.engine()?),
        Command::Volume(verb) => volume::obey(verb, &global.engine()?),
        Command::Network(verb) => network::obey(verb, &global.engine()?),
        Command::Port(port) => port.obey(&global.engine()?),
        Command::Build(wanted) => build::obey(wanted, &global.store()?),
        Command::Registry(verb) => registry::obey(verb, global),
        Command::Container(groups::Container::Prune(prune)) => prune.obey(&global.engine()?),
        Command::System(verb) => system::obey(verb, &global.engine()?),
        Command::Info(info) => info.obey(&global.engine()?),
        Command::Version(version) => version.obey(),
    }
}

/// The forms of this command that are not for people, and have to be small: they come before anything is parsed.
fn small() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    match words.next()?.to_str()? {
        "monitor" => {
            let error = engine::monitor(words);
            eprintln!("error: cannot stand by a container: {error}");
            Some(ExitCode::FAILURE)
        }
        "init" => Some(engine::init(words).into()),
        _ => None,
    }
}

/// Whether the verb starts something in a container, which could reach this command's own file then.
fn enters_containers(words: &[std::ffi::OsString]) -> bool {
    const VERBS: [&str; 6] = ["run", "start", "restart", "exec", "keep", "build"];
    groups::verb_of(words).and_then(std::ffi::OsStr::to_str).is_some_and(|verb| VERBS.contains(&verb))
}

/// Prepares the fault that the environment asks for; whether there is one.
#[cfg(feature = "fault")]
fn arm_fault() -> bool {
    isolab_runtime::faults::arm().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        false
    })
}

impl Arguments {
    /// Whether a person called, and not this command itself for a verb that has told already.
    fn is_of_people(&self) -> bool {
        !matches!(&self.command, Command::Containers(containers::Verb::Keep { .. }))
    }
}

impl cli::Global {
    /// The containers beside that store. Warnings go to what standard error is now, whatever becomes of it meanwhile.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        let heard = io::stderr().as_fd().try_clone_to_owned();
        let heard = heard.map_err(|source| Failure::Write { to: "standard error".to_owned(), source })?;
        let heard = File::from(heard);
        // Who has closed it does not want to hear.
        let warn = move |text: &str| drop((&heard).write_all(format!("warning: {text}\n").as_bytes()));
        Ok(Engine::open(self.store()?, warn)?)
    }

    /// The store that is asked for, or that of the calling user.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let root = self.root.clone().or_else(Store::folder_of_user).ok_or(Failure::NoHome)?;
        Ok(Store::open(root)?)
    }
}
