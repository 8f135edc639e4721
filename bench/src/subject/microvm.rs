//! The payload in a machine without a kernel, and a guest of a few instructions: what a machine costs by itself.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use isolab_reports::model::Role;

use super::catalogue::{LeftOut, engine};
use super::launch::{Farewell, Launch, TIMELINE};
use super::{About, Lab, Nonce, Subject};

/// Memory of each machine, in MiB: what the field compares monitors with.
pub(super) const MEMORY: &str = "128";

/// A few 64-bit instructions that print READY on the serial port.
pub(super) struct Bare<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
}

/// The payload itself, its system calls served by the monitor.
pub(super) struct App<'a> {
    lab: &'a Lab,
    about: About,
    program: PathBuf,
}

/// The monitor's command, where this user can make machines.
pub(super) fn monitor(name: &'static str) -> Result<PathBuf, LeftOut> {
    let program = engine(name, "isolab-vm", "isolab-vmm")?;
    may_use_kvm(name)?;
    Ok(program)
}

/// Machines need `/dev/kvm`, and the right to use it.
pub(super) fn may_use_kvm(name: &'static str) -> Result<(), LeftOut> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| {
        LeftOut::new(name, format!("/dev/kvm can't be opened: {error}"), "isolab-bench doctor tells how to get KVM")
    })
}

fn about(name: &'static str, about: &'static str, guest: &[&str]) -> About {
    let head = ["isolab-vm", "--timeline", TIMELINE, "run", "--memory", MEMORY];
    let command = head.iter().chain(guest).map(|word| (*word).to_owned()).collect();
    About { name, role: Role::Subject, about, command, version: None }
}

impl<'a> Bare<'a> {
    pub(super) fn new(lab: &'a Lab) -> Result<Self, LeftOut> {
        let name = "microvm-bare";
        let program = monitor(name)?;
        let sentence = "A virtual machine whose guest is a few 64-bit instructions that print READY on the serial port: \
                        hardware isolation, nothing beneath.";
        let about = about(name, sentence, &["--bare", "long-hello", "--", "{}"]);
        Ok(Self { lab, about, program })
    }
}

impl<'a> App<'a> {
    pub(super) fn new(lab: &'a Lab) -> Result<Self, LeftOut> {
        let name = "microvm-app";
        let program = monitor(name)?;
        let sentence = "The payload in a virtual machine without a kernel: the monitor serves its system calls.";
        let about = about(name, sentence, &["--app", "isolab-payload", "--", "{}"]);
        Ok(Self { lab, about, program })
    }
}

/// `tells`: whether it tells its steps. One that stays does not: what it wrote would be memory of its own.
fn launch(lab: &Lab, program: &Path, guest: Vec<OsString>, nonce: &Nonce, farewell: Farewell, tells: bool) -> Launch {
    let timeline: &[&str] = if tells { &["--timeline", TIMELINE] } else { &[] };
    let head = timeline.iter().chain(&["run", "--memory", MEMORY]).map(OsString::from);
    Launch { farewell, tells, ..Launch::new(lab, program, head.chain(guest).collect(), nonce.token()) }
}

impl Subject for Bare<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn runs_payload(&self) -> bool {
        false
    }

    fn stays(&self) -> bool {
        false
    }

    fn launch(&self, _: u64, nonce: &Nonce) -> Result<Launch, String> {
        let text = format!("ISOLAB-READY {nonce}");
        let guest = ["--bare", "long-hello", "--", &text].map(OsString::from).into();
        Ok(launch(self.lab, &self.program, guest, nonce, Farewell::Itself, true))
    }
}

impl Subject for App<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn launch(&self, _: u64, nonce: &Nonce) -> Result<Launch, String> {
        Ok(self.launch_of(nonce, true))
    }

    fn launch_to_stay(&self, _: u64, nonce: &Nonce) -> Result<Launch, String> {
        Ok(self.launch_of(nonce, false))
    }
}

impl App<'_> {
    fn launch_of(&self, nonce: &Nonce, tells: bool) -> Launch {
        let payload = self.lab.payload().as_os_str().to_owned();
        let guest = vec!["--app".into(), payload, "--".into(), nonce.to_string().into()];
        launch(self.lab, &self.program, guest, nonce, Farewell::Order, tells)
    }
}
