//! `isolab-oci`: containers from OCI bundles, one command a step of their life. With the command line of `runc`.
// The tests of this file have a `main` of their own.
#![cfg_attr(not(test), no_main)]

mod checkpoint;
mod cli;
mod entry;
mod inspect;
mod print;
mod process;
mod ps;
mod update;
mod voice;

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{FromRawFd, RawFd};

use clap::Parser;
use isolab_runtime::container::{
    ContainerError, ContainerId, Runtime, default_root, features, parse_signal, shield, write_template,
};
use isolab_runtime::spans::{self, Recorder};

use cli::{Arguments, Command, Format};
use process::enters_containers;
use voice::{Failure, Voice};

/// The exit status of a command that failed: runc's, whatever it was.
const FAILURE: u8 = 1;

/// Does what the command line asks for. Answers the exit status.
fn command() -> u8 {
    // Before anything is opened. Where it fails, who called is told in the way that they asked for.
    let shielded = if enters_containers() { shield() } else { Ok(()) };
    let arguments = Arguments::parse();
    let voice = Voice::new(arguments.log.clone(), arguments.log_format, arguments.debug);
    if let Err(error) = shielded {
        return voice.complain(&Failure::Shield(error));
    }
    #[cfg(feature = "fault")]
    if let Err(exit) = arm_fault(&arguments, &voice) {
        return exit;
    }
    let recorder = match (arguments.explain, &arguments.timeline) {
        (false, None) => None,
        _ => match Recorder::install() {
            Ok(recorder) => Some(recorder),
            Err(error) => return voice.complain(&Failure::Recorder(error)),
        },
    };
    let mut outcome = obey(&arguments, &voice);
    if let Some(recorder) = recorder {
        let told = tell(recorder, &arguments);
        outcome = outcome.and_then(|code| told.map(|()| code));
    }
    match outcome {
        Ok(code) => code,
        Err(failure) => voice.complain(&failure),
    }
}

/// Prepares the fault that the environment asks for, if it does.
#[cfg(feature = "fault")]
fn arm_fault(arguments: &Arguments, voice: &Voice) -> Result<(), u8> {
    let armed = isolab_runtime::faults::arm().map_err(|error| {
        eprintln!("error: {error}");
        FAILURE
    })?;
    // The recorder is who hears of each step; where none is asked for, one that nobody reads.
    if armed && !arguments.explain && arguments.timeline.is_none() {
        Recorder::install().map_err(|error| voice.complain(&Failure::Recorder(error)))?;
    }
    Ok(())
}

fn obey(arguments: &Arguments, voice: &Voice) -> Result<u8, Failure> {
    voice.debug(|| std::env::args().collect::<Vec<_>>().join(" "))?;
    if arguments.systemd_cgroup {
        return Err(Failure::Systemd);
    }
    let root = match &arguments.root {
        Some(root) => root.clone(),
        None => default_root()?,
    };
    let warner = voice.clone();
    let runtime = Runtime::new(&root, move |text| warner.warn(text));
    let name = |id: &String| id.parse::<ContainerId>().map_err(ContainerError::from);
    match &arguments.command {
        Command::Run { bundle, detach: false, making, id } => {
            return Ok(runtime.run(&name(id)?, &making.load(bundle)?)?.code() as u8);
        }
        Command::Run { bundle, detach: true, making, id } => runtime.run_detached(&name(id)?, &making.load(bundle)?)?,
        Command::Create { bundle, making, id } => drop(runtime.create(&name(id)?, &making.load(bundle)?)?),
        Command::Exec(other) => {
            let ending = runtime.exec(&name(&other.id)?, &other.exec()?)?;
            return Ok(ending.map_or(0, |ending| ending.code() as u8));
        }
        Command::Start { id } => runtime.start(&name(id)?)?,
        Command::State { id } => print::json(&runtime.overview(&name(id)?)?)?,
        Command::List { format: Format::Json, quiet: false } => print::json_line(&runtime.overviews()?)?,
        Command::List { quiet, .. } => print::containers(&runtime, *quiet)?,
        Command::Kill { all, id, signal } => runtime.kill(&name(id)?, parse_signal(signal)?, *all)?,
        Command::Delete { force, id } => runtime.delete(&name(id)?, *force)?,
        Command::Prune => runtime.prune()?.iter().for_each(|id| println!("removed {id}")),
        Command::Ps { format: Format::Json, id, .. } => print::json_line(&runtime.processes(&name(id)?)?)?,
        Command::Ps { id, options, .. } => ps::table(&runtime.processes(&name(id)?)?, options)?,
        Command::Pause { id } => runtime.pause(&name(id)?)?,
        Command::Resume { id } => runtime.resume(&name(id)?)?,
        Command::Update(limits) => runtime.update(&name(&limits.id)?, &limits.resources()?)?,
        Command::Events { stats: true, id, .. } => {
            let id = name(id)?;
            print::stats(&id, &runtime.stats(&id)?)?;
        }
        Command::Events { interval, id, .. } => print::events(&runtime, &name(id)?, *interval)?,
        Command::Inspect { format: Format::Json, id, .. } => print::json(&runtime.isolation(&name(id)?)?)?,
        Command::Inspect { id, .. } => print::text(&inspect::table(&runtime.isolation(&name(id)?)?))?,
        Command::Spec { bundle, rootless } => write_template(bundle, *rootless)?,
        Command::Features => print::json(&print::without_nulls(&features()))?,
        Command::Checkpoint(dump) => runtime.checkpoint(&name(&dump.id)?, &dump.checkpoint())?,
        Command::Restore(back) => {
            let ending = runtime.restore(&name(&back.id)?, &back.load()?, &back.restore())?;
            return Ok(ending.map_or(0, |ending| ending.code() as u8));
        }
    }
    Ok(0)
}

/// Hands out what was recorded.
fn tell(recorder: &Recorder, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.explain {
        let failed = |source| Failure::Write { to: "standard error".to_owned(), source };
        recorder.explain(&mut BufWriter::new(io::stderr().lock()), spans::width()).map_err(failed)?;
    }
    let Some(to) = &arguments.timeline else { return Ok(()) };
    let failed = |source| Failure::Write { to: format!("the timeline to {to}"), source };
    let file = match to.parse::<RawFd>() {
        // SAFETY: the caller names a descriptor that it has left open for this command; nothing here owns it yet.
        Ok(descriptor) if descriptor >= 0 => unsafe { File::from_raw_fd(descriptor) },
        _ => File::create(to).map_err(failed)?,
    };
    recorder.timeline(&mut BufWriter::new(file)).map_err(failed)
}
