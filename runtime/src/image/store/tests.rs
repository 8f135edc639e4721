//! Layers that come in whole, packed, cut short, changed on their way, and twice.

use std::io::{self, Read, Write};

use super::Store;
use crate::image::{Algorithm, Digest, Entry, ImageError, LayerContent};

fn archive() -> Vec<u8> {
    let noise: Vec<u8> = (0..300_000_u32).map(|number| ((number * 7919) >> 5) as u8).collect();
    let entries = vec![Entry::directory("etc", 0o755), Entry::file("etc/noise", 0o644, noise)];
    let mut bytes = Vec::new();
    LayerContent { created_by: "a test".to_owned(), entries }.write(&mut bytes).unwrap();
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

struct Lab {
    _folder: tempfile::TempDir,
    store: Store,
}

fn lab() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    Lab { store: Store::open(folder.path().join("store")).unwrap(), _folder: folder }
}

fn is_empty(store: &Store) -> bool {
    let folders = ["blobs/sha256", "layers"].map(|folder| store.root().join(folder));
    folders.iter().all(|folder| std::fs::read_dir(folder).unwrap().count() == 0)
}

/// Gives one byte at a time, as a slow network may.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(buffer.get_mut(..length).unwrap_or_default())
    }
}

/// A connection that breaks.
struct Reset;

impl Read for Reset {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn a_layer_comes_in_plain_or_packed_and_is_one_tree() {
    let plain = archive();
    let packed = [plain.clone(), gzip(&plain), zstd::encode_all(plain.as_slice(), 1).unwrap()];
    for bytes in packed {
        for algorithm in Algorithm::ALL {
            let Lab { store, .. } = &lab();
            let (blob, diff_id) = (Digest::with(algorithm, &bytes), Digest::with(algorithm, &plain));
            let received = store.receive_layer(&blob, &diff_id, Slow(&bytes)).unwrap();
            assert_eq!(received.bytes, bytes.len() as u64);
            assert!(
                !store.has(&blob) && !store.layer_path(&diff_id).exists(),
                "it has a name before it is on the disk"
            );
            store.publish([received]).unwrap();
            assert_eq!(store.blob(&blob).unwrap(), bytes);
            assert_eq!(std::fs::read(store.layer_path(&diff_id).join("etc/noise")).unwrap().len(), 300_000);
        }
    }
}

#[test]
fn a_byte_changed_anywhere_is_told_as_such_and_nothing_stays() {
    let bytes = gzip(&archive());
    let (blob, diff_id) = (Digest::of(&bytes), Digest::of(&archive()));
    let Lab { store, .. } = &lab();
    for at in (0..bytes.len()).step_by(bytes.len() / 23).chain([bytes.len() - 1]) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        let error = store.receive_layer(&blob, &diff_id, changed.as_slice()).unwrap_err();
        assert!(matches!(error, ImageError::Corrupt { expected, .. } if expected == blob), "at {at}: {error}");
    }
    assert!(is_empty(store));
}

#[test]
fn a_layer_that_stops_coming_is_an_error_and_nothing_stays() {
    let bytes = gzip(&archive());
    let (blob, diff_id) = (Digest::of(&bytes), Digest::of(&archive()));
    let Lab { store, .. } = &lab();
    for length in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
        let cut = &bytes[..length];
        assert!(matches!(store.receive_layer(&blob, &diff_id, cut), Err(ImageError::Corrupt { .. })), "{length}");
        let error = store.receive_layer(&blob, &diff_id, cut.chain(Reset)).unwrap_err();
        assert!(matches!(error, ImageError::Receive { .. }), "{length}: {error}");
    }
    assert!(is_empty(store));
}

#[test]
fn an_archive_that_is_another_than_the_configuration_says_is_refused() {
    let bytes = gzip(&archive());
    let Lab { store, .. } = &lab();
    let error = store.receive_layer(&Digest::of(&bytes), &Digest::of(b"another"), bytes.as_slice()).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { expected, .. } if expected == Digest::of(b"another")), "{error}");
    let hostile = gzip(&[1; 4096]);
    let error = store.receive_layer(&Digest::of(&hostile), &Digest::of(&[1; 4096]), hostile.as_slice()).unwrap_err();
    assert!(matches!(error, ImageError::Layer(_)), "{error}");
    assert!(is_empty(store));
}

