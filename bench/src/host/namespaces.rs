//! Namespaces, overlayfs, seccomp: what a container is made of, tried out where only trying tells.

use isolab_reports::model::Fact;
use nix::errno::Errno;

use super::finding::Findings;
use super::{read, tools, trial};

/// What there is to know about the parts of a container.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Kinds of namespace that this kernel has: names in `/proc/self/ns`.
    pub(crate) kinds: Vec<String>,
    /// Making a user namespace as an ordinary user.
    pub(crate) user: nix::Result<()>,
    /// Mounting an overlay as this user, without a user namespace.
    pub(crate) overlay: nix::Result<()>,
    /// Mounting an overlay inside a user namespace.
    pub(crate) overlay_in_user: nix::Result<()>,
    /// `user.max_user_namespaces`.
    pub(crate) max_user: Option<String>,
    /// `kernel.unprivileged_userns_clone`, on Debian's kernels.
    pub(crate) unprivileged_clone: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, on Ubuntu's.
    pub(crate) apparmor_restricts: Option<String>,
    /// `kernel.seccomp.actions_avail`.
    pub(crate) seccomp_actions: Option<String>,
    /// `/proc/self/status`, for the lines `Seccomp` and `NoNewPrivs`.
    pub(crate) status: String,
    /// Whether newuidmap(1) and newgidmap(1) are on `PATH`.
    pub(crate) id_mappers: bool,
    /// Whether the lab runs as root.
    pub(crate) root: bool,
}

/// Looks, and tries.
pub(crate) fn look(root: bool) -> Seen {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let sysctl = |name: &str| read::text(format!("/proc/sys/{name}"));
    Seen {
        kinds: kinds
            .into_iter()
            .filter(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).is_ok())
            .map(str::to_owned)
            .collect(),
        user: trial::user_namespace(),
        overlay: trial::overlay(),
        overlay_in_user: trial::overlay_in_user_namespace(),
        max_user: sysctl("user/max_user_namespaces"),
        unprivileged_clone: sysctl("kernel/unprivileged_userns_clone"),
        apparmor_restricts: sysctl("kernel/apparmor_restrict_unprivileged_userns"),
        seccomp_actions: sysctl("kernel/seccomp/actions_avail"),
        status: read::text("/proc/self/status").unwrap_or_default(),
        id_mappers: ["newuidmap", "newgidmap"].into_iter().all(|name| tools::find(name).is_some()),
        root,
    }
}

/// What it means.
pub(crate) fn judge(seen: &Seen) -> Vec<Fact> {
    let mut findings = Findings::on("namespaces");
    kinds(&mut findings, seen);
    user(&mut findings, seen);
    overlay(&mut findings, seen);
    seccomp(&mut findings, seen);
    if seen.id_mappers {
        findings.ok("newuidmap, newgidmap", "on PATH: rootless containers may have many users");
    } else {
        findings.missing(
            "newuidmap, newgidmap",
            "not on PATH: a rootless container has one user, root",
            "sudo apt install uidmap, and a range for you in /etc/subuid and /etc/subgid",
        );
    }
    findings.into_facts()
}

fn kinds(findings: &mut Findings, seen: &Seen) {
    let needed = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    let lacking: Vec<_> = needed.into_iter().filter(|kind| !seen.kinds.iter().any(|has| has == kind)).collect();
    findings.ok("kinds", seen.kinds.join(", "));
    if !lacking.is_empty() {
        findings.missing(
            "kinds lacking",
            lacking.join(", "),
            "use a kernel built with CONFIG_NAMESPACES and all below it",
        );
    }
}

fn user(findings: &mut Findings, seen: &Seen) {
    let Err(errno) = seen.user else {
        let limit = seen.max_user.as_deref().map(|max| format!("; at most {max}")).unwrap_or_default();
        return findings.ok("user namespace", format!("made one as an ordinary user{limit}"));
    };
    let hint = if seen.max_user.as_deref() == Some("0") {
        "sudo sysctl user.max_user_namespaces=10000"
    } else if seen.unprivileged_clone.as_deref() == Some("0") {
        "sudo sysctl kernel.unprivileged_userns_clone=1"
    } else if seen.apparmor_restricts.as_deref() == Some("1") {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that grants userns"
    } else {
        "a sandbox or security module forbids it: leave the container that this runs in"
    };
    findings.missing("user namespace", format!("{}: no rootless containers", trial::in_words(errno)), hint);
}

