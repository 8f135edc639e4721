//! A small file of an image, read from its layers' folders without mounting them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// No list of users is longer.
const LENGTH_MAX: u64 = 4 << 20;

/// The text of a file, of the uppermost layer that has it; nothing where there is none, or a layer hides it.
pub(super) fn read(layers: &[PathBuf], path: &str) -> Option<String> {
    for layer in layers {
        if let Some(text) = read_in(layer, path) {
            return Some(text);
        }
        if hides(layer, Path::new(path)) {
            return None;
        }
    }
    None
}

/// Whether an image has something at a path.
pub(crate) fn has(layers: &[PathBuf], path: &str) -> bool {
    for layer in layers {
        match layer.join(path).symlink_metadata() {
            Ok(found) => return !(found.file_type().is_char_device() && found.rdev() == 0),
            Err(_) if hides(layer, Path::new(path)) => return false,
            Err(_) => {}
        }
    }
    false
}

/// As if the layer were the whole tree: a link in it can lead nowhere else.
fn read_in(layer: &Path, path: &str) -> Option<String> {
    let root = openat(AT_FDCWD, layer, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(root, path, how).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the layer has something else at the path, or above it, that layers below cannot shine through.
fn hides(layer: &Path, path: &Path) -> bool {
    let mut place = layer.to_owned();
    for part in path {
        place.push(part);
        match place.symlink_metadata() {
            Ok(found) if found.file_type().is_char_device() && found.rdev() == 0 => return true,
            Ok(found) if found.is_dir() => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
    true
}
