//! A file tree as a list that can be compared: everything but times.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use isolab_runtime::image::{Digest, Image, Store};
use libtest_mimic::Failed;

/// What a container engine puts there for its own mounts.
const MADE_ANYWAY: [&str; 7] = ["dev", "proc", "sys", "run", "etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// Each path with what is there.
pub(crate) fn list(root: &Path) -> Result<BTreeMap<PathBuf, String>, Failed> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(root.join(&below))? {
            let path = below.join(entry?.file_name());
            if MADE_ANYWAY.iter().any(|made| path == Path::new(made)) {
                continue;
            }
            let place = root.join(&path);
            let it = place.symlink_metadata()?;
            let content = match it.mode() & libc::S_IFMT {
                libc::S_IFREG => Digest::of(&fs::read(&place)?).short(),
                libc::S_IFLNK => fs::read_link(&place)?.display().to_string(),
                _ => it.rdev().to_string(),
            };
            found.insert(path.clone(), format!("{:o} {}:{} {content}", it.mode(), it.uid(), it.gid()));
            if it.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(found)
}

/// The same of an image of a store, its layers stacked by the kernel.
pub(crate) fn of_image(store: &Path, name: &str, place: &Path) -> Result<BTreeMap<PathBuf, String>, Failed> {
    let store = Store::open(store)?;
    let image = Image::from_manifest(&store, &store.resolve(name)?.descriptor)?;
    fs::create_dir_all(place)?;
    let lower: Vec<String> = image.lower_dirs().iter().map(|path| path.display().to_string()).collect();
    let options = format!("lowerdir={}:{}", lower.join(":"), place.display());
    let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(place).status()?;
    if !mounted.success() {
        return Err("cannot mount the layers".into());
    }
    let found = list(place);
    Command::new("umount").arg(place).status()?;
    found
}
