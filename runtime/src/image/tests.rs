//! Images in a store of their own, made twice, at once, of changed files, and damaged.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::thread;

use oci_spec::image::MediaType;
use tempfile::TempDir;

use super::{Content, Details, Digest, Entry, Image, ImageError, LayerContent, Store, default_image, descriptor};

/// A store and a payload in a folder that goes with the test.
struct Lab {
    folder: TempDir,
    store: Store,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("payload"), "the payload").unwrap();
        Self { store: Store::open(folder.path().join("store")).unwrap(), folder }
    }

    fn payload(&self) -> PathBuf {
        self.folder.path().join("payload")
    }

    fn default_image(&self) -> Image {
        default_image(&self.store, &self.payload()).unwrap()
    }

    /// Files below the store that have a temporary name.
    fn unfinished(&self) -> usize {
        let folders = ["", "blobs/sha256", "layers"].map(|folder| self.store.root().join(folder));
        let names =
            folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".tmp-")).count()
    }
}

fn layer(entries: Vec<Entry>) -> LayerContent {
    LayerContent { created_by: "a test".to_owned(), entries }
}

#[test]
fn the_default_image_is_the_payload_and_a_little_etc() {
    let lab = Lab::new();
    let image = lab.default_image();
    let [upper, lower] = image.lower_dirs().try_into().unwrap();
    let payload = lower.join("isolab-payload");
    assert_eq!(fs::read(&payload).unwrap(), b"the payload");
    assert_eq!(fs::metadata(&payload).unwrap().mode() & 0o7777, 0o755);
    for file in ["passwd", "group", "hostname", "hosts", "os-release", "resolv.conf"] {
        assert!(upper.join("etc").join(file).is_file(), "{file}");
    }
    for (folder, mode) in [("", 0o755), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("tmp", 0o1777)] {
        assert_eq!(fs::metadata(upper.join(folder)).unwrap().mode() & 0o7777, mode, "{folder}");
    }
    assert_eq!(image.configuration().config().as_ref().unwrap().entrypoint().as_ref().unwrap(), &["/isolab-payload"]);
    let steps: Vec<&str> =
        image.configuration().history().iter().flatten().filter_map(|step| step.created_by().as_deref()).collect();
    assert_eq!(steps, ["COPY isolab-payload /", "COPY etc /etc"]);
}

#[test]
fn everything_lies_under_the_digest_of_its_bytes() {
    let lab = Lab::new();
    let image = lab.default_image();
    let blobs = [image.id(), image.manifest()].into_iter().chain(image.layers().iter().map(|layer| layer.blob));
    for digest in blobs {
        assert_eq!(Digest::of(&fs::read(lab.store.blob_path(&digest)).unwrap()), digest);
    }
    for layer in image.layers() {
        assert_eq!(layer.path, lab.store.layer_path(&layer.diff_id));
        assert_eq!(layer.size, fs::metadata(lab.store.blob_path(&layer.blob)).unwrap().len());
    }
    assert_eq!(lab.unfinished(), 0);
}

#[test]
fn a_second_use_makes_nothing() {
    let lab = Lab::new();
    let first = lab.default_image();
    let state = || -> Vec<(u64, i64, i64)> {
        let paths = [
            lab.store.root().join("index.json"),
            lab.store.root().join("layers"),
            lab.store.root().join("blobs/sha256"),
        ];
        let all = paths.iter().map(|path| fs::metadata(path).unwrap());
        all.map(|data| (data.ino(), data.mtime(), data.mtime_nsec())).collect()
    };
    let before = state();
    let second = lab.default_image();
    assert_eq!((second.id(), second.lower_dirs()), (first.id(), first.lower_dirs()));
    assert_eq!(state(), before);
}

#[test]
fn a_changed_payload_makes_another_image_that_shares_the_other_layer() {
    let lab = Lab::new();
    let first = lab.default_image();
    fs::write(lab.payload(), "another one").unwrap();
    let second = lab.default_image();
    assert_ne!(second.id(), first.id());
    assert_ne!(second.layers()[0], first.layers()[0]);
    assert_eq!(second.layers()[1], first.layers()[1]);
    assert_eq!(fs::read(second.layers()[0].path.join("isolab-payload")).unwrap(), b"another one");
}

#[test]
fn equal_content_is_an_equal_image_wherever_it_is_made() {
    let (here, there) = (Lab::new(), Lab::new());
    assert_eq!(here.default_image().id(), there.default_image().id());
    let entries =
        vec![Entry::directory("b", 0o700), Entry::file("b/x", 0o600, &b"1"[..]), Entry::file("a", 0o644, &b"2"[..])];
    let archive = |entries: Vec<Entry>| {
        let mut bytes = Vec::new();
        layer(entries).write(&mut bytes).unwrap();
        Digest::of(&bytes)
    };
    let reversed = entries.iter().rev().cloned().collect();
    assert_eq!(archive(entries), archive(reversed));
}

#[test]
fn first_uses_at_once_agree_and_leave_nothing_behind() {
    let lab = Lab::new();
    let images: Vec<Image> = thread::scope(|scope| {
        let uses: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| default_image(&Store::open(lab.store.root()).unwrap(), &lab.payload()).unwrap()))
            .collect();
        uses.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(images.iter().all(|image| image.id() == images[0].id() && image.lower_dirs() == images[0].lower_dirs()));
    assert_eq!(fs::read_dir(lab.store.root().join("layers")).unwrap().count(), 2);
    assert_eq!(lab.unfinished(), 0);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(lab.store.root().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "one name, once");
}

