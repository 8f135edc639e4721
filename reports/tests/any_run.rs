//! Whatever a run holds, it renders, and its page is sound.

mod support;

use isolab_reports::model::{Outcome, Role, Run};
use isolab_reports::{read, report};
use proptest::prelude::*;
use support::{cell, density_of, empty_run, ready, round, run_of, with_text_everywhere};

/// Renders a run, through its text as a reader of files would, and checks the page.
fn render(run: &Run) -> Vec<report::File> {
    let text = serde_json::to_string(run).expect("a run is JSON");
    let run = read::read(&text).expect("the run is consistent");
    let files = report::render(&run);
    let page = support::file(&files, "index.html");
    support::assert_sound(&page);
    assert!(!page.contains("NaN") && !page.contains(">inf"), "a figure is none");
    for chart in files.iter().filter(|file| file.name.starts_with("charts/")) {
        let svg = support::file(&files, &chart.name);
        roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{}: {error}", chart.name));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{} has a place that is none", chart.name);
    }
    files
}

fn page(run: &Run) -> String {
    support::file(&render(run), "index.html")
}

fn failed() -> Outcome {
    Outcome::Failed { reason: "no READY within 10 s".into() }
}

#[test]
fn a_run_without_anything_says_that_it_says_nothing() {
    assert!(page(&empty_run()).contains("says nothing about time"));
    assert!(page(&run_of(3, 0, |_, _| failed())).contains("says nothing about time"));
}

#[test]
fn a_run_in_which_all_failed_shows_reasons_and_no_time() {
    let run = run_of(2, 5, |_, _| failed());
    let page = page(&run);
    assert!(page.contains("10 of 10 starts failed") && page.contains("no READY within 10 s"));
    assert!(!page.contains("<svg"));
}

#[test]
fn one_sample_is_a_run() {
    let page = page(&run_of(1, 1, |_, _| ready(550_000)));
    assert!(page.contains("550\u{a0}µs"));
}

#[test]
fn a_run_without_a_baseline_has_no_ratios() {
    let mut run = run_of(2, 4, |n, _| ready(1_000 * (n as u64 + 1)));
    run.cells[0].role = Role::Subject;
    assert!(page(&run).contains("nothing to hold it against"));
}

#[test]
fn twenty_cells_fit() {
    let run = run_of(20, 3, |n, r| ready(500_000 * (n as u64 + 1) + u64::from(r)));
    assert!(page(&run).contains("subject-19"));
}

#[test]
fn the_longest_times_there_are_render() {
    page(&run_of(3, 4, |n, _| ready(if n == 0 { 1 } else { u64::MAX })));
}

#[test]
fn a_failure_is_never_shown_as_a_time() {
    let run = run_of(2, 6, |n, r| if n == 1 && r == 3 { failed() } else { ready(1_000_000) });
    let files = render(&run);
    let samples = support::file(&files, "samples.csv");
    let failure = samples.lines().find(|line| line.contains(",failed,")).expect("a failure");
    assert_eq!(failure, "subject-1,3,false,false,0,failed,,,,,,no READY within 10 s");
}

#[test]
fn warm_up_rounds_are_in_the_samples_and_in_no_figure() {
    let mut run = run_of(1, 5, |_, r| ready(if r == 0 { 900_000_000 } else { 1_000_000 }));
    run.plan.warmup_rounds = 1;
    run.rounds[0].warmup = true;
    let files = render(&run);
    assert!(support::file(&files, "samples.csv").contains("subject-0,0,true,false,0,ready,900000000"));
    assert!(!support::file(&files, "summary.csv").contains("900000000"));
}

