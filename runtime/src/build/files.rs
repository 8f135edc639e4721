//! Copying: which files, where to, whose they are then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, futimens, major, minor};
use nix::sys::time::TimeSpec;

use super::error::{BuildError, io_error};
use super::pattern::{Ignore, fits, is_pattern};
use super::remote::Fetched;
use crate::image::{Digest, ImageError, LayerError, Limits, Metadata, Node, Tree, decompress, unpack, xattrs};

/// What new folders above a copy may be used for.
const FOLDER_MODE: u32 = 0o755;

/// A COPY or ADD, all its variables replaced.
#[derive(Debug, Default)]
pub(super) struct Copier {
    pub(super) add: bool,
    pub(super) sources: Vec<String>,
    /// Files that are written in the Dockerfile: name and text.
    pub(super) documents: Vec<(String, String)>,
    /// Files that were fetched from elsewhere.
    pub(super) fetched: Vec<Fetched>,
    /// Absolute.
    pub(super) to: String,
    /// Whether the destination was written as a folder.
    pub(super) into_folder: bool,
    /// User and group.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    pub(super) exclude: Vec<String>,
    /// Whether files keep their owner: what comes from an image does.
    pub(super) keeps_owner: bool,
    pub(super) epoch: Option<u64>,
}

/// A file or folder that is copied.
struct Item {
    from: PathBuf,
    /// Below its source; empty for the source itself.
    below: PathBuf,
    found: fs::Metadata,
}

/// A source that was found.
struct Chosen {
    /// Where it lies, links followed.
    from: PathBuf,
    /// From the root that it was looked for in.
    path: PathBuf,
    items: Vec<Item>,
}

impl Copier {
    /// What tells one state of the sources from another.
    pub(super) fn digest(&self, root: &Path, ignore: &Ignore) -> Result<String, BuildError> {
        let mut all = String::new();
        for (name, text) in &self.documents {
            all.extend([name, "\n", &Digest::of(text.as_bytes()).to_string(), "\n"]);
        }
        for file in &self.fetched {
            all.extend([&file.name, "\n", &file.digest.to_string(), "\n"]);
        }
        for chosen in self.choose(root, ignore)? {
            for item in &chosen.items {
                let (kind, mode) = (item.found.mode() & libc::S_IFMT, item.found.mode() & 0o7777);
                let content = match kind {
                    libc::S_IFREG => digest_of(&item.from)?,
                    libc::S_IFLNK => fs::read_link(&item.from).unwrap_or_default().display().to_string(),
                    _ => item.found.rdev().to_string(),
                };
                let (path, below) = (chosen.path.display(), item.below.display());
                all.extend([format!("{path}\0{below}\0{kind:o} {mode:o} {content}\n")]);
            }
        }
        Ok(Digest::of(all.as_bytes()).to_string())
    }

    /// Copies from one tree to another. `scratch` is a folder to unpack in.
    pub(super) fn copy(&self, from: &Path, ignore: &Ignore, to: &Path, scratch: &Path) -> Result<(), BuildError> {
        let chosen = self.choose(from, ignore)?;
        let mut target = Target::at(to, self)?;
        let goal = PathBuf::from(self.to.trim_start_matches('/'));
        let folder = self.into_folder || goal.as_os_str().is_empty() || target.is_folder(&goal);
        if chosen.len() + self.documents.len() + self.fetched.len() > 1 && !folder {
            let problem = "more than one source goes there, so it must be a folder: end it with a slash";
            return Err(BuildError::Copy { path: self.to.clone(), problem });
        }
        let place = |name: &Path| if folder { goal.join(name) } else { goal.clone() };
        for (number, one) in chosen.iter().enumerate() {
            if self.add
                && one.items.first().is_some_and(|item| item.found.is_file())
                && let Some(unpacked) = unpack_archive(&one.from, &scratch.join(format!("unpacked-{number}")))?
            {
                let items = walk(&unpacked, Path::new(""), &Ignore::default(), &Ignore::default())?;
                target.keeps_owner = true;
                target.put_all(&items, &goal)?;
                target.keeps_owner = self.keeps_owner;
            } else if one.items.first().is_some_and(|item| item.found.is_dir()) {
                target.put_all(&one.items, &goal)?;
            } else {
                let name = one.path.file_name().map(PathBuf::from).unwrap_or_default();
                target.put_all(&one.items, &place(&name))?;
            }
        }
        for (name, text) in &self.documents {
            target.document(text, &place(Path::new(name)))?;
        }
        for file in &self.fetched {
            if folder && file.name.is_empty() {
                let problem = "the address ends with no name for its file: say one, not a folder";
                return Err(BuildError::Copy { path: self.to.clone(), problem });
            }
            target.fetched(file, &place(Path::new(&file.name)))?;
        }
        target.finish()
    }