#[test]
fn names_are_kept_beside_each_other_and_replaced_one_by_one() {
    let lab = Lab::new();
    let assemble = |name: &str, text: &'static str| {
        Image::assemble(&lab.store, name, Details::default(), [layer(vec![Entry::file("a", 0o644, text.as_bytes())])])
            .unwrap()
            .id()
    };
    let (one, two) = (assemble("one", "1"), assemble("two", "2"));
    let load = |name: &str| Image::load(&lab.store, name).unwrap().map(|image| image.id());
    assert_eq!([load("one"), load("two"), load("three")], [Some(one), Some(two), None]);
    assert_eq!(assemble("one", "2"), two);
    assert_eq!([load("one"), load("two")], [Some(two), Some(two)]);
}

#[test]
fn a_link_and_a_long_path_go_through_an_archive() {
    let lab = Lab::new();
    let long = PathBuf::from("d".repeat(120)).join("e".repeat(120)).join("f".repeat(60));
    let link = Entry { path: "link".into(), mode: 0o777, content: Content::Link("f".repeat(150).into()) };
    let entries = vec![Entry::file(&long, 0o644, &b"deep"[..]), link];
    let image = Image::assemble(&lab.store, "long", Details::default(), [layer(entries)]).unwrap();
    let root = &image.layers()[0].path;
    assert_eq!(fs::read(root.join(long)).unwrap(), b"deep");
    assert_eq!(fs::read_link(root.join("link")).unwrap(), PathBuf::from("f".repeat(150)));
}

#[test]
fn a_damaged_store_says_what_is_wrong() {
    let lab = Lab::new();
    let image = lab.default_image();
    let blob = lab.store.blob_path(&image.id());
    fs::write(&blob, "{}").unwrap();
    assert!(
        matches!(Image::load(&lab.store, image.name()), Err(ImageError::Corrupt { expected, .. }) if expected == image.id())
    );
    fs::remove_file(&blob).unwrap();
    let error = Image::load(&lab.store, image.name()).unwrap_err();
    assert!(matches!(error, ImageError::Missing(digest) if digest == image.id()), "{error}");
    assert!(error.hint().is_some());
    fs::write(lab.store.root().join("index.json"), "[").unwrap();
    assert!(matches!(lab.store.named("x"), Err(ImageError::Understand { .. })));
}

#[test]
fn an_archive_that_is_not_what_it_is_called_is_not_unpacked() {
    let lab = Lab::new();
    let image = lab.default_image();
    let layer = &image.layers()[1];
    fs::remove_dir_all(&layer.path).unwrap();
    let other = lab.store.blob_path(&image.layers()[0].blob);
    fs::copy(other, lab.store.blob_path(&layer.blob)).unwrap();
    let error = Image::load(&lab.store, image.name()).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { expected, .. } if expected == layer.diff_id), "{error}");
    assert!(!layer.path.exists());
    assert_eq!(lab.unfinished(), 0);
}

#[test]
fn a_layer_in_a_packing_not_known_here_is_refused_by_its_name() {
    let lab = Lab::new();
    let image = lab.default_image();
    let manifest = String::from_utf8(lab.store.blob(&image.manifest()).unwrap()).unwrap();
    let packed = manifest.replace("layer.v1.tar", "layer.v1.tar+lz4");
    let (digest, size) = lab
        .store
        .add_blob(|out| {
            out.write_all(packed.as_bytes()).unwrap();
            Ok(())
        })
        .unwrap();
    let descriptor = descriptor(MediaType::ImageManifest, &digest, size).unwrap();
    lab.store.set_name("packed", descriptor, &[]).unwrap();
    let error = Image::load(&lab.store, "packed").unwrap_err();
    assert!(error.to_string().contains("tar+lz4"), "{error}");
}

#[test]
fn a_payload_that_is_not_there_is_named() {
    let lab = Lab::new();
    let error = default_image(&lab.store, "/no/such/payload".as_ref()).unwrap_err();
    assert!(error.to_string().contains("/no/such/payload"), "{error}");
}

#[test]
fn what_dead_processes_left_is_pruned_and_the_image_stays() {
    let lab = Lab::new();
    let image = lab.default_image();
    for folder in ["layers", "blobs/sha256", ""] {
        // No process began at tick 1.
        let left = lab.store.root().join(folder).join(".tmp-4211-1-3");
        fs::create_dir_all(left.join("etc")).unwrap();
        fs::set_permissions(left.join("etc"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert_eq!(lab.store.prune().unwrap().len(), 3);
    assert_eq!(lab.unfinished(), 0);
    assert_eq!(Image::load(&lab.store, image.name()).unwrap().unwrap().id(), image.id());
}

#[test]
fn only_its_owner_looks_into_a_store() {
    let lab = Lab::new();
    assert_eq!(fs::metadata(lab.store.root()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_store_that_is_named_relatively_has_absolute_paths() {
    let folder = tempfile::tempdir().unwrap();
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let store = Store::open(up.join(folder.path().strip_prefix("/").unwrap())).unwrap();
    assert!(store.root().is_absolute());
    assert!(folder.path().join("oci-layout").exists());
}
