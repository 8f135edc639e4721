//! A file that a machine can boot from: which kind, and how it comes to be whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tracing::info_span;

use super::{cpio, ext4, squashfs};
use crate::image::{LayerError, Temporary};

/// What the tree becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// A compressed file system that can only be read.
    Squashfs,
    /// A file system that can be written, with room for as much again.
    Ext4,
    /// The archive that a kernel unpacks into memory.
    Initramfs,
}

/// How it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskPacking {
    /// Not at all.
    None,
    /// What every kernel reads.
    Gzip,
    /// Smaller and faster, where the kernel has it.
    Zstd,
}

impl DiskPacking {
    /// As squashfs-tools call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenDisk {
    /// The file's length, in bytes.
    pub size: u64,
    /// Paths of the image whose attributes, such as capabilities, the format cannot hold.
    pub lost: Vec<PathBuf>,
}

/// Why a disk could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The tree could not be read, or not be written down.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A file.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A program that is needed doesn't start.
    #[error("cannot run {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The package of Debian's that has it.
        package: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// A program that is needed gave up.
    #[error("{program} failed: {told}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it said.
        told: String,
    },
    /// A packing that the format doesn't have.
    #[error("{format} is not written with the packing {packing}")]
    Packing {
        /// The format.
        format: &'static str,
        /// What was asked for.
        packing: &'static str,
    },
    /// A name that cannot be told to the program that writes.
    #[error("the name {name:?} has a line feed in it, which debugfs cannot be told")]
    Name {
        /// The name, of a file or of where a link leads.
        name: OsString,
    },
}

impl DiskError {
    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Program { package, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("install Debian's package {package}"))
            }
            Self::Packing { .. } => {
                Some("a squashfs has gzip and zstd, an initramfs none too, an ext4 none".to_owned())
            }
            Self::Name { .. } => Some("write a squashfs, which takes every name".to_owned()),
            _ => None,
        }
    }
}

/// Writes the tree of some layers, the uppermost first, to a file that a machine can boot from. The same layers give the
/// same bytes. The file gets its name when it is whole; one that had the name is replaced.
pub fn write_disk(
    layers: &[PathBuf],
    format: DiskFormat,
    packing: Option<DiskPacking>,
    to: &Path,
) -> Result<WrittenDisk, DiskError> {
    let _span = info_span!(
        "image.disk",
        call = "openat(2), write(2)",
        why = "a machine has no layers: what overlayfs would show becomes one file system in one file"
    )
    .entered();
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = Temporary::name_in(folder);
    let lost = match (format, packing) {
        (DiskFormat::Squashfs, None) => squashfs(layers, DiskPacking::Gzip, temporary.path())?,
        (DiskFormat::Squashfs, Some(packing @ (DiskPacking::Gzip | DiskPacking::Zstd))) => {
            squashfs(layers, packing, temporary.path())?
        }
        (DiskFormat::Ext4, None | Some(DiskPacking::None)) => {
            ext4::write(layers, temporary.path())?;
            Vec::new()
        }
        (DiskFormat::Initramfs, packing) => initramfs(layers, packing.unwrap_or(DiskPacking::None), temporary.path())?,
        (DiskFormat::Squashfs, Some(packing)) => return Err(refused("a squashfs", packing)),
        (DiskFormat::Ext4, Some(packing)) => return Err(refused("an ext4", packing)),
    };
    let synced = File::open(temporary.path()).and_then(|file| file.sync_all().map(|()| file));
    let size = synced.and_then(|file| file.metadata()).map_err(io_error("sync", temporary.path()))?.len();
    fs::rename(temporary.path(), to).map_err(io_error("make", to))?;
    Ok(WrittenDisk { size, lost })
}

fn refused(format: &'static str, packing: DiskPacking) -> DiskError {
    DiskError::Packing { format, packing: packing.name() }
}

fn squashfs(layers: &[PathBuf], packing: DiskPacking, to: &Path) -> Result<Vec<PathBuf>, DiskError> {
    squashfs::write(layers, packing, to)?;
    Ok(Vec::new())
}

fn initramfs(layers: &[PathBuf], packing: DiskPacking, to: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let failed = io_error("write", to);
    let file = BufWriter::with_capacity(256 << 10, File::create_new(to).map_err(&failed)?);
    let (lost, mut file) = match packing {
        DiskPacking::None => {
            let mut file = file;
            (cpio::write(layers, &mut file)?, file)
        }
        DiskPacking::Gzip => {
            // A gzip file tells neither name nor time unless it is asked to.
            let mut encoder = GzEncoder::new(file, Compression::default());
            (cpio::write(layers, &mut encoder)?, encoder.finish().map_err(&failed)?)
        }
        DiskPacking::Zstd => {
            let mut encoder = zstd::Encoder::new(file, 0).map_err(&failed)?;
            (cpio::write(layers, &mut encoder)?, encoder.finish().map_err(&failed)?)
        }
    };
    file.flush().map_err(failed)?;
    Ok(lost)
}

pub(super) fn io_error(attempt: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError + use<> {
    let path = path.to_owned();
    move |source| DiskError::Io { attempt, path: path.clone(), source }
}
