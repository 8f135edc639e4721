//! Runs of several hosts beside each other.

mod support;

use std::fs;
use std::process::Command;

use isolab_reports::hosts::{Hosts, sentences};
use isolab_reports::model::Run;
use isolab_reports::report;
use support::{ready, run_of, with_text_everywhere};

/// A host whose process takes `process` nanoseconds, and whose second cell takes `times` as long.
fn host(process: u64, times: u64, emulated: bool) -> Run {
    let mut run = run_of(2, 40, move |cell, round| {
        let wobble = 1000 + u64::from(round * 7 % 40);
        ready(process * if cell == 1 { times } else { 1 } * wobble / 1000)
    });
    run.host.emulated = emulated;
    run
}

#[test]
fn a_slow_host_is_not_held_against_a_fast_one_by_its_clock() {
    let runs = [host(100_000, 20, false), host(900_000, 20, false)];
    let hosts = Hosts::of(&runs);
    let ratios: Vec<f64> = hosts.startup[1].ratios().map(|(_, ratio)| ratio.estimate).collect();
    assert_eq!((hosts.startup.len(), ratios.len()), (2, 2));
    assert!(ratios.iter().all(|ratio| (ratio - 20.0).abs() < 0.1), "{ratios:?}");
    let said = sentences(&hosts).join(" ");
    assert!(!said.contains("the intervals do not meet"), "{said}");
}

#[test]
fn what_costs_more_on_one_host_is_said_with_both_intervals() {
    let runs = [host(100_000, 20, false), host(900_000, 5, false), host(10_000, 12, false)];
    let said = sentences(&Hosts::of(&runs)).join(" ");
    assert!(said.contains("subject-1 starts in 5.00×") && said.contains("on B") && said.contains("on A"), "{said}");
    assert!(said.contains("the intervals do not meet"), "{said}");
}

#[test]
fn an_emulated_host_shows_ratios_and_no_times() {
    let runs = [host(100_000, 20, false), host(900_000, 20, true)];
    let places = &Hosts::of(&runs).startup[1].places;
    let known = places.iter().flatten().map(|place| (place.figure.is_some(), place.ratio.is_some()));
    assert_eq!(known.collect::<Vec<_>>(), [(true, true), (false, true)]);
}

#[test]
fn a_subject_that_one_host_lacks_leaves_its_place_empty() {
    let runs = [run_of(3, 8, |_, _| ready(1000)), run_of(2, 8, |_, _| ready(1000))];
    let hosts = Hosts::of(&runs);
    assert_eq!(hosts.startup.iter().map(|line| line.places.iter().flatten().count()).collect::<Vec<_>>(), [2, 2, 1]);
    let page = report::hosts(&runs).pop().expect("a page");
    assert_eq!(page.name, "index.html");
}

#[test]
fn a_hostile_text_is_shown_and_not_obeyed() {
    let mut runs = [host(100_000, 20, false), host(100_000, 20, false)];
    with_text_everywhere(&mut runs[0], "<script>alert(1)</script>");
    for file in report::hosts(&runs) {
        let text = String::from_utf8(file.bytes).expect("text");
        assert!(!text.contains("<script"), "{}", file.name);
    }
}

#[test]
fn the_command_takes_files_and_folders_and_names_what_is_no_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, report) = (folder.path().join("a.json"), folder.path().join("b"));
    fs::create_dir(&report).expect("a folder");
    for (path, run) in [(&file, host(100_000, 20, false)), (&report.join("run.json"), host(100_000, 5, false))] {
        fs::write(path, serde_json::to_vec(&run).expect("JSON")).expect("written");
    }
    let command = |arguments: &[&std::path::Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-report"));
        command.arg("hosts").args(arguments).arg("--out").arg(folder.path().join("out")).output().expect("it starts")
    };
    assert!(command(&[&file, &report]).status.success());
    let page = fs::read_to_string(folder.path().join("out/index.html")).expect("a page");
    assert!(page.contains("2 hosts") && folder.path().join("out/charts/hosts-startup.svg").is_file());
    fs::write(&file, "no run").expect("written");
    let output = command(&[&file, &report]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("a.json") && said.contains("hint: "), "{said}");
    assert_eq!(command(&[&report]).status.code(), Some(2), "one host is beside nobody");
}
