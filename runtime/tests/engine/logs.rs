//! What containers print, kept and read again.

use std::io::Read;
use std::process::Stdio;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, has, same, succeed};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 4] = [
        ("both_streams_are_kept_apart_with_times", streams),
        ("a_part_of_a_log_is_read", parts),
        ("a_log_is_followed_to_the_end", followed),
        ("nothing_of_much_output_is_lost", much),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

fn streams() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("both", &[], &["sh", "-c", "echo out; echo err >&2; printf 'no end \\377'"])?;
    lab.out(&["wait", &name])?;
    let (out, err) = succeed(&lab.run(&["logs", &name])?)?;
    same(&(out.as_str(), err.as_str()), &("out\nno end \u{fffd}", "err\n"))?;
    let timed = lab.out(&["logs", "-t", &name])?;
    let first = timed.lines().next().unwrap_or_default();
    same(&(first.ends_with("Z out"), first.len()), &(true, "2026-11-25T08:40:00.000000001Z out".len()))?;
    let file = std::fs::read_to_string(lab.folder(&name)?.join("log.json"))?;
    for line in file.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        same(&(line["log"].is_string(), line["time"].is_string()), &(true, true))?;
    }
    has(&file, r#""stream":"stderr""#)
}

fn parts() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.detached("parts", &[], &["sh", "-c", "echo a; echo b; sleep 1; echo c"])?;
    lab.out(&["wait", &name])?;
    same(&lab.out(&["logs", "--tail", "2", &name])?, &"b\nc\n".to_owned())?;
    same(&lab.out(&["logs", "-n", "0", &name])?, &String::new())?;
    let timed = lab.out(&["logs", "-t", &name])?;
    let last = timed.lines().last().and_then(|line| line.split(' ').next()).unwrap_or_default();
    same(&lab.out(&["logs", "--since", last, &name])?, &"c\n".to_owned())?;
    let second = timed.lines().nth(1).and_then(|line| line.split(' ').next()).unwrap_or_default();
    same(&lab.out(&["logs", "--until", second, &name])?, &"a\nb\n".to_owned())?;
    same(&lab.out(&["logs", "--since", "1h", "--tail", "1", &name])?, &"c\n".to_owned())?;
    same(&lab.run(&["logs", "--since", "yesterday", &name])?.status.success(), &false)
}

fn followed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let script = "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done";
    let name = lab.detached("follow", &[], &["sh", "-c", script])?;
    same(&lab.out(&["logs", "-f", &name])?, &"1\n2\n3\n4\n5\n".to_owned())?;
    let again = lab.detached("follow2", &[], &["sh", "-c", "echo begin; sleep 100"])?;
    let mut child = lab.command(&["logs", "-f", &again]).stdout(Stdio::piped()).spawn()?;
    let mut heard = [0; 6];
    let read = child.stdout.as_mut().ok_or("no output")?.read_exact(&mut heard);
    lab.out(&["rm", "-f", &again])?;
    let status = child.wait()?;
    read?;
    same(&(&heard, status.success()), &(b"begin\n", true))
}

/// Four megabytes to a log and to who listens, in lines of which some are longer than a line of the log may be.
fn much() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let name = lab.name("much");
    let script = "i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done";
    let printed = lab.out(&["run", "--name", &name, "bb", "sh", "-c", script])?;
    let logged = lab.out(&["logs", &name])?;
    same(&(printed.len(), logged.len()), &(4_000_040, 4_000_040))?;
    same(&(printed == logged), &true)
}
