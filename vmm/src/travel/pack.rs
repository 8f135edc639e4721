//! A snapshot becomes blobs.

use std::io;
use std::ops::Range;
use std::path::Path;

use tracing::info_span;

use super::layout::{Blobs, Descriptor, Layout, Manifest};
use super::registry::{Reference, Registry};
use super::{ARTIFACT, CONFIG, Config, DISK, MEMORY, Machine, OF, OFFSET, RootFs, STATE, TravelError, failed, piece};
use crate::named::{About, Base, Name, NamedError, Record, Store};
use crate::snapshot::bundle::bundle;
use crate::snapshot::format;

/// How hard zstd tries: as hard as is still faster than most disks.
const LEVEL: i32 = 3;

/// Writes a snapshot of the machine `name` to the layout at `path`, as `tag`; returns which one it was.
pub fn export(
    store: &Store,
    name: &Name,
    snapshot: Option<&Name>,
    path: &Path,
    tag: &str,
) -> Result<Name, TravelError> {
    pack(store, name, snapshot, &Layout::make(path)?, tag)
}

/// Brings a snapshot of the machine `name` to a registry; returns which one it was.
pub fn push(store: &Store, name: &Name, snapshot: Option<&Name>, to: &Reference) -> Result<Name, TravelError> {
    pack(store, name, snapshot, &Registry::new(to), &to.tag)
}

fn pack(
    store: &Store,
    name: &Name,
    snapshot: Option<&Name>,
    blobs: &dyn Blobs,
    tag: &str,
) -> Result<Name, TravelError> {
    let _span = info_span!(
        "travel.export",
        call = "read(2), write(2)",
        why = "a registry keeps blobs by their digests: the state is one, and so is each piece of memory or disk that holds anything"
    )
    .entered();
    let machine = store.find(name)?;
    let (snapshot, about) = machine.choose(snapshot)?;
    // Opened and checked; and locked against removal as long as this lives.
    let opened = machine.open(&snapshot)?;
    let mut state = machine.open(&snapshot)?.state;
    let disks = bundle(&opened, &mut state);
    state.below = None;
    let mut layers = vec![put(blobs, STATE, &format::encode(&state)?)?];
    let read = |bytes: &mut [u8], at| opened.memory.read(bytes, at);
    let data = opened.memory.data().map_err(failed("read", &opened.path().join("memory")))?;
    pack_pieces(blobs, &Source { kind: MEMORY, name: "memory", length: state.memory, data, read: &read }, &mut layers)?;
    for disk in &disks {
        let contents = disk.open().map_err(NamedError::from)?;
        let read = |bytes: &mut [u8], at| contents.read(bytes, at);
        let (length, data) = (contents.size(), std::iter::once(0..contents.size()).collect());
        pack_pieces(blobs, &Source { kind: DISK, name: &disk.name, length, data, read: &read }, &mut layers)?;
    }
    // Where it goes it is somebody else, and starts from this.
    let record = Record { base: Base::Boot, current: None, ..machine.record };
    let about = About { needs: Vec::new(), changes: false, ..about };
    let disks = disks.iter().map(|disk| Ok((disk.name.clone(), disk.open().map_err(NamedError::from)?.size())));
    let disks = disks.collect::<Result<_, TravelError>>()?;
    let isolab = Machine { snapshot: snapshot.clone(), about, record, disks };
    let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() };
    let config = Config { architecture: "amd64".to_owned(), os: "linux".to_owned(), rootfs, isolab };
    let json = |source| TravelError::Json { what: "the config".to_owned(), source };
    let config = blobs.put(CONFIG, &serde_json::to_vec(&config).map_err(json)?)?;
    blobs.tag(tag, &Manifest::new(ARTIFACT, config, layers))?;
    Ok(snapshot)
}

/// Something long that travels in pieces.
struct Source<'a> {
    /// What each piece is.
    kind: &'a str,
    name: &'a str,
    /// In bytes.
    length: u64,
    /// Where anything may be but zeroes.
    data: Vec<Range<u64>>,
    read: &'a dyn Fn(&mut [u8], u64) -> io::Result<()>,
}

/// Packs each piece that holds anything.
fn pack_pieces(blobs: &dyn Blobs, source: &Source<'_>, layers: &mut Vec<Descriptor>) -> Result<(), TravelError> {
    let size = piece(source.length);
    let mut next = 0;
    for data in &source.data {
        let mut at = (data.start - data.start % size).max(next);
        while at < data.end {
            let mut bytes = vec![0; size.min(source.length - at) as usize];
            (source.read)(&mut bytes, at).map_err(failed("read", Path::new(source.name)))?;
            // Pages that were touched and hold zeroes are found again as holes.
            if bytes.iter().any(|byte| *byte != 0) {
                let mut layer = put(blobs, source.kind, &bytes)?;
                layer.annotations.insert(OFFSET.to_owned(), at.to_string());
                layer.annotations.insert(OF.to_owned(), source.name.to_owned());
                layers.push(layer);
            }
            at += size;
        }
        next = next.max(at);
    }
    Ok(())
}

fn put(blobs: &dyn Blobs, media_type: &str, bytes: &[u8]) -> Result<Descriptor, TravelError> {
    let packed = zstd::bulk::compress(bytes, LEVEL).map_err(failed("pack a blob for", Path::new("its way")))?;
    blobs.put(media_type, &packed)
}
