//! A container like another: with the same layers below, or with nothing in common.
//!
//! Of a *linked* clone the parent's changes become one more layer, which both have from then on, and the clone writes into a
//! folder of its own above it: nothing is copied but what the parent had changed. A *full* clone has all of the parent's
//! files once more, in one layer that is its own. Either has an id, a name, a host name and addresses of its own.

use std::fs;
use std::path::PathBuf;

use oci_spec::image::{Descriptor, MediaType};
use tracing::info_span;

use super::create::{OWN_LAYER, pin};
use super::error::{EngineError, io_error};
use super::record::{CloneLayer, ImageOf, Life, Record, now};
use super::shelf::{check_name, random_id};
use super::{Engine, Place, names};
use crate::image::{Digest, ImageError, copy_tree, descriptor, diff_without};
use crate::network::PortWish;

impl Engine {
    /// Makes a clone of a container, which may run: it is held still while its files are read. The clone is not started.
    ///
    /// Its ports are `ports`, where they are said. Else the parent's ports inside are led to from ports of the host that are
    /// free when it starts: those of the parent are the parent's.
    pub fn clone_container(
        &self,
        parent: &str,
        name: Option<&str>,
        full: bool,
        ports: Option<Vec<PortWish>>,
    ) -> Result<Record, EngineError> {
        let _span = info_span!(
            "engine.clone",
            call = "read(2), write(2), mkdir(2)",
            why = "layers are never changed, so a clone can stand on its parent's; what it writes lies in a folder of its own"
        )
        .entered();
        name.map(check_name).transpose()?;
        let mut locked = self.lock(parent)?; //                           1. nobody starts or removes it meanwhile
        let _shared = self.store.shared()?;
        // 2. while nobody writes: a layer, a folder, a record
        self.while_still(&mut locked, |parent| self.make_clone(parent, name, full, ports))?
    }

    fn make_clone(
        &self,
        parent: &Record,
        name: Option<&str>,
        full: bool,
        ports: Option<Vec<PortWish>>,
    ) -> Result<Record, EngineError> {
        let mut record = Record {
            id: random_id()?,
            name: name.map_or_else(|| names::invent(false), |name| Ok(name.to_owned()))?,
            created: now(),
            life: Life::default(),
            ..parent.clone()
        };
        record.wishes.name = name.map(str::to_owned);
        record.wishes.hostname = None;
        let networking = &mut record.wishes.networking;
        for endpoint in &mut networking.endpoints {
            (endpoint.address, endpoint.mac) = (None, None);
        }
        match ports {
            Some(ports) => networking.ports = ports,
            None => networking.ports.iter_mut().for_each(|port| port.host_ports = None),
        }
        // What stands on a layer of its own keeps nothing of the store.
        let mut kept = if full { Vec::new() } else { self.kept(parent) };
        if full {
            record.image = ImageOf { layers: Vec::new(), clones: Vec::new(), own: true, ..record.image };
        } else if parent.image.own {
            return Err(EngineError::Unlinkable { name: parent.name.clone() });
        } else if let Some((diff_id, blob)) = self.changes_as_layer(parent)? {
            record.image.layers.insert(0, diff_id.to_string());
            record.image.clones.push(CloneLayer { diff_id: diff_id.to_string(), blob: blob.to_string() });
            kept.extend([diff_id, blob]);
        }
        self.store.pin_unsynced(&pin(&record.id), &kept)?;
        let _chosen = self.choose_users(&mut record.wishes)?;
        let volumes = self.copy_volumes(&mut record, full);
        let made =
            volumes.and_then(|settled| self.furnish_clone(parent, &record).inspect_err(|_| self.undo_mounts(&settled)));
        made.inspect_err(|_| drop(self.store.unpin(&pin(&record.id))))
    }

    fn furnish_clone(&self, parent: &Record, record: &Record) -> Result<Record, EngineError> {
        let locked = self.shelf.add(record.clone(), |folder| {
            let whole = folder.join(OWN_LAYER);
            if record.image.own {
                fs::create_dir(&whole).map_err(io_error("make", &whole))?;
                copy_tree(&self.seen(parent)?, &whole).map_err(ImageError::from)?;
            }
            let layers = self.layers(record)?;
            let place = Place::furnish(folder, layers.first().map(PathBuf::as_path))?;
            self.write_bundle(record, &place, &layers)
        })?;
        self.note(&locked.record, "create", &[("clonedFrom", parent.id.clone())]);
        Ok(locked.record.clone())
    }

    /// What a container keeps of the store.
    fn kept(&self, record: &Record) -> Vec<Digest> {
        let path = self.store.root().join("pins").join(pin(&record.id));
        if let Ok(text) = fs::read_to_string(&path) {
            return text.lines().filter_map(|line| line.parse().ok()).collect();
        }
        // One that is removed at its end keeps nothing; its image does.
        let layers = record.image.layers.iter().filter_map(|layer| layer.parse().ok());
        layers.chain(record.image.id.parse().ok()).collect()
    }

    /// What a container has changed as a layer of the store: its name unpacked, and that of its archive.
    fn changes_as_layer(&self, record: &Record) -> Result<Option<(Digest, Digest)>, EngineError> {
        let (layers, skip) = (self.layers(record)?, self.scaffolding(record)?);
        let mut entries = 0;
        let upper = self.place(record).upper;
        let layer = self.store.add_layer(|out| {
            entries = diff_without(&layers, &upper, None, &skip, out)?.entries;
            Ok(())
        })?;
        if entries == 0 {
            return Ok(None);
        }
        self.store.unpack_layer(&layer.blob, &layer.diff_id)?;
        Ok(Some((layer.diff_id, layer.blob)))
    }
}

impl Engine {
    /// How the store leads to the image that a container was made of, though no name may lead to it any more; nothing for a
    /// container that stands on a layer of its own.
    pub(crate) fn image_of(&self, record: &Record) -> Result<Option<Descriptor>, EngineError> {
        if record.image.own {
            return Ok(None);
        }
        match self.store.resolve(&record.image.id) {
            Ok(found) => return Ok(Some(found.descriptor)),
            Err(ImageError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // What the container keeps begins with the image's id and its manifest.
        let kept = self.kept(record);
        let gone = || EngineError::NoImage { name: record.image.name.clone() };
        let manifest = kept.get(1).filter(|_| kept.first().map(Digest::to_string).as_ref() == Some(&record.image.id));
        let manifest = manifest.ok_or_else(gone)?;
        Ok(Some(descriptor(MediaType::ImageManifest, manifest, self.store.size(manifest)?)?))
    }
}
