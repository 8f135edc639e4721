//! `run` and `create`: a container of an image.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};

use clap::{Args, ValueEnum};
use isolab_runtime::engine::{Engine, Making, Manner, Wishes};

use super::flags::{Flags, Pull};
use super::talk::Way;
use crate::print;
use crate::voice::Failure;

#[derive(Args)]
#[command(override_usage = "isolab-ctr run [OPTIONS] <IMAGE> [COMMAND]...")]
pub(crate) struct Run {
    /// Let it run in the background, and print its id
    #[arg(short, long)]
    detach: bool,
    /// Talk only through these: stdin, stdout, stderr [default: both outputs, and with -i the input]
    #[arg(short, long, value_name = "STREAM", ignore_case = true, conflicts_with = "detach")]
    attach: Vec<Stream>,
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    flags: Flags,
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

#[derive(Args)]
#[command(override_usage = "isolab-ctr create [OPTIONS] <IMAGE> [COMMAND]...")]
pub(crate) struct Create {
    #[command(flatten)]
    flags: Flags,
}

impl Create {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let making = make(engine, &self.flags)?;
        print::text(&format!("{}\n", making.locked.record.id))?;
        Ok(0)
    }
}

impl Run {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        if self.flags.tty && !self.detach && !std::io::stdin().is_terminal() {
            return Err(Failure::NoTerminal);
        }
        let making = make(engine, &self.flags)?;
        if self.detach {
            let id = making.locked.record.id.clone();
            drop(making);
            engine.start(&id)?;
            print::text(&format!("{id}\n"))?;
            return Ok(0);
        }
        let hears = |stream| self.attach.is_empty() || self.attach.contains(&stream);
        let input = self.flags.interactive && hears(Stream::Stdin);
        if !input {
            // As docker does: a program that was given no input reads its end.
            close_input()?;
        }
        let manner = self.way.manner(input)?;
        let manner = Manner { output: hears(Stream::Stdout), errors: hears(Stream::Stderr), ..manner };
        Ok(engine.run(making, &manner)? as u8)
    }
}

fn make(engine: &Engine, flags: &Flags) -> Result<Making, Failure> {
    let wishes = flags.wishes()?;
    let mut cidfile = flags
        .cidfile
        .as_ref()
        .map(|path| {
            let to = path.display().to_string();
            File::create_new(path).map(|file| (file, to.clone())).map_err(|source| match source.kind() {
                ErrorKind::AlreadyExists => Failure::IdFile { path: to },
                _ => Failure::Write { to, source },
            })
        })
        .transpose()?;
    let made = fetch_and_make(engine, flags, &wishes);
    let making = made.inspect_err(|_| {
        // An id that nobody has is nothing to be read.
        flags.cidfile.as_ref().map(std::fs::remove_file);
    })?;
    if let Some((file, to)) = &mut cidfile {
        let written = file.write_all(making.locked.record.id.as_bytes());
        written.map_err(|source| Failure::Write { to: to.clone(), source })?;
    }
    Ok(making)
}

fn fetch_and_make(engine: &Engine, flags: &Flags, wishes: &Wishes) -> Result<Making, Failure> {
    if flags.pull == Pull::Always {
        fetch(engine, flags)?;
    }
    match engine.make(flags.image(), wishes.clone()) {
        Err(error) if error.is_missing_image() && flags.pull == Pull::Missing => {
            eprintln!("Unable to find image '{}' locally", flags.image());
            fetch(engine, flags)?;
            Ok(engine.make(flags.image(), wishes.clone())?)
        }
        other => Ok(other?),
    }
}

fn fetch(engine: &Engine, flags: &Flags) -> Result<(), Failure> {
    let failed = |source| Failure::Fetch { image: flags.image().to_owned(), source: Box::new(source) };
    crate::registry::fetch(engine.store(), flags.image(), flags.quiet).map_err(failed)
}

pub(crate) fn close_input() -> Result<(), Failure> {
    let failed = |source| Failure::Write { to: "standard input".to_owned(), source };
    let null = std::fs::File::open("/dev/null").map_err(failed)?;
    nix::unistd::dup2_stdin(&null).map_err(|errno| failed(errno.into()))
}
