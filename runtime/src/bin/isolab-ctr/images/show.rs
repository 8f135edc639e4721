//! What is known of images: a list, a document, a history.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use isolab_runtime::engine::{Engine, EngineError};
use isolab_runtime::image::{ImageError, Manifest, Named, Reference, Store};
use serde_json::{Value, json};

use super::{familiar, size_of};
use crate::format::{Listing, documents, row};
use crate::print;
use crate::voice::Failure;

/// How much of a step is shown in a list, in characters: as much as 80 columns have room for.
const STEP: usize = 43;
const NONE: &str = "<none>";

pub(super) fn list(
    store: &Store,
    chosen: &[Named],
    quiet: bool,
    whole: bool,
    format: Option<&str>,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut ids = BTreeSet::new();
    // The newest first, as docker has it.
    for named in chosen.iter().rev() {
        let manifest = Manifest::read(store, &named.descriptor)?;
        let id = if whole { manifest.id().to_string() } else { manifest.id().short() };
        if quiet {
            if ids.insert(id.clone()) {
                print::text(&format!("{id}\n"))?;
            }
            continue;
        }
        let reference = named.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
        let repository = reference.as_ref().map(|one| Reference { tag: None, digest: None, ..one.clone() }.familiar());
        let [repository, tag] = [repository, reference.and_then(|one| one.tag)].map(|text| text.unwrap_or(NONE.into()));
        let created = manifest.configuration().created().clone().unwrap_or_else(|| "-".to_owned());
        let day = created.split('T').next().unwrap_or_default().to_owned();
        let size = print::size(size_of(&manifest));
        rows.push(row(&[
            ("Repository", repository),
            ("Tag", tag),
            ("ID", id),
            ("Digest", manifest.digest().to_string()),
            ("CreatedSince", day),
            ("CreatedAt", created),
            ("Size", size),
        ]));
    }
    let columns = &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
    ];
    let more = &[("Digest", "DIGEST"), ("CreatedAt", "CREATED AT")];
    if quiet { Ok(()) } else { Listing { columns, more, rows }.print(format) }
}

pub(super) fn inspect(engine: &Engine, names: &[String], format: Option<&str>) -> Result<(), Failure> {
    let store = engine.store();
    let one = |name: &String| match engine.find(name) {
        Ok(record) => Ok(engine.inspect(&record)?),
        Err(EngineError::NoContainer { .. }) => match store.resolve(name) {
            Err(ImageError::Unknown { .. }) => Err(Failure::NoObject { name: name.clone() }),
            other => document(store, &other?),
        },
        Err(error) => Err(error.into()),
    };
    documents(format, names.iter().map(one).collect::<Result<Vec<_>, Failure>>()?)
}

/// docker's form of what is known of an image.
fn document(store: &Store, found: &Named) -> Result<Value, Failure> {
    let manifest = Manifest::read(store, &found.descriptor)?;
    let names = store.names()?;
    let names = names.iter().filter(|one| one.descriptor.digest() == found.descriptor.digest());
    let names: Vec<&String> = names.filter_map(|one| one.name.as_ref()).collect();
    let repositories = names.iter().filter_map(|name| name.parse::<Reference>().ok());
    let digests: BTreeSet<String> = repositories
        .map(|one| format!("{}@{}", Reference { tag: None, digest: None, ..one }.familiar(), found.descriptor.digest()))
        .collect();
    // As it was written, with what the specification doesn't know.
    let text = store.blob(&manifest.id())?;
    let understand = |source| ImageError::Understand { what: "the configuration".to_owned(), source };
    let configuration: Value = serde_json::from_slice(&text).map_err(understand)?;
    let of = |key: &str| configuration.get(key).cloned().unwrap_or_default();
    Ok(json!({
        "Id": manifest.id().to_string(),
        "RepoTags": names.iter().filter(|name| !name.contains('@')).map(|name| familiar(name)).collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Created": of("created"),
        "Author": of("author"),
        "Architecture": of("architecture"),
        "Os": of("os"),
        "Size": size_of(&manifest),
        "Config": of("config"),
        "RootFS": { "Type": "layers", "Layers": manifest.configuration().rootfs().diff_ids() },
        "Descriptor": found.descriptor,
    }))
}

pub(super) fn history(store: &Store, image: &str, whole: bool) -> Result<(), Failure> {
    let manifest = Manifest::read(store, &store.resolve(image)?.descriptor)?;
    let layers = manifest.layers()?;
    let mut next = layers.iter();
    let mut rows = Vec::new();
    for step in manifest.configuration().history().iter().flatten() {
        let layer = if step.empty_layer() == Some(true) { None } else { next.next() };
        let id = layer.map(|layer| if whole { layer.diff_id.to_string() } else { layer.diff_id.short() });
        let size =
            layer.map_or(0, |layer| unpacked(&store.layer_path(&layer.diff_id)).unwrap_or(layer.descriptor.size()));
        let created = step.created().clone().unwrap_or_else(|| "-".to_owned());
        let day = created.split('T').next().unwrap_or_default().to_owned();
        let step = instruction(step.created_by().as_deref().unwrap_or_default());
        let step = if whole { step } else { print::shorten(&step, STEP) };
        rows.push(vec![id.unwrap_or_else(|| "-".to_owned()), day, step, print::size(size)]);
    }
    rows.push(["LAYER", "CREATED", "CREATED BY", "SIZE"].map(str::to_owned).to_vec());
    rows.reverse();
    print::text(&print::columns(&rows))
}

/// The bytes of a layer's files as a container finds them; nothing where it is not unpacked. A file of several names
/// counts once.
fn unpacked(layer: &Path) -> Option<u64> {
    let (mut bytes, mut seen, mut waiting) = (0, HashSet::new(), vec![layer.to_owned()]);
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).ok()? {
            let data = entry.as_ref().ok()?.metadata().ok()?;
            if data.is_dir() {
                waiting.push(entry.ok()?.path());
            } else if data.is_file() && (data.nlink() == 1 || seen.insert(data.ino())) {
                bytes += data.len();
            }
        }
    }
    Some(bytes)
}

/// A step in one line, without what shells and builders put around it.
pub(super) fn instruction(step: &str) -> String {
    let step = step.strip_prefix("/bin/sh -c #(nop) ").unwrap_or(step);
    step.split_whitespace().collect::<Vec<_>>().join(" ")
}
