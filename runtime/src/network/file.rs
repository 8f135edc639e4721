//! Small JSON files that are whole at any instant: written under another name first, then renamed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::NetworkError;

/// Replaces a file; its folder is made where it is not there.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), NetworkError> {
    let text = serde_json::to_vec(value).map_err(|source| NetworkError::Parse { path: path.to_owned(), source })?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Names that begin with a dot are not listed; only who holds the lock writes, so one such name is enough.
    let new = folder.join(".new");
    let create = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let opened = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_folder(folder).and_then(|()| create()),
        other => other,
    };
    opened
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&new, path))
        .map_err(NetworkError::io("write", path))
}

/// Writes over a file in place: for what is always as long, and no loss if it is half old and half new.
pub(super) fn note(path: &Path, text: &str) -> Result<(), NetworkError> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(NetworkError::io("write", path))
}

/// Reads a file; nothing where it is not there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetworkError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NetworkError::io("read", path)(source)),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| NetworkError::Parse { path: path.to_owned(), source }),
    }
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(NetworkError::io("remove", path)),
    }
}

/// The names in a folder, but for those that begin with a dot; none where it is not there.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, NetworkError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(NetworkError::io("list", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(NetworkError::io("list", folder))?.file_name();
        names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
    }
    Ok(names)
}

/// Opens a file to lock it.
pub(super) fn open_lock(path: &Path) -> Result<File, NetworkError> {
    let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(path.parent().unwrap_or(Path::new("/"))).and_then(|()| open())
        }
        other => other,
    };
    opened.map_err(NetworkError::io("open", path))
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