#[test]
fn a_layer_that_comes_twice_at_once_is_there_once() {
    let bytes = gzip(&archive());
    let (blob, diff_id) = (Digest::of(&bytes), Digest::of(&archive()));
    let Lab { store, .. } = &lab();
    let both = [(); 2].map(|()| store.receive_layer(&blob, &diff_id, bytes.as_slice()).unwrap());
    store.publish(both).unwrap();
    let third = store.receive_layer(&blob, &diff_id, bytes.as_slice()).unwrap();
    store.publish([third]).unwrap();
    assert_eq!(std::fs::read_dir(store.root().join("layers")).unwrap().count(), 1);
}

#[test]
fn what_nothing_leads_to_is_collected_and_what_is_pinned_or_held_stays() {
    let bytes = archive();
    let digest = Digest::of(&bytes);
    let Lab { store, .. } = &lab();
    let receive = || store.publish([store.receive_layer(&digest, &digest, bytes.as_slice()).unwrap()]).unwrap();
    receive();
    store.pin("a-build", &[digest]).unwrap();
    assert_eq!(store.collect().unwrap(), super::Collected::default());
    store.unpin("a-build").unwrap();
    let held = store.hold([digest]).unwrap();
    let collected = store.collect().unwrap();
    assert_eq!((collected.blobs.len(), collected.layers.len()), (1, 0));
    drop(held);
    assert_eq!(store.collect().unwrap().layers, [digest.hex()]);
    assert!(is_empty(store));
}

#[test]
fn what_was_not_on_the_disk_when_the_machine_went_down_is_looked_at_at_the_next_boot() {
    let plain = archive();
    let (cut, whole) = (gzip(&plain), zstd::encode_all(plain.as_slice(), 1).unwrap());
    let [cut_blob, whole_blob, diff_id] = [&cut, &whole, &plain].map(|bytes| Digest::of(bytes));
    let Lab { store, _folder } = &lab();
    for (blob, bytes) in [(&whole_blob, &whole), (&cut_blob, &cut)] {
        store.publish_unsettled([store.receive_layer(blob, &diff_id, bytes.as_slice()).unwrap()]).unwrap();
    }
    let notes = || std::fs::read_dir(store.root().join("unsettled")).unwrap().map(|note| note.unwrap().path());
    assert_eq!(notes().count(), 2);
    // In the same boot nothing is lost that has a name.
    Store::open(store.root()).unwrap();
    assert!(store.has(&cut_blob) && store.layer_path(&diff_id).is_dir());
    // Another boot, of which one file came back without its end.
    for note in notes().collect::<Vec<_>>() {
        let name = note.file_name().unwrap().to_str().unwrap().rsplit_once('.').unwrap().1.to_owned();
        std::fs::rename(&note, note.with_file_name(format!("another-boot.{name}"))).unwrap();
    }
    std::fs::write(store.blob_path(&cut_blob), &cut[..100]).unwrap();
    let noise = store.layer_path(&diff_id).join("etc/noise");
    std::fs::write(&noise, "cut short").unwrap();
    Store::open(store.root()).unwrap();
    assert!(!store.has(&cut_blob) && store.has(&whole_blob));
    assert_eq!(std::fs::read(&noise).unwrap().len(), 300_000, "it was unpacked anew");
    assert_eq!(notes().count(), 0);
    // Whoever waits for the disk waits for all that came before.
    let receive = || [store.receive_layer(&cut_blob, &diff_id, cut.as_slice()).unwrap()];
    store.publish_unsettled(receive()).unwrap();
    assert_eq!(notes().count(), 1);
    store.publish(receive()).unwrap();
    assert_eq!(notes().count(), 0);
}
