//! Programs that take all they can get: inside limits they get no more, the host goes on, and what is told shows them.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::lab::{Lab, has, same, until};
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "cgroup"];
    vec![needs::trial("four_hogs_at_once_leave_the_host_responsive_and_are_told_of", &needs, four)]
}

/// How many processes the bomb may have.
const PROCESSES: u64 = 40;
/// Mebibytes that the memory hog may have, and the disk hog.
const MEMORY: u64 = 24;
const DISK: u64 = 8;
/// A new process of the host, in the middle of all that: the best of some tries, and the usual one.
const BEST: Duration = Duration::from_millis(100);
const USUAL: Duration = Duration::from_millis(400);

/// Each forks whenever it can; who cannot ends, and another can.
const BOMB: &str =
    "echo 'while :; do sh /tmp/bomb & sleep 0.2; done' > /tmp/bomb; (sh /tmp/bomb 2> /dev/null &); exec sleep 1000";
/// Its child doubles a text until it is killed for it; then the next one does.
const GLUTTON: &str = "while :; do sh -c 'x=0123456789abcdef; while :; do x=$x$x; done'; echo killed; done";
/// Writes until there is no place, again and again.
const SCRIBBLER: &str = "while :; do cat /dev/zero > /data/full 2> /dev/null || echo full; done";
const SPINNER: &str = "while :; do :; done";

fn four() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let (pids, memory, disk) = (PROCESSES.to_string(), format!("{MEMORY}m"), format!("/data:size={DISK}m"));
    let free = free_space(&lab)?;
    let quota = ["--cpus", "0.3"];
    let start =
        |name: &str, flags: &[&str], script: &str| lab.detached(name, &[&quota, flags].concat(), &["sh", "-c", script]);
    let bomb = start("bomb", &["--pids-limit", &pids], BOMB)?;
    let glutton = start("glutton", &["-m", &memory, "--memory-swap", &memory], GLUTTON)?;
    let scribbler = start("scribbler", &["--read-only", "--tmpfs", &disk], SCRIBBLER)?;
    let spinner = start("spinner", &["-m", "64m"], SPINNER)?;
    until("each has had all it can get", || {
        let log = |name: &str, word: &str| Ok::<_, Failed>(lab.out(&["logs", name])?.contains(word));
        Ok(log(&glutton, "killed")? && log(&scribbler, "full")? && processes(&lab, &bomb)? > PROCESSES / 2)
    })?;
    // 1. The host: a program of its own begins and ends as ever.
    let mut times: Vec<Duration> = (0..20).map(|_| one_process()).collect::<Result<_, _>>()?;
    times.sort();
    assert!(times[0] < BEST && times[times.len() / 2] < USUAL, "a process took {times:?}");
    // 2. None has more than its limit, as `stats` tells it.
    let told = told(&lab, &[&bomb, &glutton, &scribbler, &spinner])?;
    let [bombs, gluttons, _, spinners] = &told;
    let number = |row: &Value, key: &str| -> Result<f64, Failed> {
        let text = row[key].as_str().ok_or_else(|| format!("no {key} in {row}"))?;
        Ok(text.trim_end_matches(|letter: char| !letter.is_ascii_digit()).parse()?)
    };
    let count = number(bombs, "PIDs")?;
    assert!((2.0..=PROCESSES as f64).contains(&count), "{bombs}");
    for row in &told {
        // Told is one second's use; the quota holds for each tenth of one.
        assert!(number(row, "CPUPerc")? <= 36.0, "{row}");
    }
    assert!(number(spinners, "CPUPerc")? > 2.0, "{spinners}");
    has(gluttons["MemUsage"].as_str().unwrap_or_default(), &format!(" / {MEMORY}"))?;
    assert!(number(gluttons, "MemPerc")? <= 100.0, "{gluttons}");
    // 3. The kernel has said no to the bomb.
    assert!(refusals(&lab, &bomb)? > 0, "the bomb was never refused a process");
    // 4. The disk is as full as it was.
    let (now, spare) = (free_space(&lab)?, 512 << 20);
    assert!(free.saturating_sub(now) < spare, "{free} bytes were free, {now} are");
    same(&lab.out(&["exec", &scribbler, "sh", "-c", "touch /x 2> /dev/null || echo no"])?.as_str(), &"no\n")?;
    // 5. They end when told to, and what is told of their ends says why.
    lab.out(&["kill", &glutton])?;
    lab.out(&["wait", &glutton])?;
    same(&lab.inspect(&glutton, "/State/OOMKilled")?, &Value::Bool(true))?;
    let filters = ["--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}"];
    has(&lab.out(&[&["events", "--since", "10m", "--until", "0s"], &filters[..]].concat())?, &glutton)?;
    let begin = Instant::now();
    lab.out(&["rm", "-f", &bomb, &scribbler, &spinner, &glutton])?;
    assert!(begin.elapsed() < Duration::from_secs(15), "they took {:?} to be gone", begin.elapsed());
    Ok(())
}

/// How long a program takes to begin and end.
fn one_process() -> Result<Duration, Failed> {
    sleep(Duration::from_millis(10));
    let begin = Instant::now();
    Command::new("busybox").arg("true").stdin(Stdio::null()).status()?;
    Ok(begin.elapsed())
}

/// What `stats` tells of these.
fn told<const N: usize>(lab: &Lab, names: &[&String; N]) -> Result<[Value; N], Failed> {
    let words: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let lines = lab.out(&[&["stats", "--no-stream", "--format", "json"], words.as_slice()].concat())?;
    let rows: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let row = |name: &&String| rows.iter().find(|row| row["Name"] == ***name).cloned();
    let found: Vec<Value> = names.iter().filter_map(row).collect();
    Ok(found.try_into().map_err(|_| lines)?)
}

fn processes(lab: &Lab, name: &str) -> Result<u64, Failed> {
    Ok(lab.out(&["stats", "--no-stream", "--format", "{{.PIDs}}", name])?.trim().parse()?)
}

/// How often the kernel refused a container a process, as its cgroup's own file counts that.
fn refusals(lab: &Lab, name: &str) -> Result<u64, Failed> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid(name)?))?;
    let group = |kind: &str| groups.lines().find_map(|line| line.split_once(kind)).map(|(_, path)| path.to_owned());
    let folder = match group(":pids:") {
        Some(path) => format!("/sys/fs/cgroup/pids{path}"),
        None => format!("/sys/fs/cgroup{}", group("0::").unwrap_or_default()),
    };
    let events = fs::read_to_string(format!("{folder}/pids.events"))?;
    Ok(events.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok()).unwrap_or(0))
}

/// Bytes that are free where the containers' files are.
fn free_space(lab: &Lab) -> Result<u64, Failed> {
    let found = nix::sys::statvfs::statvfs(lab.root())?;
    Ok(found.blocks_available() * found.fragment_size())
}
