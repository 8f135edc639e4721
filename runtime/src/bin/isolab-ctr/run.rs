//! `run`: a container of an image, in the foreground.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use isolab_runtime::container::{Runtime, default_root};
use isolab_runtime::engine::{self, Container, EngineError, Network, Wishes};
use isolab_runtime::image::{Image, Manifest, Store};

use crate::voice::Failure;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker's")]
pub(crate) struct Run {
    /// Remove the container at its end (as is always done yet)
    #[arg(long)]
    rm: bool,
    /// Leave standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; a name alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set variables, one a line of a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Where the program runs
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// As whom it runs
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The program, in place of the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// The container's name
    #[arg(long)]
    name: Option<String>,
    /// What the container calls itself
    #[arg(long)]
    hostname: Option<String>,
    /// Let it see a file or folder of the host
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// Forbid it to write to its own root
    #[arg(long)]
    read_only: bool,
    /// Its network
    #[arg(long, default_value = "none", alias = "net")]
    network: Kind,
    /// The image's name or id
    image: String,
    /// What to run in place of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    None,
    Host,
}

pub(crate) fn obey(run: &Run, store: &Store) -> Result<u8, Failure> {
    let wishes = run.wishes()?;
    if run.tty && !std::io::stdin().is_terminal() {
        return Err(Failure::NoTerminal);
    }
    if !run.interactive {
        // As docker does: a program that was given no input reads its end.
        close_input()?;
    }
    // Until the container stands on them nobody may take the layers away.
    let shared = store.shared().map_err(EngineError::from)?;
    let found = store.resolve(&run.image).map_err(EngineError::from)?;
    let image = Image::from_manifest(store, &found.descriptor).map_err(EngineError::from)?;
    let manifest = Manifest::read(store, &found.descriptor).map_err(EngineError::from)?;
    let text = store.blob(&manifest.id()).map_err(EngineError::from)?;
    let document = engine::read_document(&run.image, &text)?;
    let _held = store.hold(image.layers().iter().map(|layer| layer.diff_id)).map_err(EngineError::from)?;
    drop(shared);
    let container = Container::prepare(store.root(), &document.config, &image.lower_dirs(), &wishes)?;
    let runtime = Runtime::new(&default_root().map_err(EngineError::from)?, |text| eprintln!("warning: {text}"));
    Ok(container.run(&runtime)?.code() as u8)
}

impl Run {
    fn wishes(&self) -> Result<Wishes, Failure> {
        let mut environment = Vec::new();
        for path in &self.env_file {
            environment.extend(engine::read_environment(path)?);
        }
        for pair in &self.env {
            match pair.split_once('=') {
                Some((name, value)) => environment.push((name.to_owned(), value.to_owned())),
                None => environment.extend(std::env::var(pair).ok().map(|value| (pair.clone(), value))),
            }
        }
        let mounts = self.volume.iter().map(|text| engine::parse_mount(text)).collect::<Result<Vec<_>, _>>()?;
        let entrypoint = self.entrypoint.as_ref().map(|program| {
            let word = Some(program.clone()).filter(|program| !program.is_empty());
            word.into_iter().collect()
        });
        Ok(Wishes {
            name: self.name.clone(),
            command: self.command.clone(),
            entrypoint,
            environment,
            folder: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            mounts,
            read_only: self.read_only,
            network: match self.network {
                Kind::None => Network::None,
                Kind::Host => Network::Host,
            },
            terminal: self.tty,
        })
    }
}

pub(crate) fn close_input() -> Result<(), Failure> {
    let failed = |source| Failure::Write { to: "standard input".to_owned(), source };
    let null = std::fs::File::open("/dev/null").map_err(failed)?;
    nix::unistd::dup2_stdin(&null).map_err(|errno| failed(errno.into()))
}
