//! create, start, state, kill, delete: each at its time, and a clear answer at any other.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::checks::wait_within;
use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

/// How long a container that has nothing to do may take, with all the others beside it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_created_container_waits_for_start", &NEEDS, created),
        trial("an_id_is_given_once", &NEEDS, twice),
        trial("a_running_container_is_deleted_only_by_force", &NEEDS, delete),
        trial("what_does_not_fit_the_state_is_refused", &NEEDS, refused),
        trial("a_missing_container_is_named", &NEEDS, missing),
        trial("a_container_without_a_process_can_be_created_and_not_started", &NEEDS, without_process),
        trial("create_reports_a_missing_program_and_leaves_nothing", &NEEDS, create_missing_program),
        trial("without_a_pid_namespace_no_process_outlives_the_first", &NEEDS, orphans),
        trial("hooks_run_in_order_and_see_the_state", &NEEDS, hooks),
        trial("a_hook_that_fails_undoes_the_container", &NEEDS, failing_hook),
        trial("a_thousand_containers_eight_at_a_time_all_end_and_leave_nothing", &NEEDS, thousand),
        trial("a_created_container_uses_no_process_but_its_own", &NEEDS, no_supervisor),
        trial("every_step_is_told_and_none_without_being_asked", &NEEDS, explained),
        trial("the_timeline_is_sorted_json_lines", &NEEDS, timeline),
    ]
}

fn state(lab: &Lab) -> Result<Value, Failed> {
    Ok(serde_json::from_slice(&lab.oci(&["state", &lab.id]).stdout)?)
}

fn ok(lab: &Lab, arguments: &[&str]) -> Result<(), Failed> {
    let output = lab.oci(arguments);
    if output.status.success() { Ok(()) } else { Err(format!("{arguments:?}: {}", text(&output.stderr)).into()) }
}

fn without_process() -> Result<(), Failed> {
    let mut lab = Lab::new("");
    if let Some(config) = lab.config.as_object_mut() {
        config.remove("process");
    }
    ok(&lab, &["create", &lab.id])?;
    same(state(&lab)?["status"].as_str(), Some("created"))?;
    let output = lab.oci(&["start", &lab.id]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "config.json has no process")?;
    // As if it had not been tried.
    same(state(&lab)?["status"].as_str(), Some("created"))?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    has(&text(&lab.run().stderr), "config.json has no process")?;
    lab.is_clean()
}

fn created() -> Result<(), Failed> {
    let lab = Lab::new("touch /tmp/ran; sleep 60");
    ok(&lab, &["create", "--pid-file", "pid", &lab.id])?;
    let now = state(&lab)?;
    same(now["status"].as_str(), Some("created"))?;
    same(now["bundle"].as_str(), lab.bundle().to_str())?;
    same(now["ociVersion"].as_str(), Some("1.0.2"))?;
    same(now["pid"].to_string(), fs::read_to_string(lab.path("pid"))?)?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    same(lab.root().join("tmp/ran").exists(), false)?;
    ok(&lab, &["start", &lab.id])?;
    wait_for("the program", || lab.root().join("tmp/ran").exists())?;
    same(state(&lab)?["status"].as_str(), Some("running"))?;
    ok(&lab, &["kill", &lab.id, "SIGKILL"])?;
    wait_for("its end", || state(&lab).is_ok_and(|now| now["status"] == "stopped"))?;
    same(state(&lab)?.get("pid"), None)?;
    ok(&lab, &["delete", &lab.id])?;
    lab.is_clean()
}

fn twice() -> Result<(), Failed> {
    let lab = Lab::new("true");
    ok(&lab, &["create", &lab.id])?;
    let before = state(&lab)?;
    for verb in ["create", "run"] {
        let output = lab.oci(&[verb, &lab.id]);
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), "exists already")?;
    }
    same(state(&lab)?, before)
}

fn delete() -> Result<(), Failed> {
    let lab = Lab::new("sleep 60");
    ok(&lab, &["create", &lab.id])?;
    has(&text(&lab.oci(&["delete", &lab.id]).stderr), "it is created")?;
    ok(&lab, &["start", &lab.id])?;
    has(&text(&lab.oci(&["delete", &lab.id]).stderr), "it is running")?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    lab.is_clean()?;
    ok(&lab, &["delete", "--force", &lab.id])
}

fn refused() -> Result<(), Failed> {
    let lab = Lab::new("sleep 60");
    ok(&lab, &["create", &lab.id])?;
    ok(&lab, &["start", &lab.id])?;
    has(&text(&lab.oci(&["start", &lab.id]).stderr), "cannot start container")?;
    has(&text(&lab.oci(&["kill", &lab.id, "NONE"]).stderr), "there is no signal \"NONE\"")?;
    ok(&lab, &["kill", &lab.id, "9"])?;
    wait_for("its end", || state(&lab).is_ok_and(|now| now["status"] == "stopped"))?;
    for verb in ["start", "kill"] {
        let output = lab.oci(&[verb, &lab.id]);
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), "it is stopped")?;
    }
    Ok(())
}

fn missing() -> Result<(), Failed> {
    let lab = Lab::new("true");
    for arguments in [["state", "nobody"], ["start", "nobody"], ["kill", "nobody"], ["delete", "nobody"]] {
        let output = lab.oci(&arguments);
        same(output.status.code(), Some(1))?;
        same(text(&output.stderr).as_str(), "error: container nobody does not exist\n")?;
    }
    Ok(())
}

