//! The registry's folder.
//!
//! ```text
//! ROOT/blobs/ALGORITHM/HEX                             everything, once, by its digest, as in an OCI image layout
//! ROOT/repositories/NAME/_blobs/ALGORITHM/HEX          empty: this repository has that blob
//! ROOT/repositories/NAME/_manifests/ALGORITHM/HEX      the media type that this manifest was pushed with
//! ROOT/repositories/NAME/_tags/TAG                     the digest of a manifest
//! ROOT/repositories/NAME/_referrers/ALGORITHM/HEX/DIGEST   what refers to a manifest: its descriptor
//! ROOT/repositories/NAME/_uploads/ID                   what has arrived of a blob
//! ```
//!
//! There is no database. Each of these files is written under another name, synced and renamed, and in an order in which
//! a registry that is killed between any two steps has nothing that names what is not there: the blob, then who has it,
//! then the tag; and the other way round when something is removed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use super::names::{Name, is_tag};
use crate::image::{Algorithm, Digest};

/// What the names of files begin with that are not finished. No tag and no digest begins so.
const UNFINISHED: &str = ".tmp-";

/// The folder, and who changes it.
#[derive(Debug)]
pub(super) struct Storage {
    root: PathBuf,
    /// One change of links at a time: a tag must not be set to a manifest that is just being removed.
    changing: Mutex<()>,
    next: AtomicU64,
}

/// A manifest as it was pushed.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

