//! `isolab-oci`: containers from OCI bundles, one command a step of their life. With the command line of `runc`.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use isolab_runtime::container::{
    Bundle, ContainerError, ContainerId, Exec, Handed, Runtime, ShieldError, User, default_root, parse_signal, shield,
};
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
        /// Return once the program runs; the container stays
        #[arg(long, short)]
        detach: bool,
        #[command(flatten)]
        making: Making,
        /// The new container's name
        id: String,
    },
    /// Create a container, whose program waits for `start`
    Create {
        /// The folder with config.json
        #[arg(long, short, default_value = ".", value_name = "DIR")]
        bundle: PathBuf,
        #[command(flatten)]
        making: Making,
        /// The new container's name
        id: String,
    },
    /// Run another program in a running container
    Exec(Box<Other>),
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

/// What `run` and `create` have in common.
#[derive(Args)]
struct Making {
    #[command(flatten)]
    hand: Hand,
    /// Refused: a root that is only chroot(2)ed into can be left again
    #[arg(long)]
    no_pivot: bool,
    /// Let the program keep the keys of our session, instead of giving it a keyring of its own
    #[arg(long)]
    no_new_keyring: bool,
}

/// What is handed to a new process beside its configuration.
#[derive(Args)]
struct Hand {
    /// The Unix socket that the other end of the terminal is sent to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Where to write the number of the process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// How many more of our descriptors, from 3 on, the program gets
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

/// Another process for a container.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line, and none implies another")]
struct Other {
    #[command(flatten)]
    hand: Hand,
    /// A file with the whole process as in config.json, instead of a command and the options about it
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return once the program runs
    #[arg(long, short)]
    detach: bool,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// Who it is
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<User>,
    /// A group it is in besides; may be repeated
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,
    /// The folder it begins in
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A variable of its environment; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A capability it has besides; may be repeated
    #[arg(long, short, value_name = "CAP")]
    cap: Vec<String>,
    /// It may gain no privilege by what it executes
    #[arg(long)]
    no_new_privs: bool,
    /// Wait for a paused container to go on, instead of failing
    #[arg(long)]
    ignore_paused: bool,
    /// The container's name
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Hand {
    fn handed(&self) -> Handed {
        Handed { console_socket: self.console_socket.clone(), pid_file: self.pid_file.clone(), ..Handed::default() }
    }
}

impl Making {
    /// Reads the bundle and adds what is handed over.
    fn load(&self, folder: &Path) -> Result<Bundle, Failure> {
        if self.no_pivot {
            return Err(Failure::NoPivot);
        }
        let mut handed = Handed { session_keyring: self.no_new_keyring, ..self.hand.handed() };
        // First of all: a descriptor that we opened must not be taken for one that was left open for us.
        let environment = handed.keep_sockets().map_err(ContainerError::from)?;
        handed.keep(self.hand.preserve_fds).map_err(ContainerError::from)?;
        let mut bundle = Bundle::load(folder).map_err(ContainerError::from)?;
        bundle.hand(handed, environment);
        Ok(bundle)
    }
}

impl Other {
    fn exec(&self) -> Result<Exec, ContainerError> {
        let mut handed = self.hand.handed();
        handed.keep(self.hand.preserve_fds)?;
        Ok(Exec {
            process_file: self.process.clone(),
            arguments: self.command.clone(),
            terminal: self.tty,
            user: self.user,
            additional_gids: self.additional_gids.clone(),
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            capabilities: self.cap.clone(),
            no_new_privileges: self.no_new_privs,
            detach: self.detach,
            ignore_paused: self.ignore_paused,
            handed,
        })
    }
}

/// Whether the command may put a process of ours among a container's. A word that only looks so costs one execve.
fn enters_containers() -> bool {
    std::env::args_os().skip(1).any(|word| ["run", "create", "exec"].iter().any(|verb| word == *verb))
}

fn main() -> ExitCode {
    if enters_containers()
        && let Err(error) = shield()
    {
        return complain(&Failure::Shield(error));
    }
    let arguments = Arguments::parse();
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

/// What the command itself can say went wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Shield(ShieldError),
    #[error("--no-pivot is not supported: a root that is only chroot(2)ed into can be left again")]
    NoPivot,
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
