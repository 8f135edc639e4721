//! The machine's file system: everything it has, in one archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::host::tools;

use super::cpio::Archive;
use super::forward::{FOLDER, Forward, normal};
use super::modules::{Module, ModuleError};
use super::wire::{REQUEST, Request};
use super::{libraries, modules};

/// The commands of the lab, those of which lie beside this one.
const COMMANDS: [&str; 6] =
    ["isolab-bench", "isolab-payload", "isolab-oci", "isolab-ctr", "isolab-vm", "isolab-report"];

/// Folders that programs expect, and their permissions.
const FOLDERS: [(&str, u32); 17] = [
    (".", 0o755),
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("forward", 0o755),
    ("lib", 0o755),
    ("lib64", 0o755),
    ("modules", 0o755),
    ("out", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
];

/// Links that let scripts find their interpreters, and programs of the host their own.
const LINKS: [(&str, &str); 4] =
    [("sbin", "bin"), ("usr/bin", "../bin"), ("usr/sbin", "../bin"), ("var/run", "../run")];

const FILES: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost testbed\n::1 localhost\n"),
    ("etc/os-release", "ID=isolab-testbed\nNAME=\"isolab testbed\"\nPRETTY_NAME=\"isolab testbed\"\n"),
];

/// Why the file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file that belongs into it cannot be read.
    #[error("cannot take in {}", path.display())]
    Take {
        /// The file on this host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A place in the machine at which nothing can lie.
    #[error("cannot forward {} there: not a path in the machine", .0.display())]
    Place(PathBuf),
    /// Two things are to lie at one place.
    #[error("two files are to be /{0} in the machine")]
    Twice(String),
    /// The modules are not all there.
    #[error("cannot take the kernel's modules")]
    Modules(#[from] ModuleError),
    /// The archive itself could not be written.
    #[error("cannot write the archive into memory")]
    Write(#[source] io::Error),
}

impl ImageError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Place(_) => Some("--forward FILE, or --forward HOST=/PATH/IN/THE/MACHINE".to_owned()),
            Self::Twice(_) => Some("--forward HOST=/ANOTHER/PATH gives one of them another place".to_owned()),
            _ => None,
        }
    }
}

/// Writes the archive: the lab's commands from the folder they lie in, the modules, busybox where this host has it, the
/// forwarded files with their libraries, and what the machine is to do.
pub(super) fn write(
    to: File,
    commands: &Path,
    module_folder: Option<&Path>,
    forwards: &[Forward],
    command: &[String],
) -> Result<(), ImageError> {
    let mut image = Image { archive: Archive::new(BufWriter::with_capacity(1 << 20, to)), present: BTreeSet::new() };
    image.skeleton()?;
    for name in COMMANDS {
        let path = commands.join(name);
        if path.is_file() {
            image.file(&path, &format!("bin/{name}"))?;
        }
    }
    let modules = module_folder.map(modules::wanted).transpose()?.unwrap_or_default();
    let modules = modules.iter().map(|module| image.module(module)).collect::<Result<_, _>>()?;
    image.request(&Request { modules, command: command.to_vec() })?;
    for forward in forwards {
        let place = forward.place().ok_or_else(|| ImageError::Place(forward.host.clone()))?;
        image.tree(&forward.host, &place)?;
    }
    // Last: a forwarded file takes precedence over one of busybox's commands.
    if let Some(busybox) = tools::find("busybox") {
        image.busybox(&busybox)?;
    }
    image.archive.finish().and_then(|mut buffer| buffer.flush()).map_err(ImageError::Write)
}

struct Image<W: Write> {
    archive: Archive<W>,
    /// All paths that are in it.
    present: BTreeSet<String>,
}

impl<W: Write> Image<W> {
    fn skeleton(&mut self) -> Result<(), ImageError> {
        for (name, permissions) in FOLDERS {
            self.folder(name, permissions)?;
        }
        for (name, target) in LINKS {
            self.link(name, target)?;
        }
        for (name, text) in FILES {
            self.content(name, 0o644, text.as_bytes())?;
        }
        Ok(())
    }

    fn module(&mut self, (name, content): &Module) -> Result<String, ImageError> {
        let place = format!("modules/{name}.ko");
        self.content(&place, 0o644, content)?;
        Ok(format!("/{place}"))
    }

    fn request(&mut self, request: &Request) -> Result<(), ImageError> {
        let text = serde_json::to_vec(request).map_err(|error| ImageError::Write(error.into()))?;
        self.content(REQUEST.trim_start_matches('/'), 0o644, &text)
    }

