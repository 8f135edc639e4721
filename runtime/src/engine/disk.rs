//! What lies on the disk: images, containers, volumes, and what of it nobody needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tracing::info_span;

use super::error::EngineError;
use super::record::Record;
use super::{Engine, volumes};
use crate::image::{Digest, Manifest};

/// Of one kind of things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// How many there are.
    pub total: usize,
    /// How many of them are in use.
    pub active: usize,
    /// The bytes of all.
    pub bytes: u64,
    /// The bytes of those that are not in use.
    pub reclaimable: u64,
}

/// Of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images: their packed layers and their unpacked ones, each counted once.
    pub images: Share,
    /// Containers: what they have written, and their logs.
    pub containers: Share,
    /// Volumes.
    pub volumes: Share,
}

impl Share {
    fn add(&mut self, active: bool, bytes: u64) {
        self.total += 1;
        self.active += usize::from(active);
        self.bytes += bytes;
        self.reclaimable += if active { 0 } else { bytes };
    }
}

impl Engine {
    /// What everything takes on the disk.
    pub fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        let _span = info_span!(
            "engine.measure",
            call = "getdents64(2), statx(2)",
            why = "a layer that several images share lies there once, so it is counted once, for whoever uses it"
        )
        .entered();
        let records = self.list()?;
        let mut usage = DiskUsage { images: self.images_share(&records)?, ..DiskUsage::default() };
        for record in &records {
            usage.containers.add(self.state(record)?.is_up(), used(&self.folder(record)));
        }
        for volume in self.volumes()? {
            let active = !self.volume_users(&volume.name)?.is_empty();
            usage.volumes.add(active, volumes::size(&self.volume_data(&volume.name)));
        }
        Ok(usage)
    }

    fn images_share(&self, records: &[Record]) -> Result<Share, EngineError> {
        let store = self.store();
        let (mut share, mut needed, mut all) = (Share::default(), BTreeSet::new(), BTreeSet::new());
        let used: BTreeSet<&str> = records.iter().flat_map(|record| &record.image.layers).map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        for named in store.names()? {
            let manifest = Manifest::read(store, &named.descriptor)?;
            if !seen.insert(manifest.digest()) {
                continue;
            }
            let active = records.iter().any(|record| record.image.id == manifest.id().to_string());
            share.total += 1;
            share.active += usize::from(active);
            for layer in crate::image::Image::from_manifest(store, &named.descriptor)?.layers() {
                let both = (layer.blob, layer.diff_id);
                if active || used.contains(layer.diff_id.to_string().as_str()) {
                    needed.insert(both);
                }
                all.insert(both);
            }
        }
        let size = |(blob, unpacked): &(Digest, Digest)| {
            let packed = fs::metadata(store.blob_path(blob)).map_or(0, |it| it.len());
            packed + volumes::size(&store.layer_path(unpacked))
        };
        for layer in &all {
            let bytes = size(layer);
            share.bytes += bytes;
            share.reclaimable += if needed.contains(layer) { 0 } else { bytes };
        }
        Ok(share)
    }

    /// What a container has written, in bytes, and that with the image below it.
    pub fn sizes(&self, record: &Record) -> Result<(u64, u64), EngineError> {
        let own = volumes::size(&self.folder(record).join("upper"));
        let layers = self.layers(record)?;
        Ok((own, own + layers.iter().map(|layer| volumes::size(layer)).sum::<u64>()))
    }

    /// Removes the containers that don't run, and names them; with the bytes that they took.
    pub fn prune_containers(&self, fits: impl Fn(&Record) -> bool) -> Result<(Vec<String>, u64), EngineError> {
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for record in self.list()? {
            let state = self.state(&record)?;
            if state.is_up() || state == super::State::Restarting || !fits(&record) {
                continue;
            }
            let own = used(&self.folder(&record));
            match self.remove(&record.id, false) {
                Ok(_) => {
                    removed.push(record.id);
                    bytes += own;
                }
                // It was started, or removed by somebody else, in between.
                Err(EngineError::Unfit { .. } | EngineError::NoContainer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((removed, bytes))
    }
}

/// What a container's folder takes, without what is mounted there.
fn used(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let file = |entry: &fs::DirEntry| entry.metadata().map_or(0, |it| if it.is_file() { it.len() } else { 0 });
    let own: u64 = files.map(|entry| file(&entry)).sum();
    own + ["upper", super::create::OWN_LAYER].iter().map(|name| volumes::size(&folder.join(name))).sum::<u64>()
}
