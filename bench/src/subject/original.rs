//! A machine that has written to its memory and can be asked for a snapshot; and machines that go on from one.
//!
//! Its nonce was told to it alone. Who gives it back has its memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use isolab_vmm::api::{Request, ask};

use super::launch::{Launch, Remembered};
use super::{Held, Lab, Nonce, next_number};
use crate::clock;

/// What every machine of a suite of copies is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Monitor<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) program: &'a Path,
}

/// A machine that runs and listens; ended when dropped.
#[derive(Debug)]
pub(crate) struct Original<'a> {
    monitor: Monitor<'a>,
    _held: Held,
    socket: PathBuf,
    nonce: Nonce,
}

impl<'a> Original<'a> {
    /// Starts it with so much memory, and has it write to so many mebibytes of that.
    pub(crate) fn start(monitor: Monitor<'a>, memory_mib: u32, dirty_mib: u32) -> Result<Self, String> {
        let socket = monitor.socket();
        let nonce = Nonce::new();
        let mut arguments: Vec<OsString> = ["run", "--memory"].map(OsString::from).into();
        arguments.extend([memory_mib.to_string().into(), "--api".into(), socket.clone().into_os_string()]);
        arguments.extend(["--app".into(), monitor.lab.payload().as_os_str().to_owned()]);
        arguments.extend(["--".into(), nonce.to_string().into()]);
        let mut held = monitor.launch(arguments, nonce.token(), None).poise()?.hold(&nonce)?;
        if dirty_mib > 0 {
            held.touch(dirty_mib)?;
        }
        Ok(Self { monitor, _held: held, socket, nonce })
    }

    /// Has it saved to a folder that is not there yet; how long that took, in nanoseconds.
    pub(crate) fn snapshot(&self, to: &Path) -> Result<u64, String> {
        save(self.monitor.lab, &self.socket, to, false)
    }

    /// A machine that goes on from a snapshot of it and can itself be asked to be saved: with the place where it listens.
    pub(crate) fn listening(&self, from: OsString) -> Result<(Held, PathBuf), String> {
        let socket = self.monitor.socket();
        let arguments = vec!["restore".into(), "--api".into(), socket.clone().into_os_string(), "--lazy".into(), from];
        Ok((self.monitor.go_on(arguments, &self.nonce)?, socket))
    }

    /// A machine that goes on from a snapshot of it. `how`: `--lazy` or `--eager` and the snapshot, or `--server` and a socket.
    pub(crate) fn restored(&self, how: &str, from: OsString) -> Result<Held, String> {
        let arguments = vec!["restore".into(), how.into(), from];
        self.monitor.go_on(arguments, &self.nonce)
    }

    /// A machine that goes on from what the server at `socket` has, asked for without a command between.
    pub(crate) fn lent(&self, socket: &Path) -> Result<Held, String> {
        self.monitor.going_on(Vec::new(), &self.nonce).lend(socket)
    }

    /// Where it was made.
    pub(crate) fn lab(&self) -> &'a Lab {
        self.monitor.lab
    }

    /// What a machine from it gives back.
    pub(crate) fn nonce(&self) -> &Nonce {
        &self.nonce
    }
}

/// Has whoever listens there saved to a folder that is not there yet, or only what changed since the snapshot that it goes on from; how
/// long that took, in nanoseconds, from a disk at rest.
pub(crate) fn save(lab: &Lab, socket: &Path, to: &Path, diff: bool) -> Result<u64, String> {
    lab.settle_disk();
    let begun = clock::now();
    ask(socket, &Request::Snapshot { to: to.to_owned(), diff }).map_err(|error| crate::chain(&error))?;
    Ok(clock::now() - begun)
}

impl Monitor<'_> {
    /// A place to listen at that nobody has.
    fn socket(self) -> PathBuf {
        self.lab.scratch().path().join(format!("api-{}", next_number()))
    }

    /// Starts a machine that must know a nonce which it is not told.
    pub(crate) fn go_on(self, arguments: Vec<OsString>, nonce: &Nonce) -> Result<Held, String> {
        self.going_on(arguments, nonce).poise()?.hold(nonce)
    }

    fn going_on(self, arguments: Vec<OsString>, nonce: &Nonce) -> Launch {
        let remembered = Remembered { nonce: nonce.clone(), question: "nonce\n" };
        self.launch(arguments, format!("nonce {nonce}\n").into_bytes(), Some(remembered))
    }

    /// One start of the monitor.
    pub(crate) fn launch(self, arguments: Vec<OsString>, token: Vec<u8>, remembers: Option<Remembered>) -> Launch {
        Launch { remembers, ..Launch::new(self.lab, self.program, arguments, token) }
    }
}