#[test]
fn a_long_run_is_read_piece_by_piece_and_the_page_stays_as_large_as_ever() {
    /// A file that tells how much of it was asked for at once.
    struct Watched(std::io::Cursor<Vec<u8>>, usize);
    impl std::io::Read for &mut Watched {
        fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
            self.1 = self.1.max(room.len());
            std::io::Read::read(&mut self.0, room)
        }
    }
    impl std::io::Seek for &mut Watched {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let size = |rounds: u32| {
        let run = run_of(4, rounds, |n, r| ready(1_000_000 * (n as u64 + 1) + u64::from(r * 7919 % 5003)));
        let mut file = Watched(std::io::Cursor::new(serde_json::to_vec(&run).expect("JSON")), 0);
        let again = read::read_from(&mut file).expect("a run");
        assert!(again == run && file.1 <= 1 << 16, "{} bytes at once", file.1);
        page(&run).len()
    };
    let (short, long) = (size(1_000), size(10_000));
    assert!(long < short + short / 10, "{short} bytes grew to {long}");
}

#[test]
fn saves_of_changes_are_drawn_beside_saves_of_all() {
    let files = render(&support::with_changes());
    let page = support::file(&files, "index.html");
    assert!(page.contains("Only what has changed") && page.contains("the changes alone take"));
    assert!(support::file(&files, "charts/changes.svg").contains("written since the last snapshot"));
}

#[test]
fn markup_in_a_run_stays_text() {
    let texts = [
        "<script>alert(1)</script>",
        "\"' onload='x' <!-- -->",
        "&amp;</style></svg>",
        "\u{0}\u{1b}[31m\u{85}\u{fffe}",
        "|`*_[x](y)\n# ",
    ];
    for text in texts {
        let mut run = run_of(3, 5, |n, r| if (n, r) == (1, 2) { failed() } else { ready(1_000_000 * (n as u64 + 1)) });
        run.cells.push(cell("late", Role::Peer));
        run.density = density_of(2, |_| 1 << 20).density;
        with_text_everywhere(&mut run, text);
        let files = render(&run);
        for file in &files {
            let text = support::file(&files, &file.name);
            assert!(
                !text.contains(['\u{0}', '\u{1b}', '\u{85}', '\u{fffe}']),
                "{} holds a control character",
                file.name
            );
        }
    }
}

#[test]
fn an_emulated_machine_shows_ratios_and_no_time_in_its_verdict() {
    let mut run = run_of(2, 5, |n, _| ready(1_000_000 * (n as u64 + 1)));
    run.host.emulated = true;
    let page = page(&run);
    assert!(page.contains("against subject-0: subject-1 2.00×") && page.contains("Only ratios count"));
    assert!(!page.contains("median: subject-0"));
}

#[test]
fn copies_on_an_emulated_machine_are_told_with_a_warning() {
    let warning = "of these times only the ratios count";
    let (_, mut run) = support::fixture();
    assert!(!page(&run).contains(warning));
    run.host.emulated = true;
    assert!(page(&run).contains(warning));
}

#[test]
fn a_run_of_density_alone_answers_its_question_and_no_other() {
    let run = density_of(3, |cell| (cell as u64 + 1) << 20);
    let page = page(&run);
    assert!(page.contains("Which is denser?") && !page.contains("Which starts faster?"));
    assert!(page.contains("subject-1: one more costs 2.00\u{a0}MiB, so one GiB holds 512."), "{page}");
    assert!(page.contains("subject-2 costs 1.50 times as much"));
}

#[test]
fn a_run_of_version_1_is_one_without_density() {
    let mut run = run_of(2, 4, |_, _| ready(1_000));
    run.schema_version = 1;
    assert!(!page(&run).contains("Which is denser?"));
}

#[test]
fn ladders_that_end_at_their_foot_are_shown_with_their_reason() {
    let mut run = density_of(2, |_| 1 << 20);
    for ladder in run.density.iter_mut().flat_map(|density| &mut density.ladders).filter(|ladder| ladder.cell == 1) {
        ladder.rungs.truncate(1);
        (ladder.ended, ladder.reason) = (isolab_reports::model::Ended::Failed, Some("it would not start".into()));
    }
    let page = page(&run);
    assert!(page.contains("never alive") && page.contains("it would not start"));
}

