//! The main job from outside: what it refuses, what it writes, and what it leaves on the host, however it ends.
//!
//! Each trial has state, images and report in a folder of its own, so that nothing here meets another run on this host.

mod needs;
mod place;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use isolab_bench::subject::kernel;
use isolab_reports::model::{Act, Copies, CopyCell, CopyOutcome, Cost, Ended, Outcome, Role, Run, Stop, Sweep};
use isolab_vmm::guest::bare::long_mode;
use isolab_vmm::guest::{Entry, Flow, Guest, GuestError};
use isolab_vmm::machine::{Config, Machine};
use isolab_vmm::memory::Memory;
use isolab_vmm::units::Mib;
use isolab_vmm::vcpu::Cpu;
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use libtest_mimic::{Arguments, Failed};
use nix::sys::signal::Signal;
use vm_memory::{Bytes, GuestAddress};

use needs::{Done, ensure, trial};
use place::{Measuring, Place, refused, text, tops, with_out};

fn main() {
    let trials = vec![
        trial("a_run_of_processes_writes_every_start_and_an_a_a_twin", &[], processes),
        trial("the_same_seed_makes_the_same_plan", &[], same_plan),
        trial("an_unknown_subject_is_refused_with_the_known_ones", &[], unknown_subject),
        trial("a_folder_that_is_not_a_reports_is_refused_and_left_as_it_is", &[], strangers_folder),
        trial("a_folder_that_cannot_be_written_is_refused_before_anything_is_measured", &[], closed_folder),
        trial("control_c_writes_what_there_is", &[], control_c),
        trial("the_harness_compares_itself_with_the_barest_loop", &[], overhead),
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
