//! A disk in QEMU's format, by the library of its block layer's maintainer (imago).
//!
//! An image names the file it stands on, and that file may name another. Whoever made the image chose those names, so they
//! are opened to be read only, locked, and only if they are files: not a device, and not a chain without an end.

use std::fs::File;
use std::io;
use std::path::Path;

use imago::file::File as Storage;
use imago::format::gate::ImplicitOpenGate;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2 as Image;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use super::Buffer;
use super::check;
use super::disk::{self, Disk, DiskError};
use crate::memory::Memory;

/// How many images may stand on each other.
const DEEPEST: u32 = 64;

/// An image.
pub(super) struct Qcow2 {
    image: FormatAccess<Storage>,
}

impl Qcow2 {
    pub(super) fn open(file: File, path: &Path, write: bool) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Image { path: path.to_owned(), source };
        if write {
            check::check(&file).map_err(failed)?;
        }
        let storage = Storage::from_open_file(file, StorageOpenOptions::new().filename(path).write(write));
        let image = Image::<Storage>::builder(storage.map_err(failed)?);
        let image = image.write(write).open(Gate::new()).map_err(failed)?;
        Ok(Self { image: FormatAccess::new(image) })
    }
}

/// Opens what an image stands on.
pub(super) struct Gate {
    depth: u32,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { depth: 0 }
    }
}

impl ImplicitOpenGate<Storage> for Gate {
    fn open_format<F: FormatDriverBuilder<Storage>>(&mut self, builder: F) -> io::Result<FormatAccess<Storage>> {
        if self.depth == DEEPEST {
            return Err(io::Error::other("it stands on an image that stands on an image, and so on without an end"));
        }
        Ok(FormatAccess::new(builder.open(Self { depth: self.depth + 1 })?))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Storage> {
        let Some(path) = options.get_filename().filter(|_| !options.get_writable()) else {
            return DenyImplicitOpenGate::default().open_storage(options); // a file of data beside the image
        };
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other(format!("it stands on {}, which is no file", path.display())));
        }
        let file = disk::open_locked(path, false).map_err(io::Error::other)?;
        Storage::from_open_file(file, options)
    }
}

impl Disk for Qcow2 {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read(&mut self, memory: &Memory, to: &Buffer, offset: u64) -> io::Result<()> {
        let slices: Vec<_> = to.slices(memory).collect();
        let (vector, _guard) = IoVectorMut::from_volatile_slice(&slices);
        self.image.readv(vector, offset)
    }

    fn write(&mut self, memory: &Memory, from: &Buffer, offset: u64) -> io::Result<()> {
        let slices: Vec<_> = from.slices(memory).collect();
        let (vector, _guard) = IoVector::from_volatile_slice(&slices);
        self.image.writev(vector, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image.flush()?;
        self.image.sync()
    }

    fn discard(&mut self, offset: u64, length: u64) -> io::Result<()> {
        match self.image.discard_to_any(offset, length) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()), // the guest doesn't need it, that is all
            other => other,
        }
    }

    fn zero(&mut self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        if unmap { self.image.discard_to_zero(offset, length) } else { self.image.write_zeroes(offset, length) }
    }
}
