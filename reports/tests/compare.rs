//! Two runs held against each other.

mod support;

use std::fs;
use std::process::Command;

use isolab_reports::compare::{Comparison, sentences};
use isolab_reports::model::{Run, Word};
use isolab_reports::{read, report};
use support::{density_of, ready, run_of, with_text_everywhere};

/// Starts that wobble by a few per cent, in an order of the run's own.
fn wobbling(seed: u64, slower: f64) -> Run {
    let time = |cell: usize, round: u32| {
        let mut random = isolab_reports::stats::Random::new(seed ^ (cell as u64) << 40 ^ u64::from(round));
        let wobble = 1.0 + 0.06 * (random.below(1000) as f64 / 1000.0);
        let slower = if cell == 1 { slower } else { 1.0 };
        ready((500_000.0 * (cell + 1) as f64 * wobble * slower) as u64)
    };
    run_of(3, 40, time)
}

fn words(before: &Run, after: &Run) -> Vec<Word> {
    Comparison::of(before, after).rows.iter().map(|row| row.word).collect()
}

#[test]
fn two_runs_of_one_thing_differ_in_no_verdict() {
    for seed in 0..4 {
        let found = words(&wobbling(seed, 1.0), &wobbling(seed + 100, 1.0));
        assert_eq!(found, [Word::NoDifference; 3], "seed {seed}");
    }
}

#[test]
fn what_became_slower_is_found_and_what_did_not_is_left_alone() {
    let (before, after) = (wobbling(1, 1.0), wobbling(2, 1.3));
    assert_eq!(words(&before, &after), [Word::NoDifference, Word::Slower, Word::NoDifference]);
    assert_eq!(words(&after, &before), [Word::NoDifference, Word::Faster, Word::NoDifference]);
    let said = sentences(&Comparison::of(&before, &after)).join(" ");
    assert!(said.contains("1 of 3 figures changed.") && said.contains("subject-1 takes 1.30 times as long"), "{said}");
    assert!(said.contains("from the same host"), "{said}");
}

#[test]
fn a_change_of_three_per_cent_is_below_the_floor_however_sure_it_is() {
    // Each start a little different: medians of numbers that are all the same can't be shuffled apart.
    let steady = |slower: u64| run_of(2, 60, move |_, round| ready(100_000 * slower + 20_000 * u64::from(round)));
    assert_eq!(words(&steady(100), &steady(103)), [Word::NoDifference; 2]);
    assert_eq!(words(&steady(100), &steady(118))[0], Word::Slower);
}

#[test]
fn what_the_bare_process_changed_by_too_is_the_hours() {
    let hour = |slower: f64, more: f64| {
        let time = move |cell: usize, round: u32| {
            let own = if cell == 2 { more } else { 1.0 };
            ready((100_000.0 * slower * own) as u64 + 20 * u64::from(round))
        };
        run_of(3, 60, time)
    };
    let (before, after) = (hour(1.0, 1.0), hour(1.2, 1.5));
    assert_eq!(words(&before, &after), [Word::Slower, Word::Inconclusive, Word::Slower]);
    let said = sentences(&Comparison::of(&before, &after)).join(" ");
    assert!(said.contains("The bare process itself takes 1.2"), "{said}");
}

#[test]
fn of_many_figures_not_one_is_called_changed_by_chance() {
    // Rounds so restless that of forty cells one or two would pass each test taken by itself.
    let time = |seed: u64| {
        move |cell: usize, round: u32| {
            let mut random = isolab_reports::stats::Random::new(seed ^ (cell as u64) << 40 ^ u64::from(round));
            ready(500_000 + 5_000 * random.below(100) as u64)
        }
    };
    for seed in 0..2 {
        let found = words(&run_of(40, 30, time(seed)), &run_of(40, 30, time(seed + 100)));
        assert!(!found.iter().any(|word| matches!(word, Word::Faster | Word::Slower)), "seed {seed}: {found:?}");
    }
}

#[test]
fn ladders_that_overlap_do_not_show_a_change_of_memory() {
    // The second ladder of the first run is as steep as those of the second run.
    let mut before = density_of(2, |_| 1 << 20);
    let after = density_of(2, |_| 2 << 20);
    let ladders = before.density.iter_mut().flat_map(|density| &mut density.ladders);
    for (ladder, steeper) in ladders.zip(after.density.iter().flat_map(|density| &density.ladders)) {
        if ladder.pass == 1 {
            *ladder = steeper.clone();
        }
    }
    assert!(!words(&before, &after).contains(&Word::Slower));
}

#[test]
fn few_rounds_are_no_evidence_of_a_change() {
    // Three against three can part them by chance one time in ten: the interval alone would call it slower.
    let found = words(&run_of(1, 3, |_, _| ready(1_000)), &run_of(1, 3, |_, _| ready(2_000)));
    assert_eq!(found, [Word::Inconclusive]);
}

#[test]
fn memory_is_compared_by_its_slopes() {
    let comparison_of = |more: u64| (density_of(2, |_| 1 << 20), density_of(2, move |_| more << 20));
    let (before, after) = comparison_of(2);
    assert_eq!(words(&before, &after), [Word::Slower; 2]);
    assert!(sentences(&Comparison::of(&before, &after)).join(" ").contains("costs 2.00 times as much memory"));
    let (before, after) = comparison_of(1);
    assert_eq!(words(&before, &after), [Word::NoDifference; 2]);
}

#[test]
fn another_host_and_a_changed_environment_are_said_plainly() {
    let (before, mut after) = (wobbling(1, 1.0), wobbling(2, 1.0));
    after.host.cpu = "another CPU".into();
    after.host.kernel = "7.0".into();
    after.cells[2].name = "renamed".into();
    let comparison = Comparison::of(&before, &after);
    assert_eq!(comparison.host.len(), 1);
    assert_eq!(comparison.environment.len(), 1);
    assert_eq!(comparison.alone, [('A', "start-up: subject-2".to_owned()), ('B', "start-up: renamed".to_owned())]);
    let said = sentences(&comparison).join(" ");
    assert!(said.contains("from different hosts") && said.contains("1 thing in the environment changed"), "{said}");
}

#[test]
fn the_page_of_two_runs_is_sound_whatever_they_hold() {
    let (text, fixture) = support::fixture();
    let mut hostile = read::read(&text).expect("the fixture");
    with_text_everywhere(&mut hostile, "<script>alert(1)</script>\u{1b}[31m");
    for (before, after) in [
        (&fixture, &fixture),
        (&fixture, &hostile),
        (&hostile, &fixture),
        (&support::empty_run(), &fixture),
        (&support::empty_run(), &support::empty_run()),
    ] {
        let files = report::compare(before, after);
        support::assert_sound(&support::file(&files, "index.html"));
        assert!(!support::file(&files, "report.md").contains('\u{1b}'));
    }
}

#[test]
fn the_command_takes_files_and_folders_and_says_what_it_found() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path().join("a");
    fs::create_dir(&folder).expect("a folder");
    let file = support::path("fixtures/run.json");
    fs::copy(&file, folder.join("run.json")).expect("a copy");
    let out = scratch.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-report"));
    let output = command.arg("compare").arg(&folder).arg(&file).arg("--out").arg(&out).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("figures changed: no difference can be told from noise"));
    for name in ["index.html", "report.md", "charts/compare.svg"] {
        assert!(out.join(name).is_file(), "{name}");
    }
}
