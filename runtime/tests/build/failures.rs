//! Builds that fail, are killed, or are repeated elsewhere.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use super::lab::{BASE, Lab, has, same, succeed};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 5] = [
        ("a_failed_step_is_told_with_its_line_and_leaves_nothing", failed_step),
        ("a_mistake_is_told_with_a_hint", mistakes),
        ("a_killed_build_leaves_no_mount_and_no_process", killed),
        ("here_documents_are_files_and_scripts", documents),
        ("with_an_epoch_two_stores_come_to_the_same_image", reproducible),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

fn failed_step() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let output = lab.try_build("app", &format!("{BASE}RUN echo told && false\n"), &[])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    same(&output.status.code(), &Some(1))?;
    has(&told, "  | told")?;
    has(&told, "line 5")?;
    same(&fs::read_dir(lab.store().join("containers"))?.count(), &0)?;
    let output = lab.run(&["run", "app"])?;
    same(&output.status.code(), &Some(125))
}

fn mistakes() -> Result<(), Failed> {
    let lab = Lab::new()?;
    for (text, word) in [
        ("FORM scratch\n", "did you mean FROM?"),
        ("FROM none-such\n", "none-such"),
        ("FROM scratch\nCOPY missing /\n", ".dockerignore"),
        ("FROM scratch\nCOPY busybox busybox /x\n", "slash"),
        ("FROM scratch\nRUN true\n", "/bin/sh"),
        ("FROM scratch\nENV a=${b:?needed}\n", "--build-arg b=VALUE"),
        ("FROM scratch\nSTOPSIGNAL x\n", "SIGTERM"),
        ("FROM scratch AS a\nCOPY --from=later busybox /\nFROM scratch AS later\nFROM a\n", "later"),
    ] {
        let output = lab.try_build("app", text, &[])?;
        same(&(text, output.status.code()), &(text, Some(1)))?;
        has(&String::from_utf8_lossy(&output.stderr), word)?;
    }
    Ok(())
}

fn killed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    // A time that nobody else sleeps.
    let seconds = (1_000_000 + std::process::id()).to_string();
    let text = format!(
        "{BASE}FROM base\nRUN --mount=type=cache,target=/cache --mount=type=bind,source=.,target=/bound,rw \
         --mount=type=bind,from=base,source=/etc,target=/other --mount=type=tmpfs,target=/scratch \
         echo kept > /cache/file && echo begun && sleep {seconds}\n"
    );
    fs::write(lab.context().join("Dockerfile"), text)?;
    let context = lab.context().display().to_string();
    let told = fs::File::create(lab.path("told"))?;
    let mut build = lab.command(&["build", &context]).stderr(told).stdout(Stdio::null()).spawn()?;
    let begun = Instant::now();
    while !fs::read_to_string(lab.path("told"))?.contains("| begun") {
        if begun.elapsed() > Duration::from_mins(1) {
            build.kill()?;
            return Err("the step has not begun".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    build.kill()?;
    build.wait()?;
    same(&fs::read_to_string("/proc/mounts")?.contains(&lab.store().display().to_string()), &false)?;
    let made: Vec<String> = names_in(&lab.store().join("containers"))?;
    while sleeps(&seconds)? {
        if begun.elapsed() > Duration::from_mins(2) {
            return Err("the step's program goes on".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // What had been done is not done again.
    let (_, told) = lab.build("app", BASE, &[])?;
    same(&told.matches("CACHED").count(), &3)?;
    // What it had in the making is known by its name, and goes.
    let unfinished = lab.store().join("cache/.tmp-1-1-0");
    fs::write(&unfinished, "a process that began at the first tick is none")?;
    has(&succeed(&lab.run(&["prune"])?)?.0, "Deleted: ")?;
    same(&fs::read_dir(lab.store().join("containers"))?.count(), &0)?;
    same(&unfinished.exists(), &false)?;
    for name in made {
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("*{name}*")]).output()?;
        same(&String::from_utf8_lossy(&groups.stdout).as_ref(), &"")?;
    }
    // The cache of the step that was killed is a cache still.
    let text = format!("{BASE}RUN --mount=type=cache,target=/cache cat /cache/file > /found\n");
    lab.build("app", &text, &[])?;
    same(&succeed(&lab.run(&["run", "app", "cat", "/found"])?)?.0.as_str(), &"kept\n")
}

fn names_in(folder: &Path) -> Result<Vec<String>, Failed> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether a process of anybody sleeps so many seconds.
fn sleeps(seconds: &str) -> Result<bool, Failed> {
    let lines =
        names_in(Path::new("/proc"))?.into_iter().filter_map(|name| fs::read(format!("/proc/{name}/cmdline")).ok());
    Ok(lines.into_iter().any(|line| line.ends_with(format!("\0{seconds}\0").as_bytes())))
}

fn documents() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let text = "ARG x=1\nRUN <<EOF\necho a > /made\necho b >> /made\nEOF\nRUN cat <<'EOF' > /quoted\n$x\nEOF\n\
        RUN <<EOF\n#!/bin/cat\nread by cat\nEOF\nCOPY <<one <<\"two\" /etc/\n1 $x\none\n2 $x\ntwo\n";
    let (_, told) = lab.build("app", &format!("{BASE}{text}"), &[])?;
    has(&told, "  | read by cat")?;
    let out = succeed(&lab.run(&["run", "app", "cat", "/made", "/quoted", "/etc/one", "/etc/two"])?)?.0;
    same(&out.as_str(), &"a\nb\n$x\n1 1\n2 $x\n")
}

fn reproducible() -> Result<(), Failed> {
    let text = format!("{BASE}COPY busybox /other\nWORKDIR /a/b\nRUN echo x > /x && touch /y\nCMD [\"sh\"]\n");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let lab = Lab::new()?;
        fs::write(lab.context().join("Dockerfile"), &text)?;
        let context = lab.context().display().to_string();
        let mut build = lab.command(&["build", "-q", &context]);
        ids.push(succeed(&build.env("SOURCE_DATE_EPOCH", "1700000000").output()?)?.0);
        std::thread::sleep(Duration::from_millis(1100));
    }
    same(&ids.first(), &ids.last())
}
