//! The command `run` in a place of its own: its state, images and report, and what is left of it on the host.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use isolab_reports::model::{Density, Ended, Run};
use isolab_reports::read;
use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::needs::{Done, ensure};

/// Folders of one trial.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Result<Self, Failed> {
        Ok(Self { folder: tempfile::Builder::new().prefix("isolab-run-").tempdir()? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command, its state below this place. `engines`: whether cargo is to build the other commands first.
    pub(crate) fn bench(&self, engines: bool, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-bench"));
        command.args(words.split_whitespace()).arg("--root").arg(self.path("root")).stdin(Stdio::null());
        if !engines {
            command.env_remove("CARGO");
        }
        command
    }

    /// A run into the folder `out`, to its end.
    pub(crate) fn run(&self, engines: bool, words: &str) -> Result<Output, Failed> {
        Ok(self.bench(engines, &format!("run {words}")).arg("--out").arg(self.path("out")).output()?)
    }

    /// The same; it must succeed and write a record that a report can be made from, and the report.
    pub(crate) fn record(&self, engines: bool, words: &str) -> Result<Run, Failed> {
        let output = self.run(engines, words)?;
        ensure(output.status.success(), format!("{}: {}", output.status, text(&output.stderr)))?;
        self.written()
    }

    pub(crate) fn written(&self) -> Result<Run, Failed> {
        ensure(self.path("out/index.html").is_file(), "there is no page")?;
        Ok(read::read(&fs::read_to_string(self.path("out/run.json"))?)?)
    }

    /// Everything of this place that is on the host: processes, mounts, control groups of the bench with this pid, state.
    pub(crate) fn traces(&self, bench: u32) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let place = self.path("root").display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        traces.extend(mounts.lines().filter(|line| line.contains(&place)).map(|line| format!("mount {line}")));
        let mark = format!("bench-{bench}-");
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&mark)) {
                traces.insert(format!("cgroup {}", folder.display()));
            }
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let folder = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path());
            folders.extend(entries.filter_map(folder));
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let inside =
                |link: &str| fs::read_link(process.path().join(link)).is_ok_and(|target| target.starts_with(&place));
            if inside("cwd") || inside("exe") {
                traces.insert(format!("process {}", process.path().display()));
            }
        }
        let runtime = self.path("root/run");
        for folder in [runtime.join("bench"), runtime.join("oci")] {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            traces.extend(entries.map(|entry| format!("state {}", entry.path().display())));
        }
        traces
    }

    /// Nothing of it may be left. What was killed is given the moment that it takes to go.
    pub(crate) fn is_clean(&self, bench: u32) -> Done {
        let begun = Instant::now();
        while !self.traces(bench).is_empty() && begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
        let traces = self.traces(bench);
        ensure(traces.is_empty(), format!("left behind: {traces:#?}"))
    }
}

/// A bench that measures by now; killed at the latest when the trial ends.
pub(crate) struct Measuring(pub(crate) Child);

impl Measuring {
    /// Starts it and waits until it says that it measures.
    pub(crate) fn begin(mut command: Command) -> Result<Self, Failed> {
        let mut bench = Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        let said = bench.0.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(said).lines();
        let begun = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("measuring"))).is_some();
        // Read on, so that it never waits for us.
        thread::spawn(move || lines.for_each(drop));
        ensure(begun, "it never measured")?;
        Ok(bench)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Done {
        Ok(kill(Pid::from_raw(self.0.id() as i32), signal)?)
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        let _ = self.0.kill(); // ended already, where all went well
        let _ = self.0.wait();
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn refused(output: &Output, words: &[&str]) -> Done {
    let said = text(&output.stderr);
    ensure(output.status.code() == Some(1), format!("{}: {said}", output.status))?;
    let all = ["error: ", "\nhint: "].iter().chain(words).all(|word| said.contains(word));
    ensure(all, said)
}

pub(crate) fn with_out(mut command: Command, place: &Place) -> Command {
    command.arg("--out").arg(place.path("out"));
    command
}

/// What became of each ladder of a subject: how many were alive at the top, and why it ended.
pub(crate) fn tops(density: &Density, cell: &str) -> Vec<(u32, Ended)> {
    let of = |place: usize| density.cells.get(place).is_some_and(|it| it.name == cell);
    let ladders = density.ladders.iter().filter(|ladder| of(ladder.cell));
    ladders.map(|ladder| (ladder.rungs.last().map_or(0, |rung| rung.alive), ladder.ended)).collect()
}