impl Storage {
    /// Opens a folder, and makes what is missing of it.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        for algorithm in Algorithm::ALL {
            fs::create_dir_all(root.join("blobs").join(algorithm.name()))?;
        }
        fs::create_dir_all(root.join("repositories"))?;
        Ok(Self::existing(root))
    }

    /// A folder that is there already, for those who only read.
    pub(super) fn existing(root: &Path) -> Self {
        Self { root: root.to_owned(), changing: Mutex::new(()), next: AtomicU64::new(0) }
    }

    /// Says that the folder is in use until the answer is dropped: shared by those who serve it, alone for who removes
    /// from it. `None` where others are in the way.
    pub(super) fn claim(root: &Path, alone: bool) -> io::Result<Option<Flock<File>>> {
        let file = File::create(root.join("lock"))?;
        let how = if alone { FlockArg::LockExclusiveNonblock } else { FlockArg::LockSharedNonblock };
        match Flock::lock(file, how) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Where a blob lies, or would.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Where an upload's bytes lie.
    pub(super) fn upload_path(&self, name: &Name, id: &str) -> PathBuf {
        self.folder(name).join("_uploads").join(id)
    }

    /// Whether anything was ever pushed there.
    pub(super) fn knows(&self, name: &Name) -> bool {
        ["_manifests", "_blobs"].iter().any(|kind| self.folder(name).join(kind).is_dir())
    }

    /// Opens a blob of a repository.
    pub(super) fn blob(&self, name: &Name, digest: &Digest) -> io::Result<Option<File>> {
        if !self.link(name, "_blobs", digest).exists() {
            return Ok(None);
        }
        present(File::open(self.blob_path(digest)))
    }

    /// Whether any repository has a blob. That its bytes are still here is not enough: they stay until garbage is collected.
    pub(super) fn has(&self, digest: &Digest) -> io::Result<bool> {
        if !self.blob_path(digest).exists() {
            return Ok(false);
        }
        Ok(self.repositories()?.iter().any(|name| self.link(name, "_blobs", digest).exists()))
    }

    /// Gives a complete file its place as a blob of a repository.
    pub(super) fn adopt(&self, name: &Name, digest: &Digest, complete: &Path) -> io::Result<()> {
        File::open(complete)?.sync_all()?;
        let path = self.blob_path(digest);
        fs::rename(complete, &path)?;
        sync_parent(&path)?;
        self.mount(name, digest)
    }

    /// Lets a repository have a blob that the registry has.
    pub(super) fn mount(&self, name: &Name, digest: &Digest) -> io::Result<()> {
        self.write(&self.link(name, "_blobs", digest), b"")
    }

    /// Takes a blob from a repository. Its bytes stay until garbage is collected: others may have it too.
    pub(super) fn remove_blob(&self, name: &Name, digest: &Digest) -> io::Result<bool> {
        remove(&self.link(name, "_blobs", digest))
    }

    /// A manifest of a repository.
    pub(super) fn manifest(&self, name: &Name, digest: &Digest) -> io::Result<Option<Manifest>> {
        let Some(media_type) = present(fs::read_to_string(self.link(name, "_manifests", digest)))? else {
            return Ok(None);
        };
        let bytes = present(fs::read(self.blob_path(digest)))?;
        Ok(bytes.map(|bytes| Manifest { digest: *digest, media_type, bytes }))
    }

    /// Keeps a manifest, what it says about another (the other's digest, and its own descriptor), and its tags; if `wanted`
    /// agrees to what is now at `tag`, or by the manifest's own digest. Answers whether it did.
    pub(super) fn put_manifest(
        &self,
        name: &Name,
        manifest: &Manifest,
        refers: Option<(&Digest, &[u8])>,
        tags: &[&str],
        tag: Option<&str>,
        wanted: &dyn Fn(Option<Digest>) -> bool,
    ) -> io::Result<bool> {
        let digest = &manifest.digest;
        self.write(&self.blob_path(digest), &manifest.bytes)?;
        let _changing = self.changing();
        let now = match tag {
            Some(tag) => self.tag(name, tag)?,
            None => Some(*digest).filter(|digest| self.link(name, "_manifests", digest).exists()),
        };
        if !wanted(now) {
            return Ok(false);
        }
        if let Some((subject, descriptor)) = refers {
            self.write(&self.referrers_folder(name, subject).join(digest.to_string()), descriptor)?;
        }
        self.write(&self.link(name, "_manifests", digest), manifest.media_type.as_bytes())?;
        tags.iter().try_for_each(|tag| self.write(&self.tag_path(name, tag), digest.to_string().as_bytes()))?;
        Ok(true)
    }

    /// Removes a manifest, its tags, and what it says about `subject`.
    pub(super) fn remove_manifest(&self, name: &Name, digest: &Digest, subject: Option<&Digest>) -> io::Result<bool> {
        let _changing = self.changing();
        for tag in self.tags(name)? {
            if self.tag(name, &tag)?.as_ref() == Some(digest) {
                remove(&self.tag_path(name, &tag))?;
            }
        }
        let removed = remove(&self.link(name, "_manifests", digest))?;
        if let Some(subject) = subject {
            remove(&self.referrers_folder(name, subject).join(digest.to_string()))?;
        }
        Ok(removed)
    }

    /// What a tag stands for.
    pub(super) fn tag(&self, name: &Name, tag: &str) -> io::Result<Option<Digest>> {
        if !is_tag(tag) {
            return Ok(None);
        }
        let text = present(fs::read_to_string(self.tag_path(name, tag)))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Removes a tag; its manifest stays.
    pub(super) fn remove_tag(&self, name: &Name, tag: &str) -> io::Result<bool> {
        let _changing = self.changing();
        Ok(is_tag(tag) && remove(&self.tag_path(name, tag))?)
    }

    /// The tags of a repository, in the order of their bytes.
    pub(super) fn tags(&self, name: &Name) -> io::Result<BTreeSet<String>> {
        Ok(entries(&self.folder(name).join("_tags"))?.into_iter().filter(|name| is_tag(name)).collect())
    }

    /// The descriptors of what refers to a manifest, in the order of their digests.
    pub(super) fn referrers(&self, name: &Name, subject: &Digest) -> io::Result<Vec<(Digest, Vec<u8>)>> {
        let folder = self.referrers_folder(name, subject);
        let mut found = Vec::new();
        for digest in entries(&folder)?.into_iter().filter_map(|entry| entry.parse::<Digest>().ok()) {
            // Written before the manifest is known, and removed after: whoever is killed between leaves one too many.
            if self.link(name, "_manifests", &digest).exists()
                && let Some(descriptor) = present(fs::read(folder.join(digest.to_string())))?
            {
                found.push((digest, descriptor));
            }
        }
        Ok(found)
    }

    /// The digests that a repository has of a kind: `_blobs` or `_manifests`.
    pub(super) fn links(&self, name: &Name, kind: &str) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            let hexes = entries(&self.folder(name).join(kind).join(algorithm.name()))?;
            found.extend(hexes.iter().filter_map(|hex| format!("{algorithm}:{hex}").parse::<Digest>().ok()));
        }
        Ok(found)
    }

    /// All repositories, in the order of their names.
    pub(super) fn repositories(&self) -> io::Result<Vec<Name>> {
        self.named(|name| self.knows(name))
    }

    /// Those to which uploads have begun, of which nothing need have come.
    pub(super) fn uploaded_to(&self) -> io::Result<Vec<Name>> {
        self.named(|name| self.folder(name).join("_uploads").is_dir())
    }

    fn named(&self, wanted: impl Fn(&Name) -> bool) -> io::Result<Vec<Name>> {
        let (top, mut found, mut folders) = (self.root.join("repositories"), BTreeSet::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            for entry in entries(&top.join(&folder))? {
                let path = if folder.is_empty() { entry.clone() } else { format!("{folder}/{entry}") };
                if let Some(name) = Name::parse(&path) {
                    if wanted(&name) {
                        found.insert(name);
                    }
                    folders.push(path);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The registry's folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A repository's folder.
    pub(super) fn folder(&self, name: &Name) -> PathBuf {
        name.folder(&self.root.join("repositories"))
    }

    fn link(&self, name: &Name, kind: &str, digest: &Digest) -> PathBuf {
        self.folder(name).join(kind).join(digest.algorithm().name()).join(digest.hex())
    }

    fn tag_path(&self, name: &Name, tag: &str) -> PathBuf {
        self.folder(name).join("_tags").join(tag)
    }

    fn referrers_folder(&self, name: &Name, subject: &Digest) -> PathBuf {
        self.link(name, "_referrers", subject)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a file whole, and makes it last.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = folder.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        let written = written.and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            // That failure is what the caller has to hear of, not this one.
            drop(fs::remove_file(&unfinished));
        }
        written.and_then(|()| sync_parent(path))
    }
}

/// Whether a file's name is one that a write was killed under.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED)
}

/// The names in a folder; none where there is no such folder.
pub(super) fn entries(folder: &Path) -> io::Result<BTreeSet<String>> {
    let Some(listing) = present(fs::read_dir(folder))? else { return Ok(BTreeSet::new()) };
    listing.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Removes a file. Answers whether there was one.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match present(fs::remove_file(path))? {
        Some(()) => sync_parent(path).map(|()| true),
        None => Ok(false),
    }
}

/// Makes a missing file an answer instead of an error.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A rename is a change of the folder, which has to last too.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
