//! The tree as an archive: a layer that needs no other below it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::{Entry, Kind, failed, walk, walk_at};
use crate::image::LayerError;
use crate::image::described::Described;
use crate::image::diff::{Changed, header};

/// Writes the whole tree of some layers, the uppermost first, as an archive.
pub(crate) fn archive(layers: &[PathBuf], mut out: impl Write) -> Result<Changed, LayerError> {
    let mut changed = Changed::default();
    walk(layers, &mut |entry| {
        changed.entries += 1;
        changed.bytes += entry.described.size;
        append(&mut out, entry, &entry.described).map_err(failed(entry.path))
    })?;
    end(&mut out)?;
    Ok(changed)
}

/// Writes one thing in a folder that is open, and all that is in it, as an archive in which it is called `path`. `number`
/// answers whose a file is there that a user or group of this number has here.
pub(crate) fn archive_at(
    folder: &OwnedFd,
    name: &OsStr,
    path: &Path,
    number: &dyn Fn(u32) -> u32,
    mut out: impl Write,
) -> Result<(), LayerError> {
    walk_at(folder, name, path, &mut |entry| {
        let (uid, gid) = (number(entry.described.uid), number(entry.described.gid));
        let described = Described { uid, gid, ..entry.described.clone() };
        append(&mut out, entry, &described).map_err(failed(entry.path))
    })?;
    end(&mut out)
}

fn end(out: &mut impl Write) -> Result<(), LayerError> {
    // Two blocks of zeros end an archive.
    let ended = out.write_all(&[0; 1024]).and_then(|()| out.flush());
    ended.map_err(failed(Path::new("")))
}

fn append(out: &mut impl Write, entry: &Entry<'_>, described: &Described) -> io::Result<()> {
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
    header::write(out, described, &name, kind)?;
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
