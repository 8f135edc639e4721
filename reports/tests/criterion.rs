//! `isolab-report criterion`: criterion's results become a page; what is none is told plainly.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use isolab_reports::criterion::{CriterionError, read};
use isolab_reports::report;

/// Writes a benchmark as criterion does.
fn put(results: &Path, folder: &str, named: &str, sample: &str) {
    let newest = results.join(folder).join("new");
    fs::create_dir_all(&newest).expect("a folder");
    fs::write(newest.join("benchmark.json"), named).expect("a file");
    fs::write(newest.join("sample.json"), sample).expect("a file");
}

fn name(group: &str, function: &str, value: &str) -> String {
    format!("{{\"group_id\":\"{group}\",\"function_id\":{function},\"value_str\":{value},\"throughput\":null}}")
}

/// Two groups, one with a benchmark at two values.
fn results() -> tempfile::TempDir {
    let results = tempfile::tempdir().expect("a folder");
    let flat = "{\"sampling_mode\":\"Flat\",\"iters\":[2.0,2.0,2.0,2.0,2.0,2.0],\"times\":[2e3,4e3,6e3,8e3,10e3,12e3]}";
    let linear = "{\"sampling_mode\":\"Linear\",\"iters\":[1.0,2.0,3.0],\"times\":[50.0,100.0,150.0]}";
    put(results.path(), "startup/process", &name("startup", "\"process\"", "null"), flat);
    put(results.path(), "hot/hash/1024", &name("hot", "\"hash\"", "\"1024\""), linear);
    put(results.path(), "hot/hash/<b>", &name("hot", "\"hash\"", "\"<b>\""), flat);
    // What criterion keeps beside: the results before, and its own pages.
    fs::create_dir_all(results.path().join("report")).expect("a folder");
    fs::create_dir_all(results.path().join("startup/process/base")).expect("a folder");
    results
}

#[test]
fn medians_are_of_the_time_an_iteration_takes() {
    let results = results();
    let groups = read(results.path()).expect("results");
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["hot", "startup"]);
    let hot: Vec<_> = groups[0].benchmarks.iter().map(|one| (one.name.as_str(), one.median.estimate)).collect();
    assert_eq!(hot, [("hash/1024", 50.0), ("hash/<b>", 3500.0)]);
    // Of six numbers, as counted by hand in the bootstrap's own tests; of three there is no interval.
    let median = groups[1].benchmarks[0].median;
    assert_eq!((median.low, median.estimate, median.high), (1500.0, 3500.0, 5500.0));
    assert!(!groups[0].benchmarks[0].median.is_bounded());
}

#[test]
fn the_page_shows_each_benchmark_and_takes_no_markup_from_its_name() {
    let results = results();
    let files = report::criterion(&read(results.path()).expect("results"));
    let text = |name: &str| {
        let file = files.iter().find(|file| file.name == name).expect("the file");
        String::from_utf8(file.bytes.clone()).expect("text")
    };
    let page = text("index.html");
    for part in ["hash/1024", "hash/&lt;b&gt;", "50.0\u{a0}ns", "3.50\u{a0}µs", "no interval", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<b>") && !page.contains("<script"));
    assert!(text("report.md").contains("| hash/1024 | 50.0"));
    roxmltree::Document::parse(&text("charts/criterion.svg")).expect("a picture");
}

fn command(results: &Path, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-report"));
    command.arg("criterion").arg(results).arg("--out").arg(out).output().expect("the command starts")
}

#[test]
fn the_command_writes_a_folder_and_writes_it_again() {
    let (results, scratch) = (results(), tempfile::tempdir().expect("a folder"));
    let out = scratch.path().join("out");
    for _ in 0..2 {
        let output = command(results.path(), &out);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(out.join("index.html").is_file() && out.join("charts/criterion.svg").is_file());
}

#[test]
fn what_is_no_result_is_told_with_its_file() {
    let good = "{\"iters\":[1.0],\"times\":[1.0]}";
    let cases = [
        (name("g", "null", "null"), "{\"iters\":[1.0,1.0],\"times\":[1.0]}", "not as many times"),
        (name("g", "null", "null"), "{\"iters\":[0.0],\"times\":[1.0]}", "no iterations"),
        (name("g", "null", "null"), "{\"iters\":[1.0],\"times\":[-1.0]}", "no clock"),
        (name("g", "null", "null"), "{\"iters\":[],\"times\":[]}", "no samples"),
        (name("g", "null", "null"), "{\"iters\":[1.0],\"tim", "no result of criterion"),
        ("[]".to_owned(), good, "no result of criterion"),
    ];
    for (named, sample, expected) in cases {
        let (results, scratch) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        put(results.path(), "g", &named, sample);
        let output = command(results.path(), &scratch.path().join("out"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && said.contains(".json") && said.contains("\nhint: "), "{said}");
    }
    let empty = tempfile::tempdir().expect("a folder");
    assert!(matches!(read(empty.path()), Err(CriterionError::Empty(_))));
    assert!(matches!(read(&empty.path().join("none")), Err(CriterionError::Open { .. })));
}
