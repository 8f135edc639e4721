//! What `run`, `create` and `exec` are told about the process that they make.

use std::path::{Path, PathBuf};

use clap::Args;
use isolab_runtime::container::{Bundle, ContainerError, Exec, Handed, User};

use crate::voice::Failure;

/// What `run` and `create` have in common.
#[derive(Args)]
pub(crate) struct Making {
    #[command(flatten)]
    hand: Hand,
    /// Move the root over the host's instead of leaving that: for hosts that run from their first file system. Weaker
    #[arg(long)]
    no_pivot: bool,
    /// Let the program keep the keys of our session, instead of giving it a keyring of its own
    #[arg(long)]
    no_new_keyring: bool,
}

/// What is handed to a new process beside its configuration.
#[derive(Args)]
pub(crate) struct Hand {
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
pub(crate) struct Other {
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
    /// A group inside of the container's cgroup to put it into; may be repeated for hierarchies of version 1
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,
    /// Wait for a paused container to go on, instead of failing
    #[arg(long)]
    ignore_paused: bool,
    /// The container's name
    pub(crate) id: String,
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
    pub(crate) fn load(&self, folder: &Path) -> Result<Bundle, Failure> {
        let mut handed = Handed { session_keyring: self.no_new_keyring, no_pivot: self.no_pivot, ..self.hand.handed() };
        // First of all: a descriptor that we opened must not be taken for one that was left open for us.
        let environment = handed.keep_sockets().map_err(ContainerError::from)?;
        handed.keep(self.hand.preserve_fds).map_err(ContainerError::from)?;
        let mut bundle = Bundle::load(folder).map_err(ContainerError::from)?;
        bundle.hand(handed, environment);
        Ok(bundle)
    }
}

impl Other {
    pub(crate) fn exec(&self) -> Result<Exec, ContainerError> {
        let mut handed = self.hand.handed();
        handed.keep(self.hand.preserve_fds)?;
        Ok(Exec {
            process_file: self.process.clone(),
            process: None,
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
            cgroups: self.cgroup.clone(),
            handed,
        })
    }
}

/// Whether the command may put a process of ours among a container's. A word that only looks so costs one execve.
pub(crate) fn enters_containers() -> bool {
    std::env::args_os().skip(1).any(|word| ["run", "create", "exec"].iter().any(|verb| word == *verb))
}
