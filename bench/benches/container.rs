//! OCI runtimes on one bundle: ours, runc and crun, where they are on PATH.
//!
//! `run` is one command from nothing to nothing; `create-start-delete` is what an engine does. The bundle is the one that
//! `isolab-oci`'s users have: every namespace but user's, a control group in each hierarchy, the default seccomp profile. One
//! iteration starts every runtime once, each in turn, and criterion is given the one that it asks for: so a drifting machine
//! bends all of them alike, and medians of one group may be divided.
//!
//! As an ordinary user the view of control groups can't be changed; then crun is left out on hybrid hosts, which is said.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use isolab_bench::host::hybrid;
use isolab_bench::payload::PAYLOAD;
use isolab_bench::siblings;
use isolab_runtime::container::seccomp::default_profile;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What is timed: a whole life of one container under one runtime.
type Life = fn(&Runtime, &Path, &str) -> Duration;

/// A command with the command line of runc.
struct Runtime {
    name: &'static str,
    program: PathBuf,
    states: PathBuf,
}

fn container(criterion: &mut Criterion) {
    siblings::build().expect("cargo builds the engines");
    hybrid::hide_for_all();
    let folder = bundle().expect("a bundle");
    let runtimes: Vec<Runtime> = ["isolab-oci", "runc", "crun"]
        .into_iter()
        .filter_map(|name| Runtime::find(name, folder.path()))
        .filter(|runtime| runtime.works(folder.path()))
        .collect();
    let lives: [(&str, Life); 2] = [("run", Runtime::run), ("create-start-delete", Runtime::create_start_delete)];
    let mut group = criterion.benchmark_group("container");
    // Only one runtime of each round counts for criterion, so that a second of its time is several of yours.
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let mut number = 0_u64;
    for (life, live) in lives {
        for asked in &runtimes {
            group.bench_function(format!("{life}/{}", asked.name), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    for _ in 0..iterations {
                        for runtime in &runtimes {
                            number += 1;
                            let took = live(runtime, folder.path(), &format!("bench-{}-{number}", std::process::id()));
                            if runtime.name == asked.name {
                                total += took;
                            }
                        }
                    }
                    total
                });
            });
        }
    }
    group.finish();
}

impl Runtime {
    fn find(name: &'static str, folder: &Path) -> Option<Self> {
        // Our own is beside this benchmark, one folder up; the peers are wherever a user's shell finds them.
        let own = env::current_exe().ok()?.parent()?.parent()?.join(name);
        let path = env::var_os("PATH")?;
        let found = env::split_paths(&path).map(|folder| folder.join(name));
        let program = std::iter::once(own).chain(found).find(|program| program.is_file());
        if program.is_none() {
            eprintln!("left out: {name}: not on PATH");
        }
        Some(Self { name, program: program?, states: folder.join(format!("states-{name}")) })
    }

    /// Whether it runs the bundle at all: crun refuses hosts with hybrid control groups.
    fn works(&self, bundle: &Path) -> bool {
        let ended = self.command(&["run"]).arg("--bundle").arg(bundle).arg("probe").stderr(Stdio::piped()).output();
        let output = ended.expect("the runtime starts");
        if !output.status.success() {
            eprintln!("left out: {}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
            self.delete("probe");
        }
        output.status.success()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.states).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs one command and times it, from before its start until it is reaped.
    fn timed(&self, mut command: Command) -> Duration {
        let start = Instant::now();
        let status = command.status();
        let took = start.elapsed();
        assert!(status.is_ok_and(|status| status.success()), "{} failed: {command:?}", self.name);
        took
    }

    fn run(&self, bundle: &Path, id: &str) -> Duration {
        let mut command = self.command(&["run", "--bundle"]);
        command.arg(bundle).arg(id);
        self.timed(command)
    }

    /// The three commands; the wait between the last two, for the program to end, is on nobody's clock.
    fn create_start_delete(&self, bundle: &Path, id: &str) -> Duration {
        let mut create = self.command(&["create", "--bundle"]);
        create.arg(bundle).arg(id);
        let begun = self.timed(create) + self.timed(self.command(&["start", id]));
        while !self.stopped(id) {
            sleep(Duration::from_millis(1));
        }
        begun + self.timed(self.command(&["delete", id]))
    }

    fn stopped(&self, id: &str) -> bool {
        let output = self.command(&["state", id]).stdout(Stdio::piped()).output().expect("a state");
        let state: Value = serde_json::from_slice(&output.stdout).expect("a state is JSON");
        state["status"] == "stopped"
    }

    fn delete(&self, id: &str) {
        let _ = self.command(&["delete", "--force", id]).status();
    }
}

fn bundle() -> std::io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("isolab-bench-").tempdir()?;
    let root = folder.path().join("rootfs");
    for name in ["proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name))?;
    }
    let payload = root.join("isolab-payload");
    fs::write(&payload, PAYLOAD)?;
    fs::set_permissions(&payload, fs::Permissions::from_mode(0o755))?;
    fs::write(folder.path().join("config.json"), configuration().to_string())?;
    Ok(folder)
}

/// What `runc spec` writes, with a filter and without a terminal; the payload ends at once.
fn configuration() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "cwd": "/", "noNewPrivileges": true,
            "args": ["/isolab-payload", "bench", "exit"], "env": ["PATH=/bin"],
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities }
        },
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }], "memory": { "limit": 256 << 20 }, "pids": { "limit": 100 } },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
            ],
            "seccomp": default_profile(),
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

criterion_group!(benches, container);
criterion_main!(benches);
