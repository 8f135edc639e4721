//! The payload's machine, stopped right after READY: the snapshot that restored machines and clones go on from.
//!
//! Its nonce was told to the first machine only and is kept in memory. A machine that gives it back has that memory, and was
//! started from nothing else.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isolab_vmm::serve::Home;

use super::microvm::MEMORY;
use super::{Lab, Nonce};

/// A snapshot in the scratch folder, and perhaps servers that keep it in memory.
#[derive(Debug)]
pub(crate) struct Template {
    program: PathBuf,
    folder: PathBuf,
    nonce: Nonce,
    /// One whose clones are processes, and one whose clones are its threads.
    servers: [Mutex<Option<Serving>>; 2],
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
        Self { program: program.to_owned(), folder, nonce, servers: Default::default() }
    }

    /// The snapshot's folder.
    pub(super) fn folder(&self) -> OsString {
        self.folder.clone().into_os_string()
    }

    /// What a machine from it gives back.
    pub(super) fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// The socket of its server of such clones, which is started at the first call.
    pub(crate) fn served(&self, home: Home) -> Result<PathBuf, String> {
        let socket = self.folder.with_extension(match home {
            Home::Processes => "processes",
            Home::Threads => "threads",
        });
        let mut server = self.place(home);
        if server.is_none() {
            *server = Some(self.serve(home, &socket).map_err(|error| format!("no server of clones: {error}"))?);
        }
        Ok(socket)
    }

    /// The process id of that server, where it was started.
    pub(super) fn server(&self, home: Home) -> Option<i32> {
        self.place(home).as_ref().and_then(|server| i32::try_from(server.0.id()).ok())
    }

    fn place(&self, home: Home) -> MutexGuard<'_, Option<Serving>> {
        let [processes, threads] = &self.servers;
        let server = if home == Home::Processes { processes } else { threads };
        server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, home: Home, socket: &Path) -> std::io::Result<Serving> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--dir").arg(&self.folder).arg("--socket").arg(socket);
        if home == Home::Threads {
            command.arg("--in-process");
        }
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
