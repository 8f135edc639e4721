//! What can be done to a container while it is there, and what is told of it: runc's other commands.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{Lab, OCI, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];
const CGROUP: [&str; 3] = ["root", "busybox", "cgroup"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_paused_container_stands_still_until_it_is_resumed", &CGROUP, paused),
        trial("a_paused_container_can_be_killed_and_deleted", &CGROUP, paused_end),
        trial("an_update_changes_what_it_names_and_nothing_else", &CGROUP, update),
        trial("a_refused_update_changes_nothing", &CGROUP, refused_update),
        trial("events_count_until_the_container_ends", &CGROUP, events),
        trial("memory_that_runs_out_is_an_event", &CGROUP, out_of_memory),
        trial("ps_shows_the_containers_processes_and_no_others", &NEEDS, ps),
        trial("list_is_a_table_or_json_or_names", &NEEDS, list),
        trial("a_signal_has_a_name_or_a_number", &NEEDS, signals),
        trial("kill_all_reaches_every_process", &CGROUP, kill_all),
        trial("kill_all_reaches_those_that_outlived_the_first", &CGROUP, kill_outlived),
        trial("options_may_stand_before_or_after_the_id", &NEEDS, order),
        trial("spec_writes_a_configuration_that_runs", &CGROUP, spec),
        trial("features_are_told_in_the_specifications_form", &[], features),
        trial("the_version_is_told_as_engines_look_for_it", &[], version),
        trial("the_log_gets_errors_and_warnings", &NEEDS, log),
        trial("what_is_not_supported_says_what_is", &[], unsupported),
        trial("isolation_is_told_as_the_kernel_has_it", &CGROUP, isolation),
    ]
}

fn ok(lab: &Lab, arguments: &[&str]) -> Result<String, Failed> {
    let output = lab.oci(arguments);
    if !output.status.success() {
        return Err(format!("{arguments:?}: {}", text(&output.stderr)).into());
    }
    Ok(text(&output.stdout))
}

fn fails(lab: &Lab, arguments: &[&str], words: &str) -> Result<(), Failed> {
    let output = lab.oci(arguments);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), words)
}

/// A container that runs on its own, begun.
fn started(script: &str) -> Result<Lab, Failed> {
    let lab = Lab::new(script);
    start(&lab)?;
    Ok(lab)
}

fn start(lab: &Lab) -> Result<(), Failed> {
    ok(lab, &["create", &lab.id])?;
    ok(lab, &["start", &lab.id]).map(drop)
}

fn status(lab: &Lab) -> Result<String, Failed> {
    let state: Value = serde_json::from_str(&ok(lab, &["state", &lab.id])?)?;
    Ok(state["status"].as_str().unwrap_or_default().to_owned())
}

/// The value in force, of the first limit in the table whose name begins so.
fn limit(lab: &Lab, name: &str) -> Result<String, Failed> {
    let seen: Value = serde_json::from_str(&ok(lab, &["inspect", "--isolation", "--format", "json", &lab.id])?)?;
    let limits = seen["limits"].as_array().ok_or("there are no limits")?;
    let found = limits.iter().find(|one| one["limit"].as_str().is_some_and(|limit| limit.starts_with(name)));
    let one = found.ok_or_else(|| format!("no limit {name} in {limits:?}"))?;
    let file = one["file"].as_str().unwrap_or_default();
    // The value is what the file says.
    same(fs::read_to_string(file)?.trim_end(), one["value"].as_str().unwrap_or_default())?;
    Ok(one["value"].as_str().unwrap_or_default().to_owned())
}

fn paused() -> Result<(), Failed> {
    let lab = started("while :; do echo x >> /tmp/ticks; sleep 0.01; done")?;
    let ticks = || fs::read(lab.root().join("tmp/ticks")).unwrap_or_default().len();
    wait_for("a tick", || ticks() > 0)?;
    fails(&lab, &["resume", &lab.id], "it is not paused")?;
    ok(&lab, &["pause", &lab.id])?;
    same(status(&lab)?.as_str(), "paused")?;
    has(&ok(&lab, &["list"])?, "  paused  ")?;
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(100));
    same(ticks(), before)?;
    fails(&lab, &["pause", &lab.id], "it is paused")?;
    fails(&lab, &["delete", &lab.id], "cannot delete")?;
    ok(&lab, &["resume", &lab.id])?;
    same(status(&lab)?.as_str(), "running")?;
    wait_for("another tick", || ticks() > before)?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    lab.is_clean()
}

