//! Clones: new machines that go on where another one stood.
//!
//! A *linked* clone is made in a moment: nothing is copied but a record. Its memory is the snapshot's file, mapped so that
//! what it writes is its own; the file can't be removed while it is linked. A *full* clone has a copy of the file, by
//! reflink where the file system can (the blocks are shared until one side writes), and shares nothing with its parent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::record::{Base, Identity, Name, Record};
use super::store::{Machine, Store};
use super::tree::About;
use super::{NamedError, failed};
use crate::memory::copy_sparse;

/// What a clone shares with its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The snapshot's memory, until it writes.
    Linked,
    /// Nothing.
    Full,
}

impl Store {
    /// Makes clones of a snapshot of `parent` by these names; returns the snapshot. Each is a machine of its own identity.
    pub fn clone_machines(
        &self,
        parent: &Machine,
        snapshot: Option<&Name>,
        kind: Kind,
        names: &[Name],
    ) -> Result<Name, NamedError> {
        let _lock = self.change()?;
        let (snapshot, about) = parent.choose(snapshot)?;
        let machines = names
            .iter()
            .map(|name| Ok((name.clone(), record(parent, &snapshot, &about, kind)?)))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed("make an identity for a clone in", self.path()))?;
        let from = parent.snapshot_path(&snapshot);
        self.add(&machines, &|folder| match kind {
            Kind::Linked => Ok(()),
            Kind::Full => copy(&from, &folder.join("snapshots").join(&snapshot)),
        })?;
        Ok(snapshot)
    }
}

fn record(parent: &Machine, snapshot: &Name, about: &About, kind: Kind) -> io::Result<Record> {
    let machine = (kind == Kind::Linked).then(|| parent.name.clone());
    let base = Base::Snapshot { machine, snapshot: snapshot.clone(), id: about.id.clone() };
    let current = (kind == Kind::Full).then(|| about.id.clone());
    Ok(Record { identity: Identity::new()?, base, current, ..parent.record.clone() })
}

/// Copies a snapshot's folder.
fn copy(from: &Path, to: &Path) -> Result<(), NamedError> {
    fs::create_dir(to).map_err(failed("make", to))?;
    for file in ["state", "about.json"] {
        fs::copy(from.join(file), to.join(file)).map_err(failed("copy", &from.join(file)))?;
    }
    let memory = from.join("memory");
    let copied = File::open(&memory).and_then(|from| {
        let to = OpenOptions::new().write(true).create_new(true).mode(0o400).open(to.join("memory"))?;
        copy_sparse(&from, &to)
    });
    copied.map_err(failed("copy", &memory))
}
