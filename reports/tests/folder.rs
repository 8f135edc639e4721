//! What a report is written over, and what it never touches.

mod support;

use std::fs;
use std::path::Path;

use isolab_reports::folder::{self, FolderError, Record};
use isolab_reports::{read, report};

fn small_report() -> Vec<report::File> {
    let run = support::run_of(1, 2, |_, _| support::ready(1_000));
    report::render(&run)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_report_goes_into_a_folder_that_is_new_and_over_an_earlier_one() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("a/b");
    folder::write(&out, &small_report()).expect("a new folder");
    let expected = ["charts", "index.html", "report.md", "samples.csv", "summary.csv"];
    assert_eq!(names(&out), expected);
    folder::write(&out, &small_report()).expect("an earlier report");
    assert_eq!(names(&out), expected);
}

#[test]
fn a_strangers_file_is_never_written_beside_or_over() {
    for stranger in ["notes.txt", "index.html", "run.json"] {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        fs::write(scratch.path().join(stranger), "<html>mine</html>").expect("a file");
        let error = folder::write(scratch.path(), &small_report()).expect_err("refused");
        assert!(matches!(&error, FolderError::NotOurs { stranger: name, .. } if name == stranger), "{error}");
        assert_eq!(names(scratch.path()), [stranger]);
    }
}

#[test]
fn a_run_alone_is_the_beginning_of_a_report_and_stays_as_it_is() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (text, run) = support::fixture();
    let own = scratch.path().join("run.json");
    fs::write(&own, &text).expect("a file");
    folder::write_run(scratch.path(), Record::At(&own), &report::render(&run)).expect("over its own run");
    assert_eq!(fs::read_to_string(&own).expect("the run"), text);
}

#[test]
fn a_report_repeats_its_run_byte_for_byte() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (text, run) = support::fixture();
    let out = scratch.path().join("out");
    folder::write_run(&out, Record::At(&support::path("fixtures/run.json")), &report::render(&run)).expect("a report");
    assert_eq!(fs::read_to_string(out.join("run.json")).expect("the run"), text);
}

#[test]
fn a_run_that_was_just_made_is_written_so_that_it_reads_the_same() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (_, run) = support::fixture();
    folder::write_run(scratch.path(), Record::New(&run), &report::render(&run)).expect("a report");
    let written = fs::read_to_string(scratch.path().join("run.json")).expect("the run");
    assert_eq!(read::read(&written).expect("a run"), run);
}

#[test]
fn what_an_earlier_report_had_and_a_dead_writer_left_is_removed() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (_, run) = support::fixture();
    folder::write(scratch.path(), &report::render(&run)).expect("five charts");
    assert!(scratch.path().join("charts/parallel.svg").exists());
    fs::write(scratch.path().join(".tmp-1-index.html"), "half").expect("a file");
    fs::write(scratch.path().join("charts/.tmp-1-phases.svg"), "half").expect("a file");
    folder::write(scratch.path(), &small_report()).expect("fewer charts");
    assert!(!scratch.path().join("charts/parallel.svg").exists());
    assert!(
        names(scratch.path())
            .iter()
            .chain(&names(&scratch.path().join("charts")))
            .all(|name| !name.starts_with(".tmp"))
    );
}

#[test]
fn a_file_is_no_folder() {
    let scratch = tempfile::NamedTempFile::new().expect("a file");
    let error = folder::check(scratch.path()).expect_err("refused");
    assert!(matches!(error, FolderError::NotAFolder(_)), "{error}");
    let error = folder::check(&scratch.path().join("below")).expect_err("refused");
    assert!(matches!(error, FolderError::Io { .. }), "{error}");
}

#[test]
fn a_check_leaves_the_folder_as_it_was() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    folder::check(scratch.path()).expect("an empty folder");
    assert!(names(scratch.path()).is_empty());
}
