//! The scratch folder of one bench process: everything that it makes lies here, and goes when it ends.
//!
//! Its name says whose it is ([`Owner`]), so what a killed bench left is known, and `isolab-bench doctor --clean`
//! removes it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::host::owner::Owner;
use crate::host::roots::Roots;

/// A folder of this process' own below the runtime root; removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    owner: Owner,
    path: PathBuf,
}

/// Why there is no scratch folder.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// `/proc` does not tell who this process is.
    #[error("cannot read /proc/self/stat, and what this run makes could not be told from what others made")]
    Nameless,
    /// The folder cannot be made.
    #[error("cannot make the scratch folder {}", .path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Scratch {
    /// Makes the folder. Nobody else can look inside: it holds sockets and bundles.
    pub fn make(roots: &Roots) -> Result<Self, ScratchError> {
        let owner = Owner::me().ok_or(ScratchError::Nameless)?;
        let path = owner.scratch(&roots.runtime);
        let failed = |source| ScratchError::Make { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        // As the kernel will name it in mount tables and in /proc.
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self { owner, path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name that no other bench, dead or alive, gives to anything: `bench-<pid>-<start>-<n>`.
    pub fn name(&self, number: u64) -> String {
        format!("bench-{}-{number}", self.owner)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is known by its name later on.
        let _ = fs::remove_dir_all(&self.path);
        // The folder of all benches and the runtime root above it: only where they are empty.
        for folder in self.path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_is_its_makers_alone_and_goes_with_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { runtime: folder.path().join("run"), data: folder.path().join("data") };
        let scratch = Scratch::make(&roots).unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(scratch.name(7).starts_with("bench-") && scratch.name(7).ends_with("-7"));
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }
}
