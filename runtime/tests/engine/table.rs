//! docker's own help beside ours: each of its flags of `run` and each of its verbs is here, or is told of. The table that
//! comes of it is a chapter of the book; `ISOLAB_RENEW=1` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::lab::{CTR, has, same};
use super::needs;

const CHAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/docker.md");
/// What the table stands behind.
const MARK: &str = "<!-- What follows is written by the test each_flag_and_verb_of_docker_is_here_or_is_told_of. -->\n";
/// docker's verbs that have verbs of their own, which are here, too.
const GROUPS: [&str; 7] = ["checkpoint", "container", "image", "manifest", "network", "system", "volume"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![needs::trial("each_flag_and_verb_of_docker_is_here_or_is_told_of", &["docker"], table)]
}

/// A flag of a help text: its letter, if it has one, and its word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Flag {
    word: String,
    letter: Option<String>,
}

fn table() -> Result<(), Failed> {
    let chapter = std::fs::read_to_string(CHAPTER)?;
    let (text, _) = chapter.split_once(MARK).ok_or("no mark in the chapter")?;
    let rows = [flag_rows(text)?, verb_rows()?];
    if std::env::var_os("ISOLAB_RENEW").is_some() {
        let [flags, verbs] = rows;
        let mut whole = format!("{text}{MARK}\n## Flags of `run` and `create`\n\n| docker | isolab-ctr |\n|---|---|\n");
        whole.push_str(&flags.concat());
        whole.push_str("\n## Verbs\n\n| docker | isolab-ctr | flags of docker's that are not here |\n|---|---|---|\n");
        whole.push_str(&verbs.concat());
        return Ok(std::fs::write(Path::new(CHAPTER), whole)?);
    }
    // Another docker than the chapter's may have fewer flags, but none that stands there otherwise.
    let [flags, verbs] = rows;
    for row in &flags {
        has(&chapter, row)?;
    }
    for row in &verbs {
        // The last column depends on docker's version.
        let verb = row.rsplit_once(" | ").map_or(row.as_str(), |(verb, _)| verb);
        has(&chapter, verb)?;
    }
    Ok(())
}

/// `told` is the part of the chapter that tells which flags mean something else.
fn flag_rows(told: &str) -> Result<Vec<String>, Failed> {
    let (theirs, ours) = (flags("docker", &["run"])?, flags(CTR, &["run"])?);
    same(&(theirs.len() > 80), &true)?;
    let mut rows = Vec::new();
    for flag in &theirs {
        let name = flag.letter.iter().chain([&flag.word]).map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
        let here = ours.iter().find(|own| own.word == flag.word);
        // Whoever has the word has the letter.
        if let Some(own) = here {
            same(&(flag, &own.letter), &(flag, &flag.letter))?;
        }
        let differs = told.lines().any(|line| line.starts_with(&format!("- `{}`", flag.word)));
        let told = match here {
            Some(_) if differs => "here, and means something else: see above".to_owned(),
            Some(_) => "the same".to_owned(),
            None => format!("not here: {}", instead(&["run", &flag.word, "x", "y"], &flag.word)?),
        };
        rows.push(format!("| {name} | {told} |\n"));
    }
    Ok(rows)
}

fn verb_rows() -> Result<Vec<String>, Failed> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for verb in verbs("docker", &[])? {
        if GROUPS.contains(&verb.as_str()) {
            let inner = verbs("docker", &[verb.as_str()])?;
            all.extend(inner.into_iter().map(|inner| vec![verb.clone(), inner]));
        } else {
            all.push(vec![verb]);
        }
    }
    same(&(all.len() > 90), &true)?;
    all.sort();
    let mut rows = Vec::new();
    for words in &all {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = words.join(" ");
        if !Command::new(CTR).args(&words).arg("--help").output()?.status.success() {
            rows.push(format!("| `{name}` | not here: {} | |\n", instead(&words, &name)?));
            continue;
        }
        let (theirs, ours) = (flags("docker", &words)?, flags(CTR, &words)?);
        let mut missing = String::new();
        // Those of `run` have a table of their own.
        let asked = if matches!(words.last(), Some(&"run" | &"create")) && words.first() != Some(&"network") {
            BTreeSet::new()
        } else {
            theirs
        };
        for flag in asked.iter().filter(|flag| !ours.iter().any(|own| own.word == flag.word)) {
            write!(missing, "{}`{}`", if missing.is_empty() { "" } else { ", " }, flag.word)?;
        }
        rows.push(format!("| `{name}` | the same | {missing} |\n"));
    }
    Ok(rows)
}

/// What we say to use in place of what is not here.
fn instead(words: &[&str], name: &str) -> Result<String, Failed> {
    let output = Command::new(CTR).args(words).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    has(&told, &format!("docker's {name} is not here"))?;
    same(&output.status.code(), &Some(125))?;
    Ok(told.split_once("hint: ").map(|(_, hint)| hint.trim().to_owned()).ok_or("no hint")?)
}

fn help(command: &str, words: &[&str]) -> Result<String, Failed> {
    let output = Command::new(command).args(words).arg("--help").output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The flags that a help text begins a line with.
fn flags(command: &str, words: &[&str]) -> Result<BTreeSet<Flag>, Failed> {
    let text = help(command, words)?;
    let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.filter_map(|line| {
        let mut parts = line.split([' ', ',']).filter(|part| !part.is_empty());
        let first = parts.next()?;
        let letter = (first.len() == 2).then(|| first.to_owned());
        let word = if letter.is_some() { parts.next()? } else { first };
        let word = word.split(['=', '[']).next()?.to_owned();
        (word.starts_with("--") && word != "--help").then_some(Flag { word, letter })
    });
    Ok(flags.collect())
}

/// The verbs that a help text lists, each with a word of its own at the beginning of a line.
fn verbs(command: &str, words: &[&str]) -> Result<Vec<String>, Failed> {
    let text = help(command, words)?;
    let mut listing = false;
    let mut all = Vec::new();
    for line in text.lines() {
        if line.ends_with("Commands:") {
            listing = true;
        } else if !line.starts_with("  ") {
            listing = listing && line.is_empty();
        } else if let (true, Some(verb)) = (listing, line.strip_prefix("  ").and_then(|line| line.split(' ').next())) {
            // docker marks a plugin's by a star.
            all.extend((!verb.is_empty()).then(|| verb.trim_end_matches('*').to_owned()));
        }
    }
    Ok(all)
}
