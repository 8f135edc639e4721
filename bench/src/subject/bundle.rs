//! The bundle that containers are started from, ours and the peers': the same in all but where the root file system
//! comes from.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use isolab_runtime::container::OVERLAY_LOWER;
use isolab_runtime::container::seccomp::default_profile;
use isolab_runtime::engine::CAPABILITIES;
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use super::{Lab, Nonce};
use crate::host::mounts;

/// Whether the container has a network namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Own,
    Hosts,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// These directories, the uppermost first, for the runtime itself to stack upon a folder of the lab's.
    Layers(Vec<PathBuf>),
    /// A folder in which an engine has mounted them already.
    Mounted(PathBuf),
}

/// A bundle but for what differs between two starts.
#[derive(Clone, Debug)]
pub(super) struct Template {
    folder: PathBuf,
    text: String,
    /// Where control groups named `isolab/...` appear.
    groups: Vec<PathBuf>,
}

/// What the template has in place of the nonce and of the container's name.
const NONCE: &str = "@NONCE@";
pub(super) const ID: &str = "@ID@";

/// A bundle of one start.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    pub(super) id: String,
    pub(super) folder: PathBuf,
    /// The control groups that the container will have.
    pub(super) groups: Vec<PathBuf>,
}

impl Template {
    pub(super) fn new(lab: &Lab, network: Network, root: &Root) -> io::Result<Self> {
        let scratch = lab.scratch().path();
        let point = scratch.join("rootfs");
        private_folder(&point)?;
        let rootless = !geteuid().is_root();
        let text = configuration(network, root, &point, rootless).to_string();
        let table = mounts::table();
        let hierarchies = table.iter().filter(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2");
        // An ordinary user's containers have groups only where they were delegated, at a place of the runtime's choice.
        let groups = hierarchies.filter(|_| !rootless).map(|mount| mount.point.join("isolab")).collect();
        Ok(Self { folder: scratch.join("bundles"), text, groups })
    }

    /// Writes the bundle of one start.
    pub(super) fn write(&self, id: String, nonce: &Nonce) -> Result<Bundle, String> {
        let folder = self.folder.join(&id);
        let text = self.text.replace(NONCE, &nonce.to_string()).replace(ID, &id);
        let written = private_folder(&folder).and_then(|()| fs::write(folder.join("config.json"), text));
        written.map_err(|error| format!("cannot write the bundle {}: {error}", folder.display()))?;
        let groups = self.groups.iter().map(|parent| parent.join(&id)).collect();
        Ok(Bundle { id, folder, groups })
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What an engine gives a container that asks for nothing: the namespaces, mounts, capabilities and masks of
/// `docker run`, a seccomp profile, and limits that make each controller work.
fn configuration(network: Network, root: &Root, point: &Path, rootless: bool) -> Value {
    let path = match root {
        Root::Layers(_) => point,
        Root::Mounted(path) => path,
    };
    let mut config = json!({
        "ociVersion": "1.0.2",
        "hostname": "isolab",
        "root": { "path": path, "readonly": false },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/isolab-payload", NONCE],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES }
        },
        "mounts": mount_points(network, rootless),
        "linux": {
            "namespaces": namespaces(network, rootless),
            "seccomp": default_profile(),
            "maskedPaths": [
                "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi",
                "/sys/firmware"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    if let Root::Layers(layers) = root {
        config["annotations"] = json!({ OVERLAY_LOWER: joined(layers) });
    }
    if rootless {
        config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": geteuid().as_raw(), "size": 1 }]);
        config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": getegid().as_raw(), "size": 1 }]);
    } else {
        config["linux"]["cgroupsPath"] = json!(format!("/isolab/{ID}"));
        config["linux"]["resources"] = json!({
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": { "limit": 256 << 20 },
            "cpu": { "shares": 1024 },
            "pids": { "limit": 256 }
        });
    }
    config
}

fn namespaces(network: Network, rootless: bool) -> Value {
    let mut kinds = vec!["pid", "mount", "uts", "ipc", "cgroup"];
    if network == Network::Own {
        kinds.push("network");
    }
    if rootless {
        kinds.push("user");
    }
    kinds.into_iter().map(|kind| json!({ "type": kind })).collect()
}

fn mount_points(network: Network, rootless: bool) -> Value {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }),
    ];
    // Group 5 (tty) is not mapped into an ordinary user's namespace.
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !rootless {
        terminals.push("gid=5");
    }
    mounts.push(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": terminals }));
    let guarded = ["nosuid", "noexec", "nodev", "ro"];
    if rootless && network == Network::Hosts {
        // sysfs shows a network namespace, and only its owner may mount it: here that is the host's root.
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        mounts.push(json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": options }));
    } else {
        mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": guarded }));
    }
    if !rootless {
        mounts
            .push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": guarded }));
    }
    Value::Array(mounts)
}

/// Paths joined by colons; a colon or backslash of a path's own has a backslash before it.
pub(super) fn joined(paths: &[PathBuf]) -> String {
    let escape = |path: &PathBuf| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
    paths.iter().map(escape).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(network: Network, root: &Root, rootless: bool) -> Value {
        configuration(network, root, Path::new("/run/point"), rootless)
    }

    fn kinds(config: &Value) -> Vec<&str> {
        config["linux"]["namespaces"].as_array().unwrap().iter().map(|kind| kind["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn ours_and_the_peers_bundle_differ_in_the_root_only() {
        let layers = Root::Layers(vec!["/store/b:c".into(), "/store/a".into()]);
        let mut ours = of(Network::Own, &layers, false);
        let mut peers = of(Network::Own, &Root::Mounted("/run/peers".into()), false);
        assert_eq!(ours["annotations"][OVERLAY_LOWER], "/store/b\\:c:/store/a");
        assert_eq!(ours["root"]["path"], "/run/point");
        assert_eq!(peers["root"]["path"], "/run/peers");
        for config in [&mut ours, &mut peers] {
            config["root"] = Value::Null;
            config.as_object_mut().unwrap().remove("annotations");
        }
        assert_eq!(ours, peers);
    }

    #[test]
    fn a_root_container_is_limited_and_a_rootless_one_maps_its_user() {
        let root = Root::Mounted("/r".into());
        let limited = of(Network::Own, &root, false);
        assert_eq!(limited["linux"]["cgroupsPath"], "/isolab/@ID@");
        assert_eq!(kinds(&limited), ["pid", "mount", "uts", "ipc", "cgroup", "network"]);
        let rootless = of(Network::Hosts, &root, true);
        assert_eq!(rootless["linux"]["cgroupsPath"], Value::Null);
        assert_eq!(kinds(&rootless), ["pid", "mount", "uts", "ipc", "cgroup", "user"]);
        assert_eq!(rootless["linux"]["uidMappings"][0]["containerID"], 0);
    }
}