#[test]
fn memory_that_makes_no_sense_renders() {
    for each in [0, 1, 1 << 40] {
        page(&density_of(3, |cell| each * cell as u64));
    }
    let mut run = density_of(2, |_| 1 << 20);
    for rung in run.density.iter_mut().flat_map(|density| &mut density.ladders).flat_map(|ladder| &mut ladder.rungs) {
        (rung.available_bytes, rung.others_bytes, rung.slab_bytes) = (u64::MAX, u64::MAX, u64::MAX);
    }
    page(&run);
}

#[test]
fn a_subject_that_was_also_restored_answers_the_question_of_clones() {
    let mut run = run_of(3, 6, |n, _| ready([100_000, 2_000_000, 1_000_000][n]));
    for (cell, name) in run.cells.iter_mut().zip(["process", "vm", "vm-clone"]) {
        (cell.name, cell.subject) = (name.into(), name.into());
    }
    let page = page(&run);
    assert!(page.contains("What does a snapshot or a clone cost?"));
    assert!(page.contains("answers after 1.00\u{a0}ms; starting it anew takes 2.00× (2.00–2.00×) as long."), "{page}");
}

#[test]
fn a_ratio_that_the_samples_do_not_give_is_called_edited() {
    let mut run = run_of(2, 6, |n, _| ready(1_000 * (n as u64 + 1)));
    run.verdicts = isolab_reports::verdict::verdicts(&run);
    assert!(!page(&run).contains("are not those of its samples"));
    run.verdicts[0].ratio = 1.01;
    assert!(page(&run).contains("stored in run.json are not those of its samples: subject-1."));
}

/// The most that a report may weigh, and the largest run that it may be made of in a second.
#[test]
fn a_cell_without_a_sample_is_named() {
    let mut run = run_of(3, 20, |_, round| ready(100_000 + u64::from(round)));
    run.samples.retain(|sample| sample.cell != 2);
    assert!(page(&run).contains("There is not one sample of subject-2."));
}

#[test]
fn a_run_of_a_hundred_thousand_starts_has_a_page_below_a_mebibyte() {
    for (subjects, rounds) in [(5, 20_000), (16, 6_250)] {
        let run = run_of(subjects, rounds, |n, r| ready(500_000 * (n as u64 + 1) + u64::from(r) * 7919 % 200_003));
        let files = report::render(&run);
        let page = support::file(&files, "index.html");
        assert!(page.len() < 1 << 20, "{subjects} subjects: {} bytes", page.len());
        for chart in files.iter().filter(|file| file.name.starts_with("charts/")) {
            assert!(chart.bytes.len() < 1 << 19, "{subjects} subjects: {}: {} bytes", chart.name, chart.bytes.len());
        }
    }
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let (_, run) = support::fixture();
    assert_eq!(report::render(&run), report::render(&run));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_run_renders(
        parallel in prop::collection::vec((1_u32..5, 0_usize..3, prop::bool::ANY), 0..5),
        rounds in 0_u32..5,
        warmup in 0_u32..2,
        times in prop::collection::vec(prop::option::weighted(0.8, prop_oneof![1..u64::MAX, 1_u64..10_000_000]), 1..40),
    ) {
        let mut run = empty_run();
        run.plan.rounds = rounds;
        run.plan.warmup_rounds = warmup;
        run.rounds = (0..rounds + warmup).map(round).collect();
        run.plan.order = run.rounds.iter().map(|_| (0..parallel.len()).collect()).collect();
        run.rounds.iter_mut().for_each(|round| round.warmup = round.index < warmup);
        for (n, (parallel, subject, control)) in parallel.iter().enumerate() {
            let role = match (n, control) { (0, _) => Role::Baseline, (_, true) => Role::Control, _ => Role::Peer };
            let mut cell = cell(&format!("cell-{n}"), role);
            cell.parallel = *parallel;
            cell.subject = format!("subject-{subject}");
            run.cells.push(cell);
        }
        let mut times = times.iter().cycle();
        for round in 0..rounds + warmup {
            for (n, (parallel, ..)) in parallel.iter().enumerate() {
                for instance in 0..*parallel {
                    let outcome = times.next().copied().flatten().map_or_else(failed, ready);
                    run.samples.push(isolab_reports::model::Sample { cell: n, round, instance, outcome });
                }
            }
        }
        render(&run);
    }
}
