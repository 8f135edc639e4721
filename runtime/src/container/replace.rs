//! Putting a new file in the place of an old one, in one step.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Gives a new file the name of an old one, which is removed. A reader sees the one or the other, and never half of one.
///
/// For files that soon go: their names are exchanged, and not taken over (renameat2(2)). Where a file is taken over ext4
/// writes the new one to the disk at once, as for a program that forgets fsync(2), and to remove it a moment later then
/// costs a millisecond instead of 0.04. So after a power cut there may be nothing in it.
pub(crate) fn replace(new: &Path, file: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, new, AT_FDCWD, file, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => fs::remove_file(new),
        // There is no old one, or a file system that exchanges nothing.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS) => fs::rename(new, file),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::replace;
    use std::fs;

    #[test]
    fn a_file_is_replaced_whether_there_was_one_or_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (new, file) = (folder.path().join("new"), folder.path().join("file"));
        for text in ["one", "two"] {
            fs::write(&new, text).expect("written");
            replace(&new, &file).expect("replaced");
            assert_eq!((fs::read_to_string(&file).expect("read").as_str(), new.exists()), (text, false));
        }
        assert!(replace(&new, &file).is_err());
    }
}
