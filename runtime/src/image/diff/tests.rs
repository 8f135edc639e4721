//! Trees that are written down and built again.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use super::super::{Digest, Limits, unpack};
use super::diff;

fn archive(upper: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    diff(&[], upper, None, &mut bytes).unwrap();
    bytes
}

fn whiteout(path: &Path) {
    mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap();
}

fn set(path: &Path, name: &str, value: &[u8]) {
    let file = fs::File::open(path).unwrap();
    crate::image::xattr::set(std::os::fd::AsFd::as_fd(&file), OsStr::new(name), value).unwrap();
}

/// A tree with one of each kind that an ordinary user can make.
fn sample() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/one"), "one").unwrap();
    fs::hard_link(root.join("etc/one"), root.join("etc/two")).unwrap();
    set(&root.join("etc/one"), "user.note", b"\xff\x00");
    symlink("t".repeat(150), root.join("link")).unwrap();
    fs::write(root.join("su"), "su").unwrap();
    fs::set_permissions(root.join("su"), Permissions::from_mode(0o4755)).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), Mode::from_bits_truncate(0o640)).unwrap();
    fs::create_dir_all(root.join("d".repeat(120)).join("e".repeat(120))).unwrap();
    whiteout(&root.join("gone"));
    folder
}

#[test]
fn what_is_written_down_and_built_again_is_the_same() {
    let (first, second) = (sample(), tempfile::tempdir().unwrap());
    let bytes = archive(first.path());
    let unpacked = unpack(bytes.as_slice(), second.path(), Limits::default()).unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&bytes));
    assert_eq!(archive(second.path()), bytes);
    let data = |path: &str| fs::symlink_metadata(second.path().join(path)).unwrap();
    assert_eq!(data("etc/one").ino(), data("etc/two").ino());
    assert_eq!(data("su").mode() & 0o7777, 0o4755);
    assert!(data("gone").file_type().is_char_device() && data("pipe").file_type().is_fifo());
    assert_eq!(fs::read_link(second.path().join("link")).unwrap().as_os_str().len(), 150);
}

#[test]
fn the_same_tree_has_the_same_digest() {
    let (first, second) = (sample(), sample());
    let times = |root: &Path| {
        let mut bytes = Vec::new();
        diff(&[], root, Some(1_000_000_000), &mut bytes).unwrap();
        bytes
    };
    assert_eq!(Digest::of(&times(first.path())), Digest::of(&times(second.path())));
}

#[test]
fn an_opaque_directory_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("d");
    fs::create_dir(&directory).unwrap();
    let name = if nix::unistd::geteuid().is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
    set(&directory, name, b"y");
    let bytes = archive(folder.path());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let paths: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert!(paths.iter().any(|path| path == Path::new("d/.wh..wh..opq")), "{paths:?}");
    assert!(!String::from_utf8_lossy(&bytes).contains("overlay"), "overlayfs's own attribute was written down");
}

#[test]
fn what_a_layer_cannot_say_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".wh.file"), "").unwrap();
    assert!(diff(&[], folder.path(), None, std::io::sink()).unwrap_err().to_string().contains(".wh.file"));
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    set(&folder.path().join("d"), "user.overlay.redirect", b"/etc");
    assert!(diff(&[], folder.path(), None, std::io::sink()).is_err());
}

#[test]
fn the_root_is_told_only_where_it_changed() {
    let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let entries = |latest| diff(&[lower.path().to_owned()], upper.path(), latest, std::io::sink()).unwrap().entries;
    assert_eq!(entries(None), 0);
    fs::set_permissions(upper.path(), Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(entries(None), 1);
}
