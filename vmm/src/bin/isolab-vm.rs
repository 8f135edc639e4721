//! `isolab-vm`: one microVM, one process.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{FromRawFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use isolab_vmm::guest::app::App;
use isolab_vmm::guest::bare::Bare;
use isolab_vmm::guest::{Guest, GuestError};
use isolab_vmm::machine::{BootError, Config, Ended, Machine, RunError};
use isolab_vmm::spans::Recorder;
use isolab_vmm::units::Mib;

/// The monitor itself failed (as with `docker run`): a status that no guest gave.
const MONITOR_FAILED: u8 = 125;

/// Runs microVMs.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    /// Tell each step on standard error: what KVM is asked for, why, and how long it took
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
    /// Make a machine, run what is put inside to its end, and hand its status through
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// How much memory the machine has, in MiB
    #[arg(long, value_name = "MIB", default_value = "128")]
    memory: Mib,
    /// End it with an error if it runs longer
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    inside: Inside,
    /// Give the program an environment variable; with the name alone, the monitor's own
    #[arg(long, value_name = "NAME[=VALUE]", conflicts_with = "bare")]
    env: Vec<OsString>,
    /// What the guest is told
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Inside {
    /// A built-in guest of a few instructions: real-hello, long-hello, counter, toucher
    #[arg(long, value_name = "NAME")]
    bare: Option<String>,
    /// An unmodified static Linux program, with no kernel under it
    #[arg(long, value_name = "ELF")]
    app: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// What the command can say went wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot record steps")]
    Recorder(#[source] io::Error),
    #[error("cannot write {to}")]
    Write { to: String, source: io::Error },
}

impl Failure {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Guest(error) => error.hint(),
            Self::Boot(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Recorder(_) | Self::Write { .. } => None,
        }
    }

    fn status(&self) -> u8 {
        match self {
            Self::Run(error) => error.status(),
            _ => None,
        }
        .unwrap_or(MONITOR_FAILED)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let debug = std::env::var_os("ISOLAB_DEBUG").is_some_and(|value| !value.is_empty() && value != "0");
    let recorder = match (arguments.explain || debug, &arguments.timeline) {
        (false, None) => None,
        _ => match Recorder::install() {
            Ok(recorder) => Some(recorder),
            Err(error) => return complain(&Failure::Recorder(error)),
        },
    };
    let Command::Run(run) = &arguments.command;
    let mut outcome = obey(run);
    if let Some(recorder) = recorder {
        if debug && !arguments.explain {
            recorder.notes().iter().for_each(|note| eprintln!("debug: {note}"));
        }
        let told = tell(recorder, &arguments);
        outcome = outcome.and_then(|status| told.map(|()| status));
    }
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(failure) => complain(&failure),
    }
}

/// `error:` with the whole chain and, where there is one, `hint:`.
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
    if let Some(hint) = failure.hint() {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(failure.status())
}

fn obey(run: &Run) -> Result<u8, Failure> {
    let config = Config { memory: run.memory, timeout: run.timeout };
    match (&run.inside.bare, &run.inside.app) {
        (Some(name), _) => {
            let words: Vec<String> = run.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let guest = name.parse().and_then(|name| Bare::new(name, &words)).map_err(GuestError::from)?;
            live(&config, guest)
        }
        (_, Some(path)) => {
            live(&config, App::open(path, &run.arguments, &environment(&run.env)).map_err(GuestError::from)?)
        }
        (None, None) => unreachable!("clap requires one of the two"),
    }
}

/// `NAME=VALUE` as it stands; `NAME` alone with the monitor's own value, where it has one.
fn environment(wanted: &[OsString]) -> Vec<OsString> {
    let own = |name: &OsString| {
        std::env::var_os(name).map(|value| {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            pair
        })
    };
    let given = |word: &OsString| word.as_encoded_bytes().contains(&b'=');
    wanted.iter().filter_map(|word| if given(word) { Some(word.clone()) } else { own(word) }).collect()
}

fn live(config: &Config, guest: impl Guest) -> Result<u8, Failure> {
    Ok(match Machine::boot(config, guest, io::stdout())?.resume()? {
        Ended::Status(status) => status,
        // As a shell tells of it.
        Ended::Signal(signal) => 128_u8.saturating_add(signal as u8),
    })
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
