//! Copies between the host and a container, which may run or not.
//!
//! Both ends are a tree of files, and what goes between them is an archive, which can also come from a pipe or go into one.
//! The rules of what a path means at the far end are docker's (`docker cp`).

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::unistd::{getegid, geteuid};
use tracing::info_span;

use super::error::EngineError;
use super::ground::{Ground, Standing, path_of};
use super::record::Record;
use super::{Engine, Mount, State, Users};
use crate::build::{Merged, own_mounts};
use crate::container::become_root_of;
use crate::image::{LayerError, Metadata, Placing, Tree, archive_at, place_archive};

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A path in a container, by its name or id.
    Container(String, PathBuf),
    /// A path of the host.
    Host(PathBuf),
    /// Standard input or output, as an archive.
    Pipe,
}

impl End {
    /// Reads `CONTAINER:PATH`, `PATH` or `-`. A path with a colon in it begins with `/` or `.`.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Pipe,
            Some((name, path)) if !name.is_empty() && !text.starts_with(['/', '.']) => {
                Self::Container(name.to_owned(), Path::new("/").join(path))
            }
            _ => Self::Host(text.into()),
        }
    }
}

/// How a copy is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Whether owners are kept; else the copies belong to root in a container, to the calling user on the host.
    pub owners: bool,
    /// Whether a link is followed where it is what is to be copied.
    pub follow: bool,
}

/// Why something could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Both ends are on the host, or both in containers.
    #[error("of the two ends of a copy one is in a container")]
    Ends,
    /// Nothing is at the near end.
    #[error("there is nothing at {}", path.display())]
    Nothing {
        /// The path.
        path: PathBuf,
    },
    /// A path that ends with a slash is no folder.
    #[error("{} is not a folder", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// A folder onto a file.
    #[error("cannot copy a folder onto {}, which is a file", path.display())]
    OntoFile {
        /// The path.
        path: PathBuf,
    },
    /// What others talk through would be gone: a copy takes the place of what was there.
    #[error("cannot copy onto {}, which is a device, a pipe or a socket", path.display())]
    OntoSpecial {
        /// The path.
        path: PathBuf,
    },
    /// The folder that something shall lie in is not there.
    #[error("cannot find the folder of {}", path.display())]
    NoParent {
        /// The path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The files could not be read.
    #[error("cannot copy from {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// What went wrong.
        source: crate::image::LayerError,
    },
    /// The files could not be written.
    #[error("cannot copy to {}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// What went wrong.
        source: crate::image::LayerError,
    },
    /// The container's tree could not be had.
    #[error("cannot open the files of container {name}")]
    Open {
        /// The container.
        name: String,
        /// What the system answered.
        source: io::Error,
    },
}

/// An opened tree, and what it stands on.
struct Opened {
    ground: Ground,
    /// By whose numbers its files are seen to belong to somebody.
    users: Users,
    /// Of a container that does not run: its layers, mounted for this process alone.
    _merged: Option<Merged>,
}

impl Engine {
    /// Copies from one end to the other. `input` and `output` are what [`End::Pipe`] means. The process must have one
    /// thread: of a container that does not run, the files are mounted for it alone.
    pub fn copy(
        &self,
        from: &End,
        to: &End,
        options: CopyOptions,
        input: &mut (dyn Read + Send),
        output: &mut (dyn Write + Send),
    ) -> Result<(), EngineError> {
        let _span = info_span!(
            "engine.copy",
            call = "openat2(RESOLVE_IN_ROOT)",
            why = "a path in a container is looked up as a process in it would: no link in it can lead to the host's files"
        )
        .entered();
        let in_container = |end: &End| matches!(end, End::Container(..));
        if in_container(from) == in_container(to) {
            return Err(CopyError::Ends.into());
        }
        let (near, far) = (self.open_end(from)?, self.open_end(to)?);
        let (there, here) = (near.users, far.users);
        let owner = |uid, gid| match to {
            _ if options.owners => (here.outside(uid), here.outside(gid)),
            End::Container(..) => (here.outside(0), here.outside(0)),
            _ => (geteuid().as_raw(), getegid().as_raw()),
        };
        let placing = Placing { owner: &owner };
        match (from, to) {
            (End::Pipe, End::Container(_, path) | End::Host(path)) => {
                let folder = far.ground.folder(path).map_err(|_| CopyError::NoFolder { path: path.clone() })?;
                let placed = as_root_of(here, || place_archive(input, &path_of(&folder), placing));
                Ok(placed.map_err(|source| CopyError::Write { path: path.clone(), source })?)
            }
            (End::Container(_, path) | End::Host(path), End::Pipe) => {
                let source = Source::find(&near.ground, path, options.follow)?;
                Ok(source.write(&source.name, there, output)?)
            }
            (End::Container(_, path) | End::Host(path), End::Container(_, target) | End::Host(target)) => {
                let source = Source::find(&near.ground, path, options.follow)?;
                let (folder, name) = place(&far.ground, target, &source)?;
                Ok(source.copy(there, &folder, &name, target, (here, placing))?)
            }
            (End::Pipe, End::Pipe) => Err(CopyError::Ends.into()),
        }
    }

