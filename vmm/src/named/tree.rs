//! A machine's snapshots, and which came of which.
//!
//! A snapshot is whole, and needs no other to be gone on from, unless it is one of changes or its disks stand on another's;
//! those it needs are kept by id. What makes them a tree is only where each came from, and that is kept as the line of its
//! ancestors' ids: where one in the middle is removed, its children are its parent's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pc::stands_on;
use super::record::{Base, Name, Record};
use super::store::{Machine, Store};
use super::{NamedError, UNFINISHED, failed, remove_whole, write_whole};
use crate::api::{Answer, Request};
use crate::snapshot::Snapshot;

/// What `about.json` says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The id of its state.
    pub id: String,
    /// When it was taken: nanoseconds since 1970.
    pub taken: u64,
    /// How many bytes of memory hold anything.
    pub bytes: u64,
    /// The ids of the snapshots that it comes of, the nearest first.
    pub ancestors: Vec<String>,
    /// The ids of the snapshots that its memory or its disks stand on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Whether its memory is what has changed since another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changes: bool,
}

/// A snapshot in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// Its name.
    pub name: Name,
    /// What is known of it.
    #[serde(flatten)]
    pub about: About,
    /// How far it is from the root of the tree.
    pub depth: usize,
}

impl Machine {
    fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Where the snapshot of that name is.
    pub fn snapshot_path(&self, name: &Name) -> PathBuf {
        self.snapshots().join(name)
    }

    /// What is known of a snapshot.
    pub fn about(&self, name: &Name) -> Result<About, NamedError> {
        let path = self.snapshot_path(name).join("about.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| NamedError::Garbled(path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(NamedError::NoSnapshot { machine: self.name.clone(), snapshot: name.clone() })
            }
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// All of its snapshots, each after the one that it comes of.
    pub fn tree(&self) -> Result<Vec<Branch>, NamedError> {
        let folder = self.snapshots();
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
            let entry = entry.map_err(failed("list", &folder))?;
            let Some(name) = entry.file_name().to_str().and_then(|text| text.parse::<Name>().ok()) else { continue };
            match self.about(&name) {
                Ok(about) => found.push((name, about)),
                Err(NamedError::NoSnapshot { .. }) => {} // just removed
                Err(error) => return Err(error),
            }
        }
        Ok(ordered(found))
    }

    /// Saves the machine, which runs, as `name`: all of its memory, or what has changed. It runs on.
    pub fn snapshot(&mut self, store: &Store, name: &Name, diff: bool) -> Result<About, NamedError> {
        let _lock = self.change()?;
        let exists = || NamedError::SnapshotExists { machine: self.name.clone(), snapshot: name.clone() };
        let place = self.snapshot_path(name);
        if place.exists() {
            return Err(exists());
        }
        // The machine's own process writes it, to a place that is none yet; what is known of it is added there.
        let to = self.snapshots().join(format!("{UNFINISHED}{name}"));
        let asked = std::path::absolute(&to).map_err(failed("find", &to))?;
        let Answer::Snapshot { id, bytes } = self.ask(&Request::Snapshot { to: asked, diff })? else {
            return Err(NamedError::DoesNotRun(self.name.clone()));
        };
        // Read again: it may have been started since this was read.
        let now = store.find(&self.name)?.record;
        let ancestors = self.line(now.current.as_deref())?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let taken = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let (needs, changes) = stands_on(&to)?;
        let about = About { id: id.clone(), taken, bytes, ancestors, needs, changes };
        let path = to.join("about.json");
        let text = serde_json::to_vec_pretty(&about).map_err(|error| NamedError::Garbled(path.clone(), error))?;
        write_whole(&path, &text)?;
        fs::rename(&to, &place).map_err(failed("name", &to))?;
        let folder = self.snapshots();
        fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", &folder))?;
        self.keep(Record { current: Some(id), ..now })?;
        Ok(about)
    }

    /// An id and its ancestors, the nearest first.
    fn line(&self, id: Option<&str>) -> Result<Vec<String>, NamedError> {
        let Some(id) = id else { return Ok(Vec::new()) };
        let ancestors = self.tree()?.into_iter().find(|branch| branch.about.id == id);
        let ancestors = ancestors.map(|branch| branch.about.ancestors).unwrap_or_default();
        Ok(std::iter::once(id.to_owned()).chain(ancestors).collect())
    }

    /// Lets the next start, and each after it, begin with `snapshot`, or with a boot.
    pub fn roll_back(&mut self, snapshot: Option<&Name>) -> Result<(), NamedError> {
        let _running = self.run()?;
        let _lock = self.change()?;
        let (base, current) = match snapshot {
            Some(name) => {
                let id = self.about(name)?.id;
                (Base::Snapshot { machine: None, snapshot: name.clone(), id: id.clone() }, Some(id))
            }
            None => (Base::Boot, None),
        };
        self.keep(Record { base, current, ..self.record.clone() })
    }

