//! `build`: an image from a Dockerfile.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use isolab_runtime::build::{self, BuildError, Context, Progress, Request};
use isolab_runtime::container::{Runtime, default_root};
use isolab_runtime::engine::EngineError;
use isolab_runtime::image::{Reference, Store};

use crate::print;
use crate::voice::Failure;

#[derive(Args)]
pub(crate) struct Build {
    /// What the image is called; can be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<Reference>,
    /// The Dockerfile, `-` for standard input [default: DIR/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Give an ARG its value; a name alone takes the caller's variable
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,
    /// Build this stage and what it needs
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step again
    #[arg(long)]
    no_cache: bool,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// The folder that files come from
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn obey(wanted: &Build, store: &Store) -> Result<u8, Failure> {
    let request = wanted.request()?;
    let file = wanted.file.as_deref().filter(|file| *file != Path::new("-"));
    let context = Context::open(&wanted.folder, file)?;
    // Programs of a build are asked nothing and answer nobody.
    crate::containers::close_input()?;
    let root = default_root().map_err(EngineError::from)?;
    let runtime = Runtime::new(&root, |text| eprintln!("warning: {text}"));
    let teller = Teller { quiet: wanted.quiet, colours: colours() };
    let id = build::build(store, &runtime, &context, &request, &teller)?;
    if !wanted.quiet {
        for name in &wanted.tags {
            eprintln!("named {}", name.familiar());
        }
    }
    print::text(&format!("{id}\n"))?;
    Ok(0)
}

impl Build {
    fn request(&self) -> Result<Request, Failure> {
        let mut arguments = BTreeMap::new();
        for pair in &self.arguments {
            match pair.split_once('=') {
                Some((name, value)) => drop(arguments.insert(name.to_owned(), value.to_owned())),
                None => arguments.extend(std::env::var(pair).ok().map(|value| (pair.clone(), value))),
            }
        }
        let epoch = match std::env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty()) {
            Some(text) => Some(text.parse().map_err(|_| Failure::Epoch { text })?),
            None => None,
        };
        let (names, target) = (self.tags.clone(), self.target.clone());
        Ok(Request { text: self.text()?, names, arguments, target, fresh: self.no_cache, epoch })
    }

    fn text(&self) -> Result<String, Failure> {
        let path = self.file.clone().unwrap_or_else(|| self.folder.join("Dockerfile"));
        let read = if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(&path)
        };
        read.map_err(|source| BuildError::Io { attempt: "read", path, source }.into())
    }
}

fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Tells each step on standard error.
struct Teller {
    quiet: bool,
    colours: bool,
}

impl Teller {
    fn say(&self, colour: &str, text: &str) {
        match (self.quiet, self.colours) {
            (true, _) => {}
            (false, true) => eprintln!("\x1b[{colour}m{text}\x1b[0m"),
            (false, false) => eprintln!("{text}"),
        }
    }
}

impl Progress for Teller {
    fn step(&self, stage: &str, number: usize, of: usize, text: &str) {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.say("1", &format!("[{stage} {number}/{of}] {line}"));
    }

    fn cached(&self) {
        self.say("36", "  CACHED");
    }

    fn done(&self, took: Duration, layer: Option<(&str, u64)>) {
        let layer = layer.map(|(id, size)| format!(", layer {id}, {}", print::size(size))).unwrap_or_default();
        self.say("32", &format!("  done in {:.1} s{layer}", took.as_secs_f64()));
    }

    fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
    }

    fn shows_output(&self) -> bool {
        !self.quiet
    }
}
