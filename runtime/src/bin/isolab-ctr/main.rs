//! `isolab-ctr`: images and containers with docker's command line, and no daemon.

mod bars;
mod build;
mod cli;
mod containers;
mod format;
mod images;
mod print;
mod registry;
mod voice;
mod volume;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;
use isolab_runtime::engine::Engine;
use isolab_runtime::image::Store;
use isolab_runtime::spans::Recorder;

use cli::{Arguments, Command};
use voice::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let recorder = match arguments.global.explain.then(Recorder::install).transpose() {
        Ok(recorder) => recorder,
        Err(error) => return voice::complain(&Failure::Recorder(error)),
    };
    let mut outcome = obey(&arguments);
    if let Some(recorder) = recorder {
        let told = recorder.explain(&mut BufWriter::new(io::stderr().lock()));
        let told = told.map_err(|source| Failure::Write { to: "standard error".to_owned(), source });
        outcome = outcome.and_then(|code| told.map(|()| code));
    }
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => voice::complain(&failure),
    }
}

fn obey(arguments: &Arguments) -> Result<u8, Failure> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Containers(verb) => containers::obey(verb, global),
        Command::Images(verb) => images::obey(verb, &global.engine()?),
        Command::Volume(verb) => volume::obey(verb, &global.engine()?),
        Command::Build(wanted) => build::obey(wanted, &global.store()?),
        Command::Registry(verb) => registry::obey(verb, global),
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
