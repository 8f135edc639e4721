//! From an image's configuration and a user's wishes to a configuration that the runtime understands.

use serde_json::{Value, json};

use super::{Mount, Network};
use crate::container::{OVERLAY_LOWER, OVERLAY_UPPER, OVERLAY_WORK, seccomp};
use crate::engine::user::Identity;
use std::path::Path;

/// What a process finds programs in where the image doesn't say.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What root may do in a container by default: docker's list. Enough to install packages and to drop what is left.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

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

/// All that a container is made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) folder: String,
    pub(super) identity: &'a Identity,
    pub(super) terminal: bool,
    pub(super) read_only: bool,
    pub(super) hostname: &'a str,
    pub(super) network: Network,
    pub(super) mounts: &'a [Mount],
    /// The layers' folders, the uppermost first.
    pub(super) lower: &'a [std::path::PathBuf],
    pub(super) upper: &'a Path,
    pub(super) work: &'a Path,
}

impl Parts<'_> {
    /// The configuration, `root` being a folder beside it.
    pub(super) fn specification(&self) -> Value {
        // Root needs them named in each set; anybody else gets them only by a file that grants them.
        let held: &[&str] = if self.identity.uid == 0 { &CAPABILITIES } else { &[] };
        let lower: Vec<String> = self.lower.iter().map(|path| escaped(path)).collect();
        json!({
            "ociVersion": "1.2.1",
            "process": {
                "terminal": self.terminal,
                "user": { "uid": self.identity.uid, "gid": self.identity.gid, "additionalGids": self.identity.groups },
                "args": self.arguments,
                "env": self.environment,
                "cwd": self.folder,
                "capabilities": { "bounding": CAPABILITIES, "effective": held, "permitted": held },
            },
            "root": { "path": "root", "readonly": self.read_only },
            "hostname": self.hostname,
            "mounts": self.all_mounts(),
            "annotations": {
                OVERLAY_LOWER: lower.join(":"),
                OVERLAY_UPPER: self.upper,
                OVERLAY_WORK: self.work,
            },
            "linux": {
                "namespaces": self.namespaces(),
                "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
                "seccomp": seccomp::default_profile(),
                "maskedPaths": MASKED,
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        })
    }

    fn namespaces(&self) -> Vec<Value> {
        let kinds = ["pid", "ipc", "uts", "mount", "cgroup"];
        let network = (self.network == Network::None).then_some("network");
        kinds.into_iter().chain(network).map(|kind| json!({ "type": kind })).collect()
    }

    fn all_mounts(&self) -> Vec<Value> {
        let mount = |place: &str, kind: &str, options: &[&str]| json!({ "destination": place, "type": kind, "source": kind, "options": options });
        let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &terminals),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ];
        if self.network == Network::Host {
            // sysfs shows a network namespace only to its owner; the host's is not this container's.
            mounts.retain(|mount| mount["destination"] != "/sys" || nix::unistd::geteuid().is_root());
        }
        mounts.extend(self.mounts.iter().map(|it| {
            let access = if it.read_only { "ro" } else { "rw" };
            json!({ "destination": it.to, "type": "bind", "source": it.from, "options": ["rbind", "rprivate", access] })
        }));
        mounts
    }
}

/// A folder as the annotation wants it: a colon or a backslash of its own has a backslash before it.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}
