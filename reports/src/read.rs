//! A run, read from the text of `run.json`, or a plain word on why it is none.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};

use serde::Deserialize;
use thiserror::Error;

use crate::model::{Copies, CopyOutcome, Density, OLDEST_VERSION, Outcome, Run, SCHEMA_VERSION};

/// Why a text is no run that a report could be made from.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The text ends before the run does.
    #[error("the file ends in the middle, at line {line}: it was cut short")]
    CutShort {
        /// The last line there is.
        line: usize,
    },
    /// The text is not JSON, or not a run.
    #[error("this is no run of the lab")]
    Malformed(#[source] serde_json::Error),
    /// A number that is none: a program that computes with NaN wrote it, or a hand did.
    #[error("NaN, an infinity or null stands for a number, at line {line}, column {column}")]
    NoNumber {
        /// In which line.
        line: usize,
        /// At which byte of it.
        column: usize,
    },
    /// Another version of the lab wrote it.
    #[error("the run has schema version {found}; this report reads versions {OLDEST_VERSION} to {SCHEMA_VERSION}")]
    OtherVersion {
        /// The version that the file names.
        found: u64,
    },
    /// The system refused to hand it over.
    #[error("it can't be read to its end")]
    Unreadable(#[source] io::Error),
    /// It parses, but contradicts itself.
    #[error("the run contradicts itself: {0}")]
    Inconsistent(String),
}

impl ReadError {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::CutShort { .. } => {
                "copy the file again, or make the run again: a run writes its file whole or not at all"
            }
            Self::Unreadable(_) => "look at the disk that it lies on",
            Self::Malformed(_) => "give the run.json that `isolab-bench run` wrote",
            Self::OtherVersion { found } if *found > u64::from(SCHEMA_VERSION) => {
                "use the isolab-report of the version that wrote it (\"tool\" in the file names it)"
            }
            Self::OtherVersion { .. } => "make the run again with this version of the lab",
            Self::NoNumber { .. } | Self::Inconsistent(_) => {
                "the file was edited or damaged; go back to the one that the run wrote"
            }
        }
    }
}

/// Parses and validates a `run.json`.
pub fn read(text: &str) -> Result<Run, ReadError> {
    read_from(Cursor::new(text))
}

/// Parses and validates a `run.json` as it comes: the text of a long run is larger than the run, and never kept whole.
pub fn read_from(mut source: impl Read + Seek) -> Result<Run, ReadError> {
    match serde_json::from_reader(BufReader::with_capacity(PIECE, &mut source)) {
        Ok(run) => validate(&run).map(|()| run),
        Err(error) => Err(why_not(source, error)),
    }
}

/// How much of a file is asked for at a time, in bytes.
const PIECE: usize = 1 << 16;

/// Why a text is no run. A newer schema should be called newer, not malformed.
fn why_not(mut source: impl Read + Seek, error: serde_json::Error) -> ReadError {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u64,
    }
    if error.is_io() {
        return ReadError::Unreadable(error.into());
    }
    let again = source.rewind().map(|()| serde_json::from_reader(BufReader::with_capacity(PIECE, &mut source)));
    match again {
        Ok(Ok(Versioned { schema_version: found })) if !known(found) => ReadError::OtherVersion { found },
        Ok(_) => parse_error(source, error),
        Err(error) => ReadError::Unreadable(error),
    }
}

fn known(version: u64) -> bool {
    (u64::from(OLDEST_VERSION)..=u64::from(SCHEMA_VERSION)).contains(&version)
}

fn parse_error(source: impl Read + Seek, error: serde_json::Error) -> ReadError {
    let (line, column) = (error.line(), error.column());
    if error.is_eof() {
        return ReadError::CutShort { line };
    }
    // JSON has no word for such a number. Python writes NaN and Infinity, and others, as serde_json, null.
    let told = error.to_string();
    let kind = told.strip_prefix("invalid type: null, expected ").and_then(|rest| rest.split(' ').next());
    let null = kind.is_some_and(|kind| ["u8", "u16", "u32", "u64", "usize", "f64"].contains(&kind));
    let word = || at(source, line, column).is_ok_and(|word| word.starts_with(b"NaN") || word.starts_with(b"Inf"));
    if null || word() { ReadError::NoNumber { line, column } } else { ReadError::Malformed(error) }
}

/// The three bytes at a place of a text, lines and columns counted from 1; a sign is passed over.
fn at(mut source: impl Read + Seek, line: usize, column: usize) -> io::Result<Vec<u8>> {
    source.rewind()?;
    let mut text = BufReader::with_capacity(PIECE, source);
    for _ in 1..line {
        text.skip_until(b'\n')?;
    }
    io::copy(&mut text.by_ref().take(column.saturating_sub(1) as u64), &mut io::sink())?;
    text.bytes().filter(|byte| !matches!(byte, Ok(b'-'))).take(3).collect()
}