    /// Makes a folder where none is.
    pub(super) fn folder(root: &Path, path: &str) -> Result<(), BuildError> {
        let nothing = Self { to: path.to_owned(), into_folder: true, ..Self::default() };
        let mut target = Target::at(root, &nothing)?;
        target.make(Path::new(path.trim_start_matches('/')))?;
        target.finish()
    }

    fn choose(&self, root: &Path, ignore: &Ignore) -> Result<Vec<Chosen>, BuildError> {
        let exclude = Ignore::of(self.exclude.iter().map(String::as_str));
        let mut all = Vec::new();
        for source in &self.sources {
            if source.contains("://") || source.starts_with("git@") {
                let problem = "only ADD takes addresses, and of http and https only: fetch others in a RUN";
                return Err(BuildError::Copy { path: source.clone(), problem });
            }
            let mut some = false;
            for path in expand(root, source)? {
                let Some(from) = resolve(root, &path)? else { continue };
                let items = walk(&from, &path, ignore, &exclude)?;
                if !items.is_empty() {
                    some = true;
                    all.push(Chosen { from, path, items });
                }
            }
            if !some {
                let place = if self.keeps_owner { "that image".to_owned() } else { root.display().to_string() };
                return Err(BuildError::NoSource { source_path: source.clone(), place });
            }
        }
        Ok(all)
    }
}

/// Whether a part of a path is a name.
pub(super) fn is_normal(part: &Component<'_>) -> bool {
    matches!(part, Component::Normal(_))
}

