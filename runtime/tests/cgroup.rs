//! Cgroups of the real kernel: what the unit tests show of folders that only pose as cgroupfs, seen to have its effect.

#[path = "container/needs.rs"]
mod needs;

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use isolab_runtime::container::cgroup::{Cgroup, CgroupError, Layout, Version};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

type Done = Result<(), Failed>;

fn main() {
    let trial = |name, test: fn() -> Done| needs::trial(name, &["cgroup"], test);
    let trials: Vec<Trial> = vec![
        trial("the_limits_asked_for_are_in_force", the_limits_asked_for_are_in_force),
        trial("limits_of_a_running_cgroup_go_up_and_down", limits_of_a_running_cgroup_go_up_and_down),
        trial("a_process_is_in_every_hierarchy", a_process_is_in_every_hierarchy),
        trial("who_takes_more_memory_than_allowed_is_killed_and_counted", who_takes_more_memory_is_killed),
        trial("more_processes_than_allowed_are_not_made", more_processes_than_allowed_are_not_made),
        trial("what_is_frozen_uses_no_cpu_until_thawed", what_is_frozen_uses_no_cpu_until_thawed),
        trial("a_kill_reaches_children_and_what_is_frozen", || a_kill_reaches_children_and_what_is_frozen(&detect()?)),
        needs::trial("a_kill_needs_no_v2", &["cgroup", "cgroup1"], || {
            a_kill_reaches_children_and_what_is_frozen(&detect()?.only(Version::V1))
        }),
        trial("a_dropped_cgroup_takes_its_processes_along", a_dropped_cgroup_takes_its_processes_along),
        trial("a_cgroup_in_use_is_not_taken_over", a_cgroup_in_use_is_not_taken_over),
        trial("cgroups_made_inside_go_with_it", cgroups_made_inside_go_with_it),
        trial("a_cpuset_below_a_stranger_is_filled_when_needed", a_cpuset_below_a_stranger_is_filled),
        trial("a_refused_limit_leaves_nothing_and_names_its_file", a_refused_limit_leaves_nothing),
        trial("many_at_once_share_and_remove_their_parent", many_at_once_share_and_remove_their_parent),
        trial("a_denied_device_cannot_be_opened", || a_denied_device_cannot_be_opened(&detect()?)),
        trial("a_denied_device_cannot_be_opened_in_v2", || {
            a_denied_device_cannot_be_opened(&detect()?.only(Version::V2))
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn detect() -> Result<Layout, CgroupError> {
    Layout::detect()
}

fn resources(value: Value) -> Result<LinuxResources, Failed> {
    Ok(serde_json::from_value(value)?)
}

/// A name that no other trial, and no other run of the trials, uses.
fn name(what: &str) -> PathBuf {
    format!("isolab-test-{what}-{}", std::process::id()).into()
}

fn create(layout: &Layout, what: &str, asked: Value) -> Result<Cgroup, Failed> {
    Ok(Cgroup::create(layout, &name(what), Some(&resources(asked)?))?)
}

/// The directories of a cgroup that exist.
fn left(layout: &Layout, path: &Path) -> Vec<PathBuf> {
    let folders = layout.hierarchies().iter().filter_map(|hierarchy| hierarchy.directory(path).ok());
    folders.filter(|folder| folder.exists()).collect()
}

fn nothing_left(layout: &Layout, what: &str) -> Done {
    let left = left(layout, &name(what));
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}").into()) }
}

/// A shell that begins its script when told; killed and waited for when the trial ends, however that is.
struct Shell(Child);

impl Shell {
    fn waiting(script: &str) -> Result<Self, Failed> {
        let script = format!("read go; {script}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    fn begin(&mut self) -> Done {
        // Dropped after the write: the shell reads one line, and then the end of the file.
        let mut input = self.0.stdin.take().ok_or("the shell has begun already")?;
        Ok(input.write_all(b"go\n")?)
    }

    fn end(&mut self) -> Result<ExitStatus, Failed> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(1));
        }
        Err("the shell did not end within 10 s".into())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn the_limits_asked_for_are_in_force() -> Done {
    let layout = detect()?;
    let asked = json!({
        "memory": { "limit": 67_108_864, "swap": 67_108_864 }, "pids": { "limit": 32 },
        "cpu": { "shares": 512, "quota": 20000, "period": 100_000, "cpus": "0" }
    });
    let cgroup = create(&layout, "limits", asked)?;
    let stats = cgroup.stats()?;
    assert_eq!((stats.memory.limit, stats.pids.limit), (Some(67_108_864), Some(32)));
    assert_eq!(stats.cpu.cpus.as_deref(), Some("0"));
    cgroup.destroy()?;
    nothing_left(&layout, "limits")
}

fn limits_of_a_running_cgroup_go_up_and_down() -> Done {
    let layout = detect()?;
    let limit = |bytes: i64| json!({ "memory": { "limit": bytes, "swap": bytes } });
    let cgroup = create(&layout, "update", limit(64 << 20))?;
    for bytes in [256 << 20, 32 << 20, 128 << 20] {
        cgroup.apply(&resources(limit(bytes))?)?;
        assert_eq!(cgroup.stats()?.memory.limit, Some(bytes.cast_unsigned()));
    }
    cgroup.apply(&resources(json!({ "memory": { "limit": -1 } }))?)?;
    assert_eq!(cgroup.stats()?.memory.limit, None);
    cgroup.destroy()?;
    nothing_left(&layout, "update")
}

fn a_process_is_in_every_hierarchy() -> Done {
    let layout = detect()?;
    let cgroup = create(&layout, "enter", json!({}))?;
    let mut shell = Shell::waiting("exit 7")?;
    cgroup.adopt(shell.pid())?;
    let told = fs::read_to_string(format!("/proc/{}/cgroup", shell.pid()))?;
    let suffix = format!("/{}", name("enter").display());
    assert!(told.lines().all(|line| line.ends_with(&suffix)), "{told}");
    assert_eq!(cgroup.pids()?, [shell.pid()]);
    shell.begin()?;
    assert_eq!(shell.end()?.code(), Some(7));
    cgroup.destroy()?;
    nothing_left(&layout, "enter")
}

fn who_takes_more_memory_is_killed() -> Done {
    let layout = detect()?;
    let cgroup = create(&layout, "memory", json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } }))?;
    let mut shell = Shell::waiting("exec dd if=/dev/zero of=/dev/null bs=64M count=1")?;
    cgroup.adopt(shell.pid())?;
    shell.begin()?;
    assert_eq!(shell.end()?.signal(), Some(libc::SIGKILL));
    let memory = cgroup.stats()?.memory;
    assert!(memory.oom_kills >= Some(1), "{memory:?}");
    assert!(memory.peak <= Some(16 << 20), "{memory:?}");
    cgroup.destroy()?;
    nothing_left(&layout, "memory")
}

