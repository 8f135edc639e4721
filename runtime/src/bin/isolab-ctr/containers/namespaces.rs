//! `ps --ns`: what is apart and what is shared, at one glance.

use isolab_runtime::container::{ContainerId, Owner};
use isolab_runtime::engine::{Engine, EngineError, Record, State};

use crate::print;
use crate::voice::Failure;

/// A column a kind of namespace: its number, `host` where it is the host's, and a `*` where others have it too.
pub(super) fn print(engine: &Engine, rows: &[(Record, State)], whole: bool) -> Result<(), Failure> {
    let mut kinds: Vec<&'static str> = Vec::new();
    let mut lines = Vec::new();
    for (record, state) in rows {
        if !state.is_up() {
            continue;
        }
        let id: ContainerId = record.id.parse().map_err(EngineError::from)?;
        // One that ends meanwhile is in no namespace any more.
        let Ok(isolation) = engine.runtime().isolation(&id) else { continue };
        let id = if whole { record.id.clone() } else { record.short_id().to_owned() };
        let mut line = vec![id, record.name.clone(), isolation.pid.to_string()];
        line.extend(isolation.namespaces.iter().map(|namespace| match &namespace.owner {
            Owner::Own => namespace.inode.to_string(),
            Owner::Host => "host".to_owned(),
            Owner::Shared(_) => format!("{}*", namespace.inode),
        }));
        if kinds.len() < isolation.namespaces.len() {
            kinds = isolation.namespaces.iter().map(|namespace| namespace.kind).collect();
        }
        lines.push(line);
    }
    let mut heading = ["CONTAINER ID", "NAMES", "PID"].map(str::to_owned).to_vec();
    heading.extend(kinds.iter().map(|kind| heading_of(kind)));
    print::text(&print::columns(&[vec![heading], lines].concat()))
}

/// As podman's: what would be taken for something else without it ends in `NS`.
fn heading_of(kind: &str) -> String {
    let end = if matches!(kind, "pid" | "user" | "cgroup") { "NS" } else { "" };
    kind.to_uppercase() + end
}