    fn open_end(&self, end: &End) -> Result<Opened, EngineError> {
        let host = || Ground::at(Path::new("/")).map(|ground| Opened { ground, users: Users::Host, _merged: None });
        let End::Container(name, _) = end else {
            return Ok(host().map_err(|source| CopyError::Open { name: "/".to_owned(), source })?);
        };
        let record = self.find(name)?;
        let failed = |source| CopyError::Open { name: record.name.clone(), source };
        let running = record.life.running.as_ref();
        if let (true, Some(running)) = (self.state(&record)?.is_up(), running) {
            let ground = Ground::at(&PathBuf::from(format!("/proc/{}/root", running.init.pid))).map_err(failed)?;
            // The number could have become another process's before it was opened.
            if running.init.is_alive() {
                return Ok(Opened { ground, users: record.wishes.users, _merged: None });
            }
        }
        match self.state(&record)? {
            State::Created | State::Exited | State::Restarting => self.mount_stopped(&record),
            state => Err(super::control::unfit("copy files of", &record, state)),
        }
    }

    /// The tree of a container that does not run, mounted where only this process sees it, with its volumes.
    fn mount_stopped(&self, record: &Record) -> Result<Opened, EngineError> {
        let failed = |source| CopyError::Open { name: record.name.clone(), source };
        let place = self.place(record);
        place.renew()?;
        let layers = self.layers(record)?;
        let lower = if layers.is_empty() { vec![place.empty.clone()] } else { layers };
        let mounted = own_mounts()
            .and_then(|()| Merged::writable(&lower, &place.upper, &place.work, &place.folder().join("root")));
        let merged = mounted.map_err(|error| failed(io::Error::other(error)))?;
        let ground = Ground::at(merged.root()).map_err(failed)?;
        for bind in &record.wishes.mounts {
            if !matches!(ground.look(&bind.to, true), Ok((Standing::Folder | Standing::File | Standing::Special, ..))) {
                make_place(merged.root(), bind).map_err(failed)?;
            }
            let (_, folder, name) = ground.look(&bind.to, true).map_err(failed)?;
            let at = path_of(&folder).join(&name);
            let bound = mount(Some(&bind.from), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>);
            bound.map_err(|errno| failed(errno.into()))?;
        }
        Ok(Opened { ground, users: Users::Host, _merged: Some(merged) })
    }
}

