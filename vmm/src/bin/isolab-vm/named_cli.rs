//! What can be said of machines with names.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use isolab_vmm::named::{Name, NameError};
use isolab_vmm::travel::Reference;
use isolab_vmm::units::Mib;

use crate::cli::{HowToLoad, Inside, Linux, seconds};
use crate::devices::network_address;

#[derive(Subcommand)]
pub(crate) enum Named {
    /// Keep a machine under a name; it does not run yet
    Create(Create),
    /// Run a machine that is kept
    Start(Start),
    /// End machines that run; one with a kernel is asked to end by itself first, by its power button
    Stop {
        /// How long it has for that
        #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
        grace: Duration,
        #[arg(required = true)]
        names: Vec<Name>,
    },
    /// Let a machine stand still
    Pause { name: Name },
    /// Let a machine run on
    Resume { name: Name },
    /// List the machines that are kept
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is kept of a machine, as JSON
    Inspect { name: Name },
    /// Save a machine that runs; it runs on
    Snapshot {
        name: Name,
        snapshot: Name,
        /// Write only the memory that has changed since the last that was so taken, or since the one that the machine
        /// started from; it stands on that one then. Where there is none to stand on, it is whole
        #[arg(long)]
        diff: bool,
    },
    /// Show a machine's snapshots as a tree
    Snapshots { name: Name },
    /// Let a machine start from one of its snapshots
    Rollback {
        name: Name,
        #[arg(required_unless_present = "boot")]
        snapshot: Option<Name>,
        /// Let it start with a boot again
        #[arg(long, conflicts_with = "snapshot")]
        boot: bool,
    },
    /// Remove machines and their snapshots
    Rm {
        #[arg(required = true)]
        names: Vec<Name>,
    },
    /// Remove a snapshot
    RmSnapshot { name: Name, snapshot: Name },
    /// Make machines that go on where another one stood
    Clone(Clone),
    /// Write a snapshot to an OCI image layout, for registries: skopeo copy oci:DIR:TAG docker://...
    Export {
        /// The machine, and which of its snapshots: the last, if it is not said
        #[arg(value_name = "NAME[@SNAPSHOT]")]
        from: At,
        /// The layout's folder, made if need be, and the tag that the snapshot gets there (latest)
        #[arg(value_name = "DIR[:TAG]")]
        to: Place,
    },
    /// Make a machine of a snapshot in an OCI image layout
    Import {
        /// The layout's folder, and the snapshot's tag (latest)
        #[arg(value_name = "DIR[:TAG]")]
        from: Place,
        /// The name of the machine, which starts from that snapshot
        name: Name,
    },
    /// Bring a snapshot to a registry
    Push {
        /// The machine, and which of its snapshots: the last, if it is not said
        #[arg(value_name = "NAME[@SNAPSHOT]")]
        from: At,
        /// Where it goes
        #[arg(value_name = "REGISTRY/REPOSITORY[:TAG]")]
        to: Reference,
    },
    /// Fetch a snapshot from a registry, and make a machine of it
    Pull {
        /// Where it is
        #[arg(value_name = "REGISTRY/REPOSITORY[:TAG]")]
        from: Reference,
        /// The name of the machine, which starts from that snapshot
        name: Name,
    },
    /// Keep a snapshot in memory and hand out clones of it (`isolab-vm restore --server SOCKET`), until it is ended
    Serve(Serve),
}

#[derive(Args)]
pub(crate) struct Create {
    pub(crate) name: Name,
    /// How much memory the machine has, in MiB
    #[arg(long, value_name = "MIB", default_value = "128")]
    pub(crate) memory: Mib,
    #[command(flatten)]
    pub(crate) inside: Inside,
    #[command(flatten)]
    pub(crate) linux: Linux,
    /// Give the program an environment variable; with the name alone, the monitor's own
    #[arg(long, value_name = "NAME[=VALUE]", conflicts_with_all = ["bare", "kernel"])]
    pub(crate) env: Vec<OsString>,
    /// What the guest is told
    #[arg(last = true, conflicts_with = "kernel")]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct Start {
    pub(crate) name: Name,
    /// Let it run by itself: what it prints is kept in console.log in its folder, what it reads comes from console.in there
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) loading: HowToLoad,
    /// End it with an error if it runs longer
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct Clone {
    /// Share the snapshot's memory until it is written to (the default)
    #[arg(long, conflicts_with = "full")]
    pub(crate) linked: bool,
    /// Share nothing
    #[arg(long)]
    pub(crate) full: bool,
    /// Make so many, called NEW-1, NEW-2 and so on
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<NonZeroU32>,
    /// The address of the first card of a Linux guest that isolab-init is the first process of, counted on for each clone
    #[arg(long, value_name = "A.B.C.D/N", value_parser = network_address)]
    pub(crate) address: Option<String>,
    /// The machine, and which of its snapshots: the last, if it is not said
    #[arg(value_name = "NAME[@SNAPSHOT]")]
    pub(crate) from: At,
    /// The name of the clone
    #[arg(value_name = "NEW")]
    pub(crate) new: Name,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// The machine, and which of its snapshots: the last, if it is not said
    #[arg(value_name = "NAME[@SNAPSHOT]", required_unless_present = "dir")]
    pub(crate) from: Option<At>,
    /// A snapshot's folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub(crate) dir: Option<PathBuf>,
    /// Where it listens
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: PathBuf,
    /// Let the clones be threads of this one process: made faster, and with nothing but KVM between them. Not for machines
    /// with a kernel
    #[arg(long)]
    pub(crate) in_process: bool,
}

/// A machine, and perhaps one of its snapshots.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) machine: Name,
    pub(crate) snapshot: Option<Name>,
}

impl FromStr for At {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Ok(match text.split_once('@') {
            Some((machine, snapshot)) => Self { machine: machine.parse()?, snapshot: Some(snapshot.parse()?) },
            None => Self { machine: text.parse()?, snapshot: None },
        })
    }
}

/// A layout's folder and a tag.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) tag: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (folder, tag) = text.rsplit_once(':').unwrap_or((text, "latest"));
        // As registries have it: 128 letters, digits, dots, dashes and underscores, of which no dot or dash is the first.
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let first = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let good = tag.len() <= 128 && tag.as_bytes().first().is_some_and(first) && tag.bytes().all(inner);
        if folder.is_empty() || !good {
            return Err("it is no FOLDER:TAG".to_owned());
        }
        Ok(Self { folder: PathBuf::from(folder), tag: tag.to_owned() })
    }
}

/// Where machines are kept if nobody says otherwise.
pub(crate) fn default_root() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/isolab");
    }
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
    data.unwrap_or_else(std::env::temp_dir).join("isolab")
}
