//! `isolab-init`: the first process of a Linux guest.
//!
//! A kernel starts one program and leaves all else to it. This one does what a container's engine does from outside, from
//! inside: file systems, a name, an address, and then the program that the machine is for. When that has ended, so has the
//! machine; its status goes to the monitor.

mod files;
mod modules;
mod network;
mod ports;
mod power;
mod process;
mod renewal;
mod status;

use std::fs;
use std::io;
use std::path::PathBuf;

use isolab_vmm::guest::linux::init::{FAILED, FILE, Init};
use renewal::Badge;

/// Why the guest's program could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("this is the first process of a guest of isolab-vm, and no command")]
    NotFirst,
    #[error("cannot read {FILE}")]
    Read(#[source] io::Error),
    #[error("cannot understand {FILE}")]
    Understand(#[from] serde_path_to_error::Error<serde_json::Error>),
    #[error("cannot {attempt} {}", on.display())]
    Path { attempt: &'static str, on: PathBuf, source: io::Error },
    #[error("cannot load the module {name}: {source}")]
    Module { name: String, source: io::Error },
    #[error("{0:?} is no address: 10.0.0.2/24 would be one")]
    Address(String),
    #[error("cannot {attempt} the network card {interface}")]
    Network { attempt: &'static str, interface: String, source: io::Error },
    #[error("cannot {0}")]
    Host(&'static str, #[source] io::Error),
    #[error("there is no program to run: process.args is empty")]
    NoProgram,
    #[error("cannot run {program}")]
    Run { program: String, source: io::Error },
}

fn main() {
    let outcome = if std::process::id() == 1 { run() } else { Err(InitError::NotFirst) };
    let status = match &outcome {
        Ok(status) => *status,
        Err(error) => {
            complain(error);
            FAILED
        }
    };
    if matches!(outcome, Err(InitError::NotFirst)) {
        std::process::exit(i32::from(FAILED));
    }
    status::end_machine(status);
}

fn complain(error: &InitError) {
    eprintln!("isolab-init: error: {}", isolab_vmm::chain(error));
}

/// From an empty machine to the end of its program.
fn run() -> Result<u8, InitError> {
    files::mount_kernels("/".as_ref())?; //            1. what the kernel shows of itself: proc, sys, dev, control groups
    let init = read()?; //                             2. what to do
    modules::load_all()?; //                           3. drivers, of disks and file systems among others
    if let Some(root) = &init.root {
        files::enter_root(root)?; //                   4. the root file system; the initial one is out of sight
    }
    files::mount_others(&init.mounts)?; //             5. the others
    if let Some(name) = &init.hostname {
        nix::unistd::sethostname(name).map_err(|error| InitError::Host("set the host name", error.into()))?; // 6. a name
    }
    let badge = Badge::find();
    let told = badge.as_ref().and_then(Badge::read);
    let network = init.network.or_else(|| renewal::first_network(&told?));
    network::bring_up(network.as_ref())?; //           7. an address
    process::run(&init.process, badge, network.as_ref()) // 8. the program, to its end
}

fn read() -> Result<Init, InitError> {
    let text = fs::read_to_string(FILE).map_err(InitError::Read)?;
    Ok(serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text))?)
}
