//! From an image's configuration and a user's wishes to a configuration that the runtime understands.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::user::Identity;
use super::users::RANGE;
use super::wishes::{Network, Seccomp, Sharing, Wishes};
use super::{Mount, rights};
use crate::container::seccomp::{DEFAULT, SECCOMP};
use crate::container::{OVERLAY_IDMAP, OVERLAY_LOWER, OVERLAY_UPPER, OVERLAY_VOLATILE, OVERLAY_WORK};

/// What a process finds programs in where the image doesn't say.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the small first process of `--init` lies in a container.
pub(super) const INIT: &str = "/sbin/docker-init";

/// What tells of the host, or reaches into it, though it lies in a container's own /proc and /sys.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// docker's size of /dev/shm, in bytes.
const SHM_SIZE: u64 = 64 << 20;

/// All that a container is made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) folder: String,
    pub(super) identity: &'a Identity,
    pub(super) hostname: &'a str,
    pub(super) wishes: &'a Wishes,
    /// Files and folders of the host: the wishes' and what belongs to every container.
    pub(super) mounts: &'a [Mount],
    /// The layers' folders, the uppermost first.
    pub(super) lower: &'a [PathBuf],
    pub(super) upper: &'a Path,
    pub(super) work: &'a Path,
    /// Namespaces of others that are joined: the kind, and the path.
    pub(super) joined: &'a [(&'static str, PathBuf)],
}

impl Parts<'_> {
    /// The configuration, `root` being a folder beside it.
    pub(super) fn specification(&self) -> Value {
        let wishes = self.wishes;
        let lower: Vec<String> = self.lower.iter().map(|path| escaped(path)).collect();
        let mut process = json!({
            "terminal": wishes.terminal,
            "user": { "uid": self.identity.uid, "gid": self.identity.gid, "additionalGids": self.identity.groups },
            "args": self.arguments,
            "env": self.environment,
            "cwd": self.folder,
            "capabilities": rights::capabilities(&wishes.rights, self.identity.uid == 0),
            "noNewPrivileges": wishes.rights.no_new_privileges,
            "rlimits": rights::rlimits(&wishes.rights),
        });
        if let Some(score) = wishes.rights.oom_score {
            process["oomScoreAdj"] = json!(score);
        }
        let mut linux = json!({
            "namespaces": self.namespaces(),
            "resources": self.resources(),
            "devices": rights::devices(&wishes.rights),
        });
        if !wishes.rights.privileged {
            linux["maskedPaths"] = json!(MASKED);
            linux["readonlyPaths"] = json!(READ_ONLY);
        }
        if let Some(first) = wishes.users.root() {
            for maps in ["uidMappings", "gidMappings"] {
                linux[maps] = json!([{ "containerID": 0, "hostID": first, "size": RANGE }]);
            }
        }
        if !wishes.sysctls.is_empty() {
            linux["sysctl"] = json!(wishes.sysctls);
        }
        let mut annotations = json!(wishes.annotations);
        match &wishes.rights.seccomp {
            _ if wishes.rights.privileged => {}
            Seccomp::Unconfined => {}
            Seccomp::Default => annotations[SECCOMP] = json!(DEFAULT),
            Seccomp::Profile(profile) => linux["seccomp"] = profile.clone(),
        }
        annotations[OVERLAY_LOWER] = json!(lower.join(":"));
        annotations[OVERLAY_UPPER] = json!(self.upper);
        annotations[OVERLAY_WORK] = json!(self.work);
        if wishes.remove {
            annotations[OVERLAY_VOLATILE] = json!("true");
        }
        if wishes.users.root().is_some() {
            annotations[OVERLAY_IDMAP] = json!("true");
        }
        let mut all = json!({
            "ociVersion": "1.2.1",
            "process": process,
            // The overlay is mounted upon the folder that takes its changes, in the container's own mount namespace: so it
            // needs no other one.
            "root": { "path": self.upper, "readonly": wishes.read_only },
            "mounts": self.all_mounts(),
            "annotations": annotations,
            "linux": linux,
        });
        if wishes.uts == Sharing::Private {
            all["hostname"] = json!(self.hostname);
            if let Some(domain) = &wishes.domainname {
                all["domainname"] = json!(domain);
            }
        }
        all
    }

    fn resources(&self) -> Value {
        let mut all = self.wishes.limits.resources();
        all.insert("devices".to_owned(), rights::device_rules(&self.wishes.rights));
        Value::Object(all)
    }

    fn namespaces(&self) -> Vec<Value> {
        let wishes = self.wishes;
        let own = [
            ("pid", wishes.pid == Sharing::Private),
            ("ipc", wishes.ipc == Sharing::Private),
            ("uts", wishes.uts == Sharing::Private),
            ("mount", true),
            ("user", wishes.users.root().is_some()),
            ("cgroup", wishes.cgroup.as_ref().map_or(!wishes.rights.privileged, |it| *it == Sharing::Private)),
            ("network", matches!(wishes.network, Network::None | Network::Bridge)),
        ];
        let joined = self.joined.iter().map(|(kind, path)| json!({ "type": kind, "path": path }));
        let is_joined = |kind: &str| self.joined.iter().any(|(other, _)| *other == kind);
        let new = own.iter().filter(|(kind, own)| *own && !is_joined(kind)).map(|(kind, _)| json!({ "type": kind }));
        new.chain(joined).collect()
    }

    /// Whether a mount is a file or folder that the user gave the container; the others are the engine's own.
    fn is_of_host(&self, mount: &Mount) -> bool {
        mount.volume.is_none() && self.wishes.mounts.contains(mount)
    }

    fn all_mounts(&self) -> Vec<Value> {
        let wishes = self.wishes;
        let mount = |place: &str, kind: &str, options: &[&str]| json!({ "destination": place, "type": kind, "source": kind, "options": options });
        let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
        let access = if wishes.rights.privileged { "rw" } else { "ro" };
        let shm = format!("size={}", wishes.shm_size.unwrap_or(SHM_SIZE));
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &terminals),
        ];
        if wishes.ipc == Sharing::Host {
            for place in ["/dev/shm", "/dev/mqueue"].into_iter().filter(|place| Path::new(place).is_dir()) {
                mounts.push(json!({ "destination": place, "type": "bind", "source": place, "options": ["rbind", "nosuid", "noexec", "nodev"] }));
            }
        } else {
            mounts.push(mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]));
            mounts.push(mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
        }
        mounts.push(mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]));
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]));
        if wishes.network == Network::Host {
            // sysfs shows a network namespace only to its owner; the host's is not this container's.
            mounts.retain(|mount| mount["destination"] != "/sys" || nix::unistd::geteuid().is_root());
        }
        for (place, options) in &wishes.tmpfs {
            let usual = ["nosuid", "nodev", "noexec"].into_iter();
            let given: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
            // What is asked for stands behind what is usual, and so against it.
            let all: Vec<&str> = usual.chain(given).collect();
            mounts.push(mount(place, "tmpfs", &all));
        }
        mounts.extend(self.mounts.iter().map(|it| {
            let access = if it.read_only { "ro" } else { "rw" };
            let mut options = vec!["rbind", "rprivate", access];
            if wishes.users.root().is_some() && !self.is_of_host(it) {
                options.push("idmap");
            }
            json!({ "destination": it.to, "type": "bind", "source": it.from, "options": options })
        }));
        mounts
    }
}

/// A folder as the annotation wants it: a colon or a backslash of its own has a backslash before it.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}
