//! Control groups: which flavour, which controllers where, and whether this user can make a group.
//!
//! Linux has two interfaces. In version 1 each controller may have a hierarchy of its own; in version 2 all share one.
//! A *hybrid* host has both mounted, with controllers in either.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isolab_reports::model::Fact;

use super::finding::Findings;
use super::group_cost;
use super::mounts::Mount;
use super::read::{self, size};

/// What there is to know about control groups here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Hierarchies, in the order in which they are mounted.
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// Controllers that the kernel has and that are switched on (`/proc/cgroups`).
    pub(crate) known: Vec<String>,
    /// For each hierarchy, what came of making a group in it.
    pub(crate) trials: Vec<Trial>,
    /// What an empty group of the memory controller takes of the kernel's slab, in bytes.
    pub(crate) group_bytes: Option<u64>,
    /// Whether the lab runs as root.
    pub(crate) root: bool,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Whether it is the one of version 2.
    pub(crate) unified: bool,
    /// Its controllers; none for one that only names groups (`name=systemd`).
    pub(crate) controllers: Vec<String>,
    /// Mount option `favordynmods`: moving a process is cheap, starting one a little dearer.
    pub(crate) favours_moving: bool,
}

/// What came of making a group in a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    /// Where the hierarchy is mounted.
    pub(crate) point: PathBuf,
    /// Whether it is the one of version 2.
    pub(crate) unified: bool,
    /// Controllers of the new group, or why there was none.
    pub(crate) outcome: Result<Vec<String>, String>,
}

/// Looks at this host's control groups, and tries to make one in each hierarchy.
pub(crate) fn look(mounts: &[Mount], root: bool) -> Seen {
    let hierarchies = hierarchies(mounts, |point| read::text(point.join("cgroup.controllers")).unwrap_or_default());
    let own = own_groups(&read::text("/proc/self/cgroup").unwrap_or_default());
    let trials = hierarchies.iter().map(|hierarchy| try_group(hierarchy, &parent(hierarchy, &own, root))).collect();
    let known = known(&read::text("/proc/cgroups").unwrap_or_default());
    let group_bytes = if root { group_cost::look(&hierarchies) } else { None };
    Seen { hierarchies, known, trials, group_bytes, root }
}

/// The hierarchies among the mounts. A hierarchy that is mounted twice counts once.
fn hierarchies(mounts: &[Mount], controllers_at: impl Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts {
        let favours_moving = mount.options.iter().any(|option| option == "favordynmods");
        let (unified, controllers) = match mount.kind.as_str() {
            "cgroup2" => (true, controllers_at(&mount.point).split_whitespace().map(str::to_owned).collect()),
            "cgroup" => (false, mount.options.iter().filter(|option| is_controller(option)).cloned().collect()),
            _ => continue,
        };
        let named = mount.options.iter().any(|option| option.starts_with("name="));
        let again = |other: &Hierarchy| other.unified == unified && other.controllers == controllers && !named;
        if !found.iter().any(again) {
            found.push(Hierarchy { point: mount.point.clone(), unified, controllers, favours_moving });
        }
    }
    found
}

/// Of a version 1 mount's options the controllers (cgroups(7)); the rest say how it is mounted.
fn is_controller(option: &str) -> bool {
    const OTHERS: [&str; 7] = ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"];
    !OTHERS.contains(&option) && !option.contains('=') && option != "seclabel" && option != "none"
}

/// `#subsys_name hierarchy num_cgroups enabled`
fn known(cgroups: &str) -> Vec<String> {
    let lines = cgroups.lines().filter(|line| !line.starts_with('#'));
    let enabled = lines.filter(|line| line.split_whitespace().nth(3) == Some("1"));
    enabled.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// `4:memory:/user.slice`, `0::/init.scope`: this process's group in each hierarchy, by its controllers.
pub(crate) fn own_groups(text: &str) -> BTreeMap<String, String> {
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.trim_start_matches('/').to_owned()))
    };
    text.lines().filter_map(group).collect()
}