fn more_processes_than_allowed_are_not_made() -> Done {
    let layout = detect()?;
    let cgroup = create(&layout, "pids", json!({ "pids": { "limit": 2 } }))?;
    let mut shell = Shell::waiting("sleep 0 || exit 3; sleep 0 | sleep 0 && exit 4; exit 5")?;
    cgroup.adopt(shell.pid())?;
    shell.begin()?;
    // One child at a time it may have; the shell gives up when the second side of the pipe cannot be made.
    let code = shell.end()?.code();
    assert!(!matches!(code, Some(3 | 4)), "{code:?}");
    cgroup.kill()?;
    cgroup.destroy()?;
    nothing_left(&layout, "pids")
}

fn what_is_frozen_uses_no_cpu_until_thawed() -> Done {
    let layout = detect()?;
    let cgroup = create(&layout, "freeze", json!({}))?;
    let mut shell = Shell::waiting("while :; do :; done")?;
    cgroup.adopt(shell.pid())?;
    shell.begin()?;
    let grows = || -> Result<bool, Failed> {
        let before = cgroup.stats()?.cpu.usage_ns;
        sleep(Duration::from_millis(50));
        Ok(cgroup.stats()?.cpu.usage_ns > before)
    };
    assert!(grows()?, "a loop that runs uses CPU time");
    cgroup.freeze()?;
    assert!(cgroup.frozen()?);
    assert!(!grows()?, "frozen, it uses none");
    cgroup.thaw()?;
    assert!(!cgroup.frozen()?);
    assert!(grows()?, "thawed, it goes on");
    cgroup.kill()?;
    assert_eq!(shell.end()?.signal(), Some(libc::SIGKILL));
    cgroup.destroy()?;
    nothing_left(&layout, "freeze")
}

