//! What `.dockerignore` names, hidden from a step that has the build's folder mounted: a layer of whiteouts above it.

use std::fs::{self, Metadata as Found};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tracing::info_span;

use super::context::Context;
use super::error::{BuildError, io_error};
use super::files::names;
use crate::image::{Metadata, Tree, xattrs};

/// What is to be hidden: the places below the build's folder, the outermost only.
pub(super) fn hidden(context: &Context) -> Result<Vec<PathBuf>, BuildError> {
    let mut hidden = Vec::new();
    look(context, Path::new(""), &mut hidden)?;
    Ok(hidden)
}

/// Looks through a folder. Answers whether anything in it is seen.
fn look(context: &Context, below: &Path, hidden: &mut Vec<PathBuf>) -> Result<bool, BuildError> {
    let mut seen = false;
    for name in names(&context.root.join(below))? {
        let path = below.join(name);
        let hides = context.ignore.hides(&path);
        let already = hidden.len();
        let inside = (!hides || context.ignore.has_exceptions())
            && found(context, &path)?.is_dir()
            && look(context, &path, hidden)?;
        if hides && !inside {
            // One sign for a folder and all that is in it.
            hidden.truncate(already);
            hidden.push(path);
        } else {
            seen = true;
        }
    }
    Ok(seen)
}

/// Writes whiteouts into an empty folder. The folders above them are as the build's own are: an overlay shows the
/// uppermost's owner, mode and times.
pub(super) fn write(context: &Context, hidden: &[PathBuf], into: &Path) -> Result<(), BuildError> {
    let _span = info_span!(
        "build.mask",
        call = "mknodat(2)",
        why = "a step must not see what .dockerignore names, and the folder itself is nobody's to change"
    )
    .entered();
    fs::create_dir(into).map_err(io_error("make", into))?;
    let failed = |errno: nix::Error| io_error("hide files in", into)(errno.into());
    let mut tree = Tree::at(into).map_err(failed)?;
    for path in hidden {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for folder in above {
            tree.directory(folder, describe(context, folder)?).map_err(failed)?;
        }
        tree.whiteout(path).map_err(failed)?;
    }
    tree.finish().map_err(failed)
}

fn describe(context: &Context, folder: &Path) -> Result<Metadata, BuildError> {
    let found = found(context, folder)?;
    let attributes = xattrs(context.root.join(folder).as_os_str()).unwrap_or_default();
    let own = attributes.into_iter().filter(|(name, _)| !name.to_string_lossy().contains(".overlay."));
    Ok(Metadata {
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        modified: (found.mtime(), found.mtime_nsec()),
        xattrs: own.collect(),
    })
}

fn found(context: &Context, path: &Path) -> Result<Found, BuildError> {
    let place = context.root.join(path);
    place.symlink_metadata().map_err(io_error("look at", place))
}

#[cfg(test)]
mod tests {
    use super::hidden;
    use crate::build::context::Context;
    use std::fs;
    use std::path::Path;

    #[test]
    fn a_folder_is_hidden_whole_where_nothing_of_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/kept", "a/gone", "a/deep/gone", "b/x", "b/y/z", "c.key", "d"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(folder.path().join(".dockerignore"), "a\n!a/kept\nb\n*.key\n").unwrap();
        let context = Context::open(folder.path(), None).unwrap();
        let expected = ["a/deep", "a/gone", "b", "c.key"].map(Path::new);
        assert_eq!(hidden(&context).unwrap(), expected);
        fs::remove_file(folder.path().join(".dockerignore")).unwrap();
        let context = Context::open(folder.path(), None).unwrap();
        assert!(hidden(&context).unwrap().is_empty());
    }
}