/// Places files as a container's root does, where that is another than the host's: only so they have an owner in there. In a
/// thread of its own: who it is for files is a matter of each thread (setfsuid(2)).
fn as_root_of(users: Users, place: impl FnOnce() -> Result<(), LayerError> + Send) -> Result<(), LayerError> {
    let Some(root) = users.root() else { return place() };
    std::thread::scope(|scope| {
        let placing = scope.spawn(|| {
            let path = || PathBuf::from("the files of the container's root");
            become_root_of(root, root).map_err(|errno| LayerError::Place { path: path(), source: errno.into() })?;
            place()
        });
        placing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a place to mount on, as the container's start would.
fn make_place(root: &Path, bind: &Mount) -> io::Result<()> {
    let place = bind.to.strip_prefix("/").unwrap_or(&bind.to);
    let mut tree = Tree::at(root)?.gently();
    if bind.from.is_dir() {
        tree.directory(place, Metadata { mode: 0o755, ..Metadata::default() })?;
    } else {
        tree.file(place, &mut io::empty(), &Metadata { mode: 0o644, ..Metadata::default() })?;
    }
    Ok(tree.finish()?)
}

/// What is copied.
struct Source {
    folder: std::os::fd::OwnedFd,
    /// In that folder.
    entry: OsString,
    /// What it is called in the archive; empty where only what is in it is meant.
    name: OsString,
    is_folder: bool,
    path: PathBuf,
}

impl Source {
    fn find(ground: &Ground, path: &Path, follow: bool) -> Result<Self, CopyError> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let slash = ends_with(path, b"/") || ends_with(path, b"/.");
        let missing = |_| CopyError::Nothing { path: path.to_owned() };
        let (standing, folder, entry) = ground.look(&absolute, follow || slash).map_err(missing)?;
        let is_folder = standing == Standing::Folder;
        match standing {
            Standing::Nothing => return Err(CopyError::Nothing { path: path.to_owned() }),
            Standing::File | Standing::Special if slash => return Err(CopyError::NoFolder { path: path.to_owned() }),
            _ => {}
        }
        let contents = ends_with(path, b"/.") || path == Path::new(".") || absolute == Path::new("/");
        let name = match absolute.file_name() {
            Some(name) if !contents => name.to_owned(),
            _ => OsString::new(),
        };
        Ok(Self { folder, entry, name, is_folder, path: path.to_owned() })
    }

    /// Writes it as an archive, under a name; owners are told as `users` know them.
    fn write(&self, name: &OsStr, users: Users, out: &mut (dyn Write + Send)) -> Result<(), CopyError> {
        let written = archive_at(&self.folder, &self.entry, Path::new(name), &|number| users.inside(number), out);
        written.map_err(|source| CopyError::Read { path: self.path.clone(), source })
    }

    /// Copies it into a folder, under a name; what is written by one thread is placed by the other.
    fn copy(
        &self,
        there: Users,
        folder: &std::os::fd::OwnedFd,
        name: &OsStr,
        target: &Path,
        (here, placing): (Users, Placing<'_>),
    ) -> Result<(), CopyError> {
        let failed = |source| CopyError::Open { name: self.path.display().to_string(), source };
        let (receiver, mut sender) = pipe().map_err(failed)?;
        let into = path_of(folder);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || self.write(name, there, &mut sender));
            let placed = as_root_of(here, || place_archive(receiver, &into, placing));
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Who stops taking has the better reason, but one who cannot read leaves half an archive.
            match (placed, read) {
                (Err(crate::image::LayerError::Read(_)), Err(read)) => Err(read),
                (Err(source), _) => Err(CopyError::Write { path: target.to_owned(), source }),
                (Ok(()), read) => read,
            }
        })
    }
}

/// Where a copy goes: docker's rules. The folder, and the name in it; no name where the content goes into the folder.
fn place(ground: &Ground, target: &Path, source: &Source) -> Result<(std::os::fd::OwnedFd, OsString), CopyError> {
    let absolute = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
    let slash = ends_with(target, b"/") || ends_with(target, b"/.");
    let no_parent = |source| CopyError::NoParent { path: target.to_owned(), source };
    let (standing, folder, name) = ground.look(&absolute, true).map_err(no_parent)?;
    match (standing, source.is_folder) {
        (Standing::Folder, _) => {
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let inner = nix::fcntl::openat(folder.as_fd(), name.as_os_str(), flags, nix::sys::stat::Mode::empty());
            Ok((inner.map_err(|errno| no_parent(errno.into()))?, source.name.clone()))
        }
        (Standing::Special, _) => Err(CopyError::OntoSpecial { path: target.to_owned() }),
        (Standing::File, true) => Err(CopyError::OntoFile { path: target.to_owned() }),
        (Standing::File | Standing::Nothing, false) if slash => Err(CopyError::NoFolder { path: target.to_owned() }),
        (Standing::File | Standing::Nothing, _) => Ok((folder, name)),
    }
}

fn ends_with(path: &Path, end: &[u8]) -> bool {
    path.as_os_str().as_bytes().ends_with(end)
}