/// Where a container's group would be made: root makes it at the top, anybody else beneath the group it is in.
fn parent(hierarchy: &Hierarchy, own: &BTreeMap<String, String>, root: bool) -> PathBuf {
    let key = hierarchy.controllers.join(",");
    match own.get(if hierarchy.unified { "" } else { &key }) {
        Some(group) if !root => hierarchy.point.join(group),
        _ => hierarchy.point.clone(),
    }
}

/// A group that is there as long as this value: removed however the trial ends.
struct TrialGroup(PathBuf);

impl TrialGroup {
    fn make(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("isolab-doctor-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TrialGroup {
    fn drop(&mut self) {
        // Only ever empty, and nobody else knows its name: there is no failure to be told of.
        let _ = fs::remove_dir(&self.0);
    }
}

fn try_group(hierarchy: &Hierarchy, parent: &Path) -> Trial {
    let controllers = |group: &TrialGroup| {
        if hierarchy.unified {
            read::text(group.0.join("cgroup.controllers"))
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        } else {
            hierarchy.controllers.clone()
        }
    };
    let outcome = TrialGroup::make(parent).map(|group| controllers(&group)).map_err(|error| plain(&error));
    Trial { point: hierarchy.point.clone(), unified: hierarchy.unified, outcome }
}

/// The error's words without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl Seen {
    /// `v1`, `v2`, `hybrid`, or `none`.
    pub(crate) fn flavour(&self) -> &'static str {
        let first = self.hierarchies.iter().any(|one| !one.unified && !one.controllers.is_empty());
        let second = self.hierarchies.iter().any(|one| one.unified);
        match (first, second) {
            (true, true) => "hybrid",
            (true, false) => "v1",
            (false, true) => "v2",
            (false, false) => "none",
        }
    }

    fn has(&self, controller: &str) -> bool {
        self.hierarchies.iter().any(|one| one.controllers.iter().any(|name| name == controller))
    }
}

/// What it means.
pub(crate) fn judge(seen: &Seen) -> Vec<Fact> {
    let mut findings = Findings::on("cgroup");
    match seen.flavour() {
        "none" => findings.missing(
            "flavour",
            "no hierarchy is mounted: containers run without limits",
            "sudo mount -t cgroup2 none /sys/fs/cgroup",
        ),
        "hybrid" => findings.info("flavour", "hybrid: version 1 controllers beside a version 2 hierarchy"),
        flavour => findings.info("flavour", flavour),
    }
    controllers(&mut findings, seen);
    moving(&mut findings, seen);
    cost(&mut findings, seen);
    delegation(&mut findings, seen);
    rootless(&mut findings, seen);
    findings.into_facts()
}

fn controllers(findings: &mut Findings, seen: &Seen) {
    // In version 1 a plus binds controllers that share a hierarchy; in version 2 all do.
    for (unified, name, bond) in [(false, "in version 1", "+"), (true, "in version 2", " ")] {
        let holding = seen.hierarchies.iter().filter(|one| one.unified == unified && !one.controllers.is_empty());
        let names: Vec<_> = holding.map(|one| one.controllers.join(bond)).collect();
        if !names.is_empty() {
            findings.info(name, names.join(" "));
        }
    }
    if seen.hierarchies.is_empty() {
        return;
    }
    // What the lab limits and accounts by; the block controller changed its name.
    let wanted = [["cpu", "cpu"], ["memory", "memory"], ["pids", "pids"], ["io", "blkio"], ["cpuset", "cpuset"]];
    let lacking: Vec<_> =
        wanted.iter().filter(|names| !names.iter().any(|name| seen.has(name))).map(|names| names[0]).collect();
    if lacking.is_empty() {
        return;
    }
    let off = lacking
        .iter()
        .filter(|name| !seen.known.iter().any(|known| known == *name || (**name == "io" && known == "blkio")));
    let hint = match off.copied().collect::<Vec<_>>().as_slice() {
        [] => "they are bound to no hierarchy: mount one with them, or reboot with cgroup_no_v1=all".to_owned(),
        names => format!("boot with cgroup_enable={}, on a kernel that has them", names.join(",")),
    };
    findings.warn("lacking", format!("{}: their limits are not applied", lacking.join(", ")), hint);
}

