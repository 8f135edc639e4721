//! The payload's machine again, from a snapshot: what going on costs beside starting anew.

use std::ffi::OsString;
use std::path::PathBuf;

use isolab_reports::model::Role;
use isolab_vmm::serve::Home;

use super::catalogue::LeftOut;
use super::held::Held;
use super::launch::{Launch, Remembered, TIMELINE};
use super::microvm::monitor;
use super::template::Template;
use super::{About, Lab, Nonce, Subject};

/// How the machine comes by its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// It maps the snapshot's file, and finds a page when it touches it.
    Lazy,
    /// It reads all of the file first.
    Eager,
    /// A server that has the memory already forks, or begins a thread.
    Server(Home),
}

/// A machine that goes on after READY.
pub(super) struct Restored<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
    template: &'a Template,
    from: From,
}

impl<'a> Restored<'a> {
    pub(super) fn new(lab: &'a Lab, from: From) -> Result<Self, LeftOut> {
        let (name, words, about) = match from {
            From::Lazy => (
                "microvm-app-restore",
                &["restore", "--lazy", "SNAPSHOT"][..],
                "The machine of microvm-app from a snapshot, its memory mapped and shared until it is written to; it proves \
                 itself by the nonce that only the snapshot's memory holds.",
            ),
            From::Eager => (
                "microvm-app-eager",
                &["restore", "--eager", "SNAPSHOT"][..],
                "The same, but all of the snapshot's memory is read before the machine runs: a full copy.",
            ),
            From::Server(Home::Processes) => (
                "microvm-app-clone",
                &["restore", "--server", "SOCKET"][..],
                "A linked clone of the same machine, handed out by a server that keeps the snapshot in memory.",
            ),
            From::Server(Home::Threads) => (
                "microvm-app-thread",
                &["restore", "--server", "SOCKET"][..],
                "The same clone as a thread of its server: nothing but KVM stands between it and the others.",
            ),
        };
        let program = monitor(name)?;
        let hint = "isolab-vm run --snapshot-at ready tells more";
        let template = lab.template(&program).map_err(|reason| LeftOut::new(name, reason, hint))?;
        if let From::Server(home) = from {
            template.served(home).map_err(|reason| LeftOut::new(name, reason, hint))?;
        }
        let command = std::iter::once("isolab-vm").chain(words.iter().copied()).map(str::to_owned).collect();
        Ok(Self {
            lab,
            about: About { name, role: Role::Subject, about, command, version: None },
            program,
            template,
            from,
        })
    }

    fn launch_of(&self, tells: bool) -> Result<Launch, String> {
        let mut arguments: Vec<OsString> = Vec::new();
        // A clone's steps are its server's, which was started without a timeline.
        let tells = tells && !matches!(self.from, From::Server(_));
        if tells {
            arguments.extend(["--timeline", TIMELINE].map(OsString::from));
        }
        match self.from {
            From::Lazy => arguments.extend(["restore".into(), "--lazy".into(), self.template.folder()]),
            From::Eager => arguments.extend(["restore".into(), "--eager".into(), self.template.folder()]),
            From::Server(home) => {
                arguments.extend(["restore".into(), "--server".into(), self.template.served(home)?.into_os_string()]);
            }
        }
        let nonce = self.template.nonce().clone();
        let launch = Launch::new(self.lab, &self.program, arguments, format!("nonce {nonce}\n").into_bytes());
        Ok(Launch { remembers: Some(Remembered { nonce, question: "nonce\n" }), tells, ..launch })
    }
}

impl Subject for Restored<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    /// A clone is its server's child or thread: its memory is not to be found below the command that asked for it.
    fn keeper(&self) -> Option<i32> {
        if let From::Server(home) = self.from { self.template.server(home) } else { None }
    }

    fn launch(&self, _: u64, _: &Nonce) -> Result<Launch, String> {
        self.launch_of(true)
    }

    fn launch_to_stay(&self, _: u64, _: &Nonce) -> Result<Launch, String> {
        self.launch_of(false)
    }

    /// The harness asks the server for a clone that stays: a command that waits for its end would be a second process beside it.
    fn hold(&self) -> Result<Held, String> {
        let launch = self.launch_of(false)?;
        match self.from {
            From::Server(home) => launch.lend(&self.template.served(home)?),
            From::Lazy | From::Eager => launch.poise()?.hold(self.template.nonce()),
        }
    }
}
