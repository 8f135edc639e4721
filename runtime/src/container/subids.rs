//! Ranges of ids for an ordinary user: what the administrator lent in /etc/subuid and /etc/subgid (subuid(5)).
//!
//! The kernel lets an ordinary user map nobody but itself. Two small set-user-ID programs, newuidmap(1) and newgidmap(1),
//! may map more, and look up who was lent what.

use std::io;
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use super::namespaces::IdMaps;

/// Why ids could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum SubidError {
    /// The program is not installed, or cannot be run.
    #[error("cannot run {program}, which maps ids for an ordinary user")]
    Run {
        /// The program.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The program refused.
    #[error("{program} does not map the ids {asked:?}: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The ranges, as the program was given them.
        asked: String,
        /// What it said.
        said: String,
    },
}

impl SubidError {
    /// What to try next.
    pub fn hint(&self) -> String {
        match self {
            Self::Run { .. } => "install the package uidmap, or map only your own user and group".to_owned(),
            Self::Refused { .. } => "the ranges must lie in what /etc/subuid and /etc/subgid lend to you".to_owned(),
        }
    }
}

/// Has the ids of the process's user namespace mapped.
pub(crate) fn map(pid: Pid, ids: &IdMaps) -> Result<(), SubidError> {
    run("newuidmap", pid, &ids.users)?;
    run("newgidmap", pid, &ids.groups)
}

fn run(program: &'static str, pid: Pid, ranges: &str) -> Result<(), SubidError> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(ranges.split_whitespace()).stdin(Stdio::null());
    let output = command.output().map_err(|source| SubidError::Run { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SubidError::Refused { program, asked: ranges.trim().replace('\n', ", "), said })
}
