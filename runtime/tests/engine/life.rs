//! A container's life: made, started, looked at, stopped, started again, removed.

use std::fs;
use std::process::Stdio;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, is_alive, same, until};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 12] = [
        ("a_detached_container_lives_on_and_is_found", lives_on),
        ("a_container_ends_with_the_programs_status_or_dockers", statuses),
        ("of_eight_commands_one_gets_the_name", race),
        ("a_signal_reaches_the_program_and_stop_sends_its_own", signals),
        ("wait_prints_statuses_also_of_one_that_is_gone_with_its_end", wait),
        ("a_container_that_fails_is_started_again_so_often", on_failure),
        ("a_container_that_always_runs_ends_when_it_is_stopped", always),
        ("paused_renamed_limited_anew_and_looked_into", controlled),
        ("without_a_log_nobody_stands_by_and_the_status_is_unknown", alone),
        ("who_stands_by_is_small", small),
        ("a_container_keeps_what_it_wrote", keeps),
        ("a_health_check_tells_whether_it_works", health),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

fn lives_on() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("web", &["--label", "a=b"], &[])?;
    let id = lab.inspect(&name, "/Id")?.as_str().unwrap_or_default().to_owned();
    for text in [name.as_str(), &id, &id[..12]] {
        same(&lab.status(text)?, &"running".to_owned())?;
    }
    let pid = lab.pid(&name)?;
    same(&is_alive(pid), &true)?;
    let listed = lab.out(&["ps", "--filter", "label=a=b", "--filter", &format!("name={name}")])?;
    has(&listed, "Up ")?;
    has(&listed, "sleep 1000")?;
    lab.out(&["stop", "-t", "0", &name])?;
    same(&is_alive(pid), &false)?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &json!(137))?;
    same(&lab.out(&["ps", "-q", "--filter", &format!("name={name}")])?, &String::new())?;
    has(&lab.out(&["ps", "-a", "--filter", &format!("name={name}")])?, "Exited (137)")?;
    lab.out(&["start", &name])?;
    same(&lab.status(&name)?, &"running".to_owned())?;
    let refused = lab.run(&["rm", &name])?;
    same(&refused.status.code(), &Some(1))?;
    lab.out(&["rm", "-f", &name])?;
    same(&lab.run(&["inspect", &name])?.status.success(), &false)?;
    same(&lab.root().join("containers").join(&id).exists(), &false)?;
    same(&fs::exists(format!("/run/isolab/oci/{id}"))?, &false)
}

fn statuses() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let table: [(&[&str], i32); 6] = [
        (&["sh", "-c", "exit 7"], 7),
        (&["missing"], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (&["sh", "-c", "kill -TERM 1; sleep 5"], 143),
        (&["true"], 0),
    ];
    for (at, (command, expected)) in table.into_iter().enumerate() {
        let name = lab.name(&format!("s{at}"));
        let kept = lab.run(&[&["run", "--init", "--name", &name, "bb"], command].concat())?;
        let gone = lab.run(&[&["run", "--init", "--rm", "bb"], command].concat())?;
        let both = (kept.status.code(), gone.status.code());
        // With --init it is the small first process that finds no program, or none to execute.
        same(&(command, both), &(command, (Some(expected), Some(expected))))?;
        same(&lab.inspect(&name, "/State/ExitCode")?, &json!(expected))?;
    }
    let bare = lab.run(&["run", "--rm", "bb", "missing"])?;
    same(&bare.status.code(), &Some(127))?;
    let bare = lab.run(&["run", "--name", &lab.name("bare"), "bb", "/etc/passwd"])?;
    same(&bare.status.code(), &Some(126))?;
    same(&lab.status(&lab.name("bare"))?, &"created".to_owned())?;
    // Who stands by tells the command, and that tells its user: once.
    let detached = lab.run(&["run", "-d", "--name", &lab.name("bare2"), "bb", "missing"])?;
    same(&detached.status.code(), &Some(127))?;
    same(&String::from_utf8_lossy(&detached.stderr).matches("error:").count(), &1)?;
    let none = lab.run(&["run", "--pull", "never", "no-such-image"])?;
    same(&none.status.code(), &Some(125))?;
    let unknown = lab.run(&["run", "--no-such-flag", "bb"])?;
    same(&unknown.status.code(), &Some(125))
}

