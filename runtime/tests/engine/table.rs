//! docker's own help beside ours: each of its flags of `run` is one of ours, or is told of.

use std::collections::BTreeSet;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::lab::{CTR, same};
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    vec![needs::trial("each_flag_of_dockers_run_is_here_or_is_told_of", &["docker"], table)]
}

fn table() -> Result<(), Failed> {
    let (theirs, ours) = (flags("docker")?, flags(CTR)?);
    same(&(theirs.len() > 80), &true)?;
    let mut silent = Vec::new();
    for flag in theirs.iter().filter(|flag| !ours.contains(*flag)) {
        let output = Command::new(CTR).args(["run", flag, "x", "y"]).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if !told.contains(&format!("docker's {flag} is not here")) || output.status.code() != Some(125) {
            silent.push(flag.clone());
        }
    }
    same(&silent, &Vec::new())
}

/// The flags that a command's help for `run` begins a line with.
fn flags(command: &str) -> Result<BTreeSet<String>, Failed> {
    let output = Command::new(command).args(["run", "--help"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.filter_map(|line| {
        let flag = line.split([' ', ',']).find(|word| word.starts_with("--"))?;
        Some(flag.split(['=', '[']).next().unwrap_or_default().to_owned())
    });
    Ok(flags.collect())
}
