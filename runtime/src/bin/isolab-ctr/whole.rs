//! A file that is there as a whole or not at all: what is written has no name until it is complete, so of a command that is
//! killed nothing is left, and what had the name before keeps it until then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

/// The file while it is written.
pub(crate) struct WholeFile {
    file: File,
    /// Its name, where it has none yet.
    name: Option<PathBuf>,
}

impl WholeFile {
    /// Begins one. A device or a pipe of that name is written to as it is, and so is a file where the file system knows none
    /// without a name.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let replaced = fs::metadata(path);
        if replaced.is_ok_and(|found| !found.is_file()) {
            return Ok(Self { file: OpenOptions::new().write(true).open(path)?, name: None });
        }
        // A link goes on leading to what it led to.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o666).open(folder) {
            Ok(file) => Ok(Self { file, name: Some(path) }),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                Ok(Self { file: File::create(&path)?, name: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Gives it its name.
    pub(crate) fn finish(self) -> io::Result<()> {
        let Some(name) = self.name else { return Ok(()) };
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = |to: &Path| linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW);
        if link(&name).is_ok() {
            return Ok(());
        }
        // linkat(2) replaces nothing, and rename(2) wants a name.
        let passing = name.with_extension(format!("isolab-{}", std::process::id()));
        link(&passing)?;
        fs::rename(&passing, &name).inspect_err(|_| drop(fs::remove_file(&passing)))
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::WholeFile;
    use std::fs;
    use std::io::Write;

    #[test]
    fn a_file_has_its_old_text_until_the_new_one_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for text in ["one", "two"] {
            let mut file = WholeFile::create(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert_ne!(fs::read_to_string(&path).unwrap_or_default(), text);
            file.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        drop(WholeFile::create(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        WholeFile::create("/dev/null".as_ref()).unwrap().write_all(b"x").unwrap();
    }
}
