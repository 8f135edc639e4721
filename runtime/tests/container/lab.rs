//! A place for one trial: a bundle with busybox in it, a state root, and a look at the host that finds whatever is left.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::checks::wait_within;
pub(crate) use super::checks::{has, same, text};
use super::needs::busybox;

/// The command under test.
pub(crate) const OCI: &str = env!("CARGO_BIN_EXE_isolab-oci");

const APPLETS: [&str; 20] = [
    "sh", "cat", "echo", "ls", "id", "ps", "mount", "hostname", "sleep", "true", "touch", "readlink", "stat", "grep",
    "head", "yes", "mkdir", "ip", "env", "kill",
];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A bundle of one trial's own. Dropped, its containers are deleted, whatever has become of them.
pub(crate) struct Lab {
    folder: TempDir,
    /// A container id that no other trial has; it is also in the environment of each process.
    pub(crate) id: String,
    /// The configuration; written at each command.
    pub(crate) config: Value,
}

impl Lab {
    /// A bundle whose program is `sh -c script`, in the namespaces a container usually has.
    pub(crate) fn new(script: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("isolab-oci-").tempdir().expect("a scratch folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open to other users");
        let id = format!("trial-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { config: config(&id, script), folder, id };
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(lab.root().join(name)).expect("a folder of the root");
        }
        let busybox = busybox().expect("busybox on the host");
        fs::copy(busybox, lab.root().join("bin/busybox")).expect("busybox");
        for name in APPLETS {
            symlink("busybox", lab.root().join("bin").join(name)).expect("an applet");
        }
        lab
    }

    /// The bundle's folder.
    pub(crate) fn bundle(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the bundle.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The root file system's folder.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// The state root's folder.
    pub(crate) fn states(&self) -> PathBuf {
        self.path("state")
    }

    /// Sets a value of the configuration by its JSON pointer.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
        match self.config.pointer_mut(parent).expect("the parent is there") {
            Value::Object(object) => drop(object.insert(name.to_owned(), value)),
            Value::Array(array) if name == "-" => array.push(value),
            other => panic!("{parent} is {other}"),
        }
        self
    }

    /// Takes the mount at `destination` out of the configuration.
    pub(crate) fn unmount(&mut self, destination: &str) {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != destination);
        }
    }

    /// The command with these arguments, its state below this lab.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        fs::write(self.path("config.json"), self.config.to_string()).expect("the configuration");
        let mut command = Command::new(OCI);
        command.arg("--root").arg(self.states()).args(arguments).current_dir(self.bundle()).stdin(Stdio::null());
        command
    }

    /// Runs the command to its end, not that of a container which outlives it: what both say goes to files, since a pipe
    /// would be open for as long as the container.
    pub(crate) fn oci(&self, arguments: &[&str]) -> Output {
        let (out, err) = (self.path("out"), self.path("err"));
        let create = |path: &Path| fs::File::create(path).expect("a file for what is said");
        let status = self.command(arguments).stdout(create(&out)).stderr(create(&err)).status();
        Output {
            status: status.expect("isolab-oci starts"),
            stdout: fs::read(out).expect("what was said"),
            stderr: fs::read(err).expect("what was said"),
        }
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Output {
        self.oci(&["run", &self.id])
    }

    /// Runs the container; its end must be status 0. Returns what it printed.
    pub(crate) fn output(&self) -> Result<String, Failed> {
        let output = self.run();
        if !output.status.success() || !output.stderr.is_empty() {
            return Err(format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr)).into());
        }
        Ok(text(&output.stdout))
    }

    /// Begins to run the container and waits until it has made the file `/tmp/up`.
    pub(crate) fn spawn(&self) -> Result<Child, Failed> {
        let child = self.command(&["run", &self.id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        wait_for("the container to come up", || self.root().join("tmp/up").exists())?;
        Ok(child)
    }

    /// Everything on the host that belongs to this lab: mounts, cgroups, processes, states.
    pub(crate) fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let place = self.bundle().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        traces.extend(mounts.lines().filter(|line| line.contains(&place)).map(|line| format!("mount {line}")));
        let names = [self.id.clone(), format!("isolab-{}", self.id)];
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            if folder.file_name().is_some_and(|name| names.iter().any(|own| name == own.as_str())) {
                traces.insert(format!("cgroup {}", folder.display()));
            }
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
            );
        }
        let marker = format!("LAB={}", self.id);
        for process in fs::read_dir("/proc").expect("processes").flatten() {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes()) {
                traces.insert(format!("process {}", process.path().display()));
            }
        }
        let states = fs::read_dir(self.states().join("oci")).into_iter().flatten().flatten();
        traces.extend(states.map(|entry| format!("state {}", entry.path().display())));
        traces
    }

    /// Nothing of the container may be left on the host. A process that was killed is given the moment it takes to go.
    pub(crate) fn is_clean(&self) -> Result<(), Failed> {
        let clean = wait_for("the last trace to go", || self.traces().is_empty());
        clean.map_err(|_| format!("left behind: {:#?}", self.traces()).into())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let states = fs::read_dir(self.states().join("oci")).into_iter().flatten().flatten();
        for name in states.filter_map(|entry| entry.file_name().into_string().ok()) {
            self.oci(&["delete", "--force", &name]);
        }
    }
}

fn config(id: &str, script: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin", format!("LAB={id}")],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE"],
                "effective": ["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE"],
                "permitted": ["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
            }
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "ipc" }, { "type": "network" },
                { "type": "cgroup" }
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/scsi", "/sys/firmware", "/proc/none-such"],
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/none-such"]
        }
    })
}

/// Asks until it is so, for ten seconds at most.
pub(crate) fn wait_for(what: &str, so: impl FnMut() -> bool) -> Result<(), Failed> {
    wait_within(Duration::from_secs(10), Duration::from_millis(5), what, so)
}
