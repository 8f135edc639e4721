//! The suite `density` from outside: what it counts, where it ends, and what it gives back to the host.

mod needs;
mod place;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use isolab_reports::model::Ended;
use libtest_mimic::Arguments;
use nix::sys::signal::Signal;

use needs::{Done, ensure, trial};
use place::{Measuring, Place, refused, text, tops, with_out};

fn main() {
    let trials = vec![
        trial("density_counts_instances_that_answer", &[], density),
        trial("density_ends_before_memory_is_short_and_says_with_which_figures", &[], density_brake),
        trial("containers_that_stay_are_all_gone_after_control_c_and_after_a_kill", &["root"], density_ended),
        trial("processes_containers_and_machines_stay_alive_side_by_side", &["root", "kvm"], density_of_all),
        trial("equal_pages_are_merged_for_the_ladders_only_however_they_end", &["root", "ksm"], merged),
        trial("a_peer_that_stays_has_a_root_of_its_own", &["root", "runc", "bwrap"], own_roots),
    ];
    // One at a time: they measure.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

/// Waits until so many instances of a bench are alive: then a ladder of more is being climbed.
fn climbs(bench: &Measuring, instances: usize) -> Done {
    let children = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", bench.0.id())).into_iter().flatten().flatten();
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
        // The payload is five kilobytes and a stack.
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
            None => climbs(&bench, 20)?,
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

fn merged() -> Done {
    const FILES: [&str; 3] = ["run", "pages_to_scan", "sleep_millisecs"];
    let setting = |name: &str| fs::read_to_string(format!("/sys/kernel/mm/ksm/{name}"));
    let settings = || FILES.iter().map(|name| setting(name)).collect::<Result<Vec<_>, _>>();
    let before = settings()?;
    for signal in [None, Some(Signal::SIGINT), Some(Signal::SIGKILL)] {
        let place = Place::new()?;
        // Each rung waits for the merging to end: two seconds.
        let (most, alive) = if signal.is_some() { (400, 8) } else { (2, 2) };
        let words = format!("run --suite density --subjects process --touch 4 --max {most} --budget 1m --quick --ksm");
        let mut bench = Measuring::begin(with_out(place.bench(false, &words), &place))?;
        climbs(&bench, alive)?;
        ensure(setting("run")?.trim() == "1", "nothing is merged while it measures")?;
        if let Some(signal) = signal {
            bench.signal(signal)?;
        }
        let status = bench.0.wait()?;
        if signal == Some(Signal::SIGKILL) {
            // A shell that outlives it sees to that.
            let deadline = Instant::now() + Duration::from_secs(10);
            while settings()? != before && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            ensure(settings()? == before, format!("{:?} is not {before:?} after a kill", settings()?))?;
            let cleaned = place.bench(false, "doctor --clean").output()?;
            ensure(cleaned.status.success(), text(&cleaned.stderr))?;
            place.is_clean(bench.0.id())?;
            continue;
        }
        ensure(status.code() == Some(if signal.is_some() { 130 } else { 0 }), status.to_string())?;
        ensure(settings()? == before, format!("{:?} is not {before:?}", settings()?))?;
        let density = place.written()?.density.ok_or("no density")?;
        ensure(density.ksm, "the run does not say so")?;
        let page = fs::read_to_string(place.path("out/index.html"))?;
        ensure(page.contains("KSM on"), "the page does not say so beside the figures")?;
        if signal.is_none() {
            // Each wrote the same four mebibytes, so the second costs next to nothing.
            let tops = density.ladders.iter().filter_map(|ladder| ladder.rungs.last());
            let merged = |top: &isolab_reports::model::Rung| top.pss_bytes < u64::from(top.alive) * (3 << 20);
            ensure(tops.clone().count() > 0 && tops.clone().all(merged), format!("{:?}", tops.collect::<Vec<_>>()))?;
        }
        place.is_clean(bench.0.id())?;
    }
    Ok(())
}

/// How many root file systems a bench has mounted for single instances.
fn mounted(bench: &Measuring) -> usize {
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", bench.0.id())).unwrap_or_default();
    mounts.lines().filter(|line| line.starts_with("isolab-peers ") && line.contains("/roots/")).count()
}

fn own_roots() -> Done {
    let place = Place::new()?;
    let words = "run --suite density --subjects process,runc,bwrap --max 5 --quick --budget 2m";
    let mut bench = Measuring::begin(with_out(place.bench(false, words), &place))?;
    let mut most = 0;
    let status = loop {
        most = most.max(mounted(&bench));
        if let Some(status) = bench.0.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(2));
    };
    ensure(status.success(), status.to_string())?;
    let density = place.written()?.density.ok_or("no density")?;
    for subject in ["runc", "bwrap"] {
        ensure(tops(&density, subject) == [(5, Ended::Complete); 2], format!("{subject}: {:?}", density.ladders))?;
    }
    ensure(most == 5, format!("at most {most} were mounted"))?;
    place.is_clean(bench.0.id())
}
