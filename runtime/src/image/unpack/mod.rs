//! From a layer's archive to a directory that overlayfs can stack.
//!
//! A layer is a tar archive of what it adds and changes (image-spec, layer.md). What it removes stands there as an empty
//! file `.wh.NAME`, and `.wh..wh..opq` says that a directory starts anew; overlayfs has its own signs for both, so they
//! are translated. The archive is read once, from front to end, and hashed on the way.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use tar::{Archive, Entry, EntryType};

use super::LayerError;
use super::digest::{Algorithm, Digest, Hashing};
use super::tree::{Metadata, Node, Tree};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS, whose signs these are, kept for itself.
const AUFS_OWN: &[u8] = b".wh..wh.";
const XATTR: &str = "SCHILY.xattr.";

/// How large a layer may grow: a small archive can unpack to any size.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in all files together, holes included.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
}

impl Default for Limits {
    /// More than any image in use, less than a bomb: 256 GiB in 16 million entries.
    fn default() -> Self {
        Self { bytes: 256 << 30, entries: 16 << 20 }
    }
}

/// What came of an archive.
#[derive(Debug)]
pub struct Unpacked {
    /// The digest of the archive's bytes: the layer's name, however it was compressed on its way.
    pub diff_id: Digest,
    /// Bytes in all its files.
    pub bytes: u64,
    /// Devices that an ordinary user could not make.
    pub skipped: Vec<PathBuf>,
}

/// Unpacks an archive into a directory that is there and empty. Nothing outside of it is touched, whatever the archive
/// says; what was written before an error remains in it.
pub fn unpack(archive: impl Read, into: &Path, limits: Limits) -> Result<Unpacked, LayerError> {
    unpack_as(archive, into, limits, Algorithm::Sha256)
}

/// The same, for an archive that may be packed by gzip or zstd.
pub fn unpack_packed(archive: impl Read + Send, into: &Path) -> Result<Unpacked, LayerError> {
    unpack(super::decompress(archive).map_err(LayerError::Read)?, into, Limits::default())
}

/// The same, for a layer whose name is a hash of this kind.
pub(super) fn unpack_as(
    archive: impl Read,
    into: &Path,
    limits: Limits,
    algorithm: Algorithm,
) -> Result<Unpacked, LayerError> {
    let mut tree =
        Tree::at(into).map_err(|source| LayerError::Place { path: into.to_owned(), source: source.into() })?;
    // Most archives say nothing of their root; without this it would have the time of its unpacking.
    let root = Metadata { mode: 0o755, uid: 0, gid: 0, modified: (0, 0), xattrs: Vec::new() };
    let placed = tree.directory(Path::new(""), root);
    placed.map_err(|source| LayerError::Place { path: into.to_owned(), source: source.into() })?;
    let mut unpacking = Unpacking { tree, placing: None, limits, entries: 0, bytes: 0, skipped: Vec::new() };
    let mut archive = Archive::new(Hashing::with(algorithm, archive));
    for entry in archive.entries().map_err(LayerError::Read)? {
        unpacking.entry(&mut entry.map_err(LayerError::Read)?)?;
    }
    let mut rest = archive.into_inner();
    // An archive ends with blocks of zeros that its reader leaves alone, and that its digest counts.
    io::copy(&mut rest, &mut io::sink()).map_err(LayerError::Read)?;
    let Unpacking { tree, bytes, skipped, .. } = unpacking;
    tree.finish().map_err(|source| LayerError::Place { path: into.to_owned(), source: source.into() })?;
    Ok(Unpacked { diff_id: rest.finish().1, bytes, skipped })
}

/// How an archive is placed that is no layer.
#[derive(Clone, Copy)]
pub(crate) struct Placing<'a> {
    /// Whose something shall be, by whose it is in the archive: user and group.
    pub(crate) owner: &'a (dyn Fn(u32, u32) -> (u32, u32) + Sync),
}

