//! Making a layer: from a list of files to an archive that is the same, byte for byte, wherever it is made.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::LayerError;

/// A layer to be made.
#[derive(Debug, Clone)]
pub struct LayerContent {
    /// What made it, as `history` shows it.
    pub created_by: String,
    /// Its files, in any order.
    pub entries: Vec<Entry>,
}

/// A file of a layer. All belong to root; none has a time.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where, from the root of the file system, without a leading slash.
    pub path: PathBuf,
    /// The permission bits.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// What a file of a layer is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A directory.
    Directory,
    /// A file with these bytes.
    Bytes(Cow<'static, [u8]>),
    /// A file with the bytes of one that is on the host.
    Copy(PathBuf),
    /// A symbolic link.
    Link(PathBuf),
}

impl Entry {
    /// A directory.
    pub fn directory(path: impl Into<PathBuf>, mode: u32) -> Self {
        Self { path: path.into(), mode, content: Content::Directory }
    }

    /// A file with given bytes.
    pub fn file(path: impl Into<PathBuf>, mode: u32, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { path: path.into(), mode, content: Content::Bytes(bytes.into()) }
    }

    /// A file with the bytes of one on the host.
    pub fn copy(path: impl Into<PathBuf>, mode: u32, of: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode, content: Content::Copy(of.into()) }
    }
}

impl LayerContent {
    /// Writes the archive. The order of the entries, owners and times are always the same, so that equal content has an
    /// equal digest.
    pub fn write(&self, out: impl Write) -> Result<(), LayerError> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut archive = Builder::new(out);
        for entry in entries {
            append(&mut archive, entry).map_err(|source| LayerError::Write { path: entry.path.clone(), source })?;
        }
        let finished = archive.into_inner().and_then(|mut out| out.flush());
        finished.map_err(|source| LayerError::Write { path: PathBuf::new(), source })
    }
}

fn append(archive: &mut Builder<impl Write>, entry: &Entry) -> io::Result<()> {
    match &entry.content {
        Content::Directory => {
            let mut name = entry.path.as_os_str().to_owned();
            // An archive tells a directory by a slash at its end, too.
            name.push(OsStr::new("/"));
            archive.append_data(&mut header(entry, EntryType::Directory, 0), Path::new(&name), io::empty())
        }
        Content::Bytes(bytes) => {
            archive.append_data(&mut header(entry, EntryType::Regular, bytes.len() as u64), &entry.path, bytes.as_ref())
        }
        Content::Copy(of) => {
            let file = File::open(of)?;
            let size = file.metadata()?.size();
            // A file that grows meanwhile is taken as long as it was; one that shrinks is an error.
            let mut content = Exactly { left: size, file };
            archive.append_data(&mut header(entry, EntryType::Regular, size), &entry.path, &mut content)
        }
        Content::Link(target) => archive.append_link(&mut header(entry, EntryType::Symlink, 0), &entry.path, target),
    }
}

fn header(entry: &Entry, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// So many bytes of a file, no fewer.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&mut self.file).take(self.left).read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
