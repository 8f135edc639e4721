//! The payload's machine, stopped right after READY: the snapshot that restored machines and clones go on from.
//!
//! Its nonce was told to the first machine only and is kept in memory. A machine that gives it back has that memory, and was
//! started from nothing else.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::microvm::MEMORY;
use super::{Lab, Nonce};

/// A snapshot in the scratch folder, and perhaps a server that keeps it in memory.
#[derive(Debug)]
pub(crate) struct Template {
    program: PathBuf,
    folder: PathBuf,
    socket: PathBuf,
    nonce: Nonce,
    server: Mutex<Option<Serving>>,
}

/// A server, ended with this value.
#[derive(Debug)]
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill(); // its clones end with it
        let _ = self.0.wait();
    }
}

impl Template {
    /// Starts the payload once and takes the snapshot.
    pub(super) fn take(lab: &Lab, program: &Path) -> Result<Self, String> {
        let scratch = lab.scratch().path();
        let folder = scratch.join("template");
        let nonce = Nonce::new();
        let mut command = Command::new(program);
        command
            .args(["run", "--timeout", "20", "--memory", MEMORY, "--snapshot-at", "ready", "--snapshot-to"])
            .arg(&folder);
        command.arg("--app").arg(lab.payload()).args(["--", &nonce.to_string()]);
        let output = command.current_dir(scratch).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("no snapshot: {}", said.lines().next().unwrap_or("it says nothing")));
        }
        Ok(Self::of(program, folder, nonce))
    }

    /// A snapshot that is there already.
    pub(crate) fn of(program: &Path, folder: PathBuf, nonce: Nonce) -> Self {
        let socket = folder.with_extension("socket");
        Self { program: program.to_owned(), folder, socket, nonce, server: Mutex::new(None) }
    }

    /// The snapshot's folder.
    pub(super) fn folder(&self) -> OsString {
        self.folder.clone().into_os_string()
    }

    /// What a machine from it gives back.
    pub(super) fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// The socket of its server, which is started at the first call.
    pub(crate) fn served(&self) -> Result<OsString, String> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_none() {
            *server = Some(self.serve().map_err(|error| format!("no server of clones: {error}"))?);
        }
        Ok(self.socket.clone().into_os_string())
    }

    /// The process id of its server, where one was started.
    pub(super) fn server(&self) -> Option<i32> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.as_ref().and_then(|server| i32::try_from(server.0.id()).ok())
    }

    fn serve(&self) -> std::io::Result<Serving> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--dir").arg(&self.folder).arg("--socket").arg(&self.socket);
        // Inside the scratch folder: by that a cleaner knows whose it was.
        command.current_dir(self.folder.parent().unwrap_or(Path::new("/")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Serving(command.spawn()?);
        let said = server.0.stdout.take().map(BufReader::new);
        let mut line = String::new();
        // `serving SOCKET` is its word for being ready.
        let heard = said.map(|mut said| said.read_line(&mut line)).transpose()?;
        if heard.unwrap_or(0) == 0 {
            return Err(std::io::Error::other("it ended without a word"));
        }
        Ok(server)
    }
}
