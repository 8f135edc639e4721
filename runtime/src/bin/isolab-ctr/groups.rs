//! docker's newer form of its verbs, in groups: `container ls` is `ps`, `image rm` is `rmi`. They are made the plain ones
//! before anything is read of them, so both forms have the same flags and the same help.

use std::ffi::{OsStr, OsString};

use clap::{Args, Subcommand};
use isolab_runtime::engine::{Engine, Record};

use crate::print;
use crate::voice::Failure;

/// Verbs of a group that are called otherwise outside of it.
const OTHERWISE: [(&str, &str, &str); 10] = [
    ("container", "ls", "ps"),
    ("container", "list", "ps"),
    ("container", "remove", "rm"),
    ("image", "ls", "images"),
    ("image", "list", "images"),
    ("image", "rm", "rmi"),
    ("image", "remove", "rmi"),
    ("builder", "build", "build"),
    ("system", "info", "info"),
    ("system", "events", "events"),
];
/// Those that are called the same.
const SAME: [(&str, &[&str]); 2] = [
    (
        "container",
        &[
            "attach", "clone", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "pause",
            "port", "ps", "rename", "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update",
            "wait",
        ],
    ),
    ("image", &["build", "history", "import", "inspect", "load", "prune", "pull", "push", "save", "tag"]),
];

/// What `container` has besides the verbs of containers.
#[derive(Subcommand)]
#[command(
    after_help = "Besides, every verb of containers: `container ls` is `ps`, `container run` is `run`, and so on."
)]
pub(crate) enum Container {
    /// Remove the containers that don't run
    Prune(Prune),
}

#[derive(Args)]
pub(crate) struct Prune {
    /// For docker's scripts: nothing is asked
    #[arg(short, long)]
    force: bool,
    /// Only containers with this: label=NAME[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Prune {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let mut labels = Vec::new();
        for text in &self.filter {
            let expected = "label=NAME or label=NAME=VALUE";
            let wrong = || isolab_runtime::engine::WishError { text: text.clone(), expected };
            let label = text.strip_prefix("label=").ok_or_else(wrong)?;
            labels.push(label.split_once('=').map_or((label, None), |(name, value)| (name, Some(value))));
        }
        let fits = |record: &Record| labels.iter().all(|(name, value)| record.has_label(name, *value));
        let (removed, bytes) = engine.prune_containers(fits)?;
        let lines: String = removed.iter().flat_map(|id| ["Deleted: container ", id.as_str(), "\n"]).collect();
        print::text(&format!("{lines}Space reclaimed: {}\n", print::size(bytes)))?;
        Ok(0)
    }
}

/// The command line with the plain form of its verb.
pub(crate) fn plain(mut words: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = verb(&words) else { return words };
    let text = |at: usize| words.get(at).and_then(|word| word.to_str());
    let (Some(group), Some(verb)) = (text(at), text(at + 1)) else { return words };
    let other = OTHERWISE.iter().find(|(of, name, _)| (*of, *name) == (group, verb)).map(|(_, _, plain)| *plain);
    let same = || SAME.iter().any(|(of, verbs)| *of == group && verbs.contains(&verb));
    if let Some(plain) = other.or_else(|| same().then_some(verb)) {
        let plain = OsString::from(plain);
        words.splice(at..=at + 1, [plain]);
    }
    words
}

/// Where the verb stands in a command line.
pub(crate) fn verb(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        match words.get(at)?.to_str() {
            Some("--root") => at += 2,
            Some(flag) if flag.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
}

/// The verb itself.
pub(crate) fn verb_of(words: &[OsString]) -> Option<&OsStr> {
    words.get(verb(words)?).map(OsString::as_os_str)
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_group_is_another_way_to_say_a_verb() {
        let told = |line: &str| {
            let words = plain(line.split(' ').map(Into::into).collect());
            words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told("isolab-ctr container ls -a"), "isolab-ctr ps -a");
        assert_eq!(
            told("isolab-ctr --root container --explain container run x"),
            "isolab-ctr --root container --explain run x"
        );
        assert_eq!(told("isolab-ctr image rm x"), "isolab-ctr rmi x");
        for line in ["isolab-ctr run image ls", "isolab-ctr container prune", "isolab-ctr image layers x", "isolab-ctr"]
        {
            assert_eq!(told(line), line);
        }
    }
}