    /// Removes a snapshot; refused while anybody needs it. Its children are its parent's from then on.
    pub fn remove_snapshot(&self, store: &Store, name: &Name) -> Result<(), NamedError> {
        let _machines = store.change()?;
        let _lock = self.change()?;
        let id = self.about(name)?.id;
        let mut needed_by = store.linked_to(&self.name, Some(name))?;
        needed_by.extend(store.standing_on(&[id], None)?);
        if matches!(&self.record.base, Base::Snapshot { machine: None, snapshot, .. } if snapshot == name) {
            needed_by.push(format!("the machine {} starts from it", self.name));
        }
        let path = self.snapshot_path(name);
        if needed_by.is_empty() && Snapshot::is_in_use(&path)? {
            needed_by.push("a machine that runs shows its memory".to_owned());
        }
        if needed_by.is_empty() {
            return remove_whole(&path);
        }
        Err(NamedError::Needed { what: format!("the snapshot {}@{name}", self.name), needed_by })
    }

    /// The snapshot that its start begins with, opened; nothing where that is a boot.
    pub fn open_base(&self, store: &Store) -> Result<Option<Snapshot>, NamedError> {
        let Base::Snapshot { machine, snapshot: name, id } = &self.record.base else { return Ok(None) };
        let owner = match machine {
            Some(owner) => &store.find(owner)?,
            None => self,
        };
        let snapshot = owner.open(name)?;
        if snapshot.state.id != *id {
            return Err(NamedError::Replaced { machine: owner.name.clone(), snapshot: name.clone() });
        }
        Ok(Some(snapshot))
    }

    /// Opens a snapshot.
    pub fn open(&self, name: &Name) -> Result<Snapshot, NamedError> {
        self.about(name)?;
        Ok(Snapshot::open(&self.snapshot_path(name))?)
    }

    /// The snapshot of that name, or the last that was taken.
    pub fn choose(&self, name: Option<&Name>) -> Result<(Name, About), NamedError> {
        if let Some(name) = name {
            return Ok((name.clone(), self.about(name)?));
        }
        let last = self.tree()?.into_iter().max_by_key(|branch| branch.about.taken);
        last.map(|branch| (branch.name, branch.about)).ok_or_else(|| NamedError::NoSnapshots(self.name.clone()))
    }
}

/// Snapshots in the order of the tree: each after its nearest ancestor that is still there, siblings by time and name.
fn ordered(mut found: Vec<(Name, About)>) -> Vec<Branch> {
    found.sort_by(|(one, first), (other, second)| (first.taken, one).cmp(&(second.taken, other)));
    let ids: Vec<&str> = found.iter().map(|(_, about)| about.id.as_str()).collect();
    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (index, (_, about)) in found.iter().enumerate() {
        // An id that is its own ancestor could only come of a file that somebody else wrote; it is a root.
        let parent = about.ancestors.iter().find_map(|id| ids.iter().position(|other| other == id));
        let parent = parent.filter(|parent| *parent != index && !comes_of(&found, *parent, &about.id));
        children.entry(parent).or_default().push(index);
    }
    let mut order = Vec::with_capacity(found.len());
    let mut waiting: Vec<(usize, usize)> =
        children.get(&None).into_iter().flatten().rev().map(|root| (*root, 0)).collect();
    while let Some((index, depth)) = waiting.pop() {
        let (name, about) = &found[index];
        order.push(Branch { name: name.clone(), about: about.clone(), depth });
        waiting.extend(children.get(&Some(index)).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
    }
    order
}

/// Whether the snapshot at `index` says that it comes of `id`.
fn comes_of(found: &[(Name, About)], index: usize, id: &str) -> bool {
    found.get(index).is_some_and(|(_, about)| about.ancestors.iter().any(|ancestor| ancestor == id))
}

/// The path of a snapshot that a template is served from.
impl Store {
    /// Where `NAME@SNAPSHOT` is.
    pub fn snapshot_path(&self, machine: &Name, snapshot: &Name) -> Result<PathBuf, NamedError> {
        let machine = self.find(machine)?;
        machine.about(snapshot)?;
        Ok(machine.snapshot_path(snapshot))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, taken: u64, ancestors: &[&str]) -> (Name, About) {
        let ancestors = ancestors.iter().map(ToString::to_string).collect();
        (
            name.parse().unwrap(),
            About { id: name.to_owned(), taken, bytes: 0, ancestors, needs: Vec::new(), changes: false },
        )
    }

    fn drawn(found: Vec<(Name, About)>) -> String {
        ordered(found)
            .iter()
            .map(|branch| format!("{}{}", "-".repeat(branch.depth), branch.name))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_tree_is_told_from_its_root_with_branches_by_time() {
        let tree = vec![
            snapshot("late", 9, &["root"]),
            snapshot("leaf", 5, &["early", "root"]),
            snapshot("root", 1, &[]),
            snapshot("early", 3, &["root"]),
            snapshot("other", 2, &[]),
        ];
        assert_eq!(drawn(tree), "root -early --leaf -late other");
    }

    #[test]
    fn where_one_is_removed_its_children_are_its_parents() {
        let tree =
            vec![snapshot("root", 1, &[]), snapshot("leaf", 5, &["gone", "root"]), snapshot("lone", 6, &["gone-too"])];
        assert_eq!(drawn(tree), "root -leaf lone");
    }

    #[test]
    fn ancestors_in_a_circle_lose_nothing() {
        let tree = vec![snapshot("a", 1, &["b"]), snapshot("b", 2, &["a"]), snapshot("c", 3, &["c"])];
        assert_eq!(ordered(tree).len(), 3);
    }
}
