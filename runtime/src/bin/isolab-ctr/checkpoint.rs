//! `checkpoint`: containers written to disk while they run, docker's command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use isolab_runtime::engine::Engine;

use crate::print;
use crate::voice::Failure;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Write a container that runs to disk; `start --checkpoint` brings it back
    Create {
        #[command(flatten)]
        place: Place,
        /// Let it go on after that, instead of ending it
        #[arg(long)]
        leave_running: bool,
        /// Its name or id
        container: String,
        /// What that shall be called
        checkpoint: String,
    },
    /// List what was written of a container
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        place: Place,
        /// Its name or id
        container: String,
    },
    /// Remove what was written of a container
    #[command(visible_alias = "remove")]
    Rm {
        #[command(flatten)]
        place: Place,
        /// Its name or id
        container: String,
        /// What that is called
        checkpoint: String,
    },
}

/// Where it is written to.
#[derive(Args)]
pub(crate) struct Place {
    /// The folder that they are in [default: one of the container's own, which goes with it]
    #[arg(long = "checkpoint-dir", value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

pub(crate) fn obey(verb: &Verb, engine: &Engine) -> Result<u8, Failure> {
    match verb {
        Verb::Create { place, leave_running, container, checkpoint } => {
            engine.checkpoint(container, checkpoint, place.folder.as_deref(), *leave_running)?;
            print::text(&format!("{checkpoint}\n"))?;
        }
        Verb::Ls { place, container } => {
            let names = engine.checkpoints(container, place.folder.as_deref())?;
            print::text(
                &["CHECKPOINT NAME".to_owned()].into_iter().chain(names).map(|name| name + "\n").collect::<String>(),
            )?;
        }
        Verb::Rm { place, container, checkpoint } => {
            engine.remove_checkpoint(container, checkpoint, place.folder.as_deref())?;
        }
    }
    Ok(0)
}
