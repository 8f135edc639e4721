//! Containers' files: `cp`, `diff`, `export`, `commit`, `clone`.

use std::io::{self, BufWriter, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use isolab_runtime::build::{CommitRequest, commit};
use isolab_runtime::engine::{CopyOptions, End, Engine, EngineError};
use isolab_runtime::image::Reference;
use isolab_runtime::network::{NetworkError, PortWish};

use crate::print;
use crate::voice::Failure;
use crate::whole::WholeFile;

#[derive(Args)]
pub(crate) struct Cp {
    /// Keep owners; else the copies are root's in a container, and the caller's on the host
    #[arg(short, long)]
    archive: bool,
    /// Follow a link where it is what is to be copied
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard input
    from: String,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard output
    to: String,
}

impl Cp {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let (from, to) = (End::parse(&self.from), End::parse(&self.to));
        if to == End::Pipe && io::stdout().is_terminal() {
            return Err(Failure::Terminal);
        }
        let options = CopyOptions { owners: self.archive, follow: self.follow_link };
        engine.copy(&from, &to, options, &mut io::stdin(), &mut io::stdout())?;
        Ok(0)
    }
}

pub(crate) fn diff(engine: &Engine, container: &str) -> Result<u8, Failure> {
    let changes = engine.changes(&engine.find(container)?)?;
    let lines = changes.iter().map(|(change, path)| format!("{} {}\n", change.letter(), path.display()));
    print::text(&lines.collect::<Vec<_>>().concat())?;
    Ok(0)
}

#[derive(Args)]
pub(crate) struct Export {
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Its name or id
    container: String,
}

impl Export {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let record = engine.find(&self.container)?;
        match &self.output {
            Some(path) => {
                let failed = |source| Failure::Write { to: path.display().to_string(), source };
                let mut file = WholeFile::create(path).map_err(failed)?;
                engine.export(&record, BufWriter::with_capacity(256 << 10, &mut file))?;
                file.finish().map_err(failed)?;
            }
            None if io::stdout().is_terminal() => return Err(Failure::Terminal),
            None => drop(engine.export(&record, BufWriter::with_capacity(256 << 10, io::stdout().lock()))?),
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Commit {
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,
    /// Change what the image says about itself, by an instruction of a Dockerfile
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What the image's history says of it
    #[arg(short, long)]
    message: Option<String>,
    /// Whether the container is held still meanwhile
    #[arg(short, long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pause: bool,
    /// Its name or id
    container: String,
    /// What the image shall be called
    name: Option<Reference>,
}

impl Commit {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let request = CommitRequest {
            name: self.name.clone(),
            message: self.message.clone(),
            author: self.author.clone(),
            changes: self.change.clone(),
            running: !self.pause,
        };
        print::text(&format!("{}\n", commit(engine, &self.container, &request)?))?;
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Clone {
    /// Stand on the parent's layers, and make its changes one more (as is done where nothing is said)
    #[arg(long)]
    linked: bool,
    /// Copy all files into one layer of its own, that shares nothing
    #[arg(long, conflicts_with = "linked")]
    full: bool,
    /// Lead a port of the host to a port of the clone [default: a free port for each that the parent publishes]
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/udp]")]
    publish: Vec<String>,
    /// The parent's name or id
    container: String,
    /// The clone's name
    name: Option<String>,
}

impl Clone {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let ports = self.publish.iter().map(|text| PortWish::parse(text).map_err(NetworkError::from));
        let ports = ports.collect::<Result<Vec<_>, _>>().map_err(EngineError::from)?.concat();
        let ports = Some(ports).filter(|ports| !ports.is_empty());
        let clone = engine.clone_container(&self.container, self.name.as_deref(), self.full, ports)?;
        print::text(&format!("{}\n", clone.id))?;
        Ok(0)
    }
}