fn a_kill_reaches_children_and_what_is_frozen(layout: &Layout) -> Done {
    let what = format!("kill-{:?}", layout.flavour());
    let cgroup = create(layout, &what, json!({}))?;
    let mut shell = Shell::waiting("sleep 1000 & sleep 1000 & wait")?;
    cgroup.adopt(shell.pid())?;
    shell.begin()?;
    let begin = Instant::now();
    while cgroup.pids()?.len() < 3 && begin.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(1));
    }
    assert_eq!(cgroup.pids()?.len(), 3);
    cgroup.freeze()?;
    cgroup.kill()?;
    assert_eq!(shell.end()?.signal(), Some(libc::SIGKILL));
    cgroup.destroy()?;
    nothing_left(layout, &what)
}

fn a_dropped_cgroup_takes_its_processes_along() -> Done {
    let layout = detect()?;
    let cgroup = create(&layout, "drop", json!({}))?;
    let mut shell = Shell::waiting("exit 0")?;
    cgroup.adopt(shell.pid())?;
    drop(cgroup);
    assert_eq!(shell.end()?.signal(), Some(libc::SIGKILL));
    nothing_left(&layout, "drop")
}

fn a_cgroup_in_use_is_not_taken_over() -> Done {
    let layout = detect()?;
    let cgroup = create(&layout, "twice", json!({}))?;
    let shell = Shell::waiting("exit 0")?;
    cgroup.adopt(shell.pid())?;
    match Cgroup::create(&layout, &name("twice"), None) {
        Err(CgroupError::InUse { .. }) => {}
        other => return Err(format!("{other:?}").into()),
    }
    assert_eq!(cgroup.pids()?, [shell.pid()], "its process is still there");
    drop(shell);
    cgroup.destroy()?;
    nothing_left(&layout, "twice")
}

fn cgroups_made_inside_go_with_it() -> Done {
    let layout = detect()?;
    let cgroup = create(&layout, "inside", json!({}))?;
    for folder in left(&layout, &name("inside")) {
        fs::create_dir_all(folder.join("a/b"))?;
    }
    cgroup.destroy()?;
    nothing_left(&layout, "inside")
}

fn a_cpuset_below_a_stranger_is_filled() -> Done {
    let layout = detect()?;
    // A parent that somebody made without a thought of cpusets: in v1 it is empty there.
    let parent = create(&layout, "stranger", json!({}))?;
    let path = name("stranger").join("child");
    let cgroup = Cgroup::create(&layout, &path, Some(&resources(json!({ "cpu": { "cpus": "0" } }))?))?;
    let shell = Shell::waiting("exit 0")?;
    cgroup.adopt(shell.pid())?;
    drop(shell);
    cgroup.destroy()?;
    parent.destroy()?;
    nothing_left(&layout, "stranger")
}

fn a_refused_limit_leaves_nothing() -> Done {
    let layout = detect()?;
    let asked = resources(json!({ "cpu": { "cpus": "9999" } }))?;
    match Cgroup::create(&layout, &name("refused"), Some(&asked)) {
        Err(error @ CgroupError::Write { .. }) => {
            assert!(error.to_string().contains("cpuset.cpus") && error.to_string().contains("9999"), "{error}");
            assert!(error.hint().is_some());
        }
        other => return Err(format!("{other:?}").into()),
    }
    nothing_left(&layout, "refused")
}

fn many_at_once_share_and_remove_their_parent() -> Done {
    let layout = detect()?;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let layout = layout.clone();
            spawn(move || -> Result<(), CgroupError> {
                for round in 0..25 {
                    let path = Path::new("isolab").join(format!("{}-{thread}-{round}", name("many").display()));
                    Cgroup::create(&layout, &path, None)?.destroy()?;
                    assert!(left(&layout, &path).is_empty());
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread ended early")??;
    }
    Ok(())
}

/// /dev/kmsg (1:11) is on no container's list; /dev/null is on all.
fn a_denied_device_cannot_be_opened(layout: &Layout) -> Done {
    let what = format!("devices-{:?}", layout.flavour());
    let deny = json!([{ "allow": false, "access": "rwm" }]);
    let cgroup = create(layout, &what, json!({ "devices": deny }))?;
    let opens = |device: &str| -> Result<bool, Failed> {
        let mut shell = Shell::waiting(&format!("exec 3<{device}"))?;
        cgroup.adopt(shell.pid())?;
        shell.begin()?;
        Ok(shell.end()?.success())
    };
    assert!(!opens("/dev/kmsg")?, "denied");
    assert!(opens("/dev/null")?, "a default device");
    let allow = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]);
    cgroup.apply(&resources(json!({ "devices": allow }))?)?;
    assert!(opens("/dev/kmsg")?, "allowed later");
    cgroup.destroy()?;
    nothing_left(layout, &what)
}
