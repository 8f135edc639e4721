//! What is written about results is what results say: the schema's description names every field there is, and no other; the
//! README's figures are those of the committed sample.
//!
//! `ISOLAB_RENEW=1 cargo test -p isolab-reports --test documentation` makes page, chart and README's figures anew from the committed
//! run; `docs/sample/renew` makes that run anew.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use isolab_reports::{criterion, figures, read as runs, report};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fields of the structures in `model.rs` that become fields of the file.
fn fields_of_the_model() -> BTreeSet<String> {
    let model = read("src/model.rs") + &read("src/model/density.rs") + &read("src/model/copies.rs");
    let field = |line: &str| {
        let line = line.trim();
        // Fields of structures are public; `reason` is the one field of an enum's variant.
        let declared = line.strip_prefix("pub ").or_else(|| line.starts_with("reason:").then_some(line))?;
        let (name, _) = declared.split_once(": ")?;
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_name.then(|| name.to_owned())
    };
    model.lines().filter_map(field).collect()
}

/// What stands first in the rows of the description's tables.
fn fields_of_the_description() -> BTreeSet<String> {
    let description = read("../docs/src/run-json.md");
    let rows = description.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_field_of_the_schema_is_described_and_no_other_is() {
    let (model, description) = (fields_of_the_model(), fields_of_the_description());
    assert!(model.len() > 50, "fields are found in the source: {model:?}");
    assert_eq!(model, description);
}

#[test]
fn every_word_of_an_enumeration_is_described() {
    let description = read("../docs/src/run-json.md");
    for word in [
        "complete",
        "memory",
        "budget",
        "interrupted",
        "baseline",
        "subject",
        "control",
        "peer",
        "ready",
        "failed",
        "ok",
        "info",
        "warn",
        "missing",
        "faster",
        "slower",
        "no_difference",
        "inconclusive",
        "create",
        "lazy",
        "eager",
        "prefetched",
        "diff",
        "plain",
        "served",
        "commit",
        "checkpoint",
        "linked",
        "full",
        "size",
        "touch",
        "depth",
        "together",
        "done",
    ] {
        assert!(description.contains(&format!("`{word}`")), "{word}");
    }
}

/// A file of the repository.
fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What stands in a file; with `ISOLAB_RENEW` in the environment, what should.
fn renewed(path: &str, should: &str) -> String {
    if std::env::var_os("ISOLAB_RENEW").is_some() {
        fs::write(place(path), should).expect("it can be written");
    }
    fs::read_to_string(place(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_figure_of_the_readme_is_in_the_committed_sample() {
    const BEGIN: &str = "<!-- figures of docs/sample/run.json.gz, made by docs/sample/renew -->\n";
    const BESIDE: &str = "<!-- figures of docs/sample/criterion, made by docs/sample/renew -->\n";
    let run = runs::read(&sample()).expect("a run");
    for file in report::render(&run) {
        if ["index.html", "charts/phases.svg"].contains(&file.name.as_str()) {
            let should = String::from_utf8(file.bytes).expect("UTF-8");
            let path = format!("docs/sample/{}", file.name);
            assert!(renewed(&path, &should) == should, "{path} is not the run's (ISOLAB_RENEW=1 renews it)");
        }
    }
    let groups = criterion::read(&place("docs/sample/criterion")).expect("criterion's results are there");
    for file in report::criterion(&groups) {
        if file.name == "index.html" {
            let should = String::from_utf8(file.bytes).expect("UTF-8");
            let path = "docs/sample/criterion.html";
            assert!(renewed(path, &should) == should, "{path} is not that of the results (ISOLAB_RENEW=1 renews it)");
        }
    }
    let readme = fs::read_to_string(place("README.md")).expect("the README is there");
    let should = with_figures(&readme, BEGIN, &figures::figures(&run));
    let should = with_figures(&should, BESIDE, &figures::runtimes(&groups).expect("the group of containers"));
    assert!(renewed("README.md", &should) == should, "the README has other figures (ISOLAB_RENEW=1 renews them)");
}

/// Besides those figures there is none but versions: of what is needed, and of what was measured.
#[test]
fn the_readme_states_no_figure_that_the_sample_does_not_hold() {
    const NEEDED: [&str; 8] = ["95", "1", "2", "v1", "v2", "x86-64", "1.95", "Apache-2.0"];
    let run = runs::read(&sample()).expect("a run");
    let measured: Vec<&str> = run.cells.iter().filter_map(|cell| cell.version.as_deref()).collect();
    let mut told = read("../README.md");
    for mark in ["<!-- figures", "```", "`", "]("] {
        let end = match mark {
            "<!-- figures" => "<!-- end of figures -->",
            "](" => ")",
            same => same,
        };
        told = without(&told, mark, end);
    }
    let words = told.split_whitespace().map(|word| word.trim_matches(|it: char| !it.is_alphanumeric()));
    let figures: Vec<&str> = words.filter(|word| word.contains(|it: char| it.is_ascii_digit())).collect();
    assert!(figures.contains(&"1.95"), "figures are found in the text: {figures:?}");
    for figure in figures {
        let version = measured.iter().any(|version| version.starts_with(figure));
        assert!(NEEDED.contains(&figure) || version, "{figure} is in no sample");
    }
}

/// A text without what stands from one mark to another.
fn without(text: &str, from: &str, to: &str) -> String {
    let mut parts = text.split(from);
    let first = parts.next().unwrap_or_default().to_owned();
    if from == to {
        return parts.skip(1).step_by(2).fold(first, |text, part| text + " " + part);
    }
    parts.fold(first, |text, part| text + " " + part.split_once(to).map_or("", |(_, rest)| rest))
}

/// The committed run.
fn sample() -> String {
    let packed = fs::read(place("docs/sample/run.json.gz")).expect("the sample is there");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).expect("gzip");
    text
}

/// A text with figures where a mark says that they are.
fn with_figures(text: &str, begin: &str, figures: &str) -> String {
    const END: &str = "<!-- end of figures -->";
    let (before, rest) = text.split_once(begin).expect("the README has figures");
    let (_, after) = rest.split_once(END).expect("they end");
    format!("{before}{begin}{figures}{END}{after}")
}
