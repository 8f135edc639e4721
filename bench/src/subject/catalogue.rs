//! Every subject by its name, and the choice among them.

use std::path::PathBuf;

use isolab_vmm::serve::Home;
use thiserror::Error;

use super::container::{Container, Network};
use super::linux::Linux;
use super::microvm::{App, Bare};
use super::peers::{self, Peers};
use super::process::Process;
use super::restored::{From, Restored};
use super::{Lab, Subject};

/// The names of all subjects, each a step further from a bare process than the one before; peers last.
pub(crate) const NAMES: [&str; 20] = [
    "process",
    "container",
    "container-nonet",
    "microvm-bare",
    "microvm-app",
    "microvm-app-restore",
    "microvm-app-eager",
    "microvm-app-clone",
    "microvm-app-thread",
    "microvm-linux",
    "runc",
    "crun",
    "youki",
    "bwrap",
    "podman",
    "docker",
    "firecracker",
    "qemu-microvm",
    "firecracker-linux",
    "cloud-hypervisor",
];

/// All that could be started here.
pub struct Catalogue<'a> {
    lab: &'a Lab,
    peers: &'a Peers,
}

/// Which subjects are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All that this host can start.
    All,
    /// These, in this order; each must be there.
    Named(Vec<String>),
}

impl Choice {
    /// Checks a list of names before anything is made.
    pub fn check(names: &[String]) -> Result<(), SelectError> {
        if names.is_empty() {
            return Err(SelectError::Nothing);
        }
        for (place, name) in names.iter().enumerate() {
            if !NAMES.contains(&name.as_str()) {
                return Err(SelectError::Unknown { name: name.clone() });
            }
            if names.iter().take(place).any(|earlier| earlier == name) {
                return Err(SelectError::Twice { name: name.clone() });
            }
        }
        Ok(())
    }
}

/// A subject that is not measured, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The subject's name.
    pub name: &'static str,
    /// Why it can't be started here.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl LeftOut {
    pub(super) fn new(name: &'static str, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, reason: reason.into(), hint: hint.into() }
    }
}

/// Why a choice can't be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectError {
    /// No subject has this name.
    #[error("there is no subject {name:?}")]
    Unknown {
        /// As given.
        name: String,
    },
    /// A subject was named twice: it would be measured against itself.
    #[error("subject {name:?} is named twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// No subject at all.
    #[error("no subject is named")]
    Nothing,
    /// It was asked for by name and can't be started here.
    #[error("subject {:?} can't be started here: {}", .0.name, .0.reason)]
    Missing(LeftOut),
}

impl SelectError {
    /// What to try next.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing(left_out) => left_out.hint.clone(),
            Self::Twice { .. } => "name each once; an A/A twin is always measured with them".to_owned(),
            Self::Unknown { .. } | Self::Nothing => format!("subjects are {}", NAMES.join(", ")),
        }
    }
}

impl<'a> Catalogue<'a> {
    /// The subjects of a lab; `peers` are looked for on `PATH` where they are not given.
    pub fn new(lab: &'a Lab, peers: &'a Peers) -> Self {
        Self { lab, peers }
    }

    /// One subject, made ready to be started.
    pub fn get(&self, name: &str) -> Result<Box<dyn Subject + 'a>, SelectError> {
        let unknown = || SelectError::Unknown { name: name.to_owned() };
        let name = NAMES.into_iter().find(|known| *known == name).ok_or_else(unknown)?;
        self.make(name).map_err(SelectError::Missing)
    }

    /// Those that were asked for, and those of [`Choice::All`] that can't be had.
    #[allow(clippy::type_complexity, reason = "two lists: what is there and what is not")]
    pub fn select(&self, choice: &Choice) -> Result<(Vec<Box<dyn Subject + 'a>>, Vec<LeftOut>), SelectError> {
        match choice {
            Choice::Named(names) => {
                Choice::check(names)?;
                Ok((names.iter().map(|name| self.get(name)).collect::<Result<_, _>>()?, Vec::new()))
            }
            Choice::All => {
                let (mut there, mut left_out) = (Vec::new(), Vec::new());
                for name in NAMES {
                    match self.make(name) {
                        Ok(subject) => there.push(subject),
                        Err(missing) => left_out.push(missing),
                    }
                }
                Ok((there, left_out))
            }
        }
    }

    fn make(&self, name: &'static str) -> Result<Box<dyn Subject + 'a>, LeftOut> {
        Ok(match name {
            "container" => Box::new(Container::new(self.lab, Network::Own)?),
            "container-nonet" => Box::new(Container::new(self.lab, Network::Hosts)?),
            "microvm-bare" => Box::new(Bare::new(self.lab)?),
            "microvm-app" => Box::new(App::new(self.lab)?),
            "microvm-app-restore" => Box::new(Restored::new(self.lab, From::Lazy)?),
            "microvm-app-eager" => Box::new(Restored::new(self.lab, From::Eager)?),
            "microvm-app-clone" => Box::new(Restored::new(self.lab, From::Server(Home::Processes))?),
            "microvm-app-thread" => Box::new(Restored::new(self.lab, From::Server(Home::Threads))?),
            "microvm-linux" => Box::new(Linux::new(self.lab)?),
            "runc" | "crun" | "youki" => Box::new(peers::Oci::new(name, self.lab, self.peers)?),
            "bwrap" => Box::new(peers::Bwrap::new(self.lab, self.peers)?),
            "podman" | "docker" => Box::new(peers::Engine::new(name, self.lab, self.peers)?),
            "firecracker" => Box::new(peers::Firecracker::new(self.lab, self.peers)?),
            "qemu-microvm" | "firecracker-linux" | "cloud-hypervisor" => {
                Box::new(peers::LinuxMonitor::new(name, self.lab, self.peers)?)
            }
            _ => Box::new(Process::new(self.lab)),
        })
    }
}

/// A command of the lab's that a subject needs.
pub(super) fn engine(subject: &'static str, command: &str, package: &str) -> Result<PathBuf, LeftOut> {
    super::lab::command(command).ok_or_else(|| {
        let hint = format!("build it: cargo build --release -p {package}");
        LeftOut::new(subject, format!("{command} is neither beside isolab-bench nor on PATH"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_unknown_subject_is_refused_with_the_known_ones() {
        let error = Choice::check(&names(&["process", "lxc"])).unwrap_err();
        assert_eq!(error.to_string(), "there is no subject \"lxc\"");
        assert!(NAMES.iter().all(|name| error.hint().contains(name)));
    }

    #[test]
    fn each_subject_is_named_once() {
        assert_eq!(Choice::check(&names(&["runc", "runc"])), Err(SelectError::Twice { name: "runc".into() }));
        assert_eq!(Choice::check(&[]), Err(SelectError::Nothing));
        assert_eq!(Choice::check(&names(&NAMES)), Ok(()));
    }
}
