//! A runtime that dies at the entry of any of its steps, and what brings the host back.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Output, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_run_that_dies_at_any_step_leaves_what_delete_force_removes", &NEEDS, run),
        trial("a_container_dies_with_a_runtime_that_is_killed_at_any_moment", &NEEDS, dies_along),
        trial("a_create_that_dies_at_any_step_leaves_what_delete_force_removes", &NEEDS, create),
        trial("a_start_that_dies_at_any_step_leaves_what_delete_force_removes", &NEEDS, start),
        trial("a_delete_that_dies_at_any_step_can_be_said_again", &NEEDS, delete),
        trial("a_step_that_fails_leaves_nothing_whichever_it_is", &NEEDS, failing),
        trial("an_exec_that_fails_or_dies_at_any_step_leaves_the_container_as_it_was", &NEEDS, failing_exec),
        trial("a_delete_that_fails_at_any_step_can_be_said_again", &NEEDS, failing_delete),
        trial("a_fault_that_is_none_is_refused", &NEEDS, wrong_fault),
    ]
}

/// A container with something for every step to do.
fn lab(script: &str) -> Lab {
    let mut lab = Lab::new(script);
    let hook = json!([{ "path": "/bin/true" }]);
    lab.set("/hooks", json!({ "createRuntime": hook, "createContainer": hook, "poststart": hook, "poststop": hook }));
    lab.set("/hostname", json!("vessel")).set("/linux/sysctl", json!({ "kernel.msgmax": "9000" }));
    lab.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    lab.set("/linux/resources", json!({ "pids": { "limit": 50 }, "memory": { "limit": 64 << 20 } }));
    lab.set("/process/oomScoreAdj", json!(10)).set("/process/scheduler", json!({ "policy": "SCHED_BATCH" }));
    let source = lab.bundle().to_owned();
    lab.set("/mounts/-", json!({ "destination": "/shared", "source": source, "options": ["bind", "shared"] }));
    lab.set("/mounts/-", json!({ "destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }));
    lab.set("/root/readonly", json!(true));
    lab
}

/// The names of all steps that a command takes.
fn steps(lab: &Lab, arguments: &[&str]) -> Result<BTreeSet<String>, Failed> {
    let mut all = vec!["--timeline", "steps.jsonl"];
    all.extend(arguments);
    let output = lab.oci(&all);
    same(text(&output.stderr).as_str(), "")?;
    let lines = fs::read_to_string(lab.path("steps.jsonl"))?;
    let steps = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    Ok(steps.iter().filter_map(|step| step["name"].as_str().map(str::to_owned)).collect())
}

/// The command, with its process or the container's dying at the entry of this step. Whoever dies, the command fails; but
/// for what comes after the container is complete, and is told of only.
fn dying(lab: &Lab, step: &str, arguments: &[&str]) -> Result<Output, Failed> {
    let (out, err) = (lab.path("out"), lab.path("err"));
    let mut command = lab.command(arguments);
    command.env("ISOLAB_FAULT", format!("{step}:kill"));
    let status = command.stdout(fs::File::create(&out)?).stderr(fs::File::create(&err)?).status()?;
    Ok(Output { status, stdout: fs::read(out)?, stderr: fs::read(err)? })
}

/// The container, made and running.
fn start_again(lab: &Lab) -> Result<(), Failed> {
    for verb in ["create", "start"] {
        same(text(&lab.oci(&[verb, &lab.id]).stderr).as_str(), "")?;
    }
    Ok(())
}

fn comes_clean(lab: &Lab, step: &str) -> Result<(), Failed> {
    let output = lab.oci(&["delete", "--force", &lab.id]);
    same((step, text(&output.stderr), output.status.code()), (step, String::new(), Some(0)))?;
    lab.is_clean().map_err(|failed| Failed::from(format!("after {step}: {failed:?}")))?;
    // And the name is free.
    let output = lab.oci(&["prune"]);
    same((step, output.status.code(), output.stdout), (step, Some(0), Vec::new()))
}

fn run() -> Result<(), Failed> {
    let lab = lab("true");
    let steps = steps(&lab, &["run", &lab.id])?;
    same(steps.len() > 20 && steps.contains("rootfs.pivot") && steps.contains("cgroup.create"), true)?;
    for step in &steps {
        let output = dying(&lab, step, &["run", &lab.id])?;
        same((step, output.status.success()), (step, false))?;
        comes_clean(&lab, step)?;
    }
    lab.output().map(drop)
}

/// Nobody removes it: it ends by itself. The kernel forgets who a process wants to die with when the process changes its
/// user, and a runtime that is killed in that moment is the one to be tried.
fn dies_along() -> Result<(), Failed> {
    let lab = lab("sleep 60");
    let running = || lab.traces().into_iter().any(|trace| trace.starts_with("process"));
    for step in ["container.record", "container.await_exec", "container.run"] {
        for _ in 0..5 {
            dying(&lab, step, &["run", &lab.id])?;
            wait_for("the container to end with its runtime", || !running())?;
            comes_clean(&lab, step)?;
        }
    }
    Ok(())
}

fn create() -> Result<(), Failed> {
    let lab = lab("sleep 60");
    let steps = steps(&lab, &["create", &lab.id])?;
    lab.oci(&["delete", "--force", &lab.id]);
    same(steps.len() > 15 && steps.contains("container.record"), true)?;
    for step in &steps {
        let output = dying(&lab, step, &["create", &lab.id])?;
        same((step, output.status.success()), (step, false))?;
        comes_clean(&lab, step)?;
    }
    Ok(())
}

fn start() -> Result<(), Failed> {
    let lab = lab("sleep 60");
    let created = || same(text(&lab.oci(&["create", &lab.id]).stderr).as_str(), "");
    created()?;
    // What the container's own process does after "go" it does on its own: `start` has no step with a name so far, and
    // those that it may get are met here.
    for step in steps(&lab, &["start", &lab.id])?.iter().chain([&"none".to_owned()]) {
        lab.oci(&["delete", "--force", &lab.id]);
        created()?;
        dying(&lab, step, &["start", &lab.id])?;
        comes_clean(&lab, step)?;
    }
    Ok(())
}

fn delete() -> Result<(), Failed> {
    let lab = lab("sleep 60");
    start_again(&lab)?;
    let steps = steps(&lab, &["delete", "--force", &lab.id])?;
    same(steps.contains("container.forget"), true)?;
    for step in &steps {
        start_again(&lab)?;
        let output = dying(&lab, step, &["delete", "--force", &lab.id])?;
        same((step, output.status.success()), (step, false))?;
        wait_for("the container's end", || !text(&lab.oci(&["state", &lab.id]).stdout).contains("\"running\""))?;
        comes_clean(&lab, step)?;
    }
    Ok(())
}

/// The command, with a step of it that fails. Answers whether all of it failed, as it should; what it says tells of that.
fn failing_at(lab: &Lab, step: &str, arguments: &[&str]) -> Result<bool, Failed> {
    let mut command = lab.command(arguments);
    command.env("ISOLAB_FAULT", format!("{step}:error")).stdout(Stdio::null());
    let status = command.stderr(fs::File::create(lab.path("err"))?).status()?;
    let said = fs::read_to_string(lab.path("err"))?;
    if !status.success() {
        same(
            (step, said.starts_with("error: cannot "), said.contains("EIO") || said.contains("Input/output")),
            (step, true, true),
        )?;
    }
    Ok(!status.success())
}

fn failing() -> Result<(), Failed> {
    let lab = lab("true");
    for verb in ["run", "create"] {
        let steps = steps(&lab, &[verb, &lab.id])?;
        lab.oci(&["delete", "--force", &lab.id]);
        for step in &steps {
            let failed = failing_at(&lab, step, &[verb, &lab.id])?;
            same((verb, step, failed), (verb, step, true))?;
            lab.is_clean().map_err(|failed| Failed::from(format!("after {step}: {failed:?}")))?;
        }
    }
    Ok(())
}

fn failing_exec() -> Result<(), Failed> {
    let lab = lab("sleep 60");
    for verb in ["create", "start"] {
        same(text(&lab.oci(&[verb, &lab.id]).stderr).as_str(), "")?;
    }
    let arguments = ["exec", &lab.id, "true"];
    for step in steps(&lab, &arguments)? {
        let failed = failing_at(&lab, &step, &arguments)?;
        same((&step, failed), (&step, true))?;
        // The container goes on as if nobody had come.
        same((&step, lab.oci(&arguments).status.code()), (&step, Some(0)))?;
        let output = dying(&lab, &step, &arguments)?;
        same((&step, output.status.success()), (&step, false))?;
        same((&step, lab.oci(&arguments).status.code()), (&step, Some(0)))?;
    }
    lab.oci(&["delete", "--force", &lab.id]);
    lab.is_clean()
}

fn failing_delete() -> Result<(), Failed> {
    let lab = lab("sleep 60");
    start_again(&lab)?;
    let arguments = ["delete", "--force", &lab.id];
    for step in steps(&lab, &arguments)? {
        start_again(&lab)?;
        let failed = failing_at(&lab, &step, &arguments)?;
        same((&step, failed), (&step, true))?;
        comes_clean(&lab, &step)?;
    }
    Ok(())
}

fn wrong_fault() -> Result<(), Failed> {
    let lab = Lab::new("touch /tmp/ran");
    let output = lab.command(&["run", &lab.id]).env("ISOLAB_FAULT", "rootfs.pivot:maim").output()?;
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "ISOLAB_FAULT is \"rootfs.pivot:maim\"")?;
    same(lab.root().join("tmp/ran").exists(), false)
}
