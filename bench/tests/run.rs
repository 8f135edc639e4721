//! The main job from outside: what it refuses, what it writes, and what it leaves on the host, however it ends.
//!
//! Each trial has state, images and report in a folder of its own, so that nothing here meets another run on this host.

mod needs;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use isolab_bench::subject::kernel;
use isolab_reports::model::{
    Act, Copies, CopyCell, CopyOutcome, Cost, Density, Ended, Outcome, Role, Run, Stop, Sweep,
};
use isolab_reports::read;
use isolab_vmm::guest::bare::long_mode;
use isolab_vmm::guest::{Entry, Flow, Guest, GuestError};
use isolab_vmm::machine::{Config, Machine};
use isolab_vmm::memory::Memory;
use isolab_vmm::units::Mib;
use isolab_vmm::vcpu::Cpu;
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use libtest_mimic::{Arguments, Failed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use needs::{Done, ensure, trial};

fn main() {
    let trials = vec![
        trial("a_run_of_processes_writes_every_start_and_an_a_a_twin", &[], processes),
        trial("the_same_seed_makes_the_same_plan", &[], same_plan),
        trial("an_unknown_subject_is_refused_with_the_known_ones", &[], unknown_subject),
        trial("a_folder_that_is_not_a_reports_is_refused_and_left_as_it_is", &[], strangers_folder),
        trial("a_folder_that_cannot_be_written_is_refused_before_anything_is_measured", &[], closed_folder),
        trial("control_c_writes_what_there_is", &[], control_c),
        trial("the_harness_compares_itself_with_the_barest_loop", &[], overhead),
        trial("density_counts_instances_that_answer", &[], density),
        trial("density_ends_before_memory_is_short_and_says_with_which_figures", &[], density_brake),
        trial("containers_that_stay_are_all_gone_after_control_c_and_after_a_kill", &["root"], density_ended),
        trial("processes_containers_and_machines_stay_alive_side_by_side", &["root", "kvm"], density_of_all),
        trial("a_copy_proves_itself_and_a_linked_one_costs_nothing_until_it_writes", &["root", "kvm"], copies),
        trial("twenty_containers_are_proved_and_leave_nothing", &["root"], containers),
        trial("crun_starts_beside_the_others_whatever_control_groups_there_are", &["root", "crun"], crun_too),
        trial("what_fails_or_lies_is_shown_and_never_timed", &["root"], failing_peers),
        trial("a_run_that_was_killed_is_cleaned_up_after", &["root"], killed),
        trial("the_kernel_that_firecracker_is_given_prints_ready_in_64_bit_mode", &["kvm"], bare_kernel),
        trial("processes_containers_and_machines_run_side_by_side", &["root", "kvm"], everything),
    ];
    // One at a time: they measure.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

/// Folders of one trial.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Result<Self, Failed> {
        Ok(Self { folder: tempfile::Builder::new().prefix("isolab-run-").tempdir()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command, its state below this place. `engines`: whether cargo is to build the other commands first.
    fn bench(&self, engines: bool, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-bench"));
        command.args(words.split_whitespace()).arg("--root").arg(self.path("root")).stdin(Stdio::null());
        if !engines {
            command.env_remove("CARGO");
        }
        command
    }

    /// A run into the folder `out`, to its end.
    fn run(&self, engines: bool, words: &str) -> Result<Output, Failed> {
        Ok(self.bench(engines, &format!("run {words}")).arg("--out").arg(self.path("out")).output()?)
    }

    /// The same; it must succeed and write a record that a report can be made from, and the report.
    fn record(&self, engines: bool, words: &str) -> Result<Run, Failed> {
        let output = self.run(engines, words)?;
        ensure(output.status.success(), format!("{}: {}", output.status, text(&output.stderr)))?;
        self.written()
    }

    fn written(&self) -> Result<Run, Failed> {
        ensure(self.path("out/index.html").is_file(), "there is no page")?;
        Ok(read::read(&fs::read_to_string(self.path("out/run.json"))?)?)
    }

    /// Everything of this place that is on the host: processes, mounts, control groups of the bench with this pid, state.
    fn traces(&self, bench: u32) -> BTreeSet<String> {
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
    fn is_clean(&self, bench: u32) -> Done {
        let begun = Instant::now();
        while !self.traces(bench).is_empty() && begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
        let traces = self.traces(bench);
        ensure(traces.is_empty(), format!("left behind: {traces:#?}"))
    }
}

/// A bench that measures by now; killed at the latest when the trial ends.
struct Measuring(Child);

impl Measuring {
    /// Starts it and waits until it says that it measures.
    fn begin(mut command: Command) -> Result<Self, Failed> {
        let mut bench = Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        let said = bench.0.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(said).lines();
        let begun = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("measuring"))).is_some();
        // Read on, so that it never waits for us.
        thread::spawn(move || lines.for_each(drop));
        ensure(begun, "it never measured")?;
        Ok(bench)
    }

    /// Waits until so many instances are alive: then a ladder of more is being climbed.
    fn climbs(&self, instances: usize) -> Done {
        let children = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).into_iter().flatten().flatten();
            let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
            tasks.map(|task| of(task).split_whitespace().count()).sum::<usize>()
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        while children() < instances {
            ensure(Instant::now() < deadline, format!("{instances} instances are never alive"))?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Done {
        Ok(kill(Pid::from_raw(self.0.id() as i32), signal)?)
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        let _ = self.0.kill(); // ended already, where all went well
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How many starts of a cell were proved, and how many failed; warm-up included.
fn counts(run: &Run, cell: &str) -> (usize, usize) {
    let Some(place) = run.cells.iter().position(|it| it.name == cell) else { return (0, 0) };
    let of: Vec<_> = run.samples.iter().filter(|sample| sample.cell == place).collect();
    let proved = of.iter().filter(|sample| matches!(sample.outcome, Outcome::Ready(_))).count();
    (proved, of.len() - proved)
}

fn processes() -> Done {
    let place = Place::new()?;
    let run = place.record(false, "--suite startup --subjects process --rounds 6 --parallel 1,3 --quick")?;
    let names: Vec<_> = run.cells.iter().map(|cell| cell.name.as_str()).collect();
    ensure(names == ["process", "process.again", "process@3"], format!("{names:?}"))?;
    ensure(run.cells.iter().any(|cell| cell.role == Role::Control), "no A/A twin")?;
    for (cell, instances) in [("process", 1), ("process.again", 1), ("process@3", 3)] {
        let counted = counts(&run, cell);
        ensure(counted == (7 * instances, 0), format!("{cell}: {counted:?}"))?;
    }
    ensure(run.stopped == Stop::Complete && run.rounds.iter().filter(|round| round.warmup).count() == 1, "rounds")?;
    ensure(
        run.samples.iter().all(|sample| matches!(&sample.outcome, Outcome::Ready(it) if it.ready_ns > 10_000)),
        "times",
    )
}

fn same_plan() -> Done {
    let place = Place::new()?;
    let plan = |seed| {
        Ok::<_, Failed>(
            place.record(false, &format!("--suite startup --subjects process --rounds 4 --quick --seed {seed}"))?.plan,
        )
    };
    let first = plan(7)?;
    ensure(first == plan(7)?, "the plans differ")?;
    ensure(first.order != plan(8)?.order, "another seed makes the same plan")
}

fn refused(output: &Output, words: &[&str]) -> Done {
    let said = text(&output.stderr);
    ensure(output.status.code() == Some(1), format!("{}: {said}", output.status))?;
    let all = ["error: ", "\nhint: "].iter().chain(words).all(|word| said.contains(word));
    ensure(all, said)
}

fn unknown_subject() -> Done {
    let place = Place::new()?;
    refused(&place.run(false, "--subjects process,lxc")?, &["lxc", "microvm-app", "container-nonet"])?;
    ensure(!place.path("out").exists() && !place.path("root").exists(), "something was made all the same")
}

fn strangers_folder() -> Done {
    let place = Place::new()?;
    fs::create_dir(place.path("out"))?;
    fs::write(place.path("out/thesis.tex"), "years")?;
    refused(&place.run(false, "--subjects process --quick")?, &["thesis.tex"])?;
    ensure(fs::read_to_string(place.path("out/thesis.tex"))? == "years", "the stranger's file was touched")
}

fn closed_folder() -> Done {
    let place = Place::new()?;
    // Nobody can make a folder in /proc, not even root.
    let output = place.bench(false, "run --subjects process --quick --out /proc/isolab-report").output()?;
    refused(&output, &["/proc/isolab-report"])?;
    ensure(!text(&output.stderr).contains("measuring"), "it measured all the same")
}

fn control_c() -> Done {
    let place = Place::new()?;
    let command = place.bench(false, "run --suite startup --subjects process --parallel 1 --rounds 20000 --budget 10m");
    let mut bench = Measuring::begin(with_out(command, &place))?;
    thread::sleep(Duration::from_millis(500));
    bench.signal(Signal::SIGINT)?;
    let status = bench.0.wait()?;
    ensure(status.code() == Some(130), status.to_string())?;
    let run = place.written()?;
    ensure(run.stopped == Stop::Interrupted && !run.samples.is_empty(), format!("{:?}", run.stopped))?;
    place.is_clean(bench.0.id())
}

fn overhead() -> Done {
    let place = Place::new()?;
    let output = place.run(false, "--suite overhead --quick --rounds 50")?;
    ensure(text(&output.stdout).contains("the harness adds "), text(&output.stdout))?;
    let run = place.written()?;
    ensure(counts(&run, "process.bare") == (55, 0), format!("{:?}", counts(&run, "process.bare")))?;
    refused(&place.run(false, "--suite overhead --parallel 2")?, &["its own subjects", "--suite startup"])
}

/// What became of each ladder of a subject: how many were alive at the top, and why it ended.
fn tops(density: &Density, cell: &str) -> Vec<(u32, Ended)> {
    let of = |place: usize| density.cells.get(place).is_some_and(|it| it.name == cell);
    let ladders = density.ladders.iter().filter(|ladder| of(ladder.cell));
    ladders.map(|ladder| (ladder.rungs.last().map_or(0, |rung| rung.alive), ladder.ended)).collect()
}

fn density() -> Done {
    let place = Place::new()?;
    let run = place.record(false, "--suite density --subjects process,microvm-bare --max 5 --quick")?;
    ensure(run.samples.is_empty() && run.cells.is_empty() && run.plan.suite == "density", "there are starts")?;
    let density = run.density.ok_or("no density")?;
    let names: Vec<_> = density.cells.iter().map(|cell| cell.name.as_str()).collect();
    ensure(names == ["process", "process.again"], format!("{names:?}"))?;
    for cell in names {
        ensure(tops(&density, cell) == [(5, Ended::Complete); 2], format!("{cell}: {:?}", tops(&density, cell)))?;
    }
    for ladder in &density.ladders {
        let alive: Vec<u32> = ladder.rungs.iter().map(|rung| rung.alive).collect();
        ensure(alive == [0, 1, 2, 4, 5], format!("{alive:?}"))?;
        let sound = |rung: &isolab_reports::model::Rung| {
            rung.processes == rung.alive && rung.uss_bytes <= rung.pss_bytes && rung.pss_bytes <= rung.rss_bytes
        };
        ensure(ladder.rungs.iter().all(sound), format!("{ladder:?}"))?;
        // The payload is four kilobytes and a stack.
        ensure(ladder.rungs.last().is_some_and(|top| top.uss_bytes < 5 * (256 << 10)), format!("{ladder:?}"))?;
    }
    refused(&place.run(false, "--suite density --subjects microvm-bare --quick")?, &["stays alive"])
}

fn density_brake() -> Done {
    let place = Place::new()?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available: u64 = available.ok_or("no MemAvailable")?.trim().parse()?;
    // There is room for 20 of them, and 400 are asked for; each touches 24 MiB. Other programs give and take meanwhile.
    let reserve = (available >> 10).saturating_sub(480);
    let words = format!("--suite density --subjects process --max 400 --touch 24 --quick --reserve {reserve}");
    let output = place.run(false, &words)?;
    // Another program may have taken the room meanwhile: then not one is started, and it says so.
    if !output.status.success() {
        return refused(&output, &["not one instance was alive", "are available"]);
    }
    let density = place.written()?.density.ok_or("no density")?;
    ensure(density.touched_bytes == 24 << 20, "touched")?;
    for ladder in &density.ladders {
        let top = ladder.rungs.last().ok_or("no rung")?;
        ensure(ladder.ended == Ended::Memory, format!("{:?} at {}", ladder.ended, top.alive))?;
        ensure(top.available_bytes >> 20 > reserve.saturating_sub(300), format!("{} left", top.available_bytes))?;
        ensure(ladder.reason.as_ref().is_some_and(|reason| reason.contains("are available")), "no reason")?;
        let touched = u64::from(top.alive) * (24 << 20);
        ensure(top.uss_bytes >= touched, format!("{} of {touched}", top.uss_bytes))?;
    }
    Ok(())
}

fn density_ended() -> Done {
    for (signal, moment) in [(Signal::SIGINT, None), (Signal::SIGKILL, Some(1500)), (Signal::SIGKILL, Some(2600))] {
        let place = Place::new()?;
        let words = "run --suite density --subjects process,container --max 400 --budget 5m";
        let mut bench = Measuring::begin(with_out(place.bench(true, words), &place))?;
        // In the middle of a ladder, which is told of only there; a kill may come at any moment.
        match moment {
            None => bench.climbs(20)?,
            Some(moment) => thread::sleep(Duration::from_millis(moment)),
        }
        bench.signal(signal)?;
        let status = bench.0.wait()?;
        let pid = bench.0.id();
        if signal == Signal::SIGKILL {
            let clean = place.bench(false, "doctor --clean").output()?;
            ensure(clean.status.success(), text(&clean.stdout))?;
        } else {
            ensure(status.code() == Some(130), status.to_string())?;
            let density = place.written()?.density.ok_or("no density")?;
            ensure(density.ladders.iter().any(|it| it.ended == Ended::Interrupted), "nothing was interrupted")?;
        }
        place.is_clean(pid)?;
    }
    Ok(())
}

fn density_of_all() -> Done {
    let place = Place::new()?;
    let machines = ["microvm-app", "microvm-app-restore", "microvm-app-clone", "microvm-app-thread"];
    let subjects = [&["process", "container", "container-nonet"][..], &machines].concat();
    let words = format!("run --suite density --subjects {} --max 12 --quick --budget 2m", subjects.join(","));
    let mut bench = Measuring::begin(with_out(place.bench(true, &words), &place))?;
    ensure(bench.0.wait()?.success(), "it failed")?;
    let density = place.written()?.density.ok_or("no density")?;
    for subject in subjects {
        ensure(
            tops(&density, subject) == [(12, Ended::Complete); 2],
            format!("{subject}: {:?}", tops(&density, subject)),
        )?;
    }
    for ladder in &density.ladders {
        let contained = density.cells.get(ladder.cell).is_some_and(|cell| cell.subject.starts_with("container"));
        let top = ladder.rungs.last().ok_or("no rung")?;
        // One process each: no runtime stays beside a container, and a machine's monitor is the machine. A clone is its server's child,
        // or a thread in it.
        let processes = match density.cells.get(ladder.cell).map(|cell| cell.subject.as_str()) {
            Some("microvm-app-clone") => 13,
            Some("microvm-app-thread") => 1,
            _ => 12,
        };
        ensure(top.processes == processes, format!("{} processes", top.processes))?;
        ensure(top.cgroup_bytes.is_some() == contained, format!("{:?}", top.cgroup_bytes))?;
    }
    place.is_clean(bench.0.id())
}

fn containers() -> Done {
    let place = Place::new()?;
    let command = place.bench(
        true,
        "run --suite startup --subjects process,container,container-nonet --rounds 9 --parallel 1,2 --quick",
    );
    let mut bench = Measuring::begin(with_out(command, &place))?;
    let status = bench.0.wait()?;
    ensure(status.success(), status.to_string())?;
    let run = place.written()?;
    for (cell, starts) in [("container", 10), ("container-nonet", 10), ("container@2", 20), ("container-nonet@2", 20)] {
        ensure(counts(&run, cell) == (starts, 0), format!("{cell}: {:?}", failures(&run)))?;
    }
    let attach = run.samples.iter().filter_map(|sample| match &sample.outcome {
        Outcome::Ready(timing) => Some(timing.phases.iter().any(|phase| phase.name.starts_with("cgroup."))),
        Outcome::Failed { .. } => None,
    });
    ensure(attach.filter(|seen| *seen).count() >= 20, "no phase tells of control groups")?;
    place.is_clean(bench.0.id())
}

fn with_out(mut command: Command, place: &Place) -> Command {
    command.arg("--out").arg(place.path("out"));
    command
}

fn failures(run: &Run) -> BTreeSet<&str> {
    let failed = run.samples.iter().filter_map(|sample| match &sample.outcome {
        Outcome::Failed { reason } => Some(reason.as_str()),
        Outcome::Ready(_) => None,
    });
    failed.collect()
}

fn copies() -> Done {
    let place = Place::new()?;
    let words = "--suite snapshot,clone --subjects microvm-app,container --rounds 1 --budget 20s --quick";
    let mut command = place.bench(true, &format!("run {words}"));
    let bench = command.arg("--out").arg(place.path("out")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let pid = bench.id();
    let output = bench.wait_with_output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    let run = place.written()?;
    let (snapshot, clone) = (run.snapshot.ok_or("no snapshots")?, run.clone.ok_or("no clones")?);
    // CRIU may be missing, or not know this kernel; then the row says so.
    for cell in snapshot.cells.iter().filter(|cell| cell.act != Act::Checkpoint).chain(&clone.cells) {
        let costs = costs(if clone.cells.contains(cell) { &clone } else { &snapshot }, cell);
        ensure(costs.len() >= 2, format!("{}: {} done: {}", cell.name, costs.len(), text(&output.stderr)))?;
    }
    for (subject, act, at_once, at_last) in [
        ("microvm-app", Act::Linked, 0..8 << 20, 60 << 20..90 << 20),
        ("microvm-app", Act::Full, 120 << 20..160 << 20, 120 << 20..160 << 20),
        ("container", Act::Linked, 0..1 << 20, 15 << 20..24 << 20),
        ("container", Act::Full, 15 << 20..24 << 20, 30 << 20..48 << 20),
    ] {
        let cells = clone.cells.iter().filter(|it| it.subject == subject && it.act == act && it.sweep == Sweep::Touch);
        let bytes: Vec<u64> = cells
            .filter_map(|cell| {
                costs(&clone, cell).last().map(|it| it.disk_bytes.unwrap_or(0) + it.memory_bytes.unwrap_or(0))
            })
            .collect();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return Err("no bytes".into()) };
        ensure(at_once.contains(first) && at_last.contains(last), format!("{subject} {act:?}: {bytes:?}"))?;
    }
    place.is_clean(pid)
}

/// What was done of a cell.
fn costs(copies: &Copies, cell: &CopyCell) -> Vec<Cost> {
    let place = copies.cells.iter().position(|other| other == cell);
    let of = copies.samples.iter().filter(|sample| Some(sample.cell) == place);
    let cost = |sample: &isolab_reports::model::CopySample| match sample.outcome {
        CopyOutcome::Done(cost) => Some(cost),
        CopyOutcome::Failed { .. } => None,
    };
    of.filter_map(cost).collect()
}

fn crun_too() -> Done {
    let place = Place::new()?;
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let run = place.record(
        true,
        "--suite startup,density --subjects process,container,crun --rounds 6 --parallel 1 --max 4 --budget 1m --quick",
    )?;
    for subject in ["container", "crun"] {
        ensure(counts(&run, subject) == (7, 0), format!("{subject}: {:?}", failures(&run)))?;
    }
    let density = run.density.ok_or("no density")?;
    ensure(tops(&density, "crun") == [(4, Ended::Complete); 2], format!("{:?}", density.ladders))?;
    let hidden = run.host.facts.iter().any(|fact| fact.name == "hidden");
    ensure(hidden == (run.host.cgroup == "hybrid"), format!("{}: {hidden}", run.host.cgroup))?;
    ensure(fs::read_to_string("/proc/self/mountinfo")? == before, "the host's own mounts have changed")?;
    ensure(!place.path("root/run").exists(), "the scratch folder was left")
}

fn failing_peers() -> Done {
    let place = Place::new()?;
    // One that is fast at failing, and one that says it is ready without having started anything.
    let liar = place.path("liar");
    fs::write(&liar, "#!/bin/sh\necho ISOLAB-READY 0123456789abcdef\n")?;
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755))?;
    // And one that does nothing at all, for ever.
    let sleeper = place.path("sleeper");
    fs::write(&sleeper, "#!/bin/sh\ncase $1 in --version) exit 1;; esac\nexec sleep 1000\n")?;
    fs::set_permissions(&sleeper, fs::Permissions::from_mode(0o755))?;
    let words = format!(
        "--suite startup,density --subjects process,runc,crun,youki --rounds 5 --parallel 1 --budget 2m --quick --peer runc=/bin/false \
         --peer crun={} --peer youki={}",
        liar.display(),
        sleeper.display()
    );
    let run = place.record(false, &words)?;
    ensure(counts(&run, "runc") == (0, 1), format!("{:?}", counts(&run, "runc")))?;
    ensure(counts(&run, "crun") == (0, 1), format!("{:?}", counts(&run, "crun")))?;
    ensure(counts(&run, "youki") == (0, 1), format!("{:?}", counts(&run, "youki")))?;
    ensure(counts(&run, "process") == (6, 0), format!("{:?}", counts(&run, "process")))?;
    let density = run.density.ok_or("no density")?;
    let failed = density.ladders.iter().filter(|ladder| ladder.ended == Ended::Failed && ladder.rungs.len() == 1);
    ensure(failed.count() == 3, format!("{:?}", density.ladders))?;
    let run = place.written()?;
    let ended = ["ended with status 0 before READY", "ended with status 1 before READY"];
    let expected = BTreeSet::from([ended[0], ended[1], "not ready within 10 s"]);
    ensure(failures(&run) == expected, format!("{:?}", failures(&run)))
}

fn killed() -> Done {
    for moment in [5, 40, 130, 400] {
        let place = Place::new()?;
        let subjects = "process,container,container-nonet";
        let command = place.bench(true, &format!("run --subjects {subjects} --parallel 1,4 --rounds 500"));
        let mut bench = Measuring::begin(with_out(command, &place))?;
        thread::sleep(Duration::from_millis(moment));
        bench.signal(Signal::SIGKILL)?;
        bench.0.wait()?;
        let pid = bench.0.id();
        ensure(!place.traces(pid).is_empty(), "a killed bench can't have removed its scratch folder")?;
        let clean = place.bench(false, "doctor --clean").output()?;
        ensure(clean.status.success(), text(&clean.stdout))?;
        ensure(!place.path("root/run").exists(), "the runtime root is still there, empty")?;
        place.is_clean(pid).map_err(|error| format!("after {moment} ms: {}", error.message().unwrap_or_default()))?;
        ensure(!Path::new(&place.path("out/run.json")).exists(), "half a report")?;
    }
    Ok(())
}

fn everything() -> Done {
    let place = Place::new()?;
    let restored = ["microvm-app-restore", "microvm-app-eager", "microvm-app-clone", "microvm-app-thread"];
    let subjects = ["process", "container", "container-nonet", "microvm-bare", "microvm-app"];
    let subjects = [&subjects[..], &restored].concat();
    let run = place.record(
        true,
        &format!("--suite startup --subjects {} --rounds 9 --parallel 1,2 --quick --budget 2m", subjects.join(",")),
    )?;
    for subject in subjects {
        ensure(counts(&run, subject) == (10, 0), format!("{subject}: {:?}", failures(&run)))?;
        let pair = counts(&run, &format!("{subject}@2"));
        ensure(pair == (20, 0), format!("{subject}@2: {:?}", failures(&run)))?;
    }
    let ratio = |cell: &str| run.verdicts.iter().find(|verdict| verdict.cell == cell).map(|verdict| verdict.ratio);
    ensure(ratio("container").is_some_and(|ratio| ratio > 1.0), "a container is no slower than a process")?;
    ensure(ratio("microvm-app").is_some_and(|ratio| ratio > 1.0), "a machine is no slower than a process")?;
    // The server that handed the clones out is gone with the folder that it stood in.
    let place = place.path("root").display().to_string();
    let stands =
        |process: &fs::DirEntry| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&place));
    let left = fs::read_dir("/proc")?.flatten().filter(stands).count();
    ensure(left == 0, format!("{left} processes are left"))
}

/// An ELF kernel, entered as the 64-bit boot protocol says.
struct Kernel(Vec<u8>);

impl Guest for Kernel {
    fn load(&mut self, memory: &Memory, reset: &kvm_sregs, _: &[kvm_cpuid_entry2]) -> Result<Entry, GuestError> {
        memory.guest().write_slice(&self.0, GuestAddress(kernel::BASE))?;
        let entry = self.0.iter().skip(24).take(8).rev().fold(0, |entry, byte| entry << 8 | u64::from(*byte));
        let regs = kvm_regs { rip: entry, rflags: 2, ..kvm_regs::default() };
        Ok(Entry { regs, sregs: long_mode::enter(memory, reset)?, msrs: Vec::new(), xcr0: None })
    }

    fn store(&mut self, at: u64, data: &[u8], _: &mut Cpu<'_>, _: &Memory) -> Result<Flow, GuestError> {
        Err(GuestError::Nowhere { at, length: data.len() })
    }
}

fn bare_kernel() -> Done {
    let mut said = Vec::new();
    let config = Config { memory: Mib(16), timeout: Some(Duration::from_secs(2)) };
    let guest = Kernel(kernel::printing(b"ISOLAB-READY 0123456789abcdef\n"));
    // Our board has no reset line: there the guest halts for ever, and the monitor says so.
    let ended = Machine::boot(&config, guest, &mut said)?.resume();
    ensure(ended.is_err(), format!("{ended:?}"))?;
    ensure(said == b"ISOLAB-READY 0123456789abcdef\n", text(&said))
}
