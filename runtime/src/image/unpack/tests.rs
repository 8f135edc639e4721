//! Archives that nobody honest makes, and some that everybody does.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::super::{Digest, LayerError};
use super::{Limits, Unpacked, unpack};

/// An archive written header by header: the library would refuse to write what is wanted here.
#[derive(Default)]
struct Forged(Vec<u8>);

impl Forged {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        self.push(kind, path, link, 0o644, content);
        self
    }

    fn push(&mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        let own = fs::metadata("/proc/self").unwrap();
        header.set_uid(own.uid().into());
        header.set_gid(own.gid().into());
        header.set_size(content.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// Lets the header that begins here tell of another size than there is.
    fn set_size(&mut self, at: usize, size: u64) {
        let mut header = Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&self.0[at..at + 512]);
        header.set_size(size);
        header.set_cksum();
        self.0[at..at + 512].copy_from_slice(header.as_bytes());
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    fn directory(mut self, path: &str, mode: u32) -> Self {
        self.push(EntryType::Directory, path, "", mode, b"");
        self
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    /// Extended headers for the next entry.
    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let bytes = builder.into_inner().unwrap();
        // Without the blocks that end an archive.
        self.0.extend_from_slice(&bytes[..bytes.len() - 1024]);
        self
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A folder to unpack to, and beside it one that must stay as it is.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("layer")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/file"), "untouched").unwrap();
        Self { folder }
    }

    fn layer(&self) -> PathBuf {
        self.folder.path().join("layer")
    }

    fn outside(&self) -> String {
        self.folder.path().join("outside").display().to_string()
    }

    fn unpack(&self, archive: Forged) -> Result<Unpacked, LayerError> {
        let unpacked = unpack(archive.bytes().as_slice(), &self.layer(), Limits::default());
        self.assert_untouched();
        unpacked
    }

    fn assert_untouched(&self) {
        let all = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let outside = self.folder.path().join("outside");
        assert_eq!(all(self.folder.path()).len(), 2, "something was made beside the layer");
        assert_eq!(all(&outside), ["file"]);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "untouched");
        assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(outside.join("file")).unwrap().nlink(), 1);
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.layer().join(path)).unwrap()
    }

    fn kind(&self, path: &str) -> fs::FileType {
        fs::symlink_metadata(self.layer().join(path)).unwrap().file_type()
    }
}

#[test]
fn an_ordinary_archive_is_unpacked_as_it_is() {
    let place = Place::new();
    let archive = Forged::default()
        .directory("./", 0o750)
        .directory("./bin/", 0o555)
        .entry(EntryType::Regular, "./bin/su", "", b"su")
        .symlink("bin/sh", "/bin/su")
        .hard_link("bin/again", "./bin/su")
        .entry(EntryType::Fifo, "bin/pipe", "", b"")
        .file("var/lib/deep/file", b"deep");
    let bytes = Forged(archive.0.clone()).bytes();
    let unpacked = place.unpack(archive).unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&bytes), "the digest counts every byte, the end of the archive too");
    assert_eq!(unpacked.bytes, 6);
    assert_eq!(place.read("bin/again"), "su");
    assert_eq!(fs::read_link(place.layer().join("bin/sh")).unwrap(), Path::new("/bin/su"));
    assert!(place.kind("bin/pipe").is_fifo());
    assert_eq!(place.read("var/lib/deep/file"), "deep");
    let data = |path: &str| fs::metadata(place.layer().join(path)).unwrap();
    assert_eq!(
        [data("").mode(), data("bin").mode(), data("var").mode()].map(|mode| mode & 0o777),
        [0o750, 0o555, 0o755]
    );
    assert_eq!((data("bin").mtime(), data("bin/su").mtime()), (1_000_000_000, 1_000_000_000));
    assert_eq!(data("bin/su").ino(), data("bin/again").ino());
}

#[test]
fn a_path_with_two_dots_is_refused() {
    for path in ["../outside/x", "a/../../outside/x", "..", "a/.."] {
        let refused = Place::new().unpack(Forged::default().file(path, b"x"));
        assert!(matches!(refused, Err(LayerError::Entry { .. })), "{path}: {refused:?}");
    }
}

