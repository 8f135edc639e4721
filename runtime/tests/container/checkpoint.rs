//! Onto the disk and back: what goes on after a restore, and what a failure says.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];
/// A CRIU that knows this kernel.
const CRIU: [&str; 3] = ["root", "busybox", "criu"];
/// Counts, in the shell's memory only; and ends with 7 when told so.
const COUNTER: &str = "i=$((1000 * START)); while ! test -e /tmp/end; do i=$((i + 1)); echo $i > /tmp/new; \
                       busybox mv /tmp/new /tmp/count; sleep 0.1; done; exit 7";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_count_in_memory_goes_on_after_a_restore", &CRIU, goes_on),
        trial("a_container_that_was_written_down_can_go_on_at_once", &CRIU, left_running),
        trial("a_restore_in_the_foreground_hands_the_status_through", &CRIU, foreground),
        trial("a_right_that_would_come_back_with_a_restore_is_told_of", &CRIU, privileges),
        trial("a_checkpoint_that_fails_says_why_and_leaves_the_container", &NEEDS, failing),
        trial("what_cannot_be_written_down_is_refused_before_anything_is_done", &NEEDS, unfit),
        trial("a_restore_without_images_makes_no_container", &NEEDS, nothing),
    ]
}

fn ok(lab: &Lab, arguments: &[&str]) -> Result<(), Failed> {
    let output = lab.oci(arguments);
    same((arguments[0], output.status.code(), text(&output.stderr)), (arguments[0], Some(0), String::new()))
}

/// A counter that has begun at a number of its own, in a container with limits, a name and a mask.
fn counter(begin: u32) -> Result<Lab, Failed> {
    let mut lab = Lab::new(&COUNTER.replace("START", &begin.to_string()));
    // Not every CRIU brings it back; then that is told, here in one trial.
    lab.set("/process/noNewPrivileges", json!(false));
    lab.set("/hostname", json!("vessel")).set("/linux/resources", json!({ "pids": { "limit": 33 } }));
    ok(&lab, &["run", "--detach", &lab.id])?;
    wait_for("the counter", || count(&lab) > 1000 * begin + 3)?;
    Ok(lab)
}