fn paused_end() -> Result<(), Failed> {
    let lab = started("sleep 60")?;
    ok(&lab, &["pause", &lab.id])?;
    ok(&lab, &["kill", &lab.id, "KILL"])?;
    wait_for("its end", || status(&lab).is_ok_and(|now| now == "stopped"))?;
    for verb in ["pause", "resume", "update", "events"] {
        fails(&lab, &[verb, &lab.id], "it is stopped")?;
    }
    ok(&lab, &["delete", &lab.id])?;
    start(&lab)?;
    ok(&lab, &["pause", &lab.id])?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    lab.is_clean()
}

fn update() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    let limits = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 30 }, "cpu": { "shares": 512 } });
    lab.set("/linux/resources", limits);
    start(&lab)?;
    same(limit(&lab, "memory, bytes")?.as_str(), "67108864")?;
    let share = limit(&lab, "CPU share")?;
    ok(&lab, &["update", "--memory", "48m", "--pids-limit", "20", &lab.id])?;
    same(limit(&lab, "memory, bytes")?.as_str(), "50331648")?;
    same(limit(&lab, "processes")?.as_str(), "20")?;
    ok(&lab, &["update", &lab.id, "--cpu-quota=50000", "--cpu-period", "200000"])?;
    has(&limit(&lab, "CPU time, quota")?, "50000")?;
    // From a file, and from standard input.
    fs::write(lab.path("limits"), r#"{"pids":{"limit":21}}"#)?;
    ok(&lab, &["update", "--resources", "limits", &lab.id])?;
    same(limit(&lab, "processes")?.as_str(), "21")?;
    let mut child = lab.command(&["update", "--resources", "-", &lab.id]).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(br#"{"memory":{"limit":41943040},"pids":{"limit":-1}}"#)?;
    same(child.wait()?.code(), Some(0))?;
    same(limit(&lab, "memory, bytes")?.as_str(), "41943040")?;
    same(limit(&lab, "processes")?.as_str(), "max")?;
    same(limit(&lab, "CPU share")?, share)
}

fn refused_update() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    lab.set("/linux/resources", json!({ "memory": { "limit": 64 << 20 }, "cpu": { "shares": 512, "quota": 50000 } }));
    start(&lab)?;
    let all = || -> Result<Vec<String>, Failed> {
        ["memory, bytes", "CPU share", "CPU time, quota", "processes"].iter().map(|name| limit(&lab, name)).collect()
    };
    let before = all()?;
    // The kernel takes the share and the memory, and then refuses more processes than there can be.
    let limits = r#"{"memory":{"limit":33554432},"cpu":{"shares":256,"quota":70000},"pids":{"limit":99999999999}}"#;
    fs::write(lab.path("limits"), limits)?;
    fails(&lab, &["update", "--resources", "limits", &lab.id], "pids.max")?;
    same(all()?, before.clone())?;
    fs::write(lab.path("limits"), r#"{"memory":"much"}"#)?;
    fails(&lab, &["update", "--resources", "limits", &lab.id], "limits holds no limits: invalid type")?;
    fails(&lab, &["update", "--resources", "none-such", &lab.id], "cannot read none-such")?;
    fails(&lab, &["update", "--cpuset-cpus", "0-99999", "--cpu-share", "300", &lab.id], "cpuset.cpus")?;
    same(lab.oci(&["update", "--memory", "much", &lab.id]).status.code(), Some(2))?;
    same(all()?, before)
}

fn events() -> Result<(), Failed> {
    let lab = started("while [ ! -e /tmp/stop ]; do sleep 0.01; done")?;
    let once: Value = serde_json::from_str(&ok(&lab, &["events", "--stats", &lab.id])?)?;
    same(once["type"].as_str(), Some("stats"))?;
    same(once["id"].as_str(), Some(lab.id.as_str()))?;
    same(once["data"]["pids"]["current"].as_u64().is_some_and(|count| count >= 1), true)?;
    same(once["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), true)?;
    let mut child = lab.command(&["events", "--interval", "50ms", &lab.id]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let mut used = Vec::new();
    for line in lines.by_ref().take(3) {
        let event: Value = serde_json::from_str(&line?)?;
        used.push(event["data"]["cpu"]["usage"]["total"].as_u64().ok_or("no CPU time")?);
    }
    fs::write(lab.root().join("tmp/stop"), "")?;
    for line in lines {
        drop(line?);
    }
    same(child.wait()?.code(), Some(0))?;
    same(used.len() == 3 && used.is_sorted() && used.first() < used.last(), true)
}

fn out_of_memory() -> Result<(), Failed> {
    let script = "while [ ! -e /tmp/go ]; do sleep 0.01; done; x=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 60";
    let mut lab = Lab::new(&format!("sh -c \"{}\"; sleep 60", script.replace('$', "\\$")));
    std::os::unix::fs::symlink("busybox", lab.root().join("bin/tr"))?;
    lab.set("/linux/resources", json!({ "memory": { "limit": 24 << 20, "swap": 24 << 20 } }));
    start(&lab)?;
    let mut child = lab.command(&["events", "--interval", "10m", &lab.id]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    // The first counts are told once it listens.
    has(&lines.next().ok_or("no counts")??, "\"stats\"")?;
    fs::write(lab.root().join("tmp/go"), "")?;
    let event: Value = serde_json::from_str(&lines.next().ok_or("no event")??)?;
    same(event, json!({ "type": "oom", "id": lab.id }))?;
    ok(&lab, &["delete", "--force", &lab.id])?;
    same(child.wait()?.code(), Some(0))
}

fn ps() -> Result<(), Failed> {
    let lab = started("sleep 61 & sleep 62; true")?;
    let pids = || -> Option<Vec<i64>> { serde_json::from_str(&ok(&lab, &["ps", "-f", "json", &lab.id]).ok()?).ok() };
    wait_for("three processes", || pids().is_some_and(|pids| pids.len() == 3))?;
    let table = ok(&lab, &["ps", &lab.id])?;
    same(table.lines().count(), 4)?;
    has(&table, "sleep 61")?;
    if super::needs::on_path("ps").is_some() {
        let own = ok(&lab, &["ps", &lab.id, "-e", "-o", "pid,comm"])?;
        same(own.lines().next().map(|line| line.split_whitespace().collect()), Some(vec!["PID", "COMMAND"]))?;
        same(own.lines().count(), 4)?;
        fails(&lab, &["ps", &lab.id, "-e", "-o", "comm"], "no column PID")?;
    }
    // Where the host has no ps, there is a table all the same.
    let output = lab.command(&["ps", &lab.id]).env("PATH", lab.bundle()).output()?;
    same(text(&output.stdout).lines().count(), 4)?;
    has(&text(&output.stdout), "sleep 62")?;
    ok(&lab, &["kill", &lab.id, "KILL"])?;
    wait_for("its end", || pids().is_some_and(|pids| pids.is_empty()))
}

fn list() -> Result<(), Failed> {
    let lab = started("sleep 60")?;
    let all: Value = serde_json::from_str(&ok(&lab, &["list", "--format", "json"])?)?;
    let one = &all[0];
    same(all.as_array().map(Vec::len), Some(1))?;
    same(one["status"].as_str(), Some("running"))?;
    same(one["rootfs"].as_str(), lab.root().to_str())?;
    same(one["owner"].as_str(), Some("root"))?;
    let created = one["created"].as_str().unwrap_or_default();
    same((created.len(), &created[..2], &created[10..11], created.ends_with('Z')), (30, "20", "T", true))?;
    let table = ok(&lab, &["list"])?;
    let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    same(cells.first(), Some(&vec!["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]))?;
    let pid = one["pid"].to_string();
    let bundle = lab.bundle().display().to_string();
    same(cells.get(1), Some(&vec![lab.id.as_str(), &pid, "running", &bundle, created, "root"]))?;
    same(ok(&lab, &["list", "-q"])?, format!("{}\n", lab.id))
}

fn signals() -> Result<(), Failed> {
    let lab = started(
        "for s in USR1 USR2 HUP 34 37; do trap \"echo $s >> /tmp/got\" $s; done; touch /tmp/up; while :; do sleep 0.01; done",
    )?;
    wait_for("the traps", || lab.root().join("tmp/up").exists())?;
    let mut expected = String::new();
    for (signal, heard) in [("USR1", "USR1"), ("SIGUSR2", "USR2"), ("hup", "HUP"), ("34", "34"), ("RTMIN+3", "37")] {
        ok(&lab, &["kill", &lab.id, signal])?;
        expected += heard;
        expected += "\n";
        let got = || fs::read_to_string(lab.root().join("tmp/got")).unwrap_or_default();
        wait_for(signal, || got() == expected)?;
    }
    fails(&lab, &["kill", &lab.id, "65"], "there is no signal \"65\"")?;
    ok(&lab, &["kill", &lab.id, "9"]).map(drop)
}

fn kill_all() -> Result<(), Failed> {
    let lab = started("sleep 60 & sleep 60 & trap '' TERM; touch /tmp/up; wait; wait; touch /tmp/alone; sleep 60")?;
    wait_for("its processes", || lab.root().join("tmp/up").exists())?;
    ok(&lab, &["kill", "--all", &lab.id, "TERM"])?;
    // The first process ignores the signal, as the init of a PID namespace may; the others heard it.
    wait_for("the others' end", || lab.root().join("tmp/alone").exists())
}

fn kill_outlived() -> Result<(), Failed> {
    // Without a PID namespace the others go on when the first process ends.
    let mut lab = Lab::new("sleep 60 & touch /tmp/up");
    lab.set("/linux/namespaces", json!([{ "type": "mount" }]));
    start(&lab)?;
    wait_for("the first process's end", || status(&lab).is_ok_and(|now| now == "stopped"))?;
    fails(&lab, &["kill", &lab.id, "KILL"], "it is stopped (container not running)")?;
    let running = || lab.traces().iter().any(|trace| trace.starts_with("process"));
    same(running(), true)?;
    ok(&lab, &["kill", "--all", &lab.id, "KILL"])?;
    wait_for("the others' end", || !running())?;
    ok(&lab, &["delete", &lab.id])?;
    lab.is_clean()
}

fn order() -> Result<(), Failed> {
    let lab = Lab::new("sleep 60");
    let bundle = lab.bundle().display().to_string();
    ok(&lab, &["create", &lab.id, "--bundle", &bundle, "--pid-file", "pid"])?;
    fails(&lab, &["delete", &lab.id], "it is created")?;
    let states = lab.states().display().to_string();
    let state = std::process::Command::new(OCI).args(["state", &lab.id, "--root", &states]).output()?;
    has(&text(&state.stdout), "\"created\"")?;
    ok(&lab, &["kill", &lab.id, "KILL", "--all"])?;
    ok(&lab, &["delete", &lab.id, "--force"])?;
    ok(&lab, &["delete", "--force", "nobody"])?;
    lab.is_clean()
}

fn spec() -> Result<(), Failed> {
    let mut lab = Lab::new("");
    let other = lab.path("other");
    let other_text = other.display().to_string();
    fs::create_dir(&other)?;
    ok(&lab, &["spec", "--bundle", &other_text])?;
    fails(&lab, &["spec", "-b", &other_text], "config.json exists already")?;
    let written = fs::read_to_string(other.join("config.json"))?;
    let environment = lab.config["process"]["env"].clone();
    lab.config = serde_json::from_str(&written)?;
    lab.set("/process/args", json!(["sh", "-c", "id -u; hostname; echo x > /new; cat /proc/self/cgroup | head -1"]));
    lab.set("/process/env", environment);
    let said = text(&lab.run().stdout);
    has(&said, "0\nisolab\n")?;
    same(lab.root().join("new").exists(), false)?;
    ok(&lab, &["spec", "--rootless", "--bundle", &lab.root().display().to_string()])?;
    let rootless: Value = serde_json::from_str(&fs::read_to_string(lab.root().join("config.json"))?)?;
    same(rootless["linux"]["uidMappings"][0]["hostID"].as_u64(), Some(0))?;
    lab.is_clean()
}

fn run(arguments: &[&str]) -> Result<std::process::Output, Failed> {
    Ok(std::process::Command::new(OCI).args(arguments).output()?)
}

fn features() -> Result<(), Failed> {
    let told: Value = serde_json::from_slice(&run(&["features"])?.stdout)?;
    same(told["ociVersionMin"].as_str(), Some("1.0.0"))?;
    same(told["hooks"].as_array().map(Vec::len), Some(6))?;
    same(told["linux"]["cgroup"]["v2"].as_bool(), Some(true))?;
    same(told["linux"]["seccomp"]["enabled"].as_bool(), Some(true))?;
    same(told["linux"]["namespaces"].as_array().map(Vec::len), Some(8))?;
    same(told["linux"]["netDevices"]["enabled"].as_bool(), Some(true))?;
    same(told["linux"]["memoryPolicy"]["modes"].as_array().map(Vec::len), Some(7))?;
    same(told.get("annotations"), None)
}

fn version() -> Result<(), Failed> {
    for flag in ["--version", "-v"] {
        let said = text(&run(&[flag])?.stdout);
        let lines: Vec<&str> = said.lines().collect();
        same(lines.first().copied(), Some(concat!("isolab-oci version ", env!("CARGO_PKG_VERSION"))))?;
        same(lines.last().map(|line| line.starts_with("spec: 1.3.")), Some(true))?;
    }
    Ok(())
}

fn log() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    lab.set("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_FLY"]));
    ok(&lab, &["--log", "log", "--log-format", "json", "run", &lab.id])?;
    lab.set("/process/args", json!(["none-such"]));
    fails(&lab, &["--log", "log", "--log-format", "json", "create", &lab.id], "executable file not found in $PATH")?;
    let log = fs::read_to_string(lab.path("log"))?;
    let lines: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let levels: Vec<&str> = lines.iter().filter_map(|line| line["level"].as_str()).collect();
    same(levels, vec!["warning", "warning", "error"])?;
    has(lines[0]["msg"].as_str().unwrap_or_default(), "CAP_FLY")?;
    has(lines[2]["msg"].as_str().unwrap_or_default(), "executable file not found in $PATH")?;
    same(lines[2]["time"].as_str().map(|time| time.len() == 30 && time.ends_with('Z')), Some(true))?;
    // As text, after the options of the command, with what was asked for.
    fails(&lab, &["state", "nobody", "--log", "text", "--debug"], "container nobody does not exist")?;
    let log = fs::read_to_string(lab.path("text"))?;
    has(&log, "level=debug")?;
    has(&log, "level=error msg=\"container nobody does not exist\"")?;
    // An unwritable log does not hide the error.
    fails(&lab, &["--log", "none/such", "state", "nobody"], "error: container nobody does not exist")
}

fn unsupported() -> Result<(), Failed> {
    let output = run(&["--systemd-cgroup", "list"])?;
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "hint: ")?;
    has(&text(&output.stderr), "cgroupfs")
}

fn isolation() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    lab.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["ptrace", "mount"], "action": "SCMP_ACT_ERRNO" }] }),
    );
    lab.config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }]);
    start(&lab)?;
    let state: Value = serde_json::from_str(&ok(&lab, &["state", &lab.id])?)?;
    let pid = &state["pid"];
    let seen: Value = serde_json::from_str(&ok(&lab, &["inspect", "--isolation", "-f", "json", &lab.id])?)?;
    let namespace = |seen: &Value, kind: &str| {
        let all = seen["namespaces"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["kind"] == kind).unwrap_or_default()
    };
    same(namespace(&seen, "pid")["owner"].clone(), json!("own"))?;
    same(namespace(&seen, "net")["owner"].clone(), json!("host"))?;
    let link = fs::read_link(format!("/proc/{pid}/ns/pid"))?;
    same(link.to_str(), Some(format!("pid:[{}]", namespace(&seen, "pid")["inode"]).as_str()))?;
    same(seen["capabilities"]["effective"].clone(), json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL"]))?;
    same(seen["no_new_privileges"].as_bool(), Some(true))?;
    same((seen["seccomp"]["mode"].as_u64(), seen["seccomp"]["profile"]["refused"].as_u64()), (Some(2), Some(2)))?;
    let mounts = seen["mounts"].as_array().cloned().unwrap_or_default();
    let at = |path: &str| mounts.iter().find(|one| one["destination"] == path).cloned().unwrap_or_default();
    same(at("/proc/keys")["masks"].as_bool(), Some(true))?;
    same((at("/proc/sys")["readonly"].as_bool(), at("/proc/sys")["masks"].as_bool()), (Some(true), Some(false)))?;
    // Another container that joins its IPC namespace.
    let mut other = Lab::new("sleep 60");
    let joined = format!("/proc/{pid}/ns/ipc");
    other.config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "ipc", "path": joined }]);
    let states = lab.states().display().to_string();
    ok(&other, &["create", "--root", &states, &other.id])?;
    let outcome = (|| {
        let seen: Value = serde_json::from_str(&ok(&lab, &["inspect", "--isolation", "-f", "json", &lab.id])?)?;
        same(namespace(&seen, "ipc")["owner"].clone(), json!({ "shared": [other.id] }))?;
        let table = ok(&lab, &["inspect", "--isolation", &lab.id])?;
        has(&table, &format!("shared with {}", other.id))?;
        has(&table, "HOST'S")?;
        has(&table, "2 refused")?;
        has(&table, "masks what is there")
    })();
    ok(&other, &["delete", "--force", "--root", &states, &other.id])?;
    outcome
}
