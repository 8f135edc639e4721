//! Files that the kernel writes while they are read: those of procfs and cgroupfs.
//!
//! Their size is given as 0, so what reads ordinary files asks for it in vain, begins with a few bytes and doubles them. One
//! read into a buffer that is large enough gets all of a small one, and the next says that it was all.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::read;

/// More than almost all of them hold.
const ROOM: usize = 4096;

/// Reads what is open here to its end.
pub(crate) fn read_open(file: &impl AsFd) -> nix::Result<String> {
    let (mut content, mut buffer) = (Vec::new(), [0; ROOM]);
    loop {
        match read(file, &mut buffer)? {
            0 => break,
            length => content.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8(content).unwrap_or_else(|broken| String::from_utf8_lossy(broken.as_bytes()).into_owned()))
}

/// Opens a file that holds one record, as a process' `stat` or a limit, and reads that: the kernel hands a record over whole
/// where there is room, so less than there is room for is all of it. (A list, as of mounts, may come in parts.)
pub(crate) fn read_record(path: impl AsRef<Path>) -> io::Result<String> {
    let mut buffer = [0; ROOM];
    let opened = open(path.as_ref())?;
    match read(&opened, &mut buffer)? {
        ROOM => read_text(path),
        length => Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned()),
    }
}

/// Opens a file and reads it to its end.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(read_open(&open(path.as_ref())?)?)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    Ok(nix::fcntl::open(path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::{ROOM, read_record, read_text};

    #[test]
    fn all_of_a_file_is_read_whatever_its_length() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        for length in [0, 1, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM] {
            std::fs::write(&file, "x".repeat(length)).expect("a file");
            assert_eq!(read_text(&file).expect("its text").len(), length);
            assert_eq!(read_record(&file).expect("its text").len(), length);
        }
        read_text(folder.path().join("none")).expect_err("it is not there");
    }
}
