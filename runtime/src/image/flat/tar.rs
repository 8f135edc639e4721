//! The tree as an archive: a layer that needs no other below it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use tar::EntryType;

use super::{Entry, Kind, failed, walk};
use crate::image::LayerError;
use crate::image::diff::{Changed, header};

/// Writes the whole tree of some layers, the uppermost first, as an archive.
pub(crate) fn archive(layers: &[PathBuf], mut out: impl Write) -> Result<Changed, LayerError> {
    let mut changed = Changed::default();
    walk(layers, &mut |entry| {
        changed.entries += 1;
        changed.bytes += entry.described.size;
        append(&mut out, entry).map_err(failed(entry.path))
    })?;
    // Two blocks of zeros end an archive.
    let ended = out.write_all(&[0; 1024]).and_then(|()| out.flush());
    ended.map_err(failed(&PathBuf::new()))?;
    Ok(changed)
}

fn append(out: &mut impl Write, entry: &Entry<'_>) -> io::Result<()> {
    let kind = match entry.kind {
        Kind::Directory => EntryType::Directory,
        Kind::File => EntryType::Regular,
        Kind::Symlink => EntryType::Symlink,
        Kind::Character => EntryType::Char,
        Kind::Block => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
        Kind::Link(_) => EntryType::Link,
    };
    let mut name: OsString = if entry.path.as_os_str().is_empty() { ".".into() } else { entry.path.into() };
    if entry.kind == Kind::Directory {
        name.push("/");
    }
    header::write(out, &entry.described, &name, kind)?;
    if entry.kind == Kind::File {
        copy(entry, out)?;
        header::pad(out, entry.described.size)?;
    }
    Ok(())
}

/// Copies a file as long as it was said to be: one that grows meanwhile is cut there, one that shrinks is an error.
pub(super) fn copy(entry: &Entry<'_>, out: &mut impl Write) -> io::Result<()> {
    let size = entry.described.size;
    let copied = io::copy(&mut entry.open()?.take(size), out)?;
    if copied < size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
    }
    Ok(())
}
