//! The lab's other commands, which subjects are started by.
//!
//! `cargo run` builds only the command it runs. So where cargo started this one, the lab asks cargo for the others: that
//! takes a moment where they are up to date, and never leaves a run with the engines of yesterday.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use thiserror::Error;

/// The packages that the subjects' commands are in.
const PACKAGES: [&str; 3] = ["isolab-runtime", "isolab-vmm", "isolab-reports"];

/// Why the commands could not be built.
#[derive(Debug, Error)]
pub enum SiblingError {
    /// Cargo itself did not start.
    #[error("cannot start {} to build the engines", .cargo.display())]
    Start {
        /// Cargo, as it told us where it lies.
        cargo: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It started and failed.
    #[error("cargo could not build the engines ({status})")]
    Build {
        /// Its end.
        status: ExitStatus,
    },
}

impl SiblingError {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        "build everything first: cargo build --release --workspace"
    }
}

/// Has cargo build the engines into this command's own folder, where cargo started this command; elsewhere does nothing.
pub fn build() -> Result<(), SiblingError> {
    let (Some(cargo), Some(manifest)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR")) else {
        return Ok(());
    };
    let Some(place) = env::current_exe().ok().as_deref().and_then(Place::of) else { return Ok(()) };
    let cargo = PathBuf::from(cargo);
    let mut command = Command::new(&cargo);
    command.args(["build", "--bins", "--manifest-path"]).arg(Path::new(&manifest).join("Cargo.toml"));
    command.arg("--target-dir").arg(&place.target).args(["--profile", &place.profile]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    if place.profile == "dev" {
        // These are the very files that the runtime's own trials run, side by side with ours, and they let steps fail on
        // purpose.
        command.args(["--features", "fault"]);
    } else {
        // Cargo gives a library the features that the packages it is told to build want of it. Without this one among them nix has one
        // less than it had for this command, and both engines would be compiled a second time.
        command.args(["--package", "isolab-bench"]);
    }
    // A table on standard output is this command's alone.
    let status = command.stdout(io::stderr()).status().map_err(|source| SiblingError::Start { cargo, source })?;
    if status.success() { Ok(()) } else { Err(SiblingError::Build { status }) }
}

/// Where cargo put this command: `TARGET/TRIPLE/FOLDER/isolab-bench`, for a benchmark one folder deeper, in `deps`.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    target: PathBuf,
    profile: String,
}

impl Place {
    fn of(command: &Path) -> Option<Self> {
        let folder = command.parent()?;
        let folder = if folder.ends_with("deps") { folder.parent()? } else { folder };
        // Only a folder that cargo keeps; a copy of this command elsewhere has its own neighbours.
        let target = folder.parent()?.parent()?;
        let profile = match folder.file_name()?.to_str()? {
            "debug" => "dev",
            other => other,
        };
        target
            .join(".rustc_info.json")
            .is_file()
            .then(|| Self { target: target.to_owned(), profile: profile.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_profile_is_read_off_the_folder() {
        let target = tempfile::tempdir().unwrap();
        let command = target.path().join("x86_64-unknown-linux-gnu/debug/isolab-bench");
        assert_eq!(Place::of(&command), None, "cargo keeps no such folder");
        fs::write(target.path().join(".rustc_info.json"), "{}").unwrap();
        assert_eq!(Place::of(&command), Some(Place { target: target.path().into(), profile: "dev".into() }));
        let command = target.path().join("x86_64-unknown-linux-gnu/release/isolab-bench");
        assert_eq!(Place::of(&command).unwrap().profile, "release");
    }
}