/// A process started *into* a version 2 group (clone3(2), `CLONE_INTO_CGROUP`) costs nothing; one *moved* into a group waits
/// for every CPU to pass a quiet state, unless the hierarchy favours moving.
fn moving(findings: &mut Findings, seen: &Seen) {
    let slow: Vec<_> = seen.hierarchies.iter().filter(|one| !one.unified && !one.favours_moving).collect();
    match (seen.flavour(), slow.first()) {
        ("none", _) => {}
        ("v2", _) => findings.ok("entering a group", "at birth (clone3): nothing waits"),
        (_, None) => findings.ok("entering a group", "by moving, which every hierarchy favours (favordynmods)"),
        (_, Some(one)) => findings.warn(
            "entering a group",
            "by moving: on an idle host the first move waits some milliseconds (an RCU grace period)",
            format!(
                "Linux 6.0 and later: sudo mount -o remount,favordynmods {}; it favours moving in all hierarchies until the next boot",
                one.point.display()
            ),
        ),
    }
}

/// More than this is the host's past, and not its present.
const DEAR: u64 = 64 << 10;

fn cost(findings: &mut Findings, seen: &Seen) {
    let Some(bytes) = seen.group_bytes else { return };
    let value = format!("an empty one takes {} of the kernel's memory", size(bytes));
    if bytes < DEAR {
        findings.ok("memory group", value);
        return;
    }
    let hint = "this host once had many mounts at the same time, and each group keeps room for them all until the next boot; \
                a container's memory has this in it";
    findings.warn("memory group", value, hint);
}

fn delegation(findings: &mut Findings, seen: &Seen) {
    let (made, refused): (Vec<_>, Vec<_>) = seen.trials.iter().partition(|trial| trial.outcome.is_ok());
    let refusal = refused.iter().find_map(|trial| trial.outcome.as_ref().err().map(|error| (&trial.point, error)));
    match (made.len(), refusal) {
        (0, None) => {}
        (_, None) => {
            findings.ok("making a group", format!("tried in each hierarchy: {} of {} made", made.len(), made.len()));
        }
        (count, Some((point, error))) => findings.warn(
            "making a group",
            format!("{count} of {} made; {}: {error}", seen.trials.len(), point.display()),
            match (seen.root, seen.flavour()) {
                (true, _) => "this host's groups are mounted read-only or belong to another container: run outside it",
                (false, "v2") => {
                    "systemd-run --user --scope -p Delegate=yes isolab-bench ... runs it in a group of its own"
                }
                (false, _) => "version 1 gives an ordinary user no groups: run as root for limits",
            },
        ),
    }
    // A version 2 group has the controllers that its parent hands down, which may be fewer than there are.
    for trial in seen.trials.iter().filter(|trial| trial.unified && seen.flavour() == "v2") {
        match &trial.outcome {
            Ok(names) if names.is_empty() && seen.root => {
                findings.info("handed down", "no controller as yet: root may write them into cgroup.subtree_control");
            }
            Ok(names) if names.is_empty() => findings.warn(
                "handed down",
                "no controller: a new group has no limits",
                format!("echo '+cpu +memory +pids' > {}/cgroup.subtree_control", trial.point.display()),
            ),
            Ok(names) => findings.ok("handed down", names.join(" ")),
            Err(_) => {}
        }
    }
}

