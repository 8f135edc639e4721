//! What can go wrong, and how it is told.

use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use isolab_vmm::api::ClientError;
use isolab_vmm::confine::ConfineError;
use isolab_vmm::guest::GuestError;
use isolab_vmm::machine::{BootError, RunError};
use isolab_vmm::named::{NameError, NamedError};
use isolab_vmm::serve::ServeError;
use isolab_vmm::snapshot::SnapshotError;
use isolab_vmm::travel::TravelError;

/// The monitor itself failed (as with `docker run`): a status that no guest gave.
const MONITOR_FAILED: u8 = 125;

/// What the command can say went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Named(#[from] NamedError),
    #[error(transparent)]
    Asked(#[from] ClientError),
    #[error(transparent)]
    Travel(#[from] TravelError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Name(NameError),
    #[error("cannot keep {0:?}: it is no UTF-8")]
    NotText(String),
    #[error("the machine ended at once, with {status}")]
    EndedAtOnce { status: ExitStatus, console: PathBuf },
    #[error("cannot listen at {}", .0.display())]
    Listen(PathBuf, #[source] io::Error),
    #[error("cannot set the terminal to hand over each key")]
    Terminal(#[source] io::Error),
    #[error("cannot record steps")]
    Recorder(#[source] io::Error),
    #[error("cannot write {to}")]
    Write { to: String, source: io::Error },
}

impl Failure {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Guest(error) => error.hint(),
            Self::Boot(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Snapshot(error) => error.hint(),
            Self::Listen(_, error) if error.kind() == io::ErrorKind::AddrInUse => Some(
                "a machine listens there, or one was killed while it did: name another file, or remove that".to_owned(),
            ),
            Self::Named(error) => error.hint(),
            Self::Travel(error) => error.hint(),
            Self::Serve(error) => error.hint().map(str::to_owned),
            Self::EndedAtOnce { console, .. } => Some(format!("what it said is in {}", console.display())),
            _ => None,
        }
    }

    fn status(&self) -> u8 {
        match self {
            Self::Run(error) => error.status(),
            _ => None,
        }
        .unwrap_or(MONITOR_FAILED)
    }
}

/// `error:` with the whole chain and, where there is one, `hint:`.
pub(crate) fn complain(failure: &Failure) -> ExitCode {
    eprintln!("error: {}", isolab_vmm::chain(failure));
    if let Some(hint) = failure.hint() {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(failure.status())
}
