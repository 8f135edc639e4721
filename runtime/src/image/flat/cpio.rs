//! The tree as the archive that a kernel unpacks into its first root file system: cpio in its `newc` form.
//!
//! Each entry is a header of hexadecimal digits, the name with a zero byte, and the content; header with name, and content,
//! are padded to four bytes each. An entry named `TRAILER!!!` ends it. Source: the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::tar::copy;
use super::{Entry, Kind, failed, walk};
use crate::image::LayerError;

/// The fields of a header, each of eight digits.
const FIELDS: usize = 13;
const HEADER: usize = 6 + 8 * FIELDS;

/// Writes the tree of some layers, the uppermost first. Answers the paths whose attributes are lost, such as the
/// capabilities of a program: the format has no place for them.
pub(super) fn write(layers: &[PathBuf], mut out: impl Write) -> Result<Vec<PathBuf>, LayerError> {
    let mut archive = Archive { out: &mut out, next: 1, inodes: HashMap::new() };
    let mut lost = Vec::new();
    walk(layers, &mut |entry| {
        if !entry.described.xattrs.is_empty() {
            lost.push(entry.path.to_owned());
        }
        archive.entry(entry).map_err(failed(entry.path))
    })?;
    archive.head(b"TRAILER!!!", &Fields { links: 1, ..Fields::default() }).map_err(failed(&PathBuf::new()))?;
    out.flush().map_err(failed(&PathBuf::new()))?;
    Ok(lost)
}

struct Archive<W> {
    out: W,
    /// The next inode's number.
    next: u32,
    /// The numbers of files with several names, by their first.
    inodes: HashMap<PathBuf, u32>,
}

/// What differs between entries.
#[derive(Default)]
struct Fields {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    modified: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let described = &entry.described;
        let (kind, target) = match entry.kind {
            Kind::Directory => (libc::S_IFDIR, None),
            // A further name of a file is a file without content, of the same inode: the first brought it.
            Kind::File | Kind::Link(_) => (libc::S_IFREG, None),
            Kind::Symlink => (libc::S_IFLNK, described.link.as_deref()),
            Kind::Character => (libc::S_IFCHR, None),
            Kind::Block => (libc::S_IFBLK, None),
            Kind::Fifo => (libc::S_IFIFO, None),
        };
        let size = target.map_or(described.size, |target| target.len() as u64);
        let fields = Fields {
            inode: self.inode(entry),
            mode: kind | described.mode,
            uid: described.uid,
            gid: described.gid,
            links: if entry.kind == Kind::Directory { 2 } else { entry.links as u32 },
            modified: u32::try_from(described.modified).unwrap_or(0),
            size: u32::try_from(size).map_err(|_| {
                io::Error::new(io::ErrorKind::FileTooLarge, "an initramfs has no files of 4 GiB or more")
            })?,
            device: described.device.unwrap_or_default(),
        };
        let path = entry.path.as_os_str().as_bytes();
        self.head(if path.is_empty() { b"." } else { path }, &fields)?;
        match target {
            Some(target) => self.out.write_all(target.as_bytes())?,
            None if entry.kind == Kind::File => copy(entry, &mut self.out)?,
            None => {}
        }
        self.pad(size as usize)
    }

    /// The kernel takes entries of one number for one file if they say that it has several names.
    fn inode(&mut self, entry: &Entry<'_>) -> u32 {
        if let Kind::Link(first) = &entry.kind
            && let Some(inode) = self.inodes.get(first)
        {
            return *inode;
        }
        let inode = self.next;
        self.next += 1;
        if entry.links > 1 && entry.kind != Kind::Directory {
            self.inodes.insert(entry.path.to_owned(), inode);
        }
        inode
    }

    fn head(&mut self, name: &[u8], fields: &Fields) -> io::Result<()> {
        let Fields { inode, mode, uid, gid, links, modified, size, device } = *fields;
        // On no device, without a checksum: the zeros.
        let all: [u32; FIELDS] =
            [inode, mode, uid, gid, links, modified, size, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.out.write_all(b"070701")?;
        for field in all {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name)?;
        self.out.write_all(&[0])?;
        self.pad(HEADER + name.len() + 1)
    }

    /// Fills up to the next multiple of four after `length` bytes.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all([0; 3].get(..length.next_multiple_of(4) - length).unwrap_or_default())
    }
}
