//! The command line: runc's, with what isolab adds.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::checkpoint::{Back, Dump};
use crate::process::{Making, Other};
use crate::update::Limits;

/// What `--version` says behind the name. Engines look for these words.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    // Set by whoever builds a package: `ISOLAB_COMMIT=$(git describe --always --dirty) cargo build --release`.
    let commit = option_env!("ISOLAB_COMMIT").map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!("version {}\n{commit}spec: 1.3.0", env!("CARGO_PKG_VERSION"))
});

/// Runs containers from OCI bundles.
#[derive(Parser)]
#[command(name = "isolab-oci", version = VERSION.as_str(), disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct Arguments {
    /// Where the state of containers is kept [default: /run/isolab, for an ordinary user `$XDG_RUNTIME_DIR/isolab`]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
    /// Tell each step on standard error: what the kernel is asked for, why, and how long it took
    #[arg(long, global = true)]
    pub(crate) explain: bool,
    /// Write each step as a line of JSON to an inherited descriptor or a file
    #[arg(long, value_name = "FD|FILE", global = true)]
    pub(crate) timeline: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Also append errors and warnings to this file
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) log: Option<PathBuf>,
    /// How the file is written
    #[arg(long, value_name = "FORMAT", global = true, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Also log what was asked for
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Not supported: cgroups are made in the cgroup file system itself
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    /// Accepted and not needed: what an ordinary user lacks is found out step by step
    #[arg(id = "rootless-mode", long = "rootless", value_name = "WORD", default_value = "auto")]
    rootless: Rootless,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
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
    /// Print what is known of all containers
    List {
        /// How
        #[arg(long, short, default_value = "table", value_name = "FORMAT")]
        format: Format,
        /// Print names only
        #[arg(long, short)]
        quiet: bool,
    },
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
    /// Print the processes of a container
    Ps {
        /// A table, as ps(1) prints it, or a list of numbers on the host as JSON
        #[arg(long, short, default_value = "table", value_name = "FORMAT")]
        format: Format,
        /// The container's name
        id: String,
        /// Options for ps(1) [default: -ef]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Hold every process of a container still
    Pause {
        /// The container's name
        id: String,
    },
    /// Let the processes of a paused container go on
    Resume {
        /// The container's name
        id: String,
    },
    /// Change limits of a container: all that are named, or none if one is refused
    Update(Limits),
    /// Print what a container uses, and when its memory runs out, as a line of JSON each, until it ends
    Events {
        /// Print what it uses once, and no more
        #[arg(long)]
        stats: bool,
        /// How often to print what it uses, such as 500ms, 5s or 1m
        #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
        interval: Duration,
        /// The container's name
        id: String,
    },
    /// Show how a container is kept apart from its host
    Inspect {
        /// Namespaces, limits, rights and mounts, as the kernel has them (the only thing to show yet)
        #[arg(long, required = true)]
        isolation: bool,
        /// How
        #[arg(long, short, default_value = "table", value_name = "FORMAT")]
        format: Format,
        /// The container's name
        id: String,
    },
    /// Write a config.json to begin with
    Spec {
        /// The folder to write it to; one that has a config.json is left alone
        #[arg(long, short, default_value = ".", value_name = "DIR")]
        bundle: PathBuf,
        /// One that an ordinary user can run
        #[arg(long)]
        rootless: bool,
    },
    /// Print what this runtime can, as JSON
    Features,
    /// Write a running container to disk, with CRIU
    Checkpoint(Dump),
    /// Bring a container back from disk, with CRIU
    Restore(Back),
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What engines say about the user they run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rootless {
    True,
    False,
    Auto,
}

/// A time as Go's programs write it: numbers, each with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 500ms, 5s or 1m30s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit);
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let one = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return Err(wrong()),
        };
        total = one.checked_mul(number).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = next;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "5", "0s", "s", "5 s", "-1s", "5x", "99999999999s", "é"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}