/// Checks what the types cannot: that places, rounds and names refer to what is there, once, and that numbers are ones.
pub fn validate(run: &Run) -> Result<(), ReadError> {
    let check = |holds: bool, message: String| if holds { Ok(()) } else { Err(ReadError::Inconsistent(message)) };
    if !known(u64::from(run.schema_version)) {
        return Err(ReadError::OtherVersion { found: u64::from(run.schema_version) });
    }
    let mut names = BTreeSet::new();
    for cell in &run.cells {
        check(names.insert(&cell.name), format!("two cells are called {:?}", cell.name))?;
        check(cell.parallel > 0, format!("cell {:?} starts 0 at once", cell.name))?;
    }
    let mut rounds = BTreeSet::new();
    // Weights are kept by round number, so a number must not be far above the count of rounds: the plan lists each.
    let planned = run.plan.order.len();
    for round in &run.rounds {
        let index = round.index;
        check(rounds.insert(index), format!("round {index} is there twice"))?;
        check((index as usize) < planned, format!("round {index} lies past the {planned} rounds of the plan"))?;
        let shares = [Some(round.load1), Some(round.steal), round.cpu_pressure];
        let finite = shares.iter().flatten().all(|share| share.is_finite() && *share >= 0.0);
        check(finite, format!("round {index} has a load, steal or pressure that is no number"))?;
    }
    let count = run.cells.len();
    for (place, cell) in run.plan.order.iter().flatten().enumerate() {
        check(*cell < count, format!("the plan's start {place} names cell {cell} of {count}"))?;
    }
    validate_samples(run, &rounds)?;
    run.density.as_ref().map_or(Ok(()), validate_density)?;
    run.snapshot.iter().chain(&run.clone).try_for_each(validate_copies)?;
    for verdict in &run.verdicts {
        let finite = [verdict.ratio, verdict.low, verdict.high].iter().all(|ratio| ratio.is_finite());
        check(finite, format!("the verdict on {:?} has a ratio that is no number", verdict.cell))?;
    }
    Ok(())
}

fn validate_samples(run: &Run, rounds: &BTreeSet<u32>) -> Result<(), ReadError> {
    let mut starts = BTreeSet::new();
    for (place, sample) in run.samples.iter().enumerate() {
        let wrong = |what: String| Err(ReadError::Inconsistent(format!("sample {place} {what}")));
        let Some(cell) = run.cells.get(sample.cell) else {
            return wrong(format!("names cell {} of {}", sample.cell, run.cells.len()));
        };
        if !rounds.contains(&sample.round) {
            return wrong(format!("names round {}, which is not there", sample.round));
        }
        if sample.instance >= cell.parallel {
            return wrong(format!(
                "is instance {} of {:?}, which starts {}",
                sample.instance, cell.name, cell.parallel
            ));
        }
        if !starts.insert((sample.round, sample.cell, sample.instance)) {
            return wrong(format!("repeats a start of {:?} in round {}", cell.name, sample.round));
        }
        if let Outcome::Ready(timing) = &sample.outcome
            && timing.ready_ns == 0
        {
            return wrong("was ready in no time at all".to_owned());
        }
    }
    Ok(())
}

/// Ladders must name cells that are there, and their rungs must ascend from no instance.
fn validate_density(density: &Density) -> Result<(), ReadError> {
    let mut names = BTreeSet::new();
    for cell in &density.cells {
        if !names.insert(&cell.name) {
            return Err(ReadError::Inconsistent(format!("two cells of density are called {:?}", cell.name)));
        }
    }
    let mut climbed = BTreeSet::new();
    for (place, ladder) in density.ladders.iter().enumerate() {
        let wrong = |what: String| Err(ReadError::Inconsistent(format!("ladder {place} {what}")));
        if ladder.cell >= density.cells.len() {
            return wrong(format!("names cell {} of {}", ladder.cell, density.cells.len()));
        }
        if !climbed.insert((ladder.cell, ladder.pass)) {
            return wrong(format!("repeats pass {} of its cell", ladder.pass));
        }
        if ladder.rungs.first().is_some_and(|rung| rung.alive != 0) {
            return wrong("doesn't begin with no instance alive".to_owned());
        }
        for pair in ladder.rungs.windows(2) {
            let [below, above] = pair else { continue };
            if above.alive <= below.alive {
                return wrong(format!("goes from {} alive to {}", below.alive, above.alive));
            }
            if above.starts_ns.len() as u64 != u64::from(above.alive - below.alive) {
                let (starts, grown) = (above.starts_ns.len(), above.alive - below.alive);
                return wrong(format!("has {starts} starts where {grown} came to life"));
            }
        }
    }
    Ok(())
}