#[test]
fn an_absolute_path_begins_at_the_layer() {
    let place = Place::new();
    let path = format!("{}/file", place.outside());
    place.unpack(Forged::default().file(&path, b"x")).unwrap();
    assert_eq!(place.read(path.trim_start_matches('/')), "x");
}

#[test]
fn nothing_is_written_through_a_link_that_leads_out() {
    let absolute = |place: &Place| place.outside();
    let relative = |_: &Place| "../outside".to_owned();
    for target in [absolute as fn(&Place) -> String, relative] {
        let place = Place::new();
        let target = target(&place);
        // It must not land outside; that it lands nowhere is fine too.
        drop(place.unpack(Forged::default().symlink("a", &target).file("a/new", b"x")));
        let place = Place::new();
        drop(place.unpack(Forged::default().symlink("a", &target).hard_link("b", "a/file")));
        assert!(!place.layer().join("b").exists());
        let place = Place::new();
        drop(place.unpack(Forged::default().symlink("a", &target).file("a/.wh.file", b"")));
        let place = Place::new();
        drop(place.unpack(Forged::default().symlink("a", &target).file("a/.wh..wh..opq", b"")));
    }
}

#[test]
fn a_link_inside_is_followed_inside() {
    let place = Place::new();
    let archive = Forged::default().directory("usr/lib", 0o755).symlink("lib", "/usr/lib").file("lib/x", b"x");
    place.unpack(archive).unwrap();
    assert_eq!(place.read("usr/lib/x"), "x");
    assert!(place.kind("lib").is_symlink());
}

#[test]
fn what_takes_a_link_s_place_leaves_its_target_alone() {
    let place = Place::new();
    let (file, folder) = (format!("{}/file", place.outside()), place.outside());
    let archive = Forged::default()
        .symlink("file", &file)
        .file("file", b"new")
        .symlink("folder", &folder)
        .directory("folder", 0o777)
        .symlink("link", &file)
        .symlink("link", "elsewhere");
    place.unpack(archive).unwrap();
    assert_eq!(place.read("file"), "new");
    assert!(place.kind("folder").is_dir());
    assert_eq!(fs::read_link(place.layer().join("link")).unwrap(), Path::new("elsewhere"));
}

#[test]
fn a_hard_link_reaches_only_what_the_layer_has() {
    for target in ["/etc/passwd", "../outside/file", "missing", "folder"] {
        let archive = Forged::default().directory("folder", 0o755).hard_link("stolen", target);
        let place = Place::new();
        assert!(place.unpack(archive).is_err(), "{target}");
        assert!(!place.layer().join("stolen").exists(), "{target}");
    }
    let place = Place::new();
    place.unpack(Forged::default().file("a", b"a").hard_link("a", "a")).unwrap();
    assert_eq!(place.read("a"), "a", "a link to itself keeps the file");
}

#[test]
fn the_tree_s_own_directory_stays_a_directory() {
    for kind in [EntryType::Symlink, EntryType::Regular, EntryType::Link, EntryType::Fifo] {
        for path in [".", "./", "/"] {
            let place = Place::new();
            let refused = place.unpack(Forged::default().entry(kind, path, "/etc", b""));
            assert!(refused.is_err(), "{kind:?} {path}");
            assert!(place.kind("").is_dir());
        }
    }
}

#[test]
fn files_and_directories_take_each_other_s_place() {
    let place = Place::new();
    let archive = Forged::default()
        .directory("a", 0o700)
        .file("a/b/c", b"c")
        .file("a", b"file")
        .file("d", b"file")
        .directory("d", 0o711)
        .file("d/e", b"e");
    place.unpack(archive).unwrap();
    assert_eq!((place.read("a"), place.read("d/e")), ("file".to_owned(), "e".to_owned()));
    assert_eq!(fs::metadata(place.layer().join("d")).unwrap().mode() & 0o777, 0o711);
}