fn rootless(findings: &mut Findings, seen: &Seen) {
    match seen.flavour() {
        "none" => {}
        "v2" => findings
            .info("rootless containers", "limits wherever a group was delegated (systemd does it for each login)"),
        _ => findings.info("rootless containers", "no limits: version 1 cannot be delegated safely"),
    }
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::super::mounts;
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
        42 31 0:30 / /elsewhere/memory rw - cgroup cgroup rw,memory";
    const UNIFIED: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot";

    fn seen(table: &str, controllers: &str) -> Seen {
        Seen { hierarchies: hierarchies(&mounts::parse(table), |_| controllers.into()), ..Seen::default() }
    }

    fn trial(point: &str, unified: bool, outcome: Result<&[&str], &str>) -> Trial {
        let outcome = outcome.map(|names| names.iter().map(|name| (*name).to_owned()).collect()).map_err(str::to_owned);
        Trial { point: point.into(), unified, outcome }
    }

    #[test]
    fn a_hybrid_host_has_its_controllers_told_by_hierarchy() {
        let seen = Seen { known: vec!["cpu".into(), "blkio".into(), "cpuset".into()], ..seen(HYBRID, "hugetlb") };
        assert_eq!(seen.flavour(), "hybrid");
        let facts = judge(&seen);
        assert_eq!(fact(&facts, "in version 1").value, "cpu+cpuacct memory pids");
        assert_eq!(fact(&facts, "in version 2").value, "hugetlb");
        assert_eq!(fact(&facts, "lacking").value, "io, cpuset: their limits are not applied");
        assert!(fact(&facts, "lacking").hint.as_ref().unwrap().contains("bound to no hierarchy"));
        assert_eq!(fact(&facts, "entering a group").status, Status::Warn);
        assert_hints(&facts);
    }

    #[test]
    fn a_unified_host_starts_processes_into_their_group() {
        let mut seen = seen(UNIFIED, "cpuset cpu io memory hugetlb pids rdma misc");
        seen.trials = vec![trial("/sys/fs/cgroup", true, Ok(&["cpu", "memory", "pids"]))];
        assert_eq!(seen.flavour(), "v2");
        let facts = judge(&seen);
        assert_eq!(fact(&facts, "in version 2").value, "cpuset cpu io memory hugetlb pids rdma misc");
        assert_eq!(fact(&facts, "entering a group").status, Status::Ok);
        assert_eq!(fact(&facts, "handed down").value, "cpu memory pids");
        assert!(facts.iter().all(|fact| fact.name != "lacking"));
    }

    #[test]
    fn systemds_naming_hierarchy_alone_makes_no_hybrid() {
        let table = format!("{UNIFIED}\n40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd");
        assert_eq!(seen(&table, "cpu memory").flavour(), "v2");
        assert_eq!(seen("32 31 0:29 / /c rw - cgroup cgroup rw,cpu", "").flavour(), "v1");
        assert_eq!(seen("", "").flavour(), "none");
    }

    #[test]
    fn a_group_that_is_handed_no_controller_is_a_flaw_only_to_who_cannot_change_it() {
        let seen = Seen { trials: vec![trial("/sys/fs/cgroup/u", true, Ok(&[]))], ..seen(UNIFIED, "cpu memory") };
        assert_eq!(fact(&judge(&seen), "handed down").status, Status::Warn);
        assert_eq!(fact(&judge(&Seen { root: true, ..seen }), "handed down").status, Status::Info);
    }

    #[test]
    fn an_ordinary_user_is_told_how_to_get_a_group() {
        let mut seen = seen(UNIFIED, "cpu memory");
        seen.trials = vec![trial("/sys/fs/cgroup", true, Err("permission denied"))];
        let facts = judge(&seen);
        let making = fact(&facts, "making a group");
        assert_eq!(making.value, "0 of 1 made; /sys/fs/cgroup: permission denied");
        assert!(making.hint.as_ref().unwrap().contains("Delegate=yes"));
        assert_hints(&facts);
    }

    #[test]
    fn favoured_moving_is_seen() {
        let seen = seen("32 31 0:29 / /c rw - cgroup cgroup rw,cpu,favordynmods", "");
        assert_eq!(seen.hierarchies[0].controllers, ["cpu"]);
        assert_eq!(fact(&judge(&seen), "entering a group").status, Status::Ok);
    }

    #[test]
    fn root_makes_groups_at_the_top_and_others_beneath_their_own() {
        let own = own_groups("4:cpu,cpuacct:/user.slice\n0::/user.slice/session-2.scope\nnonsense");
        let unified = &seen(UNIFIED, "cpu").hierarchies[0];
        assert_eq!(parent(unified, &own, false), Path::new("/sys/fs/cgroup/user.slice/session-2.scope"));
        assert_eq!(parent(unified, &own, true), Path::new("/sys/fs/cgroup"));
        let first = &seen(HYBRID, "").hierarchies[0];
        assert_eq!(parent(first, &own, false), Path::new("/sys/fs/cgroup/cpu,cpuacct/user.slice"));
    }

    #[test]
    fn controllers_that_are_switched_off_are_not_known() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\nmemory\t0\t1\t0\n";
        assert_eq!(known(text), ["cpuset"]);
    }
}