fn count(lab: &Lab) -> u32 {
    let text = fs::read_to_string(lab.root().join("tmp/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn said(lab: &Lab, script: &str) -> Result<String, Failed> {
    let output = lab.oci(&["exec", &lab.id, "sh", "-c", script]);
    same((output.status.code(), text(&output.stderr)), (Some(0), String::new()))?;
    Ok(text(&output.stdout))
}

fn goes_on() -> Result<(), Failed> {
    let lab = counter(5)?;
    ok(&lab, &["checkpoint", "--image-path", "images", &lab.id])?;
    // It has ended, and nothing of it is left but its files.
    lab.is_clean()?;
    let before = count(&lab);
    std::thread::sleep(std::time::Duration::from_millis(400));
    same(count(&lab), before)?;
    ok(&lab, &["restore", "--detach", "--image-path", "images", "--pid-file", "pid", &lab.id])?;
    wait_for("the counter", || count(&lab) > before)?;
    // Only who has kept its memory knows where it was.
    same(count(&lab) < before + 100, true)?;
    let state: Value = serde_json::from_slice(&lab.oci(&["state", &lab.id]).stdout)?;
    same(state["status"].as_str(), Some("running"))?;
    same(state["pid"].to_string(), fs::read_to_string(lab.path("pid"))?)?;
    same(said(&lab, "hostname; ls /proc/keys; cat /proc/keys; echo $$ > /dev/null")?.as_str(), "vessel\n/proc/keys\n")?;
    has(&said(&lab, "ip addr show dev lo")?, "127.0.0.1")?;
    let seen: Value = serde_json::from_slice(&lab.oci(&["inspect", "--isolation", "-f", "json", &lab.id]).stdout)?;
    has(&seen["limits"].to_string(), "\"33\"")?;
    has(&said(&lab, "grep CapEff /proc/1/status")?, "CapEff:\t0000000000000023\n")?;
    ok(&lab, &["kill", &lab.id, "KILL"])?;
    wait_for("its end", || text(&lab.oci(&["state", &lab.id]).stdout).contains("\"stopped\""))?;
    ok(&lab, &["delete", &lab.id])?;
    lab.is_clean()
}

fn left_running() -> Result<(), Failed> {
    let lab = counter(9)?;
    ok(&lab, &["checkpoint", "--leave-running", "--image-path", "images", "--work-path", "work", &lab.id])?;
    same(lab.path("work/dump.log").exists(), true)?;
    let then = count(&lab);
    wait_for("the counter", || count(&lab) > then + 2)?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    // As another container: its cgroup has another name.
    let other = format!("{}-b", lab.id);
    ok(&lab, &["restore", "-d", "--image-path", "images", &other])?;
    wait_for("the counter", || count(&lab) <= then + 2)?;
    ok(&lab, &["delete", "--force", &other])?;
    lab.is_clean()
}

fn foreground() -> Result<(), Failed> {
    let lab = counter(2)?;
    ok(&lab, &["checkpoint", "--image-path", "images", &lab.id])?;
    let then = count(&lab);
    let mut child = lab.command(&["restore", "--image-path", "images", &lab.id]).spawn()?;
    wait_for("the counter", || count(&lab) > then)?;
    fs::write(lab.root().join("tmp/end"), "")?;
    same(child.wait()?.code(), Some(7))?;
    lab.is_clean()
}

fn privileges() -> Result<(), Failed> {
    let mut lab = Lab::new("touch /tmp/up; sleep 60");
    lab.set("/process/noNewPrivileges", json!(true));
    ok(&lab, &["run", "--detach", &lab.id])?;
    wait_for("the program", || lab.root().join("tmp/up").exists())?;
    ok(&lab, &["checkpoint", "--image-path", "images", &lab.id])?;
    let output = lab.oci(&["restore", "--detach", "--image-path", "images", &lab.id]);
    same(output.status.code(), Some(0))?;
    let kept = said(&lab, "cat /proc/1/status")?.contains("NoNewPrivs:\t1");
    same(text(&output.stderr).contains("does not bring no_new_privs back"), !kept)?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    lab.is_clean()
}

/// A program in the place of CRIU that fails as CRIU does.
fn failing() -> Result<(), Failed> {
    let lab = counter(1)?;
    let fake = lab.path("programs");
    fs::create_dir(&fake)?;
    let script = "#!/bin/sh\nfor word; do case $last in --work-dir) dir=$word;; esac; last=$word; done\n\
                  echo '(00.01)      1: Error (criu/x.c:5): mnt: cannot do it' > $dir/dump.log\nexit 1\n";
    fs::write(fake.join("criu"), script)?;
    fs::set_permissions(fake.join("criu"), fs::Permissions::from_mode(0o755))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = lab.command(&["checkpoint", "--image-path", "images", &lab.id]);
    let output = command.env("PATH", format!("{}:{path}", fake.display())).output()?;
    same(output.status.code(), Some(1))?;
    let said = text(&output.stderr);
    has(&said, "error: criu dump failed: mnt: cannot do it\n")?;
    has(&said, "images/dump.log")?;
    let then = count(&lab);
    wait_for("the counter", || count(&lab) > then)?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    lab.is_clean()
}

fn unfit() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    let created = lab.oci(&["create", &lab.id]);
    same(text(&created.stderr).as_str(), "")?;
    let output = lab.oci(&["checkpoint", &lab.id]);
    has(&text(&output.stderr), "cannot checkpoint container")?;
    has(&text(&output.stderr), "it is created")?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    lab.set("/linux/namespaces/-", json!({ "type": "user" }));
    lab.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    ok(&lab, &["run", "-d", &lab.id])?;
    let output = lab.oci(&["checkpoint", &lab.id]);
    has(&text(&output.stderr), "it has a user namespace")?;
    same(lab.path("checkpoint").exists(), false)?;
    ok(&lab, &["delete", "--force", &lab.id])
}

fn nothing() -> Result<(), Failed> {
    let lab = Lab::new("true");
    let output = lab.oci(&["restore", "--image-path", "none", &lab.id]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "cannot read none/isolab.json")?;
    lab.is_clean()
}
