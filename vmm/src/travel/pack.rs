//! A snapshot becomes blobs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tracing::info_span;

use super::layout::{Descriptor, Layout, Manifest};
use super::{ARTIFACT, CONFIG, Config, MEMORY, Machine, OFFSET, RootFs, STATE, TravelError, failed, piece};
use crate::memory::laid;
use crate::named::{Base, Name, Record, Store};

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
    let _span = info_span!(
        "travel.export",
        call = "read(2), write(2)",
        why = "a registry keeps blobs by their digests: the state is one, and so is each piece of memory that holds anything"
    )
    .entered();
    let machine = store.find(name)?;
    let (snapshot, about) = machine.choose(snapshot)?;
    // Opened and checked; and locked against removal as long as this lives.
    let opened = machine.open(&snapshot)?;
    let layout = Layout::make(path)?;
    let state_file = opened.path().join("state");
    let state = fs::read(&state_file).map_err(failed("read", &state_file))?;
    let mut layers = vec![pack(&layout, STATE, &state)?];
    pack_memory(&layout, &opened.memory, opened.state.memory, &mut layers)
        .map_err(|error| error.unwrap_or_else(|source| failed("read", &opened.path().join("memory"))(source)))?;
    // Where it goes it is somebody else, and starts from this.
    let record = Record { base: Base::Boot, current: None, ..machine.record };
    let isolab = Machine { snapshot: snapshot.clone(), about, record };
    let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() };
    let config = Config { architecture: "amd64".to_owned(), os: "linux".to_owned(), rootfs, isolab };
    let json = |source| TravelError::Json { what: "the config".to_owned(), source };
    let config = layout.put(CONFIG, &serde_json::to_vec(&config).map_err(json)?)?;
    layout.tag(tag, &Manifest::new(ARTIFACT, config, layers))?;
    Ok(snapshot)
}

/// Either this module's error, or the file's.
type Failure = Result<TravelError, std::io::Error>;

/// Packs each piece of memory that holds anything.
fn pack_memory(layout: &Layout, memory: &File, length: u64, layers: &mut Vec<Descriptor>) -> Result<(), Failure> {
    let size = piece(length);
    let mut next = 0;
    for data in laid::data(memory, 0..length).map_err(Err)? {
        let mut at = (data.start - data.start % size).max(next);
        while at < data.end {
            let mut bytes = vec![0; size.min(length - at) as usize];
            memory.read_exact_at(&mut bytes, at).map_err(Err)?;
            // Pages that were touched and hold zeroes are found again as holes.
            if bytes.iter().any(|byte| *byte != 0) {
                let mut layer = pack(layout, MEMORY, &bytes).map_err(Ok)?;
                layer.annotations.insert(OFFSET.to_owned(), at.to_string());
                layers.push(layer);
            }
            at += size;
        }
        next = next.max(at);
    }
    Ok(())
}

fn pack(layout: &Layout, media_type: &str, bytes: &[u8]) -> Result<Descriptor, TravelError> {
    let packed = zstd::bulk::compress(bytes, LEVEL).map_err(failed("pack a blob for", Path::new("the layout")))?;
    layout.put(media_type, &packed)
}
