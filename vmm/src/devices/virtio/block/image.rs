//! Disks that stand on other disks: made, read through, and looked at.
//!
//! A snapshot's disk must never change, and a machine that goes on from it writes. So it gets an *overlay*: a qcow2 image
//! that holds what was written since, and names the file that all else is read from. It is made in a moment, however large
//! the disk is. To share nothing, what is read through all of them is written to one file ([`flatten`]).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use imago::file::File as Storage;
use imago::io_buffers::IoVectorMut;
use imago::qcow2::Qcow2 as Image;
use imago::{FormatAccess, FormatCreateBuilder, FormatDriverBuilder, StorageOpenOptions};

use super::disk::{self, DiskError, Format};
use super::qcow2::Gate;

/// How much is read at a time, in bytes.
const PIECE: u64 = 1 << 20;
/// What a hole is made of.
const BLOCK: usize = 4096;

/// The longest name of a file that an image may stand on (`docs/interop/qcow2.txt`), in bytes.
const LONGEST: u32 = 1023;

/// A disk that is only read, here and now.
pub struct Contents {
    size: u64,
    inside: Inside,
}

enum Inside {
    Raw(File),
    Qcow2(FormatAccess<Storage>),
}

/// How a file is a disk, where nobody has said.
pub fn format_of(path: &Path) -> Format {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("qcow2"));
    if named { Format::Qcow2 } else { Format::Raw }
}

impl Contents {
    /// Opens a disk and all that it stands on, to be read.
    pub fn open(path: &Path, format: Format) -> Result<Self, DiskError> {
        Self::of(disk::open_locked(path, false)?, path, format)
    }

    fn of(file: File, path: &Path, format: Format) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Image { path: path.to_owned(), source };
        Ok(match format {
            Format::Raw => Self { size: disk::size(&file, path)?, inside: Inside::Raw(file) },
            Format::Qcow2 => {
                let storage = Storage::from_open_file(file, StorageOpenOptions::new().filename(path).write(false));
                let image = Image::<Storage>::builder(storage.map_err(failed)?).write(false);
                let image = FormatAccess::new(image.open(Gate::new()).map_err(failed)?);
                Self { size: image.size(), inside: Inside::Qcow2(image) }
            }
        })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is at an offset.
    pub fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.inside {
            Inside::Raw(file) => file.read_exact_at(bytes, offset),
            Inside::Qcow2(image) => image.read(IoVectorMut::from(bytes), offset),
        }
    }
}

/// Makes an image at `path`, where nothing is yet, that reads from `base` what nobody has written to it.
pub fn overlay(path: &Path, base: &Path, format: Format) -> Result<(), DiskError> {
    let size = Contents::open(base, format)?.size();
    let failed = |source| DiskError::Make { path: path.to_owned(), source };
    let name = base.to_str().filter(|name| name.len() <= LONGEST as usize && base.is_absolute());
    let name = name.ok_or_else(|| failed(io::Error::other("the file that it shall stand on has no possible name")))?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let storage = Storage::from_open_file(file, StorageOpenOptions::new().filename(path).write(true));
    let format = match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    };
    let builder = Image::<Storage>::create_builder(storage.map_err(failed)?).size(size);
    builder.backing(name.to_owned(), format.to_owned()).create().map_err(failed)
}

/// Writes all that is read through a disk to a raw file at `to`, where nothing is yet; zeroes become holes.
pub fn flatten(from: &Contents, to: &Path) -> Result<(), DiskError> {
    let failed = |source| DiskError::Make { path: to.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(to).map_err(failed)?;
    file.set_len(from.size()).map_err(failed)?;
    let mut bytes = vec![0; PIECE as usize];
    for at in (0..from.size()).step_by(PIECE as usize) {
        let piece = bytes.get_mut(..PIECE.min(from.size() - at) as usize).unwrap_or_default();
        from.read(piece, at).map_err(failed)?;
        write_sparse(&file, piece, at).map_err(failed)?;
    }
    file.sync_data().map_err(failed)
}

/// Writes what is no zeroes.
fn write_sparse(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    for (block, place) in bytes.chunks(BLOCK).zip((at..).step_by(BLOCK)) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, place)?;
        }
    }
    Ok(())
}

/// The file that an image names as the one it stands on, as it is written there; nothing where it stands alone.
pub fn base_of(path: &Path) -> Result<Option<PathBuf>, DiskError> {
    let failed = |source| DiskError::Image { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let [magic @ .., l0, l1, l2, l3] = header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let at = magic.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    if !magic.starts_with(b"QFI\xfb") || length > LONGEST {
        return Err(failed(io::Error::other("the header is not one of a qcow2 image")));
    }
    if at == 0 || length == 0 {
        return Ok(None);
    }
    let mut name = vec![0; length as usize];
    file.read_exact_at(&mut name, at).map_err(failed)?;
    Ok(Some(PathBuf::from(std::ffi::OsStr::from_bytes(&name))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(contents: &Contents) -> Vec<u8> {
        let mut bytes = vec![0; contents.size() as usize];
        contents.read(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn an_overlay_reads_as_what_it_stands_on_and_takes_little_room() {
        let folder = tempfile::tempdir().unwrap();
        let (base, one, two) =
            (folder.path().join("base"), folder.path().join("1.qcow2"), folder.path().join("2.qcow2"));
        let disk: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect();
        fs::write(&base, &disk).unwrap();
        overlay(&one, &base, Format::Raw).unwrap();
        overlay(&two, &one, Format::Qcow2).unwrap();
        assert_eq!(base_of(&two).unwrap(), Some(one.clone()));
        assert!(fs::metadata(&two).unwrap().len() < 1 << 20);
        let contents = Contents::open(&two, Format::Qcow2).unwrap();
        assert!(read(&contents) == disk);
        let flat = folder.path().join("flat");
        flatten(&contents, &flat).unwrap();
        assert!(fs::read(flat).unwrap() == disk);
        assert!(matches!(overlay(&two, &one, Format::Qcow2), Err(DiskError::Make { .. })), "something is there");
        assert!(matches!(
            overlay(&folder.path().join("3"), Path::new("base"), Format::Raw),
            Err(DiskError::Open { .. })
        ));
    }

    #[test]
    fn what_is_no_image_stands_on_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, [7; 100]).unwrap();
        assert!(matches!(base_of(&file), Err(DiskError::Image { .. })));
        fs::write(&file, b"QFI\xfb").unwrap();
        assert!(matches!(base_of(&file), Err(DiskError::Image { .. })));
    }
}
