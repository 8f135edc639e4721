//! The archive that a kernel unpacks into its first file system: cpio in its `newc` form.
//!
//! Each entry is a header of ASCII hexadecimal fields, the name with a NUL, and the content; header with name, and
//! content, are each padded to four bytes. An entry named `TRAILER!!!` ends it. Source: the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Read, Write};

/// File types of `st_mode` (inode(7)).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive in the making. Everything in it belongs to root and dates from 1970: the same input gives the same bytes.
pub(super) struct Archive<W> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    /// Adds a folder. `name` is a path without a leading slash; its parent must have been added before.
    pub(super) fn folder(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        self.entry(name, FOLDER | permissions, 0, &mut io::empty())
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, LINK | 0o777, target.len() as u64, &mut target.as_bytes())
    }

    /// Adds a file of `length` bytes, read from `content`.
    pub(super) fn file(
        &mut self,
        name: &str,
        permissions: u32,
        length: u64,
        content: &mut impl Read,
    ) -> io::Result<()> {
        self.entry(name, FILE | permissions, length, content)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, 0, &mut io::empty())?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, length: u64, content: &mut impl Read) -> io::Result<()> {
        let size = u32::try_from(length)
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{name} has 4 GiB or more")))?;
        // The kernel takes two entries with the same inode number for one file only if its link count is above one.
        self.entries += 1;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let [uid, gid, time, major, minor, of_major, of_minor, checksum] = [0; 8];
        let inode = self.entries;
        let fields = [
            inode,
            mode,
            uid,
            gid,
            links,
            time,
            size,
            major,
            minor,
            of_major,
            of_minor,
            name.len() as u32 + 1,
            checksum,
        ];
        self.to.write_all(b"070701")?;
        for field in fields {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(6 + 8 * fields.len() + name.len() + 1)?;
        let copied = io::copy(&mut content.take(length), &mut self.to)?;
        if copied != length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} shrank while it was read")));
        }
        self.pad(length as usize)
    }

    /// Fills up to the next multiple of four after `length` bytes.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("a", 0o755).unwrap();
        archive.file("a/b", 0o644, 5, &mut &b"hello"[..]).unwrap();
        archive.link("c", "a/b").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let entries: Vec<_> = text.split("070701").skip(1).collect();
        assert_eq!(entries.len(), 4);
        assert_eq!(&entries[0][8..16], "000041ed");
        assert_eq!(&entries[1][8..16], "000081a4");
        assert_eq!(&entries[1][48..56], "00000005");
        assert!(entries[1].ends_with("a/b\0\0\0hello\0\0\0"), "{:?}", entries[1]);
        assert_eq!(&entries[2][8..16], "0000a1ff");
        assert!(entries[3].contains("TRAILER!!!"));
    }

    #[test]
    fn a_file_that_shrinks_meanwhile_is_an_error() {
        let error = Archive::new(Vec::new()).file("a", 0o644, 6, &mut &b"hello"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
