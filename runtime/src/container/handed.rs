//! What a caller hands to a container beside its bundle: descriptors, a place for its terminal, a file for its number.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::sys::terminal::is_inherited;

/// The first descriptor after standard input, output and error.
const FIRST: u32 = 3;

/// What is handed over.
#[derive(Debug, Clone, Default)]
pub struct Handed {
    /// The socket that the terminal's other end is sent to.
    pub console_socket: Option<PathBuf>,
    /// Where the number of the process is written.
    pub pid_file: Option<PathBuf>,
    /// Whether the program keeps the keys of the caller's session (keyrings(7)).
    pub session_keyring: bool,
    /// Whether the root is only moved into place, where the host's own root is one that `pivot_root(2)` cannot leave.
    pub no_pivot: bool,
    /// How many descriptors, from 3 on, stay open in the program.
    pub descriptors: u32,
}

/// Why something cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// A descriptor is missing.
    #[error("cannot hand over descriptor {0}: the caller has not left it open")]
    Missing(u32),
    /// The file for the number.
    #[error("cannot write the process id to {}", .path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Handed {
    /// Takes so many descriptors over. To be called before the command opens any of its own, which could be taken for one.
    pub fn keep(&mut self, count: u32) -> Result<(), HandedError> {
        let from = FIRST + self.descriptors;
        let missing =
            (from..from.saturating_add(count)).find(|number| !RawFd::try_from(*number).is_ok_and(is_inherited));
        if let Some(number) = missing {
            return Err(HandedError::Missing(number));
        }
        self.descriptors += count;
        Ok(())
    }

    /// Takes over the sockets that a service manager has opened for this process (`sd_listen_fds(3)`). Returns what the
    /// program needs in its environment to find them: it is process 1 of its namespace.
    pub fn keep_sockets(&mut self) -> Result<Vec<String>, HandedError> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let ours = number("LISTEN_PID") == Some(Pid::this().as_raw().unsigned_abs());
        match number("LISTEN_FDS").filter(|count| ours && *count > 0) {
            None => Ok(Vec::new()),
            Some(count) => {
                self.keep(count)?;
                Ok(vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()])
            }
        }
    }

    /// The first descriptor that is closed when the program begins.
    pub(crate) fn first_closed(&self) -> u32 {
        FIRST + self.descriptors
    }

    /// Writes the number of the process, if that is asked for.
    pub(crate) fn tell_pid(&self, pid: Pid) -> Result<(), HandedError> {
        let Some(path) = &self.pid_file else { return Ok(()) };
        write_pid(path, pid).map_err(|source| HandedError::PidFile { path: path.clone(), source })
    }
}

/// By rename: whoever waits for the file must never read half a number.
fn write_pid(path: &Path, pid: Pid) -> std::io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", Pid::this()));
    let new = path.with_file_name(name);
    std::fs::write(&new, pid.to_string()).and_then(|()| std::fs::rename(&new, path)).inspect_err(|_| {
        // What cannot be written is told; half of it is nobody's.
        let _ = std::fs::remove_file(&new);
    })
}
