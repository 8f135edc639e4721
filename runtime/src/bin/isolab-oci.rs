//! `isolab-oci`: containers from OCI bundles, one command a step of their life. With the command line of `runc`.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use isolab_runtime::container::{Bundle, ContainerError, ContainerId, Runtime, default_root, parse_signal};
use isolab_runtime::spans::Recorder;

/// Runs containers from OCI bundles.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    /// Where the state of containers is kept [default: /run/isolab, for an ordinary user `$XDG_RUNTIME_DIR/isolab`]
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Tell each step on standard error: what the kernel is asked for, why, and how long it took
    #[arg(long, global = true)]
    explain: bool,
    /// Write each step as a line of JSON to an inherited descriptor or a file
    #[arg(long, value_name = "FD|FILE", global = true)]
    timeline: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a container, run its program to the end, remove the container
    Run {
        /// The folder with config.json
        #[arg(long, short, default_value = ".", value_name = "DIR")]
        bundle: PathBuf,
        /// The new container's name
        id: String,
    },
    /// Create a container, whose program waits for `start`
    Create {
        /// The folder with config.json
        #[arg(long, short, default_value = ".", value_name = "DIR")]
        bundle: PathBuf,
        /// Where to write the number of the container's process
        #[arg(long, value_name = "FILE")]
        pid_file: Option<PathBuf>,
        /// The new container's name
        id: String,
    },
    /// Let a created container run its program
    Start {
        /// The container's name
        id: String,
    },
    /// Print a container's state as JSON
    State {
        /// The container's name
        id: String,
    },
    /// Print the states of all containers as JSON
    List,
    /// Send a signal to a container
    Kill {
        /// To every process of the container, not only the first
        #[arg(long, short)]
        all: bool,
        /// The container's name
        id: String,
        /// The signal's name or number
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Remove a container that has ended
    Delete {
        /// End it first if it runs; no error if there is none
        #[arg(long, short)]
        force: bool,
        /// The container's name
        id: String,
    },
    /// Remove what killed runtimes have left behind
    Prune,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "fault")]
    if let Err(exit) = arm_fault(&arguments) {
        return exit;
    }
    let recorder = match (arguments.explain, &arguments.timeline) {
        (false, None) => None,
        _ => match Recorder::install() {
            Ok(recorder) => Some(recorder),
            Err(error) => return complain(&Failure::Recorder(error)),
        },
    };
    let mut outcome = obey(&arguments);
    if let Some(recorder) = recorder {
        let told = tell(recorder, &arguments);
        outcome = outcome.and_then(|code| told.map(|()| code));
    }
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => complain(&failure),
    }
}

/// Prepares the fault that the environment asks for, if it does.
#[cfg(feature = "fault")]
fn arm_fault(arguments: &Arguments) -> Result<(), ExitCode> {
    let armed = isolab_runtime::faults::arm().map_err(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })?;
    // The recorder is who hears of each step; where none is asked for, one that nobody reads.
    if armed && !arguments.explain && arguments.timeline.is_none() {
        Recorder::install().map_err(|error| complain(&Failure::Recorder(error)))?;
    }
    Ok(())
}

/// What the command itself can say went wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("cannot record steps")]
    Recorder(#[source] io::Error),
    #[error("cannot write {to}")]
    Write { to: String, source: io::Error },
}

/// `error:` with the whole chain and, where there is one, `hint:`. The status is runc's: 1, whatever it was.
fn complain(failure: &Failure) -> ExitCode {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    eprintln!("error: {text}");
    if let Failure::Container(error) = failure
        && let Some(hint) = error.hint()
    {
        eprintln!("hint: {hint}");
    }
    ExitCode::FAILURE
}

fn obey(arguments: &Arguments) -> Result<u8, Failure> {
    let root = match &arguments.root {
        Some(root) => root.clone(),
        None => default_root()?,
    };
    let runtime = Runtime::new(&root, |text| eprintln!("warning: {text}"));
    let name = |id: &String| id.parse::<ContainerId>().map_err(ContainerError::from);
    let load = |folder: &PathBuf| Bundle::load(folder).map_err(ContainerError::from);
    match &arguments.command {
        Command::Run { bundle, id } => return Ok(runtime.run(&name(id)?, &load(bundle)?)?.code() as u8),
        Command::Create { bundle, pid_file, id } => {
            let id = name(id)?;
            let pid = runtime.create(&id, &load(bundle)?)?;
            if let Some(path) = pid_file
                && let Err(source) = std::fs::write(path, pid.to_string())
            {
                // Whoever asked for the file cannot know the process otherwise, so there must not be one.
                runtime.delete(&id, true)?;
                return Err(Failure::Write { to: path.display().to_string(), source });
            }
        }
        Command::Start { id } => runtime.start(&name(id)?)?,
        Command::State { id } => print(&runtime.state(&name(id)?)?)?,
        Command::List => print(&runtime.list()?)?,
        Command::Kill { all, id, signal } => runtime.kill(&name(id)?, parse_signal(signal)?, *all)?,
        Command::Delete { force, id } => runtime.delete(&name(id)?, *force)?,
        Command::Prune => runtime.prune()?.iter().for_each(|id| println!("removed {id}")),
    }
    Ok(0)
}

fn print(value: &impl serde::Serialize) -> Result<(), Failure> {
    let failed = |source| Failure::Write { to: "standard output".to_owned(), source };
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?;
    writeln!(io::stdout(), "{text}").map_err(failed)
}

/// Hands out what was recorded.
fn tell(recorder: &Recorder, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.explain {
        let failed = |source| Failure::Write { to: "standard error".to_owned(), source };
        recorder.explain(&mut BufWriter::new(io::stderr().lock())).map_err(failed)?;
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
