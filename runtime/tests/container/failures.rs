//! Whatever goes wrong, wherever: a clear error, and nothing is left on the host.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_step_that_fails_leaves_nothing", &NEEDS, failing_steps),
        trial("a_bad_bundle_is_refused_with_its_reason", &NEEDS, bad_bundles),
        trial("a_container_dies_with_its_killed_runtime", &NEEDS, killed_runtime),
        trial("a_runtime_killed_at_any_instant_leaves_what_prune_removes", &NEEDS, killed_anywhere),
        trial("a_create_killed_at_any_instant_leaves_what_delete_force_removes", &NEEDS, killed_create),
    ]
}

fn failing_steps() -> Result<(), Failed> {
    let table = [
        ("/mounts/-", json!({ "destination": "/x", "type": "tmpfs", "options": ["none-such=1"] }), "cannot mount /x"),
        ("/mounts/-", json!({ "destination": "/x", "type": "none-such-fs" }), "cannot mount /x"),
        ("/mounts/-", json!({ "destination": "/x", "source": "/none/such", "options": ["bind"] }), "cannot mount /x"),
        (
            "/mounts/-",
            json!({ "destination": "/bin/busybox/x", "type": "tmpfs" }),
            "cannot make the mount point /bin/busybox/x",
        ),
        ("/process/args", json!(["none-such"]), "exec: \"none-such\": executable file not found in $PATH"),
        ("/process/args", json!(["/bin/none-such"]), "exec: \"/bin/none-such\": no such file or directory"),
        ("/process/args", json!(["/etc"]), "exec: \"/etc\": permission denied"),
        ("/process/cwd", json!("/bin/busybox"), "cannot enter process.cwd /bin/busybox"),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 5 }]),
            "cannot set the limit RLIMIT_NOFILE",
        ),
        ("/linux/sysctl", json!({ "net.none.such": "1" }), "cannot set the kernel parameter sys/net/none/such"),
        ("/linux/resources", json!({ "cpu": { "cpus": "9999" } }), "cpuset.cpus"),
        ("/linux/cgroupsPath", json!("../../escape"), "cgroup"),
        (
            "/linux/devices",
            json!([{ "path": "/bin/busybox", "type": "c", "major": 1, "minor": 3 }]),
            "cannot make the device /bin/busybox",
        ),
        ("/linux/namespaces/-", json!({ "type": "user" }), "needs linux.uidMappings"),
        ("/process/user", json!({ "uid": 5_000_000_000_u64, "gid": 0 }), "is no container configuration"),
    ];
    for (pointer, value, expected) in table {
        let mut lab = Lab::new("touch /tmp/ran");
        lab.set(pointer, value);
        for verb in ["run", "create"] {
            let output = lab.oci(&[verb, &lab.id]);
            same((pointer, output.status.code()), (pointer, Some(1)))?;
            let said = text(&output.stderr);
            same((pointer, said.starts_with("error: ")), (pointer, true))?;
            has(&said, expected)?;
            lab.is_clean()?;
        }
        same(lab.root().join("tmp/ran").exists(), false)?;
    }
    Ok(())
}

fn bad_bundles() -> Result<(), Failed> {
    let lab = Lab::new("true");
    let mut run = lab.command(&["run", &lab.id]);
    for (content, expected) in [
        (None, "cannot read"),
        (Some(""), "is no container configuration: EOF"),
        (Some("{\n \"ociVersion\": }"), "line 2 column 16"),
        (Some("[]"), "says ociVersion: missing"),
        (Some("{}"), "says ociVersion: missing"),
        (Some("\u{0}\u{ff}"), "is no container configuration"),
    ] {
        match content {
            None => fs::remove_file(lab.path("config.json"))?,
            Some(content) => fs::write(lab.path("config.json"), content)?,
        }
        let output = run.output()?;
        same((content, output.status.code()), (content, Some(1)))?;
        has(&text(&output.stderr), expected)?;
    }
    let output = lab.oci(&["run", "--bundle", "/none/such", &lab.id]);
    has(&text(&output.stderr), "cannot open the bundle /none/such")?;
    for id in ["../x", "a/b", "", ".hidden", &"x".repeat(300)] {
        let output = lab.oci(&["run", id]);
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), "container id")?;
    }
    lab.is_clean()
}

fn killed_runtime() -> Result<(), Failed> {
    let lab = Lab::new("touch /tmp/up; sleep 60");
    let mut child = lab.spawn()?;
    child.kill()?;
    child.wait()?;
    wait_for("the container to die", || !lab.traces().iter().any(|trace| trace.starts_with("process")))?;
    same(lab.oci(&["prune"]).stdout, format!("removed {}\n", lab.id).into_bytes())?;
    lab.is_clean()
}

/// Kills the command after delays that cover its whole course; after each `clean` says how to clean up.
fn kill_everywhere<'a>(lab: &'a Lab, verb: &str, clean: impl Fn() -> Vec<&'a str>) -> Result<(), Failed> {
    const KILLS: u32 = 80;
    let begin = Instant::now();
    lab.oci(&[verb, &lab.id]);
    let course = begin.elapsed();
    lab.oci(&["delete", "--force", &lab.id]);
    let mut left = 0;
    for part in 0..KILLS {
        let delay = course * part / KILLS;
        let mut child = lab.command(&[verb, &lab.id]).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(delay);
        child.kill()?;
        child.wait()?;
        left += usize::from(!lab.traces().is_empty());
        same((delay, text(&lab.oci(&clean()).stderr)), (delay, String::new()))?;
        lab.is_clean()?;
    }
    // Otherwise the delays have missed what they are for.
    if left == 0 { Err("no kill has hit anything".into()) } else { Ok(()) }
}

fn killed_anywhere() -> Result<(), Failed> {
    let lab = Lab::new("true");
    let state = lab.states().join("oci").join(&lab.id);
    kill_everywhere(&lab, "run", || {
        // A folder without a record could be that of a runtime which is about to write it: `prune` leaves it for a while.
        let unwritten = fs::read_dir(&state).is_ok_and(|_| !state.join("state.json").exists());
        if unwritten { vec!["delete", "--force", &lab.id] } else { vec!["prune"] }
    })
}

fn killed_create() -> Result<(), Failed> {
    let lab = Lab::new("true");
    kill_everywhere(&lab, "create", || vec!["delete", "--force", &lab.id])
}
