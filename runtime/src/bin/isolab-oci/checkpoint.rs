//! What `checkpoint` and `restore` are told, in runc's words.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use isolab_runtime::container::{Bundle, Checkpoint, ContainerError, CriuOptions, Handed, ManageCgroups, Restore};

use crate::voice::Failure;

/// What both have in common.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line, and none implies another")]
struct Common {
    /// The folder of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// The folder of CRIU's log [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Take TCP connections along that stand
    #[arg(long)]
    tcp_established: bool,
    /// Allow Unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow it to belong to a session of a terminal outside
    #[arg(long)]
    shell_job: bool,
    /// Take locks of files along
    #[arg(long)]
    file_locks: bool,
    /// What CRIU does about cgroups
    #[arg(long, value_name = "MODE", default_value = "soft")]
    manage_cgroups_mode: Cgroups,
    /// Accepted: the network is always made anew, and never taken along
    #[arg(long, value_name = "KIND")]
    empty_ns: Option<Empty>,
}

/// How a container is written to disk.
#[derive(Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    common: Common,
    /// Let it go on after that, instead of ending and removing it
    #[arg(long)]
    leave_running: bool,
    /// Leave connections out that are just being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give files that have no name any more one for as long as it takes
    #[arg(long)]
    link_remap: bool,
    /// The container's name
    pub(crate) id: String,
}

/// How a container is brought back.
#[derive(Args)]
pub(crate) struct Back {
    #[command(flatten)]
    common: Common,
    /// The folder with config.json
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
    /// Return once it goes on; the container stays
    #[arg(long, short)]
    detach: bool,
    /// Where to write the number of its first process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Accepted: nobody's children are taken over here
    #[arg(long)]
    no_subreaper: bool,
    /// Accepted: CRIU enters the root as it can
    #[arg(long)]
    no_pivot: bool,
    /// The container's name
    pub(crate) id: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cgroups {
    Soft,
    Full,
    Strict,
    Ignore,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Empty {
    Network,
}

impl Common {
    fn options(&self) -> CriuOptions {
        CriuOptions {
            images: self.image_path.clone(),
            work: self.work_path.clone(),
            tcp_established: self.tcp_established,
            external_sockets: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            cgroups: match self.manage_cgroups_mode {
                Cgroups::Soft => ManageCgroups::Soft,
                Cgroups::Full => ManageCgroups::Full,
                Cgroups::Strict => ManageCgroups::Strict,
                Cgroups::Ignore => ManageCgroups::Ignore,
            },
        }
    }
}

impl Dump {
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            options: self.common.options(),
            leave_running: self.leave_running,
            skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
        }
    }
}

impl Back {
    pub(crate) fn restore(&self) -> Restore {
        Restore { options: self.common.options(), detach: self.detach }
    }

    pub(crate) fn load(&self) -> Result<Bundle, Failure> {
        let mut bundle = Bundle::load(&self.bundle).map_err(ContainerError::from)?;
        bundle.hand(Handed { pid_file: self.pid_file.clone(), ..Handed::default() }, Vec::new());
        Ok(bundle)
    }
}
