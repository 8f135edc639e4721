//! Blobs become a snapshot again, of a new machine.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use tracing::info_span;

use super::layout::{Blobs, Descriptor, Layout, Manifest};
use super::registry::{Reference, Registry};
use super::{ARTIFACT, Config, DISK, MEMORY, OF, OFFSET, STATE, TravelError, failed, piece};
use crate::memory::PAGE;
use crate::named::{Name, Store};
use crate::snapshot::bundle::{is_bundled, kept_disks};
use crate::snapshot::format;

/// What packing may add to what can't be packed.
const SLACK: u64 = 1 << 16;
/// No disk is longer, in bytes: 64 TiB, and of those only what has travelled takes room.
const LARGEST_DISK: u64 = 1 << 46;

/// Makes the machine `name` of the snapshot with `tag` in the layout at `path`: it starts from that snapshot.
pub fn import(store: &Store, path: &Path, tag: &str, name: &Name) -> Result<(), TravelError> {
    unpack(store, &Layout::open(path)?, &format!("{}:{tag}", path.display()), tag, name)
}

/// Fetches a snapshot from a registry, and makes the machine `name` of it: it starts from that snapshot.
pub fn pull(store: &Store, from: &Reference, name: &Name) -> Result<(), TravelError> {
    let what = format!("{}/{}:{}", from.registry, from.repository, from.tag);
    unpack(store, &Registry::new(from), &what, &from.tag, name)
}

fn unpack(store: &Store, blobs: &dyn Blobs, what: &str, tag: &str, name: &Name) -> Result<(), TravelError> {
    let _span = info_span!(
        "travel.import",
        call = "read(2), write(2)",
        why = "each blob is compared with its digest, and what is in it checked, before any of it is believed"
    )
    .entered();
    let manifest = blobs.tagged(tag)?;
    if manifest.artifact_type.as_deref() != Some(ARTIFACT) {
        return Err(TravelError::NoSnapshot(what.to_owned()));
    }
    let bytes = blobs.get(&manifest.config, 1 << 20)?;
    let config = format!("the config {}", manifest.config.digest);
    let config: Config = serde_json::from_slice(&bytes).map_err(|source| TravelError::Json { what: config, source })?;
    let state = fetch(blobs, only(&manifest, STATE)?, format::LARGEST as u64 + SLACK)?;
    let decoded = format::decode(&state)?;
    let machine = config.isolab;
    if decoded.id != machine.about.id {
        return Err(TravelError::NoSnapshot(format!("{what}, whose state is of another one,")));
    }
    // What somebody else has written names no file of this host.
    if !is_bundled(&decoded) {
        return Err(TravelError::NoSnapshot(format!("{what}, whose disks have not come with it,")));
    }
    store.adopt(name, &machine.record, &machine.snapshot, &machine.about, &|folder| {
        write(&folder.join("state"), &state)?;
        let target = Target { kind: MEMORY, name: "memory", length: decoded.memory };
        unpack_pieces(blobs, &manifest, &target, &folder.join("memory"))?;
        for disk in kept_disks(&decoded) {
            let name = disk.to_string_lossy();
            let length = machine.disks.get(name.as_ref()).copied();
            let length = length.filter(|length| *length <= LARGEST_DISK);
            let length = length.ok_or_else(|| TravelError::NoSnapshot(format!("{what}, which lacks {name},")))?;
            let target = Target { kind: DISK, name: &name, length };
            unpack_pieces(blobs, &manifest, &target, &folder.join(disk))?;
        }
        Ok(())
    })
}

/// Something long that has travelled in pieces.
struct Target<'a> {
    kind: &'a str,
    name: &'a str,
    length: u64,
}

/// Writes the pieces of something to a file; what has not travelled is a hole.
fn unpack_pieces(blobs: &dyn Blobs, manifest: &Manifest, target: &Target<'_>, path: &Path) -> Result<(), TravelError> {
    let file = new_file(path)?;
    file.set_len(target.length).map_err(failed("make", path))?;
    let size = piece(target.length);
    let of = |layer: &&Descriptor| {
        layer.media_type == target.kind && layer.annotations.get(OF).is_none_or(|name| name == target.name)
    };
    for layer in manifest.layers.iter().filter(of) {
        let at = offset(layer, target.length, size)?;
        let bytes = fetch(blobs, layer, size)?;
        if bytes.len() as u64 > target.length - at {
            return Err(wrong(layer, "it reaches over the end"));
        }
        write_sparse(&file, &bytes, at).map_err(failed("write", path))?;
    }
    Ok(())
}

/// The one layer of its kind.
fn only<'a>(manifest: &'a Manifest, media_type: &str) -> Result<&'a Descriptor, TravelError> {
    let mut found = manifest.layers.iter().filter(|layer| layer.media_type == media_type);
    match (found.next(), found.next()) {
        (Some(layer), None) => Ok(layer),
        _ => Err(TravelError::NoSnapshot(format!("a manifest without one {media_type}"))),
    }
}

/// Where a piece begins.
fn offset(layer: &Descriptor, length: u64, size: u64) -> Result<u64, TravelError> {
    let at = layer.annotations.get(OFFSET).and_then(|text| text.parse::<u64>().ok());
    at.filter(|at| *at < length && at.is_multiple_of(size)).ok_or_else(|| wrong(layer, "it has no place"))
}

fn wrong(layer: &Descriptor, why: &str) -> TravelError {
    TravelError::Blob { digest: layer.digest.clone(), why: why.to_owned() }
}

/// A blob's contents, which are no longer than `most`.
fn fetch(blobs: &dyn Blobs, blob: &Descriptor, most: u64) -> Result<Vec<u8>, TravelError> {
    let packed = blobs.get(blob, most + SLACK)?;
    // No more memory than this is taken, whatever the blob says of itself.
    zstd::bulk::decompress(&packed, most as usize)
        .map_err(|error| wrong(blob, &format!("it can't be unpacked: {error}")))
}

fn new_file(path: &Path) -> Result<File, TravelError> {
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(path).map_err(failed("make", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), TravelError> {
    new_file(path)?.write_all_at(bytes, 0).map_err(failed("write", path))
}

/// Writes the pages that hold anything; the others stay holes.
fn write_sparse(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    for (page, place) in bytes.chunks(PAGE as usize).zip((at..).step_by(PAGE as usize)) {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, place)?;
        }
    }
    Ok(())
}