fn create_missing_program() -> Result<(), Failed> {
    let mut lab = Lab::new("");
    lab.set("/process/args", json!(["none-such"]));
    let output = lab.oci(&["create", &lab.id]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "executable file not found in $PATH")?;
    lab.is_clean()
}

fn orphans() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60 & exit 3");
    lab.set("/linux/namespaces", json!([{ "type": "mount" }]));
    let output = lab.run();
    same((output.status.code(), text(&output.stderr).as_str()), (Some(3), ""))?;
    lab.is_clean()
}

/// A hook that adds a line to `log`: its name, the status it reads, and whether the number it reads is a process's.
fn hook(lab: &Lab, name: &str) -> Value {
    let script = format!(
        "read state; status=${{state#*status\\\":\\\"}}; echo {name} ${{status%%\\\"*}} >> {}",
        lab.path("log").display()
    );
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

fn hooks() -> Result<(), Failed> {
    // It runs on until the hook that is to see it running has.
    let mut lab = Lab::new("echo program >> /log; until grep -q poststart /log; do sleep 0.01; done");
    fs::write(lab.path("log"), "")?;
    fs::write(lab.root().join("log"), "")?;
    let log = lab.path("log");
    lab.set("/mounts/-", json!({ "destination": "/log", "type": "bind", "source": log, "options": ["bind"] }));
    let mut all = serde_json::Map::new();
    for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        all.insert(name.to_owned(), hook(&lab, name));
    }
    let inside = "read state; echo startContainer >> /log";
    all.insert("startContainer".to_owned(), json!([{ "path": "/bin/busybox", "args": ["sh", "-c", inside] }]));
    lab.set("/hooks", Value::Object(all));
    lab.output()?;
    let log = fs::read_to_string(lab.path("log"))?;
    let lines: Vec<&str> = log.lines().collect();
    let first = ["prestart created", "createRuntime created", "createContainer created", "startContainer"];
    same(lines.get(..4), Some(first.as_slice()))?;
    same(lines.last().copied(), Some("poststop stopped"))?;
    same(lines.contains(&"program") && lines.contains(&"poststart running"), true)?;
    lab.is_clean()
}

fn failing_hook() -> Result<(), Failed> {
    for moment in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mut lab = Lab::new("touch /tmp/ran");
        let path = if moment == "startContainer" { "/bin/busybox" } else { "/bin/sh" };
        lab.set("/hooks", json!({ moment: [{ "path": path, "args": ["sh", "-c", "exit 5"] }] }));
        let output = lab.run();
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), "hook")?;
        same(lab.root().join("tmp/ran").exists(), false)?;
        lab.is_clean()?;
    }
    Ok(())
}

fn thousand() -> Result<(), Failed> {
    let at_once = || -> Result<(), Failed> {
        let lab = Lab::new("true");
        for _ in 0..125 {
            let mut run = Running(lab.command(&["run", &lab.id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
            let mut ended = None;
            wait_within(PATIENCE, Duration::from_millis(1), "a container that ends at once", || {
                ended = run.0.try_wait().ok().flatten();
                ended.is_some()
            })?;
            same(ended.and_then(|status| status.code()), Some(0))?;
        }
        lab.is_clean()
    };
    std::thread::scope(|threads| {
        let workers: Vec<_> =
            (0..8).map(|_| threads.spawn(|| at_once().map_err(|failed| format!("{failed:?}")))).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done.map_err(Failed::from),
            Err(_) => Err("a worker ended early".into()),
        })
    })
}

/// Ended when this goes, also where the trial has failed; the container goes with its command.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn no_supervisor() -> Result<(), Failed> {
    let lab = Lab::new("sleep 60");
    ok(&lab, &["create", &lab.id])?;
    let of_lab = |line: &String| line.starts_with("process ");
    same(lab.traces().iter().filter(|line| of_lab(line)).count(), 0)?;
    ok(&lab, &["start", &lab.id])?;
    wait_for("the shell", || lab.traces().iter().filter(|line| of_lab(line)).count() == 1)
}

fn explained() -> Result<(), Failed> {
    let lab = Lab::new("echo said");
    let output = lab.oci(&["--explain", "run", &lab.id]);
    same(text(&output.stdout).as_str(), "said\n")?;
    let lesson = text(&output.stderr);
    for step in
        ["container.clone3", "cgroup.create", "rootfs.mount /proc", "rootfs.pivot", "process.exec", "[execve(2)]"]
    {
        has(&lesson, step)?;
    }
    same(text(&lab.run().stderr).as_str(), "")
}

fn timeline() -> Result<(), Failed> {
    let lab = Lab::new("true");
    let output = lab.oci(&["--timeline", "steps.jsonl", "run", &lab.id]);
    same(output.status.code(), Some(0))?;
    let lines = fs::read_to_string(lab.path("steps.jsonl"))?;
    let steps = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let starts: Vec<u64> = steps.iter().filter_map(|step| step["start_ns"].as_u64()).collect();
    same(starts.len(), steps.len())?;
    same(starts.is_sorted(), true)?;
    for step in &steps {
        let text = |field: &str| step[field].as_str().is_some_and(|text| !text.is_empty());
        let whole = text("name") && text("call") && text("why") && step["end_ns"].as_u64() >= step["start_ns"].as_u64();
        same((step, whole && step["depth"].is_u64()), (step, true))?;
    }
    let pids: std::collections::BTreeSet<u64> = steps.iter().filter_map(|step| step["pid"].as_u64()).collect();
    // The runtime, and the container's first process under the number that the host gave it.
    same(pids.len() == 2 && !pids.contains(&0) && !pids.contains(&1), true)
}
