//! Images in one file: what `save` writes and `load` reads.
//!
//! The file is a tar archive of an OCI image layout (image-spec, image-layout.md) with docker's own list beside it,
//! `manifest.json`, which names the same blobs: every engine finds what it knows. Older files of docker have that list
//! only, and a folder for each layer; those from before 1.10 do not say what their images consist of, and are refused.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifestBuilder, MediaType};
use serde::{Deserialize, Serialize};
use tar::{Builder, EntryType, Header};

use super::compression::{Packing, decompress};
use super::store::{io_error, understand};
use super::temporary::Temporary;
use super::{Digest, ImageError, LayerError, Limits, Manifest, Named, Reference, Store, descriptor, unpack};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Where containerd, and docker since 25, look for an image's whole name.
const WHOLE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// No document of an image is larger than this, in bytes.
const DOCUMENT: u64 = 16 << 20;

/// A line of docker's list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes images as one file. The same images give the same bytes.
pub fn save(store: &Store, images: &[Named], out: impl Write) -> Result<(), ImageError> {
    let _shared = store.shared()?;
    let failed = |source| ImageError::Layer(LayerError::Write { path: "the archive".into(), source });
    let mut archive = Builder::new(out);
    let (mut written, mut index, mut listed) = (HashSet::new(), Vec::new(), Vec::<Listed>::new());
    for image in images {
        let manifest = Manifest::read(store, &image.descriptor)?;
        let layers: Vec<Digest> = manifest.layers()?.iter().map(|layer| layer.blob).collect();
        for digest in [manifest.digest(), manifest.id()].iter().chain(&layers) {
            if written.insert(*digest) {
                let blob = store.open_blob(digest)?;
                append(&mut archive, &place(digest), store.size(digest)?, blob).map_err(failed)?;
            }
        }
        index.push(entry(&manifest, image.name.as_deref()));
        let config = place(&manifest.id());
        let tag = image.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
        let tag = tag.filter(|reference| reference.tag.is_some() && reference.digest.is_none());
        match listed.iter_mut().find(|other| other.config == config) {
            Some(other) => other.repo_tags.get_or_insert_default().extend(tag.map(|tag| tag.to_string())),
            None => listed.push(Listed {
                config,
                repo_tags: tag.map(|tag| vec![tag.to_string()]),
                layers: layers.iter().map(place).collect(),
            }),
        }
    }
    let mut document = ImageIndex::default();
    document.set_schema_version(2).set_media_type(Some(MediaType::ImageIndex)).set_manifests(index);
    let index = super::canonical(&document, "the index to be written")?;
    let listed = serde_json::to_vec(&listed).map_err(understand("the list to be written"))?;
    for (name, text) in [("index.json", index.as_slice()), ("manifest.json", &listed), ("oci-layout", LAYOUT)] {
        append(&mut archive, name, text.len() as u64, text).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut out| out.flush()).map_err(failed)
}

/// Reads such a file, packed or not, and answers the names of what was in it, or ids where there was no name.
pub fn load(store: &Store, archive: impl Read + Send) -> Result<Vec<String>, ImageError> {
    let _shared = store.shared()?;
    let folder = Temporary::name_in(store.root());
    std::fs::create_dir(folder.path()).map_err(io_error("make", folder.path()))?;
    let archive = decompress(archive).map_err(LayerError::Read)?;
    unpack(archive, folder.path(), Limits::default())?;
    let listed: Vec<Listed> = document(folder.path(), "manifest.json")?.unwrap_or_default();
    let index: Option<ImageIndex> = document(folder.path(), "index.json")?;
    let mut names = Vec::new();
    if let Some(index) = index {
        for manifest in index.manifests() {
            names.extend(load_manifest(store, folder.path(), manifest, &listed)?);
        }
    } else {
        for one in &listed {
            names.extend(load_listed(store, folder.path(), one)?);
        }
    }
    if !names.is_empty() {
        return Ok(names);
    }
    // Such a file has a list of names, and of each layer only what lies below it.
    let old = open(folder.path(), "repositories")?.is_some();
    Err(if old { ImageError::OldArchive } else { ImageError::NoArchive })
}

