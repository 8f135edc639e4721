//! A picture of an image's stack.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use isolab_runtime::image::{Digest, Image, Manifest, Store};

use super::familiar;
use super::show::instruction;
use crate::print;
use crate::voice::Failure;

/// How wide a step may be in the picture, in characters.
const STEP: usize = 58;

pub(super) fn draw(store: &Store, image: &str) -> Result<(), Failure> {
    let named = store.resolve(image)?;
    let image = Image::from_manifest(store, &named.descriptor)?;
    let sharers = sharers(store, &image.id())?;
    let mut steps: Vec<String> = Vec::new();
    for step in image.configuration().history().iter().flatten().filter(|step| step.empty_layer() != Some(true)) {
        steps.push(instruction(step.created_by().as_deref().unwrap_or_default()));
    }
    let name = named.name.as_deref().map(familiar).unwrap_or_default();
    let mut lines = vec![format!("{name} {}", image.id().short()).trim_start().to_owned()];
    for (place, layer) in image.layers().iter().enumerate().rev() {
        let step = steps.get(place).map_or("", String::as_str);
        let (added, hidden) = count(&layer.path);
        let shared = sharers.get(&layer.diff_id).map(|names| format!(", shared with {}", names.join(", ")));
        lines.push("│".to_owned());
        lines.push(format!("├─ {}  {}", layer.diff_id.short(), print::shorten(step, STEP)));
        let size = print::size(layer.size);
        lines.push(format!("│  {size}: adds {added}, hides {hidden}{}", shared.unwrap_or_default()));
    }
    lines.push(format!("╵{}\n", saved(&image, &sharers)));
    print::text(&lines.join("\n"))
}

/// How much of an image is kept for other images too; nothing where it is nothing. An image that has a layer twice has its
/// bytes once.
fn saved(image: &Image, sharers: &HashMap<Digest, Vec<String>>) -> String {
    let once: HashMap<Digest, u64> = image.layers().iter().map(|layer| (layer.diff_id, layer.size)).collect();
    let all: u64 = once.values().sum();
    let shared: u64 = once.iter().filter(|(layer, _)| sharers.contains_key(layer)).map(|(_, size)| size).sum();
    if shared == 0 {
        return String::new();
    }
    format!("  {} are its own; {} are shared, and lie here once", print::size(all - shared), print::size(shared))
}

pub(super) fn owner(store: &Store, image: &str, path: &Path) -> Result<(), Failure> {
    let named = store.resolve(image)?;
    let image = Image::from_manifest(store, &named.descriptor)?;
    let inside: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    for layer in image.layers().iter().rev() {
        match state(&layer.path, &inside) {
            State::There => return print::text(&format!("{}\n", layer.diff_id.short())),
            State::Hidden => break,
            State::Absent => {}
        }
    }
    Err(Failure::NoPath { image: image.id().short(), path: path.to_owned() })
}

enum State {
    There,
    Hidden,
    Absent,
}

/// What a layer says of a path; no link is followed.
fn state(layer: &Path, path: &Path) -> State {
    let mut at = layer.to_owned();
    let mut opaque = false;
    for part in path.components() {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(data) if data.file_type().is_char_device() && data.rdev() == 0 => return State::Hidden,
            Ok(data) => opaque |= data.is_dir() && isolab_runtime::image::is_opaque(&at),
            Err(_) if opaque => return State::Hidden,
            Err(_) => return State::Absent,
        }
    }
    State::There
}

/// How many files a layer has besides directories, and how many names it hides below.
fn count(layer: &Path) -> (u64, u64) {
    let (mut added, mut hidden) = (0, 0);
    let mut waiting = vec![layer.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() {
                hidden += u64::from(isolab_runtime::image::is_opaque(&entry.path()));
                waiting.push(entry.path());
            } else if data.file_type().is_char_device() && data.rdev() == 0 {
                hidden += 1;
            } else {
                added += 1;
            }
        }
    }
    (added, hidden)
}

/// The other images that have a layer, by its diff id.
fn sharers(store: &Store, own: &Digest) -> Result<HashMap<Digest, Vec<String>>, Failure> {
    let mut sharers: HashMap<Digest, Vec<String>> = HashMap::new();
    for named in store.names()? {
        // A damaged image elsewhere is fsck's concern.
        let Ok(manifest) = Manifest::read(store, &named.descriptor) else { continue };
        if manifest.id() == *own {
            continue;
        }
        let name = named.name.as_deref().map_or_else(|| manifest.id().short(), familiar);
        for layer in manifest.layers().unwrap_or_default() {
            let names = sharers.entry(layer.diff_id).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
    }
    Ok(sharers)
}
