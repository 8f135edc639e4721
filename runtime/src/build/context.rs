//! The folder that a build takes files from, without what its `.dockerignore` names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{BuildError, io_error};
use super::pattern::Ignore;

/// The build's folder.
#[derive(Debug)]
pub struct Context {
    pub(super) root: PathBuf,
    pub(super) ignore: Ignore,
}

impl Context {
    /// Opens a folder. `file` is the Dockerfile, which may have a list of its own beside it.
    pub fn open(folder: &Path, file: Option<&Path>) -> Result<Self, BuildError> {
        let root = folder.canonicalize().map_err(io_error("open the build's folder", folder))?;
        if !root.is_dir() {
            return Err(io_error("open the build's folder", folder)(io::ErrorKind::NotADirectory.into()));
        }
        let own = file.map(|file| {
            let mut name = file.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        for path in own.into_iter().chain([root.join(".dockerignore")]) {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Self { root, ignore: Ignore::parse(&text) }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("read", path)(error)),
            }
        }
        Ok(Self { root, ignore: Ignore::default() })
    }
}
