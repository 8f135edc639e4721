//! What a stack has at one path, without going through all of it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::image::is_opaque;

/// As many links as the kernel follows (`path_resolution(7)`).
const LINKS: usize = 40;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// Something that is no directory.
    File,
    /// The directories that are one there, the uppermost first.
    Folder(Vec<PathBuf>),
}

/// Looks a path up in layers, the uppermost first. Links lead where they would lead a process in the container: nowhere
/// but to the same layers.
pub(crate) fn find(layers: &[PathBuf], path: &Path) -> io::Result<Found> {
    let mut open: VecDeque<OsString> = parts(path);
    let mut way = vec![layers.to_vec()];
    let mut links = 0;
    while let Some(part) = open.pop_front() {
        if part == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let Some(folders) = way.last() else { return Ok(Found::Nothing) };
        match step(folders, &part)? {
            Step::Folder(below) => way.push(below),
            Step::Link(target) => {
                links += 1;
                if links > LINKS {
                    return Err(nix::errno::Errno::ELOOP.into());
                }
                if target.is_absolute() {
                    way.truncate(1);
                }
                let rest = std::mem::take(&mut open);
                open = parts(&target);
                open.extend(rest);
            }
            Step::File if open.is_empty() => return Ok(Found::File),
            Step::File | Step::Nothing => return Ok(Found::Nothing),
        }
    }
    Ok(way.pop().map_or(Found::Nothing, Found::Folder))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

/// What is at one name.
pub(crate) enum Step {
    Nothing,
    File,
    Link(PathBuf),
    Folder(Vec<PathBuf>),
}

/// What folders that are one have at a name. A link is not followed.
pub(crate) fn step(folders: &[PathBuf], name: &OsStr) -> io::Result<Step> {
    let mut below = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        let data = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if data.is_dir() {
            let opaque = is_opaque(&path);
            below.push(path);
            if opaque {
                break;
            }
            continue;
        }
        // Below a directory anything else is hidden; a whiteout hides what is below itself.
        if !below.is_empty() {
            break;
        }
        if data.file_type().is_char_device() && data.rdev() == 0 {
            return Ok(Step::Nothing);
        }
        return if data.is_symlink() { fs::read_link(&path).map(Step::Link) } else { Ok(Step::File) };
    }
    Ok(if below.is_empty() { Step::Nothing } else { Step::Folder(below) })
}
