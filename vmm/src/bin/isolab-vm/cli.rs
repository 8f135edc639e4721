//! What can be said to `isolab-vm`: its options and its verbs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use isolab_vmm::memory::Loading;
use isolab_vmm::units::Mib;

use crate::devices::{Disk, NetCard, Sockets};

use crate::named_cli::Named;

/// Runs microVMs.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Tell each step on standard error: what KVM is asked for, why, and how long it took
    #[arg(long, global = true)]
    pub(crate) explain: bool,
    /// Write each step as a line of JSON to an inherited descriptor or a file
    #[arg(long, value_name = "FD|FILE", global = true)]
    pub(crate) timeline: Option<String>,
    /// Keep machines beneath this folder [default: /var/lib/isolab; for an ordinary user ~/.local/share/isolab]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a machine, run what is put inside to its end, and hand its status through
    Run(Box<Run>),
    /// Go on from a snapshot, as another machine
    Restore(Restore),
    /// Ask a machine that listens (`isolab-vm run --api SOCKET`); its answer is a line of JSON
    Ask {
        socket: PathBuf,
        #[command(subcommand)]
        request: Wish,
    },
    #[command(flatten)]
    Named(Named),
}

/// What a machine can be asked for.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Wish {
    /// How it is
    Status,
    /// To stand still
    Pause,
    /// To run on
    Resume,
    /// To be saved to a folder that is not there yet
    Snapshot {
        to: PathBuf,
        /// Only what has changed since the last that was so taken, or since the one that the machine goes on from
        #[arg(long)]
        diff: bool,
    },
    /// To end by itself: the power button of a machine with a kernel is pressed
    Button,
    /// To end
    Stop,
}

#[derive(Args)]
pub(crate) struct Run {
    /// How much memory the machine has, in MiB
    #[arg(long, value_name = "MIB", default_value = "128")]
    pub(crate) memory: Mib,
    /// End it with an error if it runs longer
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) inside: Inside,
    #[command(flatten)]
    pub(crate) linux: Linux,
    /// Listen here for requests: status, pause, resume, snapshot, button, stop
    #[arg(long, value_name = "SOCKET")]
    pub(crate) api: Option<PathBuf>,
    /// Take a snapshot when the program has said that it is ready (`ISOLAB-READY ...`), and end
    #[arg(long, value_name = "MOMENT", requires = "snapshot_to", conflicts_with = "kernel")]
    pub(crate) snapshot_at: Option<Moment>,
    /// The folder that becomes that snapshot
    #[arg(long, value_name = "DIR", requires = "snapshot_at")]
    pub(crate) snapshot_to: Option<PathBuf>,
    /// Give the program an environment variable; with the name alone, the monitor's own
    #[arg(long, value_name = "NAME[=VALUE]", conflicts_with_all = ["bare", "kernel"])]
    pub(crate) env: Vec<OsString>,
    /// What the guest is told
    #[arg(last = true, conflicts_with = "kernel")]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Inside {
    /// A built-in guest of a few instructions: real-hello, long-hello, counter, toucher
    #[arg(long, value_name = "NAME")]
    pub(crate) bare: Option<String>,
    /// An unmodified static Linux program, with no kernel under it
    #[arg(long, value_name = "ELF")]
    pub(crate) app: Option<PathBuf>,
    /// A Linux kernel: a bzImage (what distributions call vmlinuz) or a vmlinux
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
}