fn race() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.name("one");
    let all: Vec<_> = (0..8).map(|_| lab.command(&["create", "--name", &name, "bb"]).output()).collect();
    let mut children = Vec::new();
    for output in all {
        children.push(output?);
    }
    lab.out(&["rm", &name])?;
    let spawned: Vec<_> = (0..8)
        .map(|_| {
            let mut command = lab.command(&["create", "--name", &name, "bb"]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()
        })
        .collect();
    let mut good = 0;
    for child in spawned {
        good += usize::from(child?.wait()?.success());
    }
    same(&(children.iter().filter(|output| output.status.success()).count(), good), &(1, 1))
}

fn signals() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let script = "trap 'echo one' USR1; trap 'echo bye; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let name = lab.detached("sig", &["--stop-signal", "INT"], &["sh", "-c", script])?;
    until("it is ready", || Ok(lab.out(&["logs", &name])?.contains("ready")))?;
    lab.out(&["kill", "-s", "USR1", &name])?;
    until("the signal came", || Ok(lab.out(&["logs", &name])?.contains("one")))?;
    lab.out(&["stop", &name])?;
    has(&lab.out(&["logs", &name])?, "bye")?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &json!(3))?;
    same(&lab.run(&["kill", &name])?.status.code(), &Some(1))?;
    same(&lab.run(&["kill", "-s", "NONE", &name])?.status.success(), &false)
}

fn wait() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let kept = lab.detached("kept", &[], &["sh", "-c", "sleep 0.3; exit 4"])?;
    let gone = lab.detached("gone", &["--rm"], &["sh", "-c", "sleep 0.6; exit 5"])?;
    same(&lab.out(&["wait", &gone])?, &"5\n".to_owned())?;
    same(&lab.out(&["wait", &kept])?, &"4\n".to_owned())?;
    same(&lab.run(&["inspect", &gone])?.status.success(), &false)
}

fn on_failure() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("again", &["--restart", "on-failure:2"], &["sh", "-c", "echo run; exit 9"])?;
    until("it gave up", || Ok(lab.status(&name)? == "exited" && lab.inspect(&name, "/RestartCount")? == json!(2)))?;
    same(&lab.out(&["logs", &name])?, &"run\nrun\nrun\n".to_owned())?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &json!(9))?;
    let fine = lab.detached("fine", &["--restart", "on-failure"], &["true"])?;
    until("it ended", || Ok(lab.status(&fine)? == "exited"))?;
    same(&lab.inspect(&fine, "/RestartCount")?, &json!(0))
}

fn always() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("always", &["--restart", "always"], &["sh", "-c", "echo run; sleep 0.1"])?;
    until("it was started again", || {
        Ok(lab.inspect(&name, "/RestartCount")?.as_u64().is_some_and(|count| count >= 2))
    })?;
    lab.out(&["stop", "-t", "0", &name])?;
    let count = lab.inspect(&name, "/RestartCount")?;
    std::thread::sleep(std::time::Duration::from_millis(600));
    same(&(lab.status(&name)?, lab.inspect(&name, "/RestartCount")?), &("exited".to_owned(), count))?;
    lab.out(&["rm", &name])?;
    Ok(())
}

fn controlled() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("ctl", &["-m", "64m"], &["sleep", "777"])?;
    lab.out(&["pause", &name])?;
    same(&lab.status(&name)?, &"paused".to_owned())?;
    has(&lab.out(&["ps", "--filter", &format!("name={name}")])?, "(Paused)")?;
    same(&lab.run(&["exec", &name, "true"])?.status.success(), &false)?;
    lab.out(&["unpause", &name])?;
    same(&lab.status(&name)?, &"running".to_owned())?;
    has(&lab.out(&["top", &name])?, "sleep 777")?;
    lab.out(&["update", "-m", "96m", "--memory-swap", "200m", "--restart", "no", &name])?;
    same(&lab.inspect(&name, "/HostConfig/Memory")?, &json!(96 << 20))?;
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    same(&lab.out(&["exec", &name, "sh", "-c", limit])?, &format!("{}\n", 96 << 20))?;
    let other = lab.name("other");
    lab.out(&["rename", &name, &other])?;
    same(&lab.run(&["inspect", &name])?.status.success(), &false)?;
    same(&lab.status(&other)?, &"running".to_owned())?;
    let taken = lab.detached("ctl", &[], &[])?;
    let refused = lab.run(&["rename", &taken, &other])?;
    has(&String::from_utf8_lossy(&refused.stderr), "is taken")
}

