//! Blobs become a snapshot again, of a new machine.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use tracing::info_span;

use super::layout::{Descriptor, Layout, Manifest};
use super::{ARTIFACT, Config, MEMORY, OFFSET, STATE, TravelError, failed, piece};
use crate::memory::PAGE;
use crate::named::{Name, Store};
use crate::snapshot::format;

/// What packing may add to what can't be packed.
const SLACK: u64 = 1 << 16;

/// Makes the machine `name` of the snapshot with `tag` in the layout at `path`: it starts from that snapshot.
pub fn import(store: &Store, path: &Path, tag: &str, name: &Name) -> Result<(), TravelError> {
    let _span = info_span!(
        "travel.import",
        call = "read(2), write(2)",
        why = "each blob is compared with its digest, and what is in it checked, before any of it is believed"
    )
    .entered();
    let layout = Layout::open(path)?;
    let manifest = layout.tagged(tag)?;
    if manifest.artifact_type.as_deref() != Some(ARTIFACT) {
        return Err(TravelError::NoSnapshot(format!("{}:{tag}", path.display())));
    }
    let bytes = layout.get(&manifest.config, 1 << 20)?;
    let what = format!("the config {}", manifest.config.digest);
    let config: Config = serde_json::from_slice(&bytes).map_err(|source| TravelError::Json { what, source })?;
    let state = unpack(&layout, only(&manifest, STATE)?, format::LARGEST as u64 + SLACK)?;
    let decoded = format::decode(&state)?;
    let machine = config.isolab;
    if decoded.id != machine.about.id {
        return Err(TravelError::NoSnapshot(format!("{}:{tag}, whose state is of another one,", path.display())));
    }
    store.adopt(name, &machine.record, &machine.snapshot, &machine.about, &|folder| {
        write(&folder.join("state"), &state)?;
        let memory = folder.join("memory");
        let file = new_file(&memory)?;
        file.set_len(decoded.memory).map_err(failed("make", &memory))?;
        let size = piece(decoded.memory);
        for layer in manifest.layers.iter().filter(|layer| layer.media_type == MEMORY) {
            let at = offset(layer, decoded.memory, size)?;
            let bytes = unpack(&layout, layer, size)?;
            if bytes.len() as u64 > decoded.memory - at {
                return Err(wrong(layer, "it reaches over the end of memory"));
            }
            write_sparse(&file, &bytes, at).map_err(failed("write", &memory))?;
        }
        Ok(())
    })
}

/// The one layer of its kind.
fn only<'a>(manifest: &'a Manifest, media_type: &str) -> Result<&'a Descriptor, TravelError> {
    let mut found = manifest.layers.iter().filter(|layer| layer.media_type == media_type);
    match (found.next(), found.next()) {
        (Some(layer), None) => Ok(layer),
        _ => Err(TravelError::NoSnapshot(format!("a manifest without one {media_type}"))),
    }
}

/// Where a piece of memory begins.
fn offset(layer: &Descriptor, memory: u64, size: u64) -> Result<u64, TravelError> {
    let at = layer.annotations.get(OFFSET).and_then(|text| text.parse::<u64>().ok());
    at.filter(|at| *at < memory && at.is_multiple_of(size)).ok_or_else(|| wrong(layer, "it has no place in memory"))
}

fn wrong(layer: &Descriptor, why: &str) -> TravelError {
    TravelError::Blob { digest: layer.digest.clone(), why: why.to_owned() }
}

/// A blob's contents, which are no longer than `most`.
fn unpack(layout: &Layout, blob: &Descriptor, most: u64) -> Result<Vec<u8>, TravelError> {
    let packed = layout.get(blob, most + SLACK)?;
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
