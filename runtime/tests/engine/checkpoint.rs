//! A container written to disk while it runs, and started from there.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, has, same, until};
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    // A CRIU that knows this kernel.
    let criu = ["root", "overlay", "busybox", "cgroup", "criu"];
    let plain = &criu[..4];
    vec![
        needs::trial("a_container_goes_on_from_its_checkpoint", &criu, goes_on),
        needs::trial("a_checkpoint_that_fails_leaves_the_container_as_it_was", plain, failing),
        needs::trial("what_cannot_have_a_checkpoint_is_refused", plain, refused),
    ]
}

/// Counts in the shell's memory only, and says so.
const COUNTER: &str = "i=$((5000)); while :; do i=$((i + 1)); echo $i > /tmp/count; echo at $i; sleep 0.1; done";

fn count(lab: &Lab, name: &str) -> Result<u32, Failed> {
    Ok(lab.out(&["exec", name, "cat", "/tmp/count"])?.trim().parse().unwrap_or(0))
}

fn counter(lab: &Lab) -> Result<String, Failed> {
    let name = lab.detached("counter", &[], &["sh", "-c", COUNTER])?;
    until("the counter", || Ok(lab.out(&["logs", &name])?.contains("at 5003")))?;
    Ok(name)
}

fn goes_on() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = counter(&lab)?;
    same(&lab.out(&["checkpoint", "create", "--leave-running", &name, "first"])?.as_str(), &"first\n")?;
    let then = count(&lab, &name)?;
    until("the counter", || Ok(count(&lab, &name)? > then))?;
    lab.out(&["checkpoint", "create", &name, "second"])?;
    same(&lab.status(&name)?.as_str(), &"exited")?;
    same(&lab.out(&["checkpoint", "ls", &name])?.as_str(), &"CHECKPOINT NAME\nfirst\nsecond\n")?;
    let printed = lab.out(&["logs", &name])?.lines().count();
    lab.out(&["start", "--checkpoint", "second", &name])?;
    same(&lab.status(&name)?.as_str(), &"running")?;
    until("the counter's words", || Ok(lab.out(&["logs", &name])?.lines().count() > printed))?;
    // Only who has kept its memory knows where it was.
    let now = count(&lab, &name)?;
    assert!((then..then + 200).contains(&now), "it was at {then}, and is at {now}");
    has(&lab.out(&["exec", &name, "cat", "/proc/1/cmdline"])?, "5000")?;
    lab.out(&["kill", &name])?;
    same(&lab.out(&["wait", &name])?.as_str(), &"137\n")?;
    lab.out(&["checkpoint", "rm", &name, "first"])?;
    same(&lab.out(&["checkpoint", "ls", &name])?.as_str(), &"CHECKPOINT NAME\nsecond\n")?;
    lab.out(&["rm", &name]).map(drop)
}

/// A program in the place of CRIU that fails as CRIU does.
fn failing() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = counter(&lab)?;
    let folder = tempfile::Builder::new().prefix("isolab-engine-").tempdir()?;
    let script = "#!/bin/sh\nfor word; do case $last in --work-dir) dir=$word;; esac; last=$word; done\n\
                  echo '(00.01)      1: Error (criu/x.c:5): mnt: cannot do it' > $dir/dump.log\nexit 1\n";
    let program = folder.path().join("criu");
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = lab.command(&["checkpoint", "create", &name, "first"]);
    let output = command.env("PATH", format!("{}:{path}", folder.path().display())).output()?;
    same(&output.status.success(), &false)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    has(&told, "criu dump failed: mnt: cannot do it")?;
    // The hint names a file that is there.
    let log = told.split_whitespace().find(|word| word.contains("dump.log")).ok_or_else(|| told.clone())?;
    let log = log.trim_matches(|letter: char| !letter.is_alphanumeric() && letter != '/');
    same(&fs::exists(log)?, &true)?;
    same(&lab.out(&["checkpoint", "ls", &name])?.as_str(), &"CHECKPOINT NAME\n")?;
    let then = count(&lab, &name)?;
    until("the counter", || Ok(count(&lab, &name)? > then))
}

fn refused() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let refusal = |words: &[&str], reason: &str| -> Result<(), Failed> {
        let output = lab.run(words)?;
        same(&output.status.success(), &false)?;
        has(&String::from_utf8_lossy(&output.stderr), reason)
    };
    let name = lab.name("made");
    lab.out(&["create", "--name", &name, "bb"])?;
    refusal(&["checkpoint", "create", &name, "one"], "it is created")?;
    refusal(&["start", "--checkpoint", "one", &name], "there is no checkpoint one")?;
    refusal(&["checkpoint", "rm", &name, "../one"], "is no container name")?;
    let passing = lab.detached("passing", &["--rm"], &[])?;
    refusal(&["checkpoint", "create", &passing, "one"], "--checkpoint-dir")?;
    same(&lab.status(&passing)?.as_str(), &"running")
}