/// An image of an OCI layout: its blobs are called by their digests.
fn load_manifest(
    store: &Store,
    folder: &Path,
    descriptor: &Descriptor,
    listed: &[Listed],
) -> Result<Vec<String>, ImageError> {
    let digest = Digest::try_from(descriptor.digest())?;
    let mut waiting = vec![digest];
    let mut seen = HashSet::new();
    while let Some(digest) = waiting.pop() {
        // An index need not have all of its platforms; what is missing of the chosen one is told below.
        if !seen.insert(digest) {
            continue;
        }
        // A manifest that is there already may be somebody's who has not come to its layers yet: they are looked for, too.
        if !store.has(&digest)
            && let Some(mut file) = open(folder, &place(&digest))?
        {
            let mut writer = store.writer_with(digest.algorithm())?;
            io::copy(&mut file, &mut writer).map_err(io_error("read", folder))?;
            writer.finish(Some(&digest))?;
        }
        if store.has(&digest) && store.size(&digest)? <= DOCUMENT {
            waiting.extend(Manifest::next(store, &digest)?);
        }
    }
    let manifest = Manifest::read(store, descriptor)?;
    for layer in manifest.layers()? {
        store.size(&layer.blob)?;
    }
    let notes = descriptor.annotations().clone().unwrap_or_default();
    let whole = notes.get(WHOLE_NAME).or_else(|| notes.get(REF_NAME)).filter(|name| name.contains(['/', ':']));
    let config = place(&manifest.id());
    let tags = listed.iter().filter(|one| one.config == config).flat_map(|one| one.repo_tags.iter().flatten());
    let names: Vec<&String> = match whole {
        Some(name) => vec![name],
        None => tags.collect(),
    };
    name(store, &manifest, descriptor, &names)
}

/// An image of docker's list: only its configuration says what its layers are.
fn load_listed(store: &Store, folder: &Path, listed: &Listed) -> Result<Vec<String>, ImageError> {
    let missing = |path: &str| io_error("find in the archive", Path::new(path))(io::ErrorKind::NotFound.into());
    let mut config = Vec::new();
    let file = open(folder, &listed.config)?.ok_or_else(|| missing(&listed.config))?;
    file.take(DOCUMENT).read_to_end(&mut config).map_err(io_error("read", folder))?;
    let (id, size) = store.add_bytes(&config)?;
    let config = descriptor(MediaType::ImageConfig, &id, size)?;
    let mut layers = Vec::new();
    for path in &listed.layers {
        let mut file = open(folder, path)?.ok_or_else(|| missing(path))?;
        let packing = Packing::of(&mut file).map_err(io_error("read", folder))?;
        let mut writer = store.writer()?;
        io::copy(&mut file, &mut writer).map_err(io_error("read", folder))?;
        let (digest, size) = writer.finish(None)?;
        layers.push(descriptor(packing.media_type(), &digest, size)?);
    }
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()?;
    let found = super::add_document(store, MediaType::ImageManifest, &manifest)?;
    let manifest = Manifest::read(store, &found)?;
    // Here the configuration is all that vouches for the layers, so they are unpacked, which compares them with it.
    store.unpack_layers(&manifest.layers()?)?;
    name(store, &manifest, &found, &listed.repo_tags.iter().flatten().collect::<Vec<_>>())
}

fn name(
    store: &Store,
    manifest: &Manifest,
    descriptor: &Descriptor,
    names: &[&String],
) -> Result<Vec<String>, ImageError> {
    let names: Vec<Reference> = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    for name in &names {
        store.set_name(&name.to_string(), descriptor.clone(), &[])?;
    }
    if names.is_empty() {
        store.keep_unnamed(descriptor.clone())?;
        return Ok(vec![manifest.id().to_string()]);
    }
    Ok(names.iter().map(Reference::familiar).collect())
}

fn entry(manifest: &Manifest, name: Option<&str>) -> Descriptor {
    let mut entry = manifest.descriptor().clone();
    let notes = name.map(|name| [WHOLE_NAME, REF_NAME].map(|key| (key.to_owned(), name.to_owned())).into());
    entry.set_annotations(notes);
    entry
}

fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn append(archive: &mut Builder<impl Write>, path: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    archive.append_data(&mut header, path, content.take(size))
}

/// A file of an unpacked archive. Links in it lead nowhere else: older files of docker have some.
fn open(folder: &Path, path: &str) -> Result<Option<File>, ImageError> {
    let root = File::open(folder).map_err(io_error("open", folder))?;
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC);
    let how = how.mode(Mode::empty()).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&root, path, how) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(nix::errno::Errno::ENOENT) => Ok(None),
        Err(errno) => Err(io_error("read from the archive", Path::new(path))(errno.into())),
    }
}

fn document<T: for<'a> Deserialize<'a>>(folder: &Path, path: &str) -> Result<Option<T>, ImageError> {
    let Some(file) = open(folder, path)? else { return Ok(None) };
    let mut text = Vec::new();
    file.take(DOCUMENT).read_to_end(&mut text).map_err(io_error("read", folder))?;
    serde_json::from_slice(&text).map(Some).map_err(understand(path))
}