/// What a Linux guest has besides its kernel.
#[derive(Args)]
pub(crate) struct Linux {
    /// The first file system of the Linux guest, an archive
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with_all = ["bare", "app"])]
    pub(crate) initrd: Option<PathBuf>,
    /// What the Linux kernel is told
    #[arg(long, value_name = "TEXT", requires = "kernel", conflicts_with_all = ["bare", "app"], default_value = "console=ttyS0 panic=-1 pci=off")]
    pub(crate) cmdline: String,
    /// How many processors the Linux guest has
    #[arg(long, value_name = "N", requires = "kernel", conflicts_with_all = ["bare", "app"], default_value = "1")]
    pub(crate) cpus: u8,
    /// A disk: a file, or a block device; raw, or qcow2 where its name ends so; at most so many bytes (500, 20K, 100M, 1G) and
    /// requests a second
    #[arg(long, value_name = "FILE[,ro][,format=raw|qcow2][,rate=BYTES][,ops=N]", requires = "kernel", conflicts_with_all = ["bare", "app"])]
    pub(crate) disk: Vec<Disk>,
    /// A network card on a tap, which is made where there is none, or on a tap that is made for it and plugged into a bridge;
    /// `address=A.B.C.D/N` and `gateway=A.B.C.D` are what isolab-init gives it when the machine goes on from a snapshot;
    /// `rate=BYTES` and `ops=N` are how much of each a second may come, and how much may go
    #[arg(long, value_name = "tap=NAME|bridge=NAME[,...]", requires = "kernel", conflicts_with_all = ["bare", "app"])]
    pub(crate) net: Vec<NetCard>,
    /// Sockets between guest and host: the guest has this address (3 or higher), the host a Unix socket, and `PATH_PORT` for
    /// each port that the guest connects to
    #[arg(long, value_name = "CID,socket=PATH", requires = "kernel", conflicts_with_all = ["bare", "app"])]
    pub(crate) vsock: Option<Sockets>,
    /// A source of random bytes
    #[arg(long, requires = "kernel", conflicts_with_all = ["bare", "app"])]
    pub(crate) rng: bool,
    /// A terminal (hvc0) that has standard input and output; the serial port then only prints
    #[arg(long, requires = "kernel", conflicts_with_all = ["bare", "app"])]
    pub(crate) console: bool,
    /// When it is told to end (SIGTERM, SIGHUP), press the guest's power button and give it so long; 0 to end it at once
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "kernel", conflicts_with_all = ["bare", "app"], default_value = "10")]
    pub(crate) grace: Duration,
    /// A balloon: the guest gives so much memory back, and later what nobody in it uses
    #[arg(long, value_name = "MIB", requires = "kernel", conflicts_with_all = ["bare", "app"])]
    pub(crate) balloon: Option<Mib>,
}

/// When a snapshot is taken.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Moment {
    /// When the program has said that it is ready
    Ready,
}

#[derive(Args)]
pub(crate) struct Restore {
    /// The snapshot's folder
    #[arg(value_name = "DIR", required_unless_present = "server")]
    pub(crate) from: Option<PathBuf>,
    /// Let a server that keeps the snapshot in memory make the machine (`isolab-vm serve`)
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["from", "api", "lazy", "eager", "recorded"])]
    pub(crate) server: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) loading: HowToLoad,
    /// End it with an error if it runs longer
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Listen here for requests: status, pause, resume, snapshot, button, stop
    #[arg(long, value_name = "SOCKET")]
    pub(crate) api: Option<PathBuf>,
    /// Another network card than the Linux guest had: the first for the first, and so on
    #[arg(long, value_name = "tap=NAME|bridge=NAME[,...]", conflicts_with = "server")]
    pub(crate) net: Vec<NetCard>,
    /// Other sockets than the Linux guest had
    #[arg(long, value_name = "CID,socket=PATH", conflicts_with = "server")]
    pub(crate) vsock: Option<Sockets>,
}

#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct HowToLoad {
    /// Map the memory file: a page is found when it is touched (the default)
    #[arg(long)]
    lazy: bool,
    /// Read the memory file before the machine runs
    #[arg(long)]
    eager: bool,
    /// Bring what the first machine so restored has touched before the machine runs, and the rest when it is touched
    #[arg(long)]
    recorded: bool,
}

impl HowToLoad {
    /// The option that says so.
    pub(crate) fn option(&self) -> Option<&'static str> {
        match self.loading() {
            Loading::Lazy => None,
            Loading::Eager => Some("--eager"),
            Loading::Recorded => Some("--recorded"),
        }
    }

    pub(crate) fn loading(&self) -> Loading {
        match (self.eager, self.recorded) {
            (true, _) => Loading::Eager,
            (_, true) => Loading::Recorded,
            _ => Loading::Lazy,
        }
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
