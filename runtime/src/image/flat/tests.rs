//! What is seen of a stack.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Found, Kind, find, walk};
use crate::image::{LayerError, Limits, unpack};

/// A layer's folder, made of an archive with these names: a slash at the end makes a directory.
fn layer(folder: &Path, name: &str, entries: &[&str]) -> PathBuf {
    let mut archive = tar::Builder::new(Vec::new());
    for path in entries {
        let mut header = tar::Header::new_gnu();
        let kind = if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        archive.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    let into = folder.join(name);
    fs::create_dir(&into).unwrap();
    unpack(archive.into_inner().unwrap().as_slice(), &into, Limits::default()).unwrap();
    into
}

fn seen(layers: &[PathBuf]) -> Vec<String> {
    let mut seen = Vec::new();
    let walked = walk(layers, &mut |entry| {
        let slash = if entry.kind == Kind::Directory { "/" } else { "" };
        seen.push(format!("{}{slash}", entry.path.display()));
        Ok::<(), LayerError>(())
    });
    walked.unwrap();
    seen
}

#[test]
fn a_stack_is_seen_as_overlayfs_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let lower = layer(
        folder.path(),
        "lower",
        &["etc/", "etc/passwd", "etc/motd", "opt/", "opt/old", "var/", "var/log/", "var/log/old", "srv/", "srv/old"],
    );
    let upper = layer(
        folder.path(),
        "upper",
        &["etc/.wh.motd", "opt/", "opt/.wh..wh..opq", "opt/new", ".wh.var", "var/", "var/new", ".wh.srv"],
    );
    let top = layer(folder.path(), "top", &["etc/", "etc/motd", "srv", ".wh.opt"]);
    assert_eq!(
        seen(&[upper.clone(), lower.clone()]),
        ["/", "etc/", "etc/passwd", "opt/", "opt/new", "var/", "var/new"]
    );
    let all = seen(&[top, upper, lower]);
    assert_eq!(all, ["/", "etc/", "etc/motd", "etc/passwd", "srv", "var/", "var/new"]);
}

#[test]
fn a_file_of_several_names_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let layer = layer(folder.path(), "layer", &["b"]);
    fs::hard_link(layer.join("b"), layer.join("a")).unwrap();
    fs::hard_link(layer.join("b"), layer.join("c")).unwrap();
    let mut kinds = Vec::new();
    let walked = walk(&[layer], &mut |entry| {
        kinds.push((entry.path.to_owned(), entry.kind.clone()));
        Ok::<(), LayerError>(())
    });
    walked.unwrap();
    let link = |path: &str| (PathBuf::from(path), Kind::Link("a".into()));
    assert_eq!(kinds[1..], [("a".into(), Kind::File), link("b"), link("c")]);
}

#[test]
fn a_stack_of_nothing_has_nothing() {
    assert!(seen(&[]).is_empty());
}

#[test]
fn a_path_is_found_as_a_process_in_the_container_would_find_it() {
    let folder = tempfile::tempdir().unwrap();
    let lower = layer(folder.path(), "lower", &["run/", "run/old", "var/", "data/", "data/file", "gone/", "gone/x"]);
    std::os::unix::fs::symlink("../../../run", lower.join("var/run")).unwrap();
    std::os::unix::fs::symlink("/loop", lower.join("loop")).unwrap();
    let upper = layer(folder.path(), "upper", &["run/", "run/new", ".wh.gone", "data/", "data/.wh..wh..opq"]);
    let layers = [upper.clone(), lower.clone()];
    let folders = |name: &str| Found::Folder(vec![upper.join(name), lower.join(name)]);
    let table = [
        ("/run", folders("run")),
        ("/var/run", folders("run")),
        ("/run/../var/run/old", Found::File),
        ("/run/new", Found::File),
        ("/run/new/x", Found::Nothing),
        ("/gone", Found::Nothing),
        ("/gone/x", Found::Nothing),
        ("/data", Found::Folder(vec![upper.join("data")])),
        ("/data/file", Found::Nothing),
        ("/../..", Found::Folder(layers.to_vec())),
    ];
    for (path, expected) in table {
        assert_eq!(find(&layers, Path::new(path)).unwrap(), expected, "{path}");
    }
    assert!(find(&layers, Path::new("/loop")).is_err());
}