fn alone() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let script = "rm -f /go; until [ -e /go ]; do sleep 0.05; done; exit 6";
    let name = lab.detached("alone", &["--log-driver", "none"], &["sh", "-c", script])?;
    let pid = lab.pid(&name)?;
    let id = lab.inspect(&name, "/Id")?;
    same(&keeper_of(id.as_str().unwrap_or_default()), &None)?;
    let end = || lab.out(&["exec", &name, "touch", "/go"]);
    end()?;
    until("it ended", || Ok(!is_alive(pid)))?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &json!(null))?;
    has(&lab.out(&["ps", "-a", "--filter", &format!("name={name}")])?, "Exited (?)")?;
    let refused = lab.run(&["logs", &name])?;
    has(&String::from_utf8_lossy(&refused.stderr), "has no log")?;
    // Who waits meanwhile is told by the kernel, since Linux 6.15; before, only who looks while its parent has not.
    lab.out(&["start", &name])?;
    let waiting = lab.command(&["wait", &name]).stdout(Stdio::piped()).spawn()?;
    until("it is waited for", || Ok(holds_a_process(waiting.id())))?;
    end()?;
    let told = String::from_utf8_lossy(&waiting.wait_with_output()?.stdout).into_owned();
    let unknown = told == "?\n" && release() < (6, 15);
    same(&told.as_str(), &if unknown { "?\n" } else { "6\n" })?;
    same(&lab.inspect(&name, "/State/ExitCode")?, &if unknown { json!(null) } else { json!(6) })
}

/// Whether a process has a descriptor of another one.
fn holds_a_process(pid: u32) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|to| to.to_string_lossy().contains("pidfd"))
}

/// The kernel's version.
fn release() -> (u32, u32) {
    let name = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = name.split(|letter: char| !letter.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The process that stands by a container: it names the container on its command line.
pub(crate) fn keeper_of(id: &str) -> Option<i32> {
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut keepers = pids.filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.get(1) == Some(&b"monitor".as_slice()) && words.contains(&id.as_bytes())
        })
    });
    keepers.next()
}

/// At most 0.4 MB that are its own: what is no file's. (Files' pages are dirty where the file system is in memory.)
fn small() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached(
        "small",
        &[],
        &["sh", "-c", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; sleep 100"],
    )?;
    until("it printed", || Ok(lab.out(&["logs", "--tail", "1", &name])?.contains("299")))?;
    let id = lab.inspect(&name, "/Id")?;
    let keeper = keeper_of(id.as_str().unwrap_or_default()).ok_or("nobody stands by")?;
    let rollup = fs::read_to_string(format!("/proc/{keeper}/smaps_rollup"))?;
    let field = |key: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let own = field("Anonymous:").ok_or("no count")?;
    same(&(own <= 400, own), &(true, own))
}

fn keeps() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("keeps", &[], &["sh", "-c", "cat /new 2>/dev/null; echo x >> /new"])?;
    lab.out(&["wait", &name])?;
    lab.out(&["start", &name])?;
    lab.out(&["wait", &name])?;
    lab.out(&["start", "-a", &name])?;
    same(&lab.out(&["logs", &name])?, &"x\nx\nx\n".to_owned())
}

fn health() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let flags = ["--health-cmd", "test -e /well && echo fine", "--health-interval", "200ms", "--health-retries", "2"];
    let name = lab.detached("health", &flags, &[])?;
    let status =
        || Ok::<_, Failed>(lab.inspect(&name, "/State/Health/Status")?.as_str().unwrap_or_default().to_owned());
    same(&status()?, &"starting".to_owned())?;
    until("it is seen not to work", || Ok(status()? == "unhealthy"))?;
    lab.out(&["exec", &name, "touch", "/well"])?;
    until("it is seen to work", || Ok(status()? == "healthy"))?;
    has(&lab.out(&["ps", "--filter", &format!("name={name}")])?, "(healthy)")?;
    has(&lab.inspect(&name, "/State/Health/Log")?.to_string(), "fine")?;
    // In its first time it is looked at more often, and failures don't count.
    let flags = ["--health-cmd", "test -e /well", "--health-interval", "1h", "--health-start-period", "1h"];
    let soon = lab.detached("soon", &[&flags[..], &["--health-start-interval", "100ms"]].concat(), &[])?;
    let health = || lab.inspect(&soon, "/State/Health");
    until("it was looked at", || Ok(health()?["Log"].as_array().is_some_and(|log| log.len() >= 3)))?;
    same(&(health()?["Status"].clone(), health()?["FailingStreak"].clone()), &(json!("starting"), json!(0)))
}
