//! Making a container: an image is found, what is wanted of it is checked, and a folder and a record say so from then on.

use std::path::PathBuf;

use tracing::info_span;

use super::error::EngineError;
use super::place::Place;
use super::prepare::Recipe;
use super::record::{ImageOf, Life, Record, now};
use super::shelf::{check_name, random_id};
use super::wishes::{Sharing, Wishes};
use super::{Engine, Locked, names, read_document, rights};
use crate::image::{Image, Manifest, each_once};

/// The folder, in that of a container, of the layer that is its own.
pub(super) const OWN_LAYER: &str = "layer";

/// A container that was just made, and that nobody else can change yet.
#[derive(Debug)]
pub struct Making {
    /// The container.
    pub locked: Locked,
}

impl Engine {
    /// Makes a container of an image, which is there. It is not started.
    pub fn create(&self, image: &str, wishes: Wishes) -> Result<Record, EngineError> {
        self.make(image, wishes).map(|making| making.locked.record)
    }

    /// As [`Engine::create`]; the container stays locked.
    pub fn make(&self, image: &str, wishes: Wishes) -> Result<Making, EngineError> {
        let _span = info_span!(
            "engine.create",
            call = "read(2), mkdir(2), write(2)",
            why = "a container is a folder for what it will write, over an image's layers that it never changes"
        )
        .entered();
        rights::check(&wishes)?; //                                      1. what can be refused now is not refused later
        wishes.name.as_deref().map(check_name).transpose()?;
        // Until the container stands on them nobody may take the layers away.
        let shared = self.store.shared()?;
        let found = self.store.resolve(image)?; //                       2. the image, and what it says
        let manifest = Manifest::read(&self.store, &found.descriptor)?;
        let opened = Image::of(&self.store, &manifest)?;
        let document = read_document(image, &self.store.blob(&manifest.id())?)?;
        let id = random_id()?;
        let mut record = Record {
            name: wishes.name.clone().map_or_else(|| names::invent(false), Ok)?,
            image: ImageOf {
                name: image.to_owned(),
                id: manifest.id().to_string(),
                layers: opened.layers().iter().rev().map(|layer| layer.diff_id.to_string()).collect(),
                clones: Vec::new(),
                own: false,
            },
            config: document.config,
            wishes,
            created: now(),
            life: Life::default(),
            damaged: false,
            id,
        };
        let mut kept = vec![manifest.id(), manifest.digest()];
        kept.extend(opened.layers().iter().flat_map(|layer| [layer.diff_id, layer.blob]));
        self.store.pin_unsynced(&pin(&record.id), &kept)?; //            3. it stays as long as the container
        drop(shared);
        let _chosen = self.choose_users(&mut record.wishes)?;
        let settled = self.settle_mounts(&mut record)?; //                4. volumes, and what it sees of the host
        let made = self.add(&record); //                                  5. a folder, a name, a record
        let made = made.inspect(|locked| self.note(&locked.record, "create", &[]));
        made.inspect_err(|_| self.undo_mounts(&settled)).map(|locked| Making { locked })
    }

    fn add(&self, record: &Record) -> Result<Locked, EngineError> {
        let (given, pin) = (record.wishes.name.is_some(), pin(&record.id));
        let mut attempt = self.try_add(record.clone());
        for _ in 0..8 {
            match attempt {
                Err(EngineError::NameTaken { .. }) if !given => {
                    attempt = self.try_add(Record { name: names::invent(true)?, ..record.clone() });
                }
                _ => break,
            }
        }
        // What was not made needs no image; a pin that stays nevertheless is removed by `prune`.
        attempt.inspect_err(|_| drop(self.store.unpin(&pin)))
    }

    fn try_add(&self, record: Record) -> Result<Locked, EngineError> {
        let layers = self.layers(&record)?;
        let known = record.clone();
        self.shelf.add(record, |folder| {
            let place = Place::furnish(folder, layers.first().map(PathBuf::as_path))?;
            self.write_bundle(&known, &place, &layers)
        })
    }

    /// The folders of the image that a container stands on, the uppermost first.
    pub fn layers(&self, record: &Record) -> Result<Vec<PathBuf>, EngineError> {
        if record.image.own {
            return Ok(vec![self.folder(record).join(OWN_LAYER)]);
        }
        let path = |text: &String| {
            let digest = text.parse().map_err(crate::image::ImageError::from)?;
            Ok(self.store.layer_path(&digest))
        };
        Ok(each_once(record.image.layers.iter().map(path).collect::<Result<Vec<_>, EngineError>>()?))
    }

    /// Writes what the runtime reads: when a container is made, to see that it can be, and again at each start.
    pub(super) fn write_bundle(&self, record: &Record, place: &Place, layers: &[PathBuf]) -> Result<(), EngineError> {
        let mounts = self.mounts_of(record, layers)?;
        let joined = self.joined(record)?;
        let (name, config, wishes) = (record.short_id(), &record.config, &record.wishes);
        let init = wishes.init.then(|| super::init::program(self.store.root())).transpose()?;
        let init = init.as_deref();
        let hosts = self.folder_of_shared_network(record)?;
        let (mounts, joined, hosts) = (&mounts, &joined, hosts.as_deref());
        Recipe { name, config, wishes, layers, mounts, init, joined, hosts }.write(place)
    }

    /// The namespaces of other containers that this one joins; they must run.
    fn joined(&self, record: &Record) -> Result<Vec<(&'static str, PathBuf)>, EngineError> {
        let wishes = &record.wishes;
        let mut joined = Vec::new();
        let of = |sharing: &Sharing| match sharing {
            Sharing::Container(other) => Some(other.clone()),
            Sharing::Private | Sharing::Host => None,
        };
        let all = [
            ("pid", "pid", of(&wishes.pid)),
            ("ipc", "ipc", of(&wishes.ipc)),
            ("uts", "uts", of(&wishes.uts)),
            ("network", "net", wishes.networking.shared_with.clone()),
        ];
        for (kind, file, other) in all {
            let Some(other) = other else { continue };
            let other = self.find(&other)?;
            let Some(running) = &other.life.running else {
                let state = self.state(&other)?.word();
                return Err(EngineError::Unfit { attempt: "share namespaces with", name: other.name, state });
            };
            joined.push((kind, PathBuf::from(format!("/proc/{}/ns/{file}", running.init.pid))));
        }
        Ok(joined)
    }
}

/// The name under which a container's image is kept.
pub(super) fn pin(id: &str) -> String {
    format!("container-{id}")
}
