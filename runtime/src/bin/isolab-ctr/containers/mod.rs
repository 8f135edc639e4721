//! The verbs of containers.

mod events;
mod files;
mod flags;
mod list;
mod namespaces;
mod network;
mod run;
mod stats;
mod talk;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use isolab_runtime::engine::{self, Engine, EngineError, Restart};

use crate::cli::Global;
use crate::print;
use crate::voice::{self, Failure};

pub(crate) use run::{Run, close_input};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a container of an image, and run it
    #[command(disable_help_flag = true)]
    Run(Box<Run>),
    /// Make a container of an image, and don't start it
    #[command(disable_help_flag = true)]
    Create(Box<run::Create>),
    /// Start containers that were made, or have ended
    Start(talk::Start),
    /// Ask containers to end, and kill those that don't
    Stop(Stop),
    /// Stop containers and start them again
    Restart(Stop),
    /// Send containers a signal
    Kill {
        /// Its name or number
        #[arg(short, long, default_value = "KILL")]
        signal: String,
        /// Names or ids
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Hold every process of containers still
    Pause {
        /// Names or ids
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Let the processes of paused containers go on
    Unpause {
        /// Names or ids
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Wait until containers have ended, and print their statuses
    Wait {
        /// Names or ids
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Remove containers
    Rm {
        /// Also containers that run: they are killed
        #[arg(short, long)]
        force: bool,
        /// With the volumes without a name that they had alone
        #[arg(short, long)]
        volumes: bool,
        /// Names or ids
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Talk to a container that runs
    Attach(talk::Attach),
    /// Print what a container has printed
    Logs(talk::Logs),
    /// Run something in a container
    Exec(talk::Exec),
    /// List the processes of a container
    Top {
        /// Its name or id
        container: String,
    },
    /// Stand by a container (for this command's own use)
    #[command(hide = true)]
    Keep {
        /// The status it ended with
        #[arg(long, requires = "id")]
        ended: Option<i32>,
        /// What was written of it, to be brought back from
        #[arg(long)]
        images: Option<PathBuf>,
        /// Who is still connected
        #[arg(long)]
        guest: Vec<i32>,
        /// The container
        id: String,
    },
    /// Check a container's health once (for this command's own use)
    #[command(hide = true)]
    Health {
        /// The container
        id: String,
    },
    /// Give a container another name
    Rename {
        /// Its name or id
        container: String,
        /// The new name
        name: String,
    },
    /// Change what containers may use, and what follows their end
    Update(Update),
    /// Copy files between a container and the host, or a pipe
    Cp(files::Cp),
    /// List what a container has changed of its image: A added, C changed, D deleted
    Diff {
        /// Its name or id
        container: String,
    },
    /// Write all files of a container as an archive
    Export(files::Export),
    /// Make an image of what a container has become
    Commit(files::Commit),
    /// Make a container like another, with its files
    Clone(files::Clone),
    /// Show what containers use
    Stats(stats::Stats),
    /// Tell what happened, and what happens
    Events(events::Events),
    /// List containers
    #[command(visible_alias = "list")]
    Ps(list::Ps),
}

#[derive(Args)]
pub(crate) struct Stop {
    /// How many seconds it may take to end
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_name = "SECONDS")]
    time: Option<u64>,
    /// The signal that asks it to end
    #[arg(short, long)]
    signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Update {
    #[command(flatten)]
    limits: flags::LimitFlags,
    /// What follows its end
    #[arg(long, value_name = "POLICY")]
    restart: Option<Restart>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn obey(verb: &Verb, global: &Global, told: impl FnOnce()) -> Result<u8, Failure> {
    let mut engine = global.engine()?;
    engine.explain(global.explain);
    let engine = &engine;
    let outcome = obey_verb(verb, engine, told);
    if matches!(verb, Verb::Run(_) | Verb::Start(_) | Verb::Restart(_)) {
        engine.make_ready();
    }
    outcome
}

fn obey_verb(verb: &Verb, engine: &Engine, told: impl FnOnce()) -> Result<u8, Failure> {
    match verb {
        Verb::Run(run) => run.obey(engine),
        Verb::Create(create) => create.obey(engine),
        Verb::Start(start) => start.obey(engine),
        Verb::Attach(attach) => attach.obey(engine),
        Verb::Logs(logs) => logs.obey(engine),
        Verb::Exec(exec) => exec.obey(engine),
        Verb::Top { container } => talk::top(engine, container),
        Verb::Keep { ended: Some(code), guest, id, .. } => {
            engine.keep_on(id, *code, engine::inherited(guest)).map(|()| 0).map_err(Failure::from)
        }
        Verb::Keep { id, images, .. } => Ok(engine.keep(id, images.as_deref(), told).map(|()| 1)?),
        Verb::Health { id } => engine.probe(id).map(|()| 0).map_err(Failure::from),
        Verb::Stop(stop) => each(&stop.containers, |name| stop.stop(engine, name)),
        Verb::Restart(stop) => each(&stop.containers, |name| {
            stop.stop(engine, name)?;
            engine.start(name).map(drop)
        }),
        Verb::Kill { signal, containers } => each(containers, |name| engine.kill(name, signal)),
        Verb::Pause { containers } => each(containers, |name| engine.pause(name)),
        Verb::Unpause { containers } => each(containers, |name| engine.unpause(name)),
        Verb::Wait { containers } => wait(engine, containers),
        Verb::Rm { force, volumes, containers } => each(containers, |name| {
            let record = match engine.remove(name, *force) {
                // As docker does: what scripts clean up with is no reason for them to end.
                Err(error @ EngineError::NoContainer { .. }) if *force => {
                    voice::complain(&error.into());
                    return Ok(());
                }
                other => other?,
            };
            if *volumes { engine.remove_anonymous_volumes(&record) } else { Ok(()) }
        }),
        Verb::Rename { container, name } => engine.rename(container, name).map(|()| 0).map_err(Failure::from),
        Verb::Update(update) => {
            each(&update.containers, |name| engine.update(name, update.limits.limits(), update.restart))
        }
        Verb::Cp(cp) => cp.obey(engine),
        Verb::Diff { container } => files::diff(engine, container),
        Verb::Export(export) => export.obey(engine),
        Verb::Commit(commit) => commit.obey(engine),
        Verb::Clone(clone) => clone.obey(engine),
        Verb::Stats(stats) => stats.obey(engine),
        Verb::Events(events) => events.obey(engine),
        Verb::Ps(ps) => ps.obey(engine),
    }
}

/// Does something to each, prints the name of each that it worked for, and tells of those that it did not.
fn each(names: &[String], mut act: impl FnMut(&str) -> Result<(), EngineError>) -> Result<u8, Failure> {
    let mut code = 0;
    for name in names {
        match act(name) {
            Ok(()) => print::text(&format!("{name}\n"))?,
            Err(error) => {
                voice::complain(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Prints each status as soon as it is known; `?` for one that nobody saw.
fn wait(engine: &Engine, names: &[String]) -> Result<u8, Failure> {
    let mut code = 0;
    for name in names {
        let status = engine.wait(name)?;
        code |= u8::from(status.is_none());
        print::text(&status.map_or_else(|| "?\n".to_owned(), |status| format!("{status}\n")))?;
    }
    Ok(code)
}

impl Stop {
    fn stop(&self, engine: &Engine, name: &str) -> Result<(), EngineError> {
        engine.stop(name, self.signal.as_deref(), self.time.map(Duration::from_secs))
    }
}