fn overlay(findings: &mut Findings, seen: &Seen) {
    match seen.overlay {
        Ok(()) => findings.ok("overlayfs", "mounted one"),
        Err(Errno::EPERM) if !seen.root => findings.info("overlayfs", "only in a user namespace, as this is not root"),
        Err(errno) => findings.missing(
            "overlayfs",
            format!("{}: containers cannot share their layers", trial::in_words(errno)),
            if errno == Errno::ENODEV { "sudo modprobe overlay" } else { "run as root, outside of another container" },
        ),
    }
    match seen.overlay_in_user {
        Ok(()) => findings.ok("overlayfs, rootless", "mounted one in a user namespace"),
        Err(_) if seen.user.is_err() => {}
        Err(errno) => findings.warn(
            "overlayfs, rootless",
            format!("{}: rootless containers cannot share their layers", trial::in_words(errno)),
            "Linux 5.11 and later can; below it, run as root",
        ),
    }
}

fn seccomp(findings: &mut Findings, seen: &Seen) {
    match &seen.seccomp_actions {
        Some(actions) => findings.ok("seccomp", actions.clone()),
        None => findings.missing(
            "seccomp",
            "this kernel has no filters: containers may make every system call",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
    let status = |name: &str| {
        seen.status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    };
    if status("Seccomp").is_some_and(|mode| mode != "0") {
        findings.warn(
            "filter on this process",
            "a seccomp filter is already set: each system call of every subject pays for it",
            "run outside of the container or sandbox that set it",
        );
    }
    if status("NoNewPrivs") == Some("1") {
        findings.warn(
            "no_new_privs",
            "set on this process: newuidmap and sudo have no effect",
            "run outside of the container or sandbox that set it",
        );
    }
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    fn everything() -> Seen {
        Seen {
            kinds: ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"].map(str::to_owned).to_vec(),
            user: Ok(()),
            overlay: Ok(()),
            overlay_in_user: Ok(()),
            max_user: Some("96365".into()),
            unprivileged_clone: None,
            apparmor_restricts: None,
            seccomp_actions: Some("kill_process errno allow".into()),
            status: "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0".into(),
            id_mappers: true,
            root: true,
        }
    }

    #[test]
    fn a_host_that_can_do_all_has_nothing_to_mend() {
        assert!(judge(&everything()).iter().all(|fact| fact.status == Status::Ok));
    }

    #[test]
    fn whoever_forbids_user_namespaces_is_named_in_the_hint() {
        let hint = |seen: Seen| {
            fact(&judge(&Seen { user: Err(Errno::EPERM), ..seen }), "user namespace").hint.clone().unwrap()
        };
        assert!(hint(Seen { max_user: Some("0".into()), ..everything() }).contains("max_user_namespaces"));
        assert!(
            hint(Seen { unprivileged_clone: Some("0".into()), ..everything() }).contains("unprivileged_userns_clone")
        );
        assert!(hint(Seen { apparmor_restricts: Some("1".into()), ..everything() }).contains("apparmor"));
        assert!(hint(everything()).contains("sandbox"));
    }

    #[test]
    fn an_ordinary_user_mounts_overlays_in_a_user_namespace_only() {
        let seen = Seen { overlay: Err(Errno::EPERM), root: false, ..everything() };
        assert_eq!(fact(&judge(&seen), "overlayfs").status, Status::Info);
        let seen = Seen { overlay: Err(Errno::EPERM), root: true, ..everything() };
        assert_eq!(fact(&judge(&seen), "overlayfs").status, Status::Missing);
        let seen = Seen { overlay: Err(Errno::ENODEV), ..everything() };
        assert!(fact(&judge(&seen), "overlayfs").hint.as_ref().unwrap().contains("modprobe"));
    }

    #[test]
    fn a_sandbox_around_the_lab_is_noticed() {
        let seen = Seen {
            status: "NoNewPrivs:\t1\nSeccomp:\t2".into(),
            seccomp_actions: None,
            id_mappers: false,
            kinds: vec!["mnt".into()],
            overlay_in_user: Err(Errno::EINVAL),
            ..everything()
        };
        let facts = judge(&seen);
        for name in ["filter on this process", "no_new_privs", "overlayfs, rootless"] {
            assert_eq!(fact(&facts, name).status, Status::Warn, "{name}");
        }
        for name in ["seccomp", "newuidmap, newgidmap", "kinds lacking"] {
            assert_eq!(fact(&facts, name).status, Status::Missing, "{name}");
        }
        assert_hints(&facts);
    }
}
