//! What containers print, kept and read again.

use std::io::Read;
use std::process::Stdio;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, has, same, succeed};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 6] = [
        ("both_streams_are_kept_apart_with_times", streams),
        ("a_part_of_a_log_is_read", parts),
        ("a_log_is_followed_to_the_end", followed),
        ("nothing_of_much_output_is_lost", much),
        ("a_log_is_continued_in_new_files_and_read_through_all_of_them", rotated),
        ("a_full_disk_ends_no_container_and_later_lines_are_kept", full),
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

fn rotated() -> Result<(), Failed> {
    let lab = Lab::new()?;
    // Some 90 bytes a line in the file: of 1,000 lines about 300 are kept, and all are followed.
    let script = "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; sleep 0.2";
    let flags = ["--log-opt", "max-size=10k", "--log-opt", "max-file=3"];
    let name = lab.detached("rotated", &flags, &["sh", "-c", &format!("sleep 0.3; {script}")])?;
    let followed = lab.out(&["logs", "-f", &name])?;
    let folder = lab.folder(&name)?;
    let sizes = |file: &str| std::fs::metadata(folder.join(file)).map_or(0, |it| it.len());
    let [new, old, older, oldest] = ["log.json", "log.json.1", "log.json.2", "log.json.3"].map(sizes);
    assert!((10_240..11_000).contains(&old) && (10_240..11_000).contains(&older), "{old} {older}");
    assert!(new < 11_000 && oldest == 0, "{new} {oldest}");
    let kept = lab.out(&["logs", &name])?;
    let lines: Vec<&str> = kept.lines().collect();
    assert!((200..400).contains(&lines.len()), "{} lines", lines.len());
    let expected: Vec<String> = (1000 - lines.len()..1000).map(|number| format!("line {number}")).collect();
    same(&lines, &expected.iter().map(String::as_str).collect::<Vec<_>>())?;
    same(&lab.out(&["logs", "--tail", "250", &name])?.lines().count(), &250)?;
    // Who follows is slower than who prints only where whole files are lost in between; what was heard is in its order.
    assert!(followed.ends_with(&kept), "{} lines were followed", followed.lines().count());
    Ok(())
}

/// The root is a small file system of its own, which the log fills.
fn full() -> Result<(), Failed> {
    let lab = Lab::small()?;
    let script = "head -c 8000000 /dev/zero | tr '\\0' x | fold -w 1000; echo filled; while true; do sleep 0.1; echo later; done";
    let name = lab.detached("full", &[], &["sh", "-c", script])?;
    // One page is nothing that a command could need, and much for a line.
    let full = || Ok::<_, Failed>(nix::sys::statvfs::statvfs(lab.root())?.blocks_available() == 0);
    super::lab::until("the disk is full", full)?;
    same(&lab.status(&name)?, &"running".to_owned())?;
    let refused = lab.run(&["run", "--rm", "bb", "true"])?;
    has(&String::from_utf8_lossy(&refused.stderr), "No space left on device")?;
    same(&refused.status.code(), &Some(125))?;
    for words in [["commit", &name], ["cp", &format!("{name}:/bin/busybox")]] {
        let to = lab.root().join("x").display().to_string();
        let words = if words[0] == "cp" { vec![words[0], words[1], &to] } else { words.to_vec() };
        let refused = lab.run(&words)?;
        has(&String::from_utf8_lossy(&refused.stderr), "No space left on device")?;
    }
    let _ = std::fs::remove_file(lab.root().join("x"));
    // Nothing is lost but lines; with room again, later ones are there, each whole.
    let ballast = lab.root().join("ballast");
    std::fs::remove_file(&ballast)?;
    let later = || Ok::<_, Failed>(lab.out(&["logs", "--tail", "3", &name])? == "later\nlater\nlater\n");
    super::lab::until("later lines are kept", later)?;
    let text = std::fs::read_to_string(lab.folder(&name)?.join("log.json"))?;
    let broken = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
    assert!(broken <= 2, "{broken} lines are broken");
    lab.out(&["rm", "-f", &name])?;
    same(&lab.out(&["run", "--rm", "bb", "echo", "well"])?, &"well\n".to_owned())
}
