//! What a killed run left behind, found and removed: `isolab-bench doctor --clean`.
//!
//! Everything the lab makes says who made it: a scratch folder, a control group and a temporary file carry their
//! [`Owner`] in their name. What a living owner has is never touched; what a dead one left goes, in the order in which
//! one thing holds the next: processes, containers, groups, mounts, folders.

mod containers;
mod folders;
mod groups;
mod processes;

use std::fmt;

use super::mounts;
use super::owner::Owner;
use super::roots::Roots;

/// What a bench names the containers that it starts by: this, then its owner, then what it likes.
const BENCH: &str = "bench-";

/// What was found and removed, and what was left and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Things that are gone now.
    pub removed: Vec<Item>,
    /// Things that should have gone, each with the reason why it did not.
    pub left: Vec<(Item, String)>,
}

/// One thing that somebody left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its name: a path, or a process' number and command.
    pub name: String,
}

/// What can be left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A subject that still ran.
    Process,
    /// A container whose runtime was killed.
    Container,
    /// A control group.
    Group,
    /// A mount.
    Mount,
    /// A dead bench's scratch folder.
    Scratch,
    /// A file that was being written.
    Temporary,
}

impl Kind {
    /// In the order in which they are removed and told.
    const ALL: [Self; 6] = [Self::Process, Self::Container, Self::Group, Self::Mount, Self::Scratch, Self::Temporary];

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Process => ("process", "processes"),
            Self::Container => ("container", "containers"),
            Self::Group => ("control group", "control groups"),
            Self::Mount => ("mount", "mounts"),
            Self::Scratch => ("scratch folder", "scratch folders"),
            Self::Temporary => ("temporary file", "temporary files"),
        }
    }
}

impl Cleaned {
    /// Notes what came of removing something.
    fn note(&mut self, kind: Kind, name: impl Into<String>, outcome: Result<(), impl fmt::Display>) {
        let item = Item { kind, name: name.into() };
        match outcome {
            Ok(()) => self.removed.push(item),
            Err(reason) => self.left.push((item, reason.to_string())),
        }
    }
}

impl fmt::Display for Cleaned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |kind: Kind| {
            let number = self.removed.iter().filter(|item| item.kind == kind).count();
            let (one, many) = kind.words();
            (number > 0).then(|| format!("{number} {}", if number == 1 { one } else { many }))
        };
        let counts: Vec<_> = Kind::ALL.into_iter().filter_map(count).collect();
        match counts.as_slice() {
            [] => writeln!(out, "Nothing to remove.")?,
            counts => writeln!(out, "Removed {}:", counts.join(", "))?,
        }
        for item in &self.removed {
            writeln!(out, "  {:<14}  {}", item.kind.words().0, item.name)?;
        }
        if !self.left.is_empty() {
            writeln!(out, "Left, as it could not be removed:")?;
        }
        for (item, reason) in &self.left {
            writeln!(out, "  {:<14}  {}: {reason}", item.kind.words().0, item.name)?;
        }
        Ok(())
    }
}

/// Removes what dead owners left below `roots`, in the cgroup tree and in the process table.
///
/// Takes a few milliseconds, and a quarter of a second more where a group without a known owner is found empty: it is
/// looked at twice, as somebody may just be about to move into it.
pub fn clean(roots: &Roots) -> Cleaned {
    let mut cleaned = Cleaned::default();
    let dead = folders::dead_scratches(roots);
    processes::end_inside(&dead, &mut cleaned);
    containers::prune(roots, &dead, &mut cleaned);
    groups::remove(roots, &mounts::table(), &mut cleaned);
    folders::unmount_below(&dead, &mut cleaned);
    folders::remove_scratches(&dead, &mut cleaned);
    folders::remove_temporaries(roots, &mut cleaned);
    cleaned
}

/// The owner in a name such as `bench-4211-99123-7` or `.tmp-4211-99123-layer`, given what comes before it.
fn owner_in(name: &str, before: &str) -> Option<Owner> {
    let rest = name.strip_prefix(before)?;
    let end = rest.match_indices('-').nth(1).map_or(rest.len(), |(at, _)| at);
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        let owner = Some(Owner { pid: 4211, start: 99_123 });
        assert_eq!(owner_in("bench-4211-99123-7", "bench-"), owner);
        assert_eq!(owner_in("bench-4211-99123", "bench-"), owner);
        assert_eq!(owner_in(".tmp-4211-99123-layer-3", ".tmp-"), owner);
        assert_eq!(owner_in("web", "bench-"), None);
        assert_eq!(owner_in("bench-web-1", "bench-"), None);
        assert_eq!(owner_in("bench-4211", "bench-"), None);
    }

    #[test]
    fn what_was_done_is_counted_and_named() {
        let mut cleaned = Cleaned::default();
        assert_eq!(cleaned.to_string(), "Nothing to remove.\n");
        cleaned.note(Kind::Process, "4211 (isolab-payload)", Ok::<_, String>(()));
        cleaned.note(Kind::Process, "4212 (isolab-oci)", Ok::<_, String>(()));
        cleaned.note(Kind::Scratch, "/run/isolab/bench/4210-9", Ok::<_, String>(()));
        cleaned.note(Kind::Mount, "/run/isolab/bench/4210-9/m", Err("device or resource busy"));
        let expected = "\
Removed 2 processes, 1 scratch folder:
  process         4211 (isolab-payload)
  process         4212 (isolab-oci)
  scratch folder  /run/isolab/bench/4210-9
Left, as it could not be removed:
  mount           /run/isolab/bench/4210-9/m: device or resource busy
";
        assert_eq!(cleaned.to_string(), expected);
    }
}
