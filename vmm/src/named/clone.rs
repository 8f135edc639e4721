//! Clones: new machines that go on where another one stood.
//!
//! A *linked* clone is made in a moment: nothing is copied but a record. Its memory is the snapshot's file, mapped so that
//! what it writes is its own; the file can't be removed while it is linked. A *full* clone has a copy of the file, by
//! reflink where the file system can (the blocks are shared until one side writes), and shares nothing with its parent.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::pc::addresses;
use super::record::{Base, Identity, Name, Record};
use super::store::{Machine, Store};
use super::tree::About;
use super::{NamedError, failed};
use crate::devices::virtio::block::image;
use crate::snapshot::bundle::bundle;
use crate::snapshot::format;

/// What a clone shares with its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The snapshot's memory, until it writes.
    Linked,
    /// Nothing.
    Full,
}

impl Store {
    /// Makes clones of a snapshot of `parent` by these names; returns the snapshot. Each is a machine of its own identity;
    /// their first cards have the addresses from `address` on.
    pub fn clone_machines(
        &self,
        parent: &Machine,
        snapshot: Option<&Name>,
        kind: Kind,
        names: &[Name],
        address: Option<&str>,
    ) -> Result<Name, NamedError> {
        let addresses = address.map(|first| addresses(first, names.len())).transpose()?.unwrap_or_default();
        let _lock = self.change()?;
        let (snapshot, about) = parent.choose(snapshot)?;
        let address = |number: usize| addresses.get(number).map(String::as_str);
        let machines = names
            .iter()
            .enumerate()
            .map(|(number, name)| Ok((name.clone(), record(parent, &snapshot, &about, kind, address(number))?)))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed("make an identity for a clone in", self.path()))?;
        self.add(&machines, &|folder| match kind {
            Kind::Linked => Ok(()),
            Kind::Full => copy(parent, &snapshot, &folder.join("snapshots").join(&snapshot)),
        })?;
        Ok(snapshot)
    }
}

fn record(parent: &Machine, snapshot: &Name, about: &About, kind: Kind, address: Option<&str>) -> io::Result<Record> {
    let machine = (kind == Kind::Linked).then(|| parent.name.clone());
    let base = Base::Snapshot { machine, snapshot: snapshot.clone(), id: about.id.clone() };
    let current = (kind == Kind::Full).then(|| about.id.clone());
    let identity = Identity::new()?;
    let inside = parent.record.inside.for_clone(&identity, address);
    Ok(Record { inside, identity, base, current, ..parent.record.clone() })
}

/// Copies a snapshot, with all that its memory and its disks stand on.
fn copy(parent: &Machine, name: &Name, to: &Path) -> Result<(), NamedError> {
    fs::create_dir(to).map_err(failed("make", to))?;
    let opened = parent.open(name)?;
    let mut state = parent.open(name)?.state;
    for disk in bundle(&opened, &mut state) {
        image::flatten(&disk.open()?, &to.join(&disk.name))?;
    }
    state.below = None;
    let about = About { needs: Vec::new(), changes: false, ..parent.about(name)? };
    let text = serde_json::to_vec_pretty(&about).map_err(|error| NamedError::Garbled(to.join("about.json"), error))?;
    fs::write(to.join("about.json"), text).map_err(failed("write", &to.join("about.json")))?;
    let write_state = |bytes: &[u8]| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(to.join("state"))?;
        io::Write::write_all(&mut file, bytes)
    };
    write_state(&format::encode(&state)?).map_err(failed("write", &to.join("state")))?;
    let memory = to.join("memory");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&memory);
    file.and_then(|file| opened.memory.copy_to(&file)).map_err(failed("copy what is saved to", &memory))
}