    /// Busybox, and a link for each of its commands that nothing else is called by.
    fn busybox(&mut self, path: &Path) -> Result<(), ImageError> {
        let took = |source| ImageError::Take { path: path.to_owned(), source };
        let list = Command::new(path).arg("--list").stdin(Stdio::null()).output().map_err(took)?;
        if !self.present.contains("bin/busybox") {
            self.file(path, "bin/busybox")?;
        }
        for name in String::from_utf8_lossy(&list.stdout).lines() {
            let place = format!("bin/{name}");
            // One that holds a slash would be a path, and is no command.
            if !name.contains('/')
                && !self.present.contains(&place)
                && !self.present.contains(&format!("{}/{name}", &FOLDER[1..]))
            {
                self.link(&place, "busybox")?;
            }
        }
        Ok(())
    }

    /// A file or folder of the host, with all that is below it. What a symbolic link in it points to is not followed.
    fn tree(&mut self, host: &Path, place: &str) -> Result<(), ImageError> {
        let took = |source| ImageError::Take { path: host.to_owned(), source };
        // The thing itself may be named through a link: `--forward /usr/bin/awk`.
        let host = &host.canonicalize().map_err(took)?;
        self.parents(place)?;
        self.branch(host, place)
    }

    fn branch(&mut self, host: &Path, place: &str) -> Result<(), ImageError> {
        let took = |source| ImageError::Take { path: host.to_owned(), source };
        let metadata = host.symlink_metadata().map_err(took)?;
        if metadata.is_symlink() {
            let target = fs::read_link(host).map_err(took)?;
            return self.link(place, target.to_str().ok_or_else(|| ImageError::Place(host.to_owned()))?);
        }
        if !metadata.is_dir() {
            return self.file(host, place);
        }
        if !self.present.contains(place) {
            self.folder(place, metadata.permissions().mode() & 0o7777)?;
        }
        for entry in fs::read_dir(host).map_err(took)? {
            let entry = entry.map_err(took)?;
            let name = entry.file_name().into_string().map_err(|_| ImageError::Place(entry.path()))?;
            self.branch(&entry.path(), &format!("{place}/{name}"))?;
        }
        Ok(())
    }

    /// A file of the host, with what it needs to run where it is a program.
    fn file(&mut self, host: &Path, place: &str) -> Result<(), ImageError> {
        let took = |source| ImageError::Take { path: host.to_owned(), source };
        let metadata = host.metadata().map_err(took)?;
        if !metadata.is_file() {
            return Err(took(io::Error::other("neither a file, a folder nor a symbolic link")));
        }
        self.claim(place)?;
        let permissions = metadata.permissions().mode() & 0o7777;
        let mut content = File::open(host).map_err(took)?;
        self.archive.file(place, permissions, metadata.len(), &mut content).map_err(took)?;
        if permissions & 0o111 == 0 {
            return Ok(());
        }
        for library in libraries::needed_by(host).map_err(took)? {
            let place = normal(&library).ok_or_else(|| ImageError::Place(library.clone()))?;
            if !self.present.contains(&place) {
                self.parents(&place)?;
                self.file(&library, &place)?;
            }
        }
        Ok(())
    }

    /// The folders that a path lies in, those that are not there yet.
    fn parents(&mut self, place: &str) -> Result<(), ImageError> {
        let folders: Vec<_> = place.match_indices('/').filter_map(|(end, _)| place.get(..end)).collect();
        for folder in folders {
            if !self.present.contains(folder) {
                self.folder(folder, 0o755)?;
            }
        }
        Ok(())
    }

    fn folder(&mut self, place: &str, permissions: u32) -> Result<(), ImageError> {
        self.claim(place)?;
        self.archive.folder(place, permissions).map_err(ImageError::Write)
    }

    fn link(&mut self, place: &str, target: &str) -> Result<(), ImageError> {
        self.claim(place)?;
        self.archive.link(place, target).map_err(ImageError::Write)
    }

    fn content(&mut self, place: &str, permissions: u32, content: &[u8]) -> Result<(), ImageError> {
        self.claim(place)?;
        self.archive.file(place, permissions, content.len() as u64, &mut &*content).map_err(ImageError::Write)
    }

    fn claim(&mut self, place: &str) -> Result<(), ImageError> {
        if self.present.insert(place.to_owned()) { Ok(()) } else { Err(ImageError::Twice(place.to_owned())) }
    }
}
