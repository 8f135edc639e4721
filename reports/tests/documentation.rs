//! The schema's description in the course book names every field there is, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fields of the structures in `model.rs` that become fields of the file.
fn fields_of_the_model() -> BTreeSet<String> {
    let model = read("src/model.rs") + &read("src/model/density.rs");
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
    ] {
        assert!(description.contains(&format!("`{word}`")), "{word}");
    }
}
