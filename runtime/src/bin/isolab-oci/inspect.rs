//! `inspect --isolation` for people: pure formatting of what the library found.

use isolab_runtime::container::{Isolation, MountView, NamespaceView, Owner};

use crate::print::{columns, lines};

/// The longest value that a table shows; a list of devices can have a hundred lines.
const VALUE: usize = 60;
/// How v1's memory files say that there is no limit.
const UNLIMITED: &str = "9223372036854771712";

/// The whole page.
pub(crate) fn table(seen: &Isolation) -> String {
    let mut text = format!("container {}, process {}, {}\n", seen.id, seen.pid, seen.status);
    text.push_str(&section("namespaces", &["kind", "inode", "whose", "keeps apart"], namespaces(&seen.namespaces)));
    let limits = seen.limits.iter().map(|limit| {
        vec![limit.limit.to_owned(), short(&limit.value), limit.hierarchy.to_owned(), limit.file.display().to_string()]
    });
    text.push_str(&section("limits in force", &["limit", "value", "cgroup", "file"], limits.collect()));
    let sets = seen.capabilities.iter().map(|(set, names)| vec![(*set).to_owned(), some(names)]);
    text.push_str(&section("capabilities", &["set", "has"], sets.collect()));
    text.push_str(&section("rights", &["what", "how"], rights(seen)));
    text.push_str(&section("mounts", &["at", "kind", "from", "how"], seen.mounts.iter().map(mount).collect()));
    text
}

fn section(title: &str, heading: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return format!("\n{title}: none\n");
    }
    let mut all = vec![heading.iter().map(ToString::to_string).collect()];
    all.extend(rows);
    let table = columns(&all);
    let indented: Vec<String> = table.lines().map(|line| format!("  {line}")).collect();
    format!("\n{title}\n{}", lines(indented.iter().map(String::as_str)))
}

fn namespaces(all: &[NamespaceView]) -> Vec<Vec<String>> {
    let row = |one: &NamespaceView| {
        let whose = match &one.owner {
            Owner::Own => "own".to_owned(),
            Owner::Host => "HOST'S".to_owned(),
            Owner::Shared(others) => format!("shared with {}", others.join(", ")),
        };
        vec![one.kind.to_owned(), one.inode.to_string(), whose, one.what.to_owned()]
    };
    all.iter().map(row).collect()
}

fn rights(seen: &Isolation) -> Vec<Vec<String>> {
    let mode = match seen.seccomp.mode {
        0 => "off: every system call can be made".to_owned(),
        1 => "strict: read, write, exit and sigreturn only".to_owned(),
        _ => format!("{} filter(s)", seen.seccomp.filters),
    };
    let mut rows = vec![
        vec!["no_new_privs".to_owned(), if seen.no_new_privileges { "on" } else { "off" }.to_owned()],
        vec!["seccomp".to_owned(), mode],
    ];
    if let Some(census) = &seen.seccomp.profile {
        let (allowed, asked, refused) = (census.allowed, census.by_arguments, census.refused);
        let text = format!("{allowed} calls allowed, {asked} by their arguments, {refused} refused (says config.json)");
        rows.push(vec!["profile".to_owned(), text]);
    }
    rows
}

fn mount(one: &MountView) -> Vec<String> {
    let how = match (one.masks, one.readonly) {
        (true, _) => "masks what is there",
        (false, true) => "read-only",
        (false, false) => "writable",
    };
    vec![one.destination.display().to_string(), one.kind.clone(), one.source.clone(), how.to_owned()]
}

fn some(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// One line, cut where it is long.
fn short(value: &str) -> String {
    let line = match value {
        "" => "none".to_owned(),
        UNLIMITED => "no limit".to_owned(),
        _ => value.replace('\n', "; "),
    };
    let cut: String = line.chars().take(VALUE).collect();
    if cut.len() < line.len() { format!("{cut} ...") } else { line }
}

#[cfg(test)]
mod tests {
    use super::{namespaces, section, short};
    use isolab_runtime::container::{NamespaceView, Owner};

    #[test]
    fn what_is_shared_with_the_host_stands_out() {
        let view = |owner| NamespaceView { kind: "net", what: "network", inode: 7, owner };
        let rows =
            namespaces(&[view(Owner::Host), view(Owner::Own), view(Owner::Shared(vec!["a".into(), "b".into()]))]);
        let whose: Vec<&str> = rows.iter().filter_map(|row| row.get(2)).map(String::as_str).collect();
        assert_eq!(whose, ["HOST'S", "own", "shared with a, b"]);
    }

    #[test]
    fn a_section_without_rows_says_so() {
        assert_eq!(section("mounts", &["at"], Vec::new()), "\nmounts: none\n");
        assert_eq!(section("mounts", &["at"], vec![vec!["/".to_owned()]]), "\nmounts\n  at\n  /\n");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(short("a\nb"), "a; b");
        assert!(short(&"x".repeat(100)).ends_with("x ..."));
    }
}
