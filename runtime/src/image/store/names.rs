//! Names: what the index of the store knows images by.
//!
//! An image can have many names, and none: whose only name went to another is still there, and is known by its id.

use std::fs;

use oci_spec::image::{Descriptor, ImageIndex};

use super::{Store, io_error, understand};
use crate::image::{Digest, ImageError, Manifest, Reference};

/// Where an image's name stands in the index (image-spec, annotations.md).
const NAME: &str = "org.opencontainers.image.ref.name";

/// An entry of the index.
#[derive(Debug, Clone)]
pub struct Named {
    /// What it is called, whole; `None` for an image whose name went to another.
    pub name: Option<String>,
    /// Its manifest, or an index of manifests for several platforms.
    pub descriptor: Descriptor,
}

impl Store {
    /// All entries of the index, in the order in which they came.
    pub fn names(&self) -> Result<Vec<Named>, ImageError> {
        let index = self.index()?;
        let all = index.manifests().iter().map(|descriptor| {
            let name = name_of(descriptor).map(str::to_owned);
            Named { name, descriptor: descriptor.clone() }
        });
        Ok(all.collect())
    }

    /// What a name stands for, letter by letter.
    pub fn named(&self, name: &str) -> Result<Option<Descriptor>, ImageError> {
        Ok(self.index()?.manifests().iter().find(|manifest| name_of(manifest) == Some(name)).cloned())
    }

    /// Finds what a person means: a name with docker's defaults, or the beginning of an id that no other image has.
    pub fn resolve(&self, text: &str) -> Result<Named, ImageError> {
        let names = self.names()?;
        let reference = text.parse::<Reference>();
        let whole = reference.as_ref().map(Reference::to_string).unwrap_or_default();
        let called = |name: &str| names.iter().find(|one| one.name.as_deref() == Some(name));
        if let Some(found) = called(text).or_else(|| called(&whole)) {
            return Ok(found.clone());
        }
        let by_digest = reference.as_ref().ok().and_then(|reference| {
            let digest = reference.digest?.to_string();
            names.iter().find(|one| one.descriptor.digest().to_string() == digest && in_repository(one, reference))
        });
        if let Some(found) = by_digest {
            return Ok(found.clone());
        }
        if let Some(found) = self.by_id(text, &names)? {
            return Ok(found);
        }
        let known = names.iter().filter_map(|one| one.name.clone()).collect();
        reference?;
        Err(ImageError::Unknown { name: text.to_owned(), known })
    }

    /// Lets a name stand for a manifest, and no longer for another. `notes` are kept beside the name.
    pub fn set_name(&self, name: &str, manifest: Descriptor, notes: &[(&str, &str)]) -> Result<(), ImageError> {
        self.change_index(|manifests| {
            displace(manifests, name);
            // An image that was known by its id only has a name again.
            manifests.retain(|other| name_of(other).is_some() || other.digest() != manifest.digest());
            manifests.push(with_name(manifest, name, notes));
        })
    }

    /// Gives what `source` is called another name.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<(), ImageError> {
        let _shared = self.shared()?;
        let found = self.resolve(source)?;
        self.set_name(&name.to_string(), found.descriptor, &[])
    }

    /// Keeps a manifest without a name: it is known by its id.
    pub fn keep_unnamed(&self, mut manifest: Descriptor) -> Result<(), ImageError> {
        manifest.set_annotations(None);
        self.change_index(|manifests| {
            if !manifests.iter().any(|other| other.digest() == manifest.digest()) {
                manifests.push(manifest);
            }
        })
    }

    /// Takes a name away, and what it stood for with its last name. Answers whether there was such a name. The blobs
    /// stay until [`Store::collect`].
    pub fn remove_name(&self, name: &str) -> Result<bool, ImageError> {
        let mut removed = false;
        self.change_index(|manifests| {
            let before = manifests.len();
            manifests.retain(|other| name_of(other) != Some(name));
            removed = manifests.len() < before;
        })?;
        Ok(removed)
    }

    /// Takes away all names of a manifest.
    pub fn remove_manifest(&self, digest: &Digest) -> Result<(), ImageError> {
        let digest = digest.to_string();
        self.change_index(|manifests| manifests.retain(|other| other.digest().to_string() != digest))
    }

    /// Images whose id, or the digest of whose manifest, begins like this.
    fn by_id(&self, text: &str, names: &[Named]) -> Result<Option<Named>, ImageError> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || !prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let mut found: Vec<(Digest, &Named)> = Vec::new();
        for one in names {
            let manifest = Digest::try_from(one.descriptor.digest())?;
            // A damaged image elsewhere must not keep a sound one from being found.
            let id = Manifest::read(self, &one.descriptor).map_or(manifest, |manifest| manifest.id());
            let known = found.iter().any(|(other, _)| *other == id);
            if !known && (id.hex().starts_with(prefix) || manifest.hex().starts_with(prefix)) {
                found.push((id, one));
            }
        }
        match found.as_slice() {
            [] => Ok(None),
            [(_, one)] => Ok(Some((*one).clone())),
            several => {
                let candidates = several.iter().map(|(id, one)| label(id, one)).collect();
                Err(ImageError::Ambiguous { prefix: text.to_owned(), candidates })
            }
        }
    }

    pub(super) fn index(&self) -> Result<ImageIndex, ImageError> {
        let path = self.root().join("index.json");
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&text).map_err(understand(&path.display().to_string()))
    }

    fn change_index(&self, change: impl FnOnce(&mut Vec<Descriptor>)) -> Result<(), ImageError> {
        let _lock = self.lock_index()?;
        let mut index = self.index()?;
        let mut manifests = index.manifests().clone();
        change(&mut manifests);
        if manifests == *index.manifests() {
            return Ok(());
        }
        index.set_manifests(manifests);
        let text = serde_json::to_vec(&index).map_err(understand("the index to be written"))?;
        self.replace(&self.root().join("index.json"), &text)
    }
}

/// Takes a name from what has it. What it stood for stays without one, if it has no other.
fn displace(manifests: &mut Vec<Descriptor>, name: &str) {
    let Some(at) = manifests.iter().position(|other| name_of(other) == Some(name)) else { return };
    let mut old = manifests.remove(at);
    if !manifests.iter().any(|other| other.digest() == old.digest()) {
        old.set_annotations(None);
        manifests.insert(at, old);
    }
}

fn with_name(mut manifest: Descriptor, name: &str, notes: &[(&str, &str)]) -> Descriptor {
    let notes = notes.iter().copied().chain([(NAME, name)]).map(|(key, value)| (key.to_owned(), value.to_owned()));
    manifest.set_annotations(Some(notes.collect()));
    manifest
}

fn in_repository(one: &Named, reference: &Reference) -> bool {
    let other = one.name.as_ref().and_then(|name| name.parse::<Reference>().ok());
    other.is_some_and(|other| other.registry == reference.registry && other.repository == reference.repository)
}

fn label(id: &Digest, one: &Named) -> String {
    let name = one.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}{name}", id.short())
}

fn name_of(manifest: &Descriptor) -> Option<&str> {
    manifest.annotations().as_ref().and_then(|annotations| annotations.get(NAME)).map(String::as_str)
}
