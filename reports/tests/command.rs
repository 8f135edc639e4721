//! `isolab-report render`, as a user calls it.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn render(run: &Path, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-report"));
    command.arg("render").arg(run).arg("--out").arg(out).output().expect("the command starts")
}

fn complaint(run: &[u8]) -> String {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let path = scratch.path().join("run.json");
    fs::write(&path, run).expect("a file");
    let out = scratch.path().join("out");
    let output = render(&path, &out);
    assert_eq!(output.status.code(), Some(1));
    assert!(!out.exists(), "a refused run leaves no folder");
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(complaint.starts_with("error: ") && complaint.contains("\nhint: "), "{complaint}");
    complaint
}

#[test]
fn a_run_becomes_a_report_and_the_command_names_its_page() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("out");
    let output = render(&support::path("fixtures/run.json"), &out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), out.join("index.html").display().to_string());
    let fixture = fs::read(support::path("fixtures/run.json")).expect("the fixture");
    assert_eq!(fs::read(out.join("run.json")).expect("the copy"), fixture);
    // What it wrote, it reads.
    assert!(render(&out.join("run.json"), &out).status.success());
}

#[test]
fn each_bad_input_has_its_own_word() {
    let fixture = fs::read_to_string(support::path("fixtures/run.json")).expect("the fixture");
    assert!(complaint(b"not json").contains("no run of the lab"));
    assert!(complaint(&[0xff, 0xfe, 0x00]).contains("no run of the lab"));
    assert!(complaint(&fixture.as_bytes()[..fixture.len() / 2]).contains("cut short"));
    let newer = fixture.replacen("\"schema_version\":3", "\"schema_version\":4", 1);
    assert!(complaint(newer.as_bytes()).contains("schema version 4"));
    for none in ["NaN", "-Infinity", "Infinity"] {
        let none = fixture.replacen("\"ready_ns\":", &format!("\"ready_ns\":{none},\"other\":"), 1);
        assert!(complaint(none.as_bytes()).contains("stands for a number, at line 1"), "{none}");
    }
    let astray = fixture.replacen("\"samples\":[{\"cell\":", "\"samples\":[{\"cell\":9", 1);
    assert!(complaint(astray.as_bytes()).contains("contradicts itself"));
}

#[test]
fn a_run_that_is_not_there_and_a_folder_that_is_taken_are_told_apart() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let output = render(&scratch.path().join("nowhere.json"), &scratch.path().join("out"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.json: No such file"), "{output:?}");
    fs::write(scratch.path().join("mine.txt"), "mine").expect("a file");
    let output = render(&support::path("fixtures/run.json"), scratch.path());
    assert!(String::from_utf8_lossy(&output.stderr).contains("it holds mine.txt"), "{output:?}");
}

#[test]
fn without_a_browser_there_is_a_report_and_a_word_on_how_to_get_a_pdf() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-report"));
    command.arg("render").arg(support::path("fixtures/run.json")).arg("--pdf").arg("--out").arg(&out);
    let output = command.env("PATH", scratch.path()).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no Chromium is on PATH") && said.contains("hint: install it"), "{said}");
    assert!(out.join("index.html").is_file() && !out.join("report.pdf").exists());
}
