//! What one copy costs: its time, its writes, its bytes on disk and in memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use isolab_reports::model::Cost;

use crate::subject::Held;
use crate::suite::density::gauge::{self, Rollup};

/// The unit of memory, in bytes.
pub(super) const PAGE: u64 = 4096;
pub(super) const MIB: u64 = 1 << 20;

/// Bytes below a path: allocated, and by the files' lengths. A file with several names counts once.
pub(super) fn disk(path: &Path) -> (u64, u64) {
    let mut seen = BTreeSet::new();
    let mut folders: Vec<PathBuf> = vec![path.to_owned()];
    let (mut allocated, mut apparent) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(known) = entry.path().symlink_metadata() else { continue };
            if known.is_dir() {
                folders.push(entry.path());
            }
            if known.is_file() && seen.insert((known.dev(), known.ino())) {
                allocated += known.blocks() * 512;
                apparent += known.len();
            }
        }
    }
    (allocated, apparent)
}

/// With what was added between two looks at the disk.
pub(super) fn with_disk(cost: Cost, before: (u64, u64), after: (u64, u64)) -> Cost {
    let disk_bytes = Some(after.0.saturating_sub(before.0));
    Cost { disk_bytes, apparent_bytes: Some(after.1.saturating_sub(before.1)), ..cost }
}

/// Has a machine that goes on write again to so many pages, twice, reads its memory, and ends it.
pub(super) fn machine(mut held: Held, pages: u64, made_ns: Option<u64>) -> Result<Cost, String> {
    let mut cost = Cost { ready_ns: held.ready_ns() + made_ns.unwrap_or(0), made_ns, ..Cost::default() };
    if pages > 0 {
        cost.write_ns = Some(held.again(pages)?);
        cost.rewrite_ns = Some(held.again(pages)?);
    }
    cost.memory_bytes = Some(anonymous(&held));
    held.dismiss();
    held.end()?;
    Ok(cost)
}

/// Anonymous memory of all its processes: what it shares with nobody, neither another process nor a file.
fn anonymous(held: &Held) -> u64 {
    let family = gauge::family(&BTreeSet::from([held.pid()]));
    family.into_iter().filter_map(Rollup::of).map(|rollup| rollup.bytes("Anonymous")).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_long_and_takes_no_room_and_a_second_name_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("whole"), vec![1_u8; 8192]).unwrap();
        fs::hard_link(folder.path().join("whole"), folder.path().join("again")).unwrap();
        fs::File::create(folder.path().join("hole")).unwrap().set_len(MIB).unwrap();
        let (allocated, apparent) = disk(folder.path());
        assert_eq!(apparent, MIB + 8192);
        assert!((8192..MIB).contains(&allocated), "{allocated}");
    }
}