/// Places what an archive has in a directory that may have files already: names mean themselves there, none is a sign of a
/// layer. No directory gives way to a file, and no file to a directory.
pub(crate) fn place_archive(archive: impl Read, into: &Path, placing: Placing<'_>) -> Result<(), LayerError> {
    let failed = |errno: Errno| LayerError::Place { path: into.to_owned(), source: errno.into() };
    let tree = Tree::at(into).map_err(failed)?.gently();
    let limits = Limits { bytes: u64::MAX, entries: u64::MAX };
    let mut unpacking = Unpacking { tree, limits, placing: Some(placing), entries: 0, bytes: 0, skipped: Vec::new() };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(LayerError::Read)? {
        unpacking.entry(&mut entry.map_err(LayerError::Read)?)?;
    }
    // Whoever writes it shall be able to finish.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(LayerError::Read)?;
    unpacking.tree.finish().map_err(failed)
}

struct Unpacking<'a> {
    tree: Tree,
    placing: Option<Placing<'a>>,
    limits: Limits,
    entries: u64,
    bytes: u64,
    skipped: Vec<PathBuf>,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), LayerError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let path = inside(&entry.path_bytes())?;
        self.count(entry, kind, &path)?;
        if let Some(placing) = self.placing {
            // The directory itself was there before, and stays as it is.
            if path.as_os_str().is_empty() {
                return Ok(());
            }
            let mut metadata = metadata(entry, &path)?;
            (metadata.uid, metadata.gid) = (placing.owner)(metadata.uid, metadata.gid);
            return self.place(entry, kind, &path, metadata).map_err(|source| LayerError::Place { path, source });
        }
        if let Some(name) = path.file_name().filter(|name| name.as_bytes().starts_with(WHITEOUT)) {
            let parent = path.parent().unwrap_or(Path::new(""));
            return self.hide(parent, name).map_err(|source| LayerError::Place { path, source: source.into() });
        }
        let metadata = metadata(entry, &path)?;
        self.place(entry, kind, &path, metadata).map_err(|source| LayerError::Place { path, source })
    }

    fn count<R: Read>(&mut self, entry: &Entry<'_, R>, kind: EntryType, path: &Path) -> Result<(), LayerError> {
        self.entries += 1;
        if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            self.bytes = self.bytes.saturating_add(entry.size());
        }
        if self.entries > self.limits.entries || self.bytes > self.limits.bytes {
            return Err(LayerError::TooLarge { path: path.to_owned(), limits: self.limits });
        }
        Ok(())
    }

    fn place<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        kind: EntryType,
        path: &Path,
        metadata: Metadata,
    ) -> io::Result<()> {
        let device = |header: &tar::Header| -> io::Result<(u64, u64)> {
            let number = |number: Option<u32>| u64::from(number.unwrap_or(0));
            Ok((number(header.device_major()?), number(header.device_minor()?)))
        };
        let node = match kind {
            EntryType::Directory => return Ok(self.tree.directory(path, metadata)?),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.tree.file(path, entry, &metadata);
            }
            EntryType::Symlink => return Ok(self.tree.symlink(path, &link(entry)?, &metadata)?),
            EntryType::Link => {
                let target = inside(link(entry)?.as_bytes()).map_err(io::Error::other)?;
                return Ok(self.tree.hard_link(path, &target)?);
            }
            EntryType::Fifo => Node::Fifo,
            EntryType::Char => device(entry.header()).map(|(major, minor)| Node::Character(major, minor))?,
            EntryType::Block => device(entry.header()).map(|(major, minor)| Node::Block(major, minor))?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("an entry of kind {kind:?}"))),
        };
        if !self.tree.node(path, node, &metadata)? {
            self.skipped.push(path.to_owned());
        }
        Ok(())
    }

    fn hide(&mut self, parent: &Path, name: &OsStr) -> nix::Result<()> {
        match name.as_bytes() {
            OPAQUE => self.tree.opaque(parent),
            own if own.starts_with(AUFS_OWN) => Ok(()),
            name => match name.strip_prefix(WHITEOUT) {
                // `.wh.`, `.wh..` and `.wh...` would hide the directory itself, or the one above.
                None | Some(b"" | b"." | b"..") => Err(Errno::EINVAL),
                Some(hidden) => self.tree.whiteout(&parent.join(OsStr::from_bytes(hidden))),
            },
        }
    }
}

