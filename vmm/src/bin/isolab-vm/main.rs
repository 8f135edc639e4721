//! `isolab-vm`: one microVM, one process.

mod ask;
mod cli;
mod devices;
mod failure;
mod named;
mod named_cli;
mod restore;
mod run;

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{FromRawFd, RawFd};
use std::process::ExitCode;

use clap::Parser;
use isolab_vmm::spans::{self, Recorder};

use cli::{Arguments, Command};
use failure::{Failure, complain};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let debug = std::env::var_os("ISOLAB_DEBUG").is_some_and(|value| !value.is_empty() && value != "0");
    let recorder = match (arguments.explain || debug, &arguments.timeline) {
        (false, None) => spans::pass_on_warnings().map(|()| None),
        _ => Recorder::install().map(Some),
    };
    let recorder = match recorder {
        Ok(recorder) => recorder,
        Err(error) => return complain(&Failure::Recorder(error)),
    };
    // Before the machine: once that runs this command opens no file any more, and asks no terminal what it is.
    let width = arguments.explain.then(spans::width);
    let timeline = match arguments.timeline.as_deref().map(open).transpose() {
        Ok(timeline) => timeline,
        Err(failure) => return complain(&failure),
    };
    let mut outcome = obey(&arguments);
    if let Some(recorder) = recorder {
        if debug && !arguments.explain {
            recorder.notes().iter().for_each(|note| eprintln!("debug: {note}"));
        }
        let told = tell(recorder, width, timeline);
        outcome = outcome.and_then(|status| told.map(|()| status));
    }
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(failure) => complain(&failure),
    }
}

/// Does what was asked for; returns the status to end with.
fn obey(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Run(run) => run::run(run),
        Command::Restore(wanted) => restore::restore(wanted),
        Command::Ask { socket, request } => ask::ask(socket, request),
        Command::Named(wanted) => named::obey(&arguments.root.clone().unwrap_or_else(named_cli::default_root), wanted),
    }
}

/// Where the timeline goes: an inherited descriptor, or a file.
fn open(to: &str) -> Result<(String, File), Failure> {
    let name = format!("the timeline to {to}");
    match to.parse::<RawFd>() {
        // SAFETY: the caller names a descriptor that it has left open for this command; nothing here owns it yet.
        Ok(descriptor) if descriptor >= 0 => Ok((name, unsafe { File::from_raw_fd(descriptor) })),
        _ => match File::create(to) {
            Ok(file) => Ok((name, file)),
            Err(source) => Err(Failure::Write { to: name, source }),
        },
    }
}

/// Hands out what was recorded: the lesson where it has a width, the timeline where it has a place.
fn tell(recorder: &Recorder, lesson: Option<usize>, timeline: Option<(String, File)>) -> Result<(), Failure> {
    if let Some(width) = lesson {
        let failed = |source| Failure::Write { to: "standard error".to_owned(), source };
        recorder.explain(&mut BufWriter::new(io::stderr().lock()), width).map_err(failed)?;
    }
    let Some((to, file)) = timeline else { return Ok(()) };
    recorder.timeline(&mut BufWriter::new(file)).map_err(|source| Failure::Write { to, source })
}