/// The paths that a source stands for, below the root.
fn expand(root: &Path, source: &str) -> Result<Vec<PathBuf>, BuildError> {
    let mut found = vec![PathBuf::new()];
    for part in Path::new(source).components() {
        match part {
            Component::Normal(name) => {
                let pattern = name.to_string_lossy();
                if !is_pattern(&pattern) {
                    for path in &mut found {
                        path.push(name);
                    }
                    continue;
                }
                let mut next = Vec::new();
                for folder in &found {
                    let Some(place) = resolve(root, folder)?.filter(|place| place.is_dir()) else { continue };
                    let names = names(&place)?;
                    next.extend(
                        names.iter().filter(|name| fits(&pattern, Path::new(name))).map(|name| folder.join(name)),
                    );
                }
                found = next;
            }
            // Above the root there is nothing: `..` ends there.
            Component::ParentDir => {
                for path in &mut found {
                    path.pop();
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(found)
}

/// Where a path leads, links followed as if the root were the whole file system; nothing where it leads nowhere.
pub(super) fn resolve(root: &Path, path: &Path) -> Result<Option<PathBuf>, BuildError> {
    let failed = |errno: Errno| io_error("look for", path)(errno.into());
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let base = openat(AT_FDCWD, root, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(failed)?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match openat2(&base, path, in_root(flags)) {
        Ok(found) => {
            let link = format!("/proc/self/fd/{}", found.as_raw_fd());
            fs::read_link(&link).map(Some).map_err(io_error("read", link))
        }
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

fn in_root(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// A source and all that is in it, folders before what they hold, names in order. Links in it are not followed.
fn walk(from: &Path, path: &Path, ignore: &Ignore, exclude: &Ignore) -> Result<Vec<Item>, BuildError> {
    let mut items = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let place = from.join(&below);
        // Joining nothing would add a slash, and the last part be followed.
        let place = if below.as_os_str().is_empty() { from.to_owned() } else { place };
        let found = place.symlink_metadata().map_err(io_error("look at", &place))?;
        let whole = path.join(&below);
        let hidden = ignore.hides(&whole) || exclude.hides(&whole);
        if found.is_dir() && (!hidden || ignore.has_exceptions()) {
            open.extend(names(&place)?.into_iter().rev().map(|name| below.join(name)));
        }
        if !hidden {
            items.push(Item { from: place, below, found });
        }
    }
    Ok(items)
}

/// The names in a folder, in order.
pub(super) fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, BuildError> {
    let read = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    let mut names: Vec<_> = read.map_err(io_error("read", folder))?;
    names.sort();
    Ok(names)
}

fn digest_of(path: &Path) -> Result<String, BuildError> {
    let mut out = crate::image::Hashing::new(io::sink());
    let mut file = File::open(path).map_err(io_error("read", path))?;
    io::copy(&mut file, &mut out).map_err(io_error("read", path))?;
    Ok(out.finish().1.to_string())
}

/// Unpacks a file that is an archive; nothing for one that is none.
fn unpack_archive(path: &Path, to: &Path) -> Result<Option<PathBuf>, BuildError> {
    let open = || File::open(path).map_err(io_error("read", path));
    let unreadable = |error| BuildError::Image(ImageError::Layer(LayerError::Read(error)));
    let mut head = [0_u8; 512];
    let reads = |head: &mut [u8]| io::Read::read_exact(&mut decompress(open().ok()?).ok()?, head).ok();
    // Both kinds of tar have these letters there (tar(5)).
    if reads(&mut head).is_none() || head.get(257..262) != Some(b"ustar") {
        return Ok(None);
    }
    fs::create_dir(to).map_err(io_error("make", to))?;
    let archive = decompress(open()?).map_err(unreadable)?;
    unpack(archive, to, Limits::default()).map_err(ImageError::from)?;
    Ok(Some(to.to_owned()))
}

/// The tree that is copied to.
struct Target<'a> {
    root: OwnedFd,
    tree: Tree,
    copier: &'a Copier,
    keeps_owner: bool,
    /// Folders that were there: what is put into them must not change their times.
    kept: BTreeMap<PathBuf, (OwnedFd, TimeSpec)>,
}

impl<'a> Target<'a> {
    fn at(path: &Path, copier: &'a Copier) -> Result<Self, BuildError> {
        let failed = |errno: Errno| io_error("open", path)(errno.into());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(failed)?;
        let tree = Tree::at(path).map_err(failed)?;
        Ok(Self { root, tree, copier, keeps_owner: copier.keeps_owner, kept: BTreeMap::new() })
    }

    /// A folder that is there, whatever links lead to it.
    fn folder(&self, path: &Path) -> Option<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, in_root(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)).ok()
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.folder(path).is_some()
    }

    /// Makes a folder and those above it, where they are not there; notes the times of those that are.
    fn make(&mut self, path: &Path) -> Result<(), BuildError> {
        let (uid, gid) = self.copier.owner.unwrap_or((0, 0));
        let modified = (self.copier.epoch.and_then(|epoch| epoch.try_into().ok()).unwrap_or(0), 0);
        self.folder_with(path, Metadata { mode: FOLDER_MODE, uid, gid, modified, xattrs: Vec::new() })
    }

    fn folder_with(&mut self, path: &Path, metadata: Metadata) -> Result<(), BuildError> {
        if self.kept.contains_key(path) {
            return Ok(());
        }
        if let Some(folder) = self.folder(path) {
            let stat = nix::sys::stat::fstat(&folder).map_err(|errno| io_error("look at", path)(errno.into()))?;
            self.kept.insert(path.to_owned(), (folder, TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)));
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make(parent)?;
        }
        self.tree.directory(path, metadata).map_err(|errno| io_error("make", path)(errno.into()))
    }

    fn put_all(&mut self, items: &[Item], to: &Path) -> Result<(), BuildError> {
        for item in items {
            let place = if item.below.as_os_str().is_empty() { to.to_owned() } else { to.join(&item.below) };
            self.put(item, &place)?;
        }
        Ok(())
    }

    fn put(&mut self, item: &Item, to: &Path) -> Result<(), BuildError> {
        let metadata = self.describe(item);
        if item.found.is_dir() {
            return self.folder_with(to, metadata);
        }
        self.ready(to)?;
        let failed = |errno: Errno| io_error("write", Path::new("/").join(to))(errno.into());
        let kind = item.found.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(&item.from).map_err(io_error("read", &item.from))?;
            return self.tree.symlink(to, target.as_os_str(), &metadata).map_err(failed);
        }
        if kind.is_file() {
            let mut file = File::open(&item.from).map_err(io_error("read", &item.from))?;
            let written = self.tree.file(to, &mut file, &metadata);
            return written.map_err(io_error("write", Path::new("/").join(to)));
        }
        let device = item.found.rdev();
        let node = match () {
            () if kind.is_fifo() => Node::Fifo,
            () if kind.is_block_device() => Node::Block(major(device), minor(device)),
            () if kind.is_char_device() => Node::Character(major(device), minor(device)),
            // A socket means nothing without who listens.
            () => return Ok(()),
        };
        self.tree.node(to, node, &metadata).map(drop).map_err(failed)
    }

    fn document(&mut self, text: &str, to: &Path) -> Result<(), BuildError> {
        self.ready(to)?;
        let (uid, gid) = self.copier.owner.unwrap_or((0, 0));
        let modified = (self.copier.epoch.and_then(|epoch| epoch.try_into().ok()).unwrap_or(0), 0);
        let mode = self.copier.mode.unwrap_or(0o644);
        let metadata = Metadata { mode, uid, gid, modified, xattrs: Vec::new() };
        let written = self.tree.file(to, &mut text.as_bytes(), &metadata);
        written.map_err(io_error("write", Path::new("/").join(to)))
    }

    /// A fetched file, which is for its owner only, where nothing else is said, as docker has it.
    fn fetched(&mut self, fetched: &Fetched, to: &Path) -> Result<(), BuildError> {
        self.ready(to)?;
        let (uid, gid) = self.copier.owner.unwrap_or((0, 0));
        let latest = self.copier.epoch.and_then(|epoch| i64::try_from(epoch).ok()).unwrap_or(i64::MAX);
        let modified = (fetched.modified.unwrap_or(0).min(latest), 0);
        let metadata = Metadata { mode: self.copier.mode.unwrap_or(0o600), uid, gid, modified, xattrs: Vec::new() };
        let mut file = File::open(&fetched.path).map_err(io_error("read", &fetched.path))?;
        let written = self.tree.file(to, &mut file, &metadata);
        written.map_err(io_error("write", Path::new("/").join(to)))
    }

    /// Makes what is above a new file, and refuses to put it in a folder's place.
    fn ready(&mut self, to: &Path) -> Result<(), BuildError> {
        let parent = to.parent().unwrap_or(Path::new(""));
        self.make(parent)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        if openat2(&self.root, to, in_root(flags)).is_ok() {
            let problem = "it is a folder in the image, and a file would take its place";
            return Err(BuildError::Copy { path: format!("/{}", to.display()), problem });
        }
        Ok(())
    }

    fn describe(&self, item: &Item) -> Metadata {
        let own = if self.keeps_owner { (item.found.uid(), item.found.gid()) } else { (0, 0) };
        let (uid, gid) = self.copier.owner.unwrap_or(own);
        let mode = self.copier.mode.filter(|_| !item.found.is_symlink()).unwrap_or(item.found.mode() & 0o7777);
        // The host's own attributes are the host's; those of an image belong to its files.
        let attributes = if self.keeps_owner { xattrs(item.from.as_os_str()).unwrap_or_default() } else { Vec::new() };
        let own = |name: &std::ffi::OsString| !name.to_string_lossy().contains(".overlay.");
        let xattrs = attributes.into_iter().filter(|(name, _)| own(name)).collect();
        Metadata { mode, uid, gid, modified: (item.found.mtime(), item.found.mtime_nsec()), xattrs }
    }

    fn finish(self) -> Result<(), BuildError> {
        self.tree.finish().map_err(|errno| io_error("finish", &self.copier.to)(errno.into()))?;
        for (path, (folder, time)) in self.kept {
            let now = nix::sys::stat::fstat(&folder).map_err(|errno| io_error("look at", &path)(errno.into()))?;
            // Only where it changed: to set a time would bring an untouched folder into the layer.
            if (now.st_mtime, now.st_mtime_nsec) != (time.tv_sec(), time.tv_nsec()) {
                futimens(&folder, &time, &time).map_err(|errno| io_error("change", &path)(errno.into()))?;
            }
        }
        Ok(())
    }
}
