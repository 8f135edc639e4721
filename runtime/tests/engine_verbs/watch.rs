//! What containers use, which processes they are, and what happened to them; the kernel's own files are the judge.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, NEEDS, has, same};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("stats_say_what_the_kernel_counts", &NEEDS, stats),
        trial("top_lists_the_processes_that_the_kernel_has_there", &NEEDS, top),
        trial("events_tell_a_container_s_life_in_its_order", &NEEDS, events),
        trial("events_are_followed_as_they_happen", &NEEDS, followed),
    ]
}

fn stats() -> Result<(), Failed> {
    let lab = Lab::new()?;
    // Half a processor, 24 MiB in its /dev/shm, four processes.
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2>/dev/null; sleep 1000 & sleep 1000 & \
                  while true; do true; done";
    let flags = ["--name", "busy", "--cpus", "0.5", "--memory", "64m"];
    lab.ctr(&[&["run", "-d"], &flags[..], &["sample:1", "sh", "-c", script]].concat())?;
    lab.sleeper("idle", &[])?;
    // On a busy host half a processor takes a while to fill the memory.
    for _ in 0..100 {
        sleep(Duration::from_millis(100));
        if lab.ctr(&["stats", "--no-stream", "--format", "{{.PIDs}}", "busy"])?.trim() == "3" {
            break;
        }
    }
    let cpu = || -> Result<f64, Failed> {
        let text = lab.ctr(&["stats", "--no-stream", "--format", "{{.CPUPerc}}", "busy"])?;
        Ok(text.trim().trim_end_matches('%').parse()?)
    };
    // Others want the processors, too: the quota is the most it can have.
    let used: Vec<f64> = (0..3).map(|_| cpu()).collect::<Result<_, _>>()?;
    let most = used.iter().copied().fold(0.0, f64::max);
    assert!((10.0..60.0).contains(&most), "half a processor is {used:?} %");
    let words = "{{.Name}}|{{.MemUsage}}|{{.PIDs}}|{{.NetIO}}";
    let text = lab.ctr(&["stats", "--no-stream", "--format", words, "busy"])?;
    let fields: Vec<&str> = text.trim().split('|').collect();
    let [name, memory, pids, network] = fields.as_slice() else { return Err(text.into()) };
    same(name, "busy")?;
    same(pids, "3")?;
    has(network, "0B / 0B")?;
    let (used, limit) = memory.split_once(" / ").ok_or("no limit")?;
    same(limit, "64.0MiB").or_else(|_| same(limit, "64.00MiB"))?;
    let used: f64 = used.trim_end_matches("MiB").parse()?;
    let kernel = in_use(&lab, "busy")? / f64::from(1 << 20);
    assert!((used - kernel).abs() < 2.0 && used > 24.0, "{used} MiB told, {kernel} MiB counted by the kernel");
    let table = lab.ctr(&["stats", "--no-stream"])?;
    has(&table, "CONTAINER ID   NAME")?;
    assert_eq!(table.lines().count(), 3, "{table}");
    lab.ctr(&["rm", "-f", "busy"])?;
    has(&lab.refused(&["stats", "--no-stream", "busy"])?, "busy")
}

/// Bytes that the kernel counts for a container, without what it would drop first.
fn in_use(lab: &Lab, name: &str) -> Result<f64, Failed> {
    let pid = lab.ctr(&["inspect", "-f", "{{.State.Pid}}", name])?;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim()))?;
    let group = |kind: &str| groups.lines().find_map(|line| line.split_once(kind)).map(|(_, path)| path.to_owned());
    let (folder, usage, key) = match group(":memory:") {
        Some(path) => (format!("/sys/fs/cgroup/memory{path}"), "memory.usage_in_bytes", "total_inactive_file "),
        None => (format!("/sys/fs/cgroup{}", group("0::").unwrap_or_default()), "memory.current", "inactive_file "),
    };
    let used: f64 = fs::read_to_string(format!("{folder}/{usage}"))?.trim().parse()?;
    let stat = fs::read_to_string(format!("{folder}/memory.stat"))?;
    let dropped = stat.lines().find_map(|line| line.strip_prefix(key)).and_then(|count| count.parse::<f64>().ok());
    Ok(used - dropped.unwrap_or(0.0))
}

fn top() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&["run", "-d", "--name", "box", "sample:1", "sh", "-c", "sleep 1001 & sleep 1002 & wait"])?;
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let table = lab.ctr(&["top", "box"])?;
        if table.contains("sleep 1001") && table.contains("sleep 1002") {
            has(&table, "PID")?;
            assert_eq!(table.lines().count(), 4, "{table}");
            break;
        }
        if Instant::now() > until {
            return Err(table.into());
        }
        sleep(Duration::from_millis(20));
    }
    lab.ctr(&["kill", "box"])?;
    lab.ctr(&["wait", "box"])?;
    has(&lab.refused(&["top", "box"])?, "it is exited")
}

fn events() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&["run", "-d", "--name", "box", "--label", "l=1", "-v", "data:/data", "sample:1", "sleep", "1000"])?;
    lab.ctr(&["pause", "box"])?;
    lab.ctr(&["unpause", "box"])?;
    lab.ctr(&["rename", "box", "crate"])?;
    lab.ctr(&["kill", "crate"])?;
    lab.ctr(&["wait", "crate"])?;
    lab.ctr(&["commit", "crate", "made:1"])?;
    lab.ctr(&["rm", "crate"])?;
    let by = |flags: &[&str]| lab.ctr(&[&["events", "--since", "1h", "--until", "0s"], flags].concat());
    let words = by(&["--filter", "type=container", "--format", "{{.Action}}"])?;
    same(&words, "create\nstart\npause\nunpause\nrename\nkill\ndie\ncommit\ndestroy\n")?;
    same(&by(&["--filter", "type=volume", "--format", "{{.Action}} {{.ID}}"])?, "create data\n")?;
    same(
        &by(&["--filter", "event=die", "--filter", "container=crate", "--format", "{{.Actor.Attributes.name}}"])?,
        "crate\n",
    )?;
    same(&by(&["--filter", "event=start", "--filter", "label=l=1", "--format", "{{.from}}"])?, "sample:1\n")?;
    let line = by(&["--filter", "event=rename"])?;
    has(&line, " container rename ")?;
    has(&line, "oldName=box")?;
    same(&by(&["--filter", "container=nobody"])?, "")?;
    same(&lab.ctr(&["events", "--since", "1000", "--until", "2000"])?, "")?;
    has(&lab.refused(&["events", "--since", "yesterday", "--until", "0s"])?, "yesterday")
}

fn followed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let mut command =
        lab.command(&["events", "--filter", "type=container", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
    let mut child = Follower(command.stdout(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(child.0.stdout.take().ok_or("no output")?).lines();
    // It is following once it has opened its watch; before, an event would be missed.
    let pid = child.0.id();
    let watches = || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.to_string_lossy().contains("inotify"))
    };
    let until = Instant::now() + Duration::from_secs(10);
    while !watches() && Instant::now() < until {
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_millis(100));
    lab.ctr(&["run", "--rm", "--name", "box", "sample:1", "true"])?;
    let mut seen = Vec::new();
    for expected in ["create box", "start box", "die box", "destroy box"] {
        match lines.next() {
            Some(line) => seen.push(line?),
            None => break,
        }
        if seen.last().map(String::as_str) != Some(expected) {
            break;
        }
    }
    assert_eq!(seen, ["create box", "start box", "die box", "destroy box"]);
    Ok(())
}

/// Its end is that of the trial, also where that fails.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        // Of one that has ended by itself nothing is left to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
