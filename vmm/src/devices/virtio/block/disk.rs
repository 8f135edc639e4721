//! What is behind a disk: a file of the host, opened so that nothing about it is a surprise later.
//!
//! A disk that two machines write is a disk that is lost. So a disk is locked when it is opened: by one that writes, or by
//! any number that read. The lock is the open file description's (`F_OFD_SETLK`, fcntl(2)), so it is gone with the monitor,
//! however that ends; QEMU looks at the same locks.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use serde::{Deserialize, Serialize};

use super::image::format_of;
use super::qcow2::Qcow2;
use super::raw::Raw;
use super::{Buffer, SECTOR};
use crate::memory::Memory;

/// Something with sectors. Offsets and lengths are in bytes, and inside of the disk.
pub trait Disk: Send {
    /// Its size in bytes: whole sectors.
    fn size(&self) -> u64;
    /// Fills a guest's buffers.
    fn read(&mut self, memory: &Memory, to: &Buffer, offset: u64) -> io::Result<()>;
    /// Writes what is in a guest's buffers.
    fn write(&mut self, memory: &Memory, from: &Buffer, offset: u64) -> io::Result<()>;
    /// Returns when all that was written would survive the host.
    fn flush(&mut self) -> io::Result<()>;
    /// Nobody needs what is there any more.
    fn discard(&mut self, offset: u64, length: u64) -> io::Result<()>;
    /// Zeroes; with `unmap` it may be done by keeping nothing there.
    fn zero(&mut self, offset: u64, length: u64, unmap: bool) -> io::Result<()>;
}

/// How a file is a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The file's bytes are the disk's.
    Raw,
    /// QEMU's format: it grows as it is written to, and may stand on another file.
    Qcow2,
}

/// A disk to open.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file, or a block device.
    pub path: PathBuf,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Its format. Where none is said, a name that ends in `.qcow2` is one, and any other is raw.
    pub format: Option<Format>,
}

/// Why a disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It can't be opened.
    #[error("cannot open the disk {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is no file and no block device.
    #[error("{0} is neither a file nor a block device, so it can't be a disk")]
    NoDisk(PathBuf),
    /// Somebody else has it.
    #[error("the disk {path} is in use: {}", if *.write { "somebody else has it open" } else { "somebody else writes to it" })]
    InUse {
        /// Which.
        path: PathBuf,
        /// Whether it should be written to.
        write: bool,
    },
    /// It could not be locked.
    #[error("cannot lock the disk {path}")]
    Lock {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its size makes no whole sectors.
    #[error("the disk {path} has {size} bytes, which are no whole sectors of {SECTOR}")]
    Size {
        /// Which.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Nothing is in it.
    #[error("the disk {0} is empty")]
    Empty(PathBuf),
    /// It looks like what nobody has said that it is.
    #[error("{0} is to be a raw disk, and begins like a qcow2 image")]
    Ambiguous(PathBuf),
    /// It can't be made.
    #[error("cannot make the disk {path}")]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no image that can be read.
    #[error("cannot use {path} as a qcow2 image")]
    Image {
        /// Which.
        path: PathBuf,
        /// What the library said.
        source: io::Error,
    },
}

impl DiskError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open { path, source } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EROFS | libc::EPERM) => {
                    Some(format!("say {},ro if the guest shall only read it", path.display()))
                }
                Some(libc::ENOENT) => Some(format!("truncate -s 1G {} makes an empty one", path.display())),
                _ => None,
            },
            Self::Size { path, .. } => Some(format!("truncate -s %{SECTOR} {} fills up the last one", path.display())),
            Self::Empty(path) => Some(format!("truncate -s 1G {} gives it a size", path.display())),
            Self::InUse { .. } => Some("two machines can read one disk if both say ro".to_owned()),
            // Guessing would let a guest choose: it writes the first sector, and names any file of the host as what the
            // image stands on.
            Self::Ambiguous(path) => Some(format!("say {0},format=qcow2 or {0},format=raw", path.display())),
            _ => None,
        }
    }
}

/// Opens a disk, and locks it.
pub fn open(options: &Options) -> Result<Box<dyn Disk>, DiskError> {
    let path = &options.path;
    let file = open_locked(path, !options.read_only)?;
    let disk: Box<dyn Disk> = match options.format {
        Some(Format::Qcow2) => Box::new(Qcow2::open(file, path, !options.read_only)?),
        None if format_of(path) == Format::Qcow2 => Box::new(Qcow2::open(file, path, !options.read_only)?),
        None if begins_like_qcow2(&file) => return Err(DiskError::Ambiguous(path.clone())),
        Some(Format::Raw) | None => Box::new(Raw::new(file, path)?),
    };
    match disk.size() {
        0 => Err(DiskError::Empty(path.clone())),
        size if !size.is_multiple_of(SECTOR) => Err(DiskError::Size { path: path.clone(), size }),
        _ => Ok(disk),
    }
}

/// Opens a file as one of those that hold a disk.
pub(super) fn open_locked(path: &Path, write: bool) -> Result<File, DiskError> {
    let failed = |source| DiskError::Open { path: path.to_owned(), source };
    // First the look: opening a FIFO would wait for the other end.
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::NoDisk(path.to_owned()));
    }
    let file = OpenOptions::new().read(true).write(write).open(path).map_err(failed)?;
    lock(&file, path, write)?;
    Ok(file)
}

fn lock(file: &File, path: &Path, write: bool) -> Result<(), DiskError> {
    let range = libc::flock {
        l_type: if write { libc::F_WRLCK } else { libc::F_RDLCK } as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0, // to the end, wherever that will be
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        // A file system without locks: as safe as anything else on it.
        Ok(_) | Err(Errno::EOPNOTSUPP | Errno::ENOLCK | Errno::ENOSYS) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(DiskError::InUse { path: path.to_owned(), write }),
        Err(error) => Err(DiskError::Lock { path: path.to_owned(), source: error.into() }),
    }
}

/// A file's size, or a block device's.
pub(super) fn size(mut file: &File, path: &Path) -> Result<u64, DiskError> {
    file.seek(SeekFrom::End(0)).map_err(|source| DiskError::Open { path: path.to_owned(), source })
}

fn begins_like_qcow2(mut file: &File) -> bool {
    let mut magic = [0; 4];
    file.seek(SeekFrom::Start(0)).is_ok() && file.read_exact(&mut magic).is_ok() && &magic == b"QFI\xfb"
}