#[test]
fn a_whiteout_becomes_overlayfs_s_sign() {
    let place = Place::new();
    place
        .unpack(Forged::default().file("etc/.wh.passwd", b"").file(".wh..wh.plnk", b"").file(".wh.gone", b""))
        .unwrap();
    for path in ["etc/passwd", "gone"] {
        let data = fs::symlink_metadata(place.layer().join(path)).unwrap();
        assert!(data.file_type().is_char_device() && data.rdev() == 0, "{path}");
    }
    assert_eq!(fs::read_dir(place.layer()).unwrap().count(), 2, "AUFS's own files are left out");
}

#[test]
fn a_whiteout_hides_lower_layers_only() {
    let place = Place::new();
    let archive = Forged::default()
        .file("before", b"1")
        .file(".wh.before", b"")
        .file(".wh.after", b"")
        .file("after", b"2")
        .file(".wh.folder", b"")
        .directory("folder", 0o755)
        .file("folder/x", b"3")
        .file(".wh.implied", b"")
        .file("implied/x", b"4");
    place.unpack(archive).unwrap();
    let read = ["before", "after", "folder/x", "implied/x"].map(|path| place.read(path));
    assert_eq!(read, ["1", "2", "3", "4"]);
}

#[test]
fn a_whiteout_without_a_name_is_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        let refused = Place::new().unpack(Forged::default().file(name, b""));
        assert!(matches!(refused, Err(LayerError::Place { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn set_user_id_and_the_sticky_bit_are_kept() {
    let place = Place::new();
    let mut archive = Forged::default().directory("tmp", 0o1777);
    archive.push(EntryType::Regular, "su", "", 0o4755, b"su");
    place.unpack(archive).unwrap();
    let mode = |path: &str| fs::metadata(place.layer().join(path)).unwrap().mode() & 0o7777;
    assert_eq!([mode("su"), mode("tmp")], [0o4755, 0o1777]);
}

#[test]
fn extended_headers_give_paths_times_and_attributes() {
    let place = Place::new();
    let name = "n".repeat(200);
    let records: [(&str, &[u8]); 3] =
        [("path", name.as_bytes()), ("mtime", b"1234567890.5"), ("SCHILY.xattr.user.note", b"\xff\x00")];
    place.unpack(Forged::default().pax(&records).file("short", b"x")).unwrap();
    let data = fs::metadata(place.layer().join(&name)).unwrap();
    assert_eq!((data.mtime(), data.mtime_nsec()), (1_234_567_890, 500_000_000));
    for attribute in ["trusted.overlay.redirect", "user.overlay.metacopy"] {
        let key = format!("SCHILY.xattr.{attribute}");
        let refused = Place::new().unpack(Forged::default().pax(&[(&key, b"/etc")]).directory("d", 0o755));
        assert!(matches!(refused, Err(LayerError::Entry { .. })), "{attribute}: {refused:?}");
    }
}

/// Readers that believe different ones of the two sizes see different archives, and one of them something that nobody has
/// looked at.
#[test]
fn the_size_that_an_extended_header_says_is_the_one_that_counts() {
    for (said, true_size) in [("3", 4096), ("3", 0), ("1024", 1)] {
        let length: usize = said.parse().unwrap();
        let content = vec![b'x'; length];
        let mut archive = Forged::default().pax(&[("size", said.as_bytes())]);
        let header = archive.0.len();
        archive = archive.file("a", &content).file("b", b"b");
        archive.set_size(header, true_size);
        let place = Place::new();
        assert_eq!(place.unpack(archive).unwrap().bytes, length as u64 + 1, "{said} instead of {true_size}");
        assert_eq!((place.read("a").into_bytes(), place.read("b").as_str()), (content, "b"));
    }
}

#[test]
fn zeros_take_no_room() {
    let place = Place::new();
    let mut content = vec![0; 8 << 20];
    content[4 << 20] = 1;
    place.unpack(Forged::default().file("sparse", &content)).unwrap();
    let data = fs::metadata(place.layer().join("sparse")).unwrap();
    assert_eq!(fs::read(place.layer().join("sparse")).unwrap(), content);
    assert!(data.blocks() * 512 < 1 << 20, "{} bytes on disk", data.blocks() * 512);
}

#[test]
fn a_bomb_is_stopped_by_its_limits() {
    let bytes = Forged::default().file("a", &[1; 600]).file("b", &[1; 600]).bytes();
    for limits in [Limits { bytes: 1000, entries: 10 }, Limits { bytes: 10_000, entries: 1 }] {
        let stopped = unpack(bytes.as_slice(), &Place::new().layer(), limits);
        assert!(matches!(&stopped, Err(LayerError::TooLarge { path, .. }) if path == Path::new("b")), "{stopped:?}");
    }
}

#[test]
fn an_archive_that_ends_early_or_is_none_is_an_error() {
    let whole = Forged::default().file("a", &[7; 5000]).bytes();
    for length in [100, 600, 3000] {
        assert!(unpack(&whole[..length], &Place::new().layer(), Limits::default()).is_err(), "{length}");
    }
    let noise: Vec<u8> = (0..4096_u32).map(|byte| (byte * 31 % 251) as u8).collect();
    assert!(unpack(noise.as_slice(), &Place::new().layer(), Limits::default()).is_err());
    assert!(unpack(fs::File::open("/proc/self/mem").unwrap(), &Place::new().layer(), Limits::default()).is_err());
}

#[test]
fn an_entry_of_an_unknown_kind_is_named() {
    let refused = Place::new().unpack(Forged::default().entry(EntryType::new(b'Z'), "odd", "", b"")).unwrap_err();
    assert!(refused.to_string().contains("odd"), "{refused}");
}

/// What archives are made of, when somebody wants to break out: names that meet each other, links that lead anywhere.
fn any_entry() -> impl Strategy<Value = (EntryType, String, String)> {
    let part = || {
        proptest::sample::select(vec!["a", "b", "c", ".", "..", ".wh.a", ".wh.b", ".wh..wh..opq", "outside", "file"])
    };
    let path = || proptest::collection::vec(part(), 1..4).prop_map(|parts| parts.join("/"));
    let path =
        || (proptest::sample::select(vec!["", "/", "./"]), path()).prop_map(|(start, rest)| format!("{start}{rest}"));
    let up = proptest::sample::select(vec!["", "../", "../../", "../outside/", "/"]);
    let target = (up, path()).prop_map(|(up, path)| format!("{up}{path}"));
    let kind = proptest::sample::select(vec![
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
    ]);
    (kind, path(), target)
}

/// Every file of a tree, with what is in it.
fn contents(folder: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            contents(&path, all);
        }
        let mut content = Vec::new();
        if kind.is_file() {
            fs::File::open(&path).unwrap().read_to_end(&mut content).unwrap();
        } else if kind.is_symlink() {
            content = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
        }
        all.insert(path.strip_prefix(folder).unwrap_or(&path).to_owned(), content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_an_archive_says_nothing_outside_changes(entries in proptest::collection::vec(any_entry(), 1..12)) {
        let place = Place::new();
        let mut archive = Forged::default();
        for (kind, path, target) in &entries {
            let link = if matches!(kind, EntryType::Symlink | EntryType::Link) { target.as_str() } else { "" };
            let content: &[u8] = if *kind == EntryType::Regular { b"new" } else { b"" };
            archive.push(*kind, path, link, 0o755, content);
        }
        // Refused or not: `unpack` of the place looks at what lies outside.
        let first = place.unpack(Forged(archive.0.clone())).is_ok();
        let again = Place::new();
        prop_assert_eq!(again.unpack(archive).is_ok(), first);
        let (mut one, mut other) = (BTreeMap::new(), BTreeMap::new());
        contents(&place.layer(), &mut one);
        contents(&again.layer(), &mut other);
        prop_assert_eq!(one, other, "the same archive, two trees");
    }
}

#[test]
fn a_number_that_is_left_empty_is_nought() {
    let mut archive = Forged::default().file("a", b"content").0;
    // Mode, user and group, and time, with the checksum over what stands there then.
    for (from, to) in [(100, 124), (136, 148)] {
        archive[from..to].fill(0);
    }
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let folder = TempDir::new().unwrap();
    unpack(archive.as_slice(), folder.path(), Limits::default()).unwrap();
    let found = fs::metadata(folder.path().join("a")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime(), found.len()), (0, 0, 7));
}