/// Acts must be of cells that are there, each once, and have taken some time.
fn validate_copies(copies: &Copies) -> Result<(), ReadError> {
    let mut names = BTreeSet::new();
    for cell in &copies.cells {
        if !names.insert(&cell.name) {
            return Err(ReadError::Inconsistent(format!("two cells of copies are called {:?}", cell.name)));
        }
    }
    let mut made = BTreeSet::new();
    for (place, sample) in copies.samples.iter().enumerate() {
        let wrong = |what: String| Err(ReadError::Inconsistent(format!("copy {place} {what}")));
        let Some(cell) = copies.cells.get(sample.cell) else {
            return wrong(format!("names cell {} of {}", sample.cell, copies.cells.len()));
        };
        // Numbers of rounds are counted, never used as places: a large one does no harm.
        if sample.instance >= cell.together {
            return wrong(format!("is instance {} of {:?}, which makes {}", sample.instance, cell.name, cell.together));
        }
        if !made.insert((sample.round, sample.cell, sample.instance)) {
            return wrong(format!("repeats an act of {:?} in round {}", cell.name, sample.round));
        }
        if matches!(&sample.outcome, CopyOutcome::Done(cost) if cost.ready_ns == 0) {
            return wrong("was done in no time at all".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edit: impl Fn(&mut serde_json::Value)) -> Result<Run, ReadError> {
        let mut json = serde_json::from_str(include_str!("../tests/fixtures/run.json")).expect("the fixture is JSON");
        edit(&mut json);
        read(&json.to_string())
    }

    fn contradiction(edit: impl Fn(&mut serde_json::Value)) -> String {
        match edited(edit) {
            Err(ReadError::Inconsistent(what)) => what,
            other => panic!("expected a contradiction, got {other:?}"),
        }
    }

    #[test]
    fn the_fixture_is_a_run() {
        assert_eq!(edited(|_| ()).expect("a run").schema_version, SCHEMA_VERSION);
    }

    #[test]
    fn a_newer_schema_is_called_newer_even_where_it_looks_different() {
        let error = read(r#"{"schema_version": 7, "everything": "else"}"#).expect_err("newer");
        assert!(matches!(error, ReadError::OtherVersion { found: 7 }));
        assert!(error.hint().contains("version that wrote it"), "{}", error.hint());
    }

    #[test]
    fn a_file_cut_short_is_called_that_with_its_last_line() {
        let error = read("{\n\"schema_version\": 1,\n\"started\": \"20").expect_err("cut");
        assert_eq!(error.to_string(), "the file ends in the middle, at line 3: it was cut short");
    }

    #[test]
    fn what_is_no_run_is_refused() {
        for text in ["[]", "{}", "null", "{\"schema_version\": \"1\"}", "{\"schema_version\": 1}", "<html>"] {
            assert!(matches!(read(text), Err(ReadError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_place_or_a_round_that_is_not_there_is_a_contradiction() {
        assert!(contradiction(|run| run["samples"][0]["cell"] = 99.into()).contains("names cell 99"));
        assert!(contradiction(|run| run["samples"][0]["round"] = 99_999.into()).contains("names round 99999"));
        assert!(contradiction(|run| run["samples"][0]["instance"] = 64.into()).contains("is instance 64"));
        assert!(contradiction(|run| run["plan"]["order"][0][0] = 99.into()).contains("names cell 99"));
        assert!(contradiction(|run| run["rounds"][0]["index"] = 4_000_000_000_u32.into()).contains("past the"));
    }

    #[test]
    fn what_must_be_unique_is() {
        assert!(contradiction(|run| run["cells"][1]["name"] = run["cells"][0]["name"].clone()).contains("two cells"));
        assert!(contradiction(|run| run["rounds"][1] = run["rounds"][0].clone()).contains("is there twice"));
        assert!(contradiction(|run| run["samples"][1] = run["samples"][0].clone()).contains("repeats a start"));
    }

    #[test]
    fn a_ladder_must_climb_and_name_a_cell_that_is_there() {
        assert!(contradiction(|run| run["density"]["ladders"][0]["cell"] = 99.into()).contains("names cell 99"));
        assert!(
            contradiction(|run| run["density"]["ladders"][0]["rungs"][0]["alive"] = 1.into()).contains("no instance")
        );
        assert!(
            contradiction(|run| run["density"]["ladders"][0]["rungs"][2]["alive"] = 1.into()).contains("alive to 1")
        );
        assert!(
            contradiction(|run| run["density"]["ladders"][0]["rungs"][1]["starts_ns"] = serde_json::json!([1, 2]))
                .contains("has 2 starts where 1 came to life")
        );
        assert!(
            contradiction(|run| run["density"]["ladders"][1] = run["density"]["ladders"][0].clone())
                .contains("repeats")
        );
    }

    #[test]
    fn a_number_that_cannot_be_is_refused() {
        assert!(contradiction(|run| run["rounds"][0]["steal"] = (-0.5).into()).contains("no number"));
        assert!(contradiction(|run| run["cells"][0]["parallel"] = 0.into()).contains("starts 0 at once"));
        let nan = edited(|run| run["rounds"][0]["load1"] = serde_json::Value::Null);
        assert!(matches!(nan, Err(ReadError::NoNumber { .. })), "{nan:?}");
    }
}
