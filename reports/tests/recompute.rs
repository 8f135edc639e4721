//! Every statistic of a report, computed a second time: by Python's standard library, from run.json alone. `shown.py` reads each number
//! that the tables and the answers show; here the CSV files are held against it, with all their digits.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use isolab_reports::model::{CopyOutcome, Role, Run};
use isolab_reports::report;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use support::{density_of, ready, run_of};

fn main() {
    let python = find("python3");
    let required = env::var("ISOLAB_REQUIRE").is_ok_and(|needs| needs.split(',').any(|need| need == "python3"));
    let trial = |name: &str, test: fn(&Path) -> Result<(), Failed>| {
        let found = python.clone();
        Trial::test(name, move || match &found {
            Some(python) => test(python),
            None => Err("ISOLAB_REQUIRE names python3, and it is not on PATH".into()),
        })
        .with_kind("needs python3")
        .with_ignored_flag(python.is_none() && !required)
    };
    let trials = vec![
        trial("every_statistic_of_the_fixture_is_the_one_that_python_finds", fixture),
        trial("every_statistic_of_a_longer_run_is_the_one_that_python_finds", longer),
        trial("slopes_that_are_sure_of_themselves_have_the_ratios_that_python_finds", slopes),
        trial("intervals_of_copies_are_the_ones_that_python_finds", copies),
        trial("a_figure_that_was_changed_would_be_found", a_changed_figure_is_found),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn find(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(command)).find(|candidate| candidate.is_file())
}

fn fixture(python: &Path) -> Result<(), Failed> {
    let (text, run) = support::fixture();
    let compared = agree(python, &run, &text)?;
    // The tables show some 1,250 numbers; the files have some 400 more digits of them.
    if compared > 1500 { Ok(()) } else { Err(format!("only {compared} figures were compared").into()) }
}

/// A hundred rounds and more, so that 99th percentiles and the test for drift are there.
fn longer(python: &Path) -> Result<(), Failed> {
    let time = |cell: usize, round: u32| {
        let wobble = (u64::from(round) * 7919 + cell as u64 * 104_729) % 5003;
        ready(400_000 * (cell as u64 + 1) + 37 * wobble + u64::from(round) * 150)
    };
    let mut run = run_of(3, 110, time);
    run.plan.seed = 77;
    run.cells[2].role = Role::Control;
    run.cells[2].subject = "subject-0".into();
    for round in run.rounds.iter_mut().take(4) {
        round.warmup = true;
    }
    let text = serde_json::to_string(&run)?;
    let compared = agree(python, &run, &text)?;
    if compared > 45 { Ok(()) } else { Err(format!("only {compared} figures were compared").into()) }
}

fn slopes(python: &Path) -> Result<(), Failed> {
    let mut run = density_of(3, |cell| (cell as u64 + 1) * 700_000);
    let rungs = run.density.iter_mut().flat_map(|density| &mut density.ladders).flat_map(|ladder| &mut ladder.rungs);
    for (place, rung) in rungs.enumerate() {
        rung.available_bytes -= (place as u64 * 7919) % 90_000;
        rung.pss_bytes += (place as u64 * 104_729) % 50_000;
    }
    let text = serde_json::to_string(&run)?;
    let compared = agree(python, &run, &text)?;
    if compared > 90 { Ok(()) } else { Err(format!("only {compared} figures were compared").into()) }
}

/// The fixture's five rounds of copies are too few for intervals; these are ten, of which one cell was done in seven.
fn copies(python: &Path) -> Result<(), Failed> {
    let mut run = support::with_changes();
    for copies in [&mut run.snapshot, &mut run.clone].into_iter().flatten() {
        let rounds = copies.samples.iter().map(|sample| sample.round).max().unwrap_or(0);
        let mut more = copies.samples.clone();
        for (place, sample) in more.iter_mut().enumerate() {
            sample.round += rounds;
            if let CopyOutcome::Done(cost) = &mut sample.outcome {
                cost.ready_ns += (place as u64 * 7919) % 500_000;
            }
        }
        more.retain(|sample| sample.round > rounds && (sample.cell != 1 || sample.round < rounds + 3));
        copies.samples.extend(more);
    }
    let text = serde_json::to_string(&run)?;
    let compared = agree(python, &run, &text)?;
    if compared > 1000 { Ok(()) } else { Err(format!("only {compared} figures were compared").into()) }
}

/// Shows that the other trials could fail.
fn a_changed_figure_is_found(python: &Path) -> Result<(), Failed> {
    let (text, mut run) = support::fixture();
    for sample in &mut run.samples {
        if let isolab_reports::model::Outcome::Ready(timing) = &mut sample.outcome {
            timing.ready_ns += 1;
        }
    }
    match agree(python, &run, &text) {
        Err(_) => Ok(()),
        Ok(_) => Err("a nanosecond more everywhere went unseen".into()),
    }
}

/// What Python found: how many numbers the report shows, all of them right, and the CSV files' with all digits.
#[derive(serde::Deserialize)]
struct Found {
    shown: usize,
    files: BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>,
}

/// Holds the report of `run` against what Python makes of `text`; how many figures agree, or the first that doesn't.
fn agree(python: &Path, run: &Run, text: &str) -> Result<usize, Failed> {
    let files = report::render(run);
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("run.json");
    fs::write(&path, text)?;
    let page = scratch.path().join("report.md");
    fs::write(&page, support::file(&files, "report.md"))?;
    // -B: no compiled modules are left in the sources.
    let output = Command::new(python).arg("-B").arg(support::path("shown.py")).args([&path, &page]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let found: Found = serde_json::from_slice(&output.stdout)?;
    let mut compared = found.shown;
    for (file, rows) in &found.files {
        let table = csv(&support::file(&files, file), ["slopes.csv", "trends.csv"].contains(&file.as_str()));
        for (row, columns) in rows {
            for (column, value) in columns {
                let ours = table.get(row).and_then(|columns| columns.get(column)).cloned().unwrap_or_default();
                if value.is_null() {
                    if !ours.is_empty() {
                        return Err(format!("{file}: {row}: {column}: the report has {ours}, Python nothing").into());
                    }
                    continue;
                }
                let (ours, theirs) = (ours.parse::<f64>().unwrap_or(f64::NAN), value.as_f64().unwrap_or(f64::NAN));
                // Both round at other places on the way; a wrong statistic is farther off than that.
                if (ours - theirs).abs() > 1e-7 * theirs.abs().max(1e-6) || ours.is_nan() {
                    return Err(format!("{file}: {row}: {column}: the report has {ours}, Python {theirs}").into());
                }
                compared += 1;
            }
        }
    }
    Ok(compared)
}

/// A file of ours, whose fields have no commas, by its first column, or by the first two.
fn csv(text: &str, two: bool) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let head = lines.next().unwrap_or_default();
    let row = |fields: Vec<String>| {
        let name = if two { format!("{}/{}", fields[0], fields[1]) } else { fields[0].clone() };
        (name, head.iter().cloned().zip(fields).collect())
    };
    lines.map(row).collect()
}