/// A path of an archive as one below the tree's root. A leading `/` or `./` means nothing there, as for tar(1).
fn inside(path: &[u8]) -> Result<PathBuf, LayerError> {
    let path = Path::new(OsStr::from_bytes(path));
    let refused = |reason| LayerError::Entry { path: path.to_owned(), reason };
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => plain.push(part),
            Component::ParentDir | Component::Prefix(_) => return Err(refused("`..` leads out of the layer")),
        }
    }
    Ok(plain)
}

fn link<R: Read>(entry: &Entry<'_, R>) -> io::Result<OsString> {
    let target =
        entry.link_name_bytes().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link to nothing"))?;
    Ok(OsString::from_vec(target.into_owned()))
}

/// What the header and its extensions (pax(1)) say about an entry.
fn metadata<R: Read>(entry: &mut Entry<'_, R>, path: &Path) -> Result<Metadata, LayerError> {
    let header = entry.header();
    let old = header.as_old();
    let mut metadata = Metadata {
        mode: number(&old.mode, || header.mode())?,
        uid: number(&old.uid, || header.uid())? as u32,
        gid: number(&old.gid, || header.gid())? as u32,
        modified: (number(&old.mtime, || header.mtime())? as i64, 0),
        xattrs: Vec::new(),
    };
    let Some(extensions) = entry.pax_extensions().map_err(LayerError::Read)? else { return Ok(metadata) };
    for extension in extensions {
        let extension = extension.map_err(LayerError::Read)?;
        let (Ok(key), Ok(value)) = (extension.key(), extension.value()) else {
            // Values need not be text; of those that concern us only attributes may be anything.
            if let Some(name) = extension.key_bytes().strip_prefix(XATTR.as_bytes()) {
                push_xattr(&mut metadata, name, extension.value_bytes(), path)?;
            }
            continue;
        };
        match key {
            "uid" => metadata.uid = value.parse().unwrap_or(metadata.uid),
            "gid" => metadata.gid = value.parse().unwrap_or(metadata.gid),
            "mtime" => metadata.modified = seconds(value).unwrap_or(metadata.modified),
            key => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    push_xattr(&mut metadata, name.as_bytes(), value.as_bytes(), path)?;
                }
            }
        }
    }
    Ok(metadata)
}

/// A number of a header. Some archivers leave a field empty for nought, and every engine reads it so.
fn number<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> Result<T, LayerError> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(T::default());
    }
    read().map_err(LayerError::Read)
}

fn push_xattr(metadata: &mut Metadata, name: &[u8], value: &[u8], path: &Path) -> Result<(), LayerError> {
    // With these a layer could tell overlayfs to look for a directory's content elsewhere.
    if [&b"trusted.overlay."[..], b"user.overlay."].iter().any(|prefix| name.starts_with(prefix)) {
        let reason = "an attribute of overlayfs itself has no place in a layer";
        return Err(LayerError::Entry { path: path.to_owned(), reason });
    }
    metadata.xattrs.push((OsStr::from_bytes(name).to_owned(), value.to_owned()));
    Ok(())
}

/// `SECONDS[.FRACTION]` as seconds and nanoseconds.
fn seconds(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (whole, nanoseconds): (i64, i64) = (whole.parse().ok()?, digits.parse().ok()?);
    // Before 1970 the fraction counts backwards; the kernel wants it forwards.
    match nanoseconds {
        0 => Some((whole, 0)),
        _ if text.starts_with('-') => Some((whole - 1, 1_000_000_000 - nanoseconds)),
        _ => Some((whole, nanoseconds)),
    }
}

#[cfg(test)]
mod tests;
