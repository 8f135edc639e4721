//! The command line: docker's, with what isolab adds. Each group of verbs has a file of its own.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::build;
use crate::checkpoint;
use crate::containers;
use crate::groups;
use crate::images;
use crate::manifest;
use crate::network;
use crate::registry;
use crate::system;
use crate::volume;

/// Runs containers, and makes, keeps and moves their images. No daemon: each command does its work itself.
#[derive(Parser)]
#[command(name = "isolab-ctr", version, disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The same with `run` alone. The parser makes every flag of every verb before it reads the first word; `run` is the verb
/// that is said most often, and in whose start each part of a millisecond counts.
#[derive(Parser)]
#[command(name = "isolab-ctr", version, disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Run,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Subcommand)]
enum Run {
    /// Make a container of an image, and run it
    #[command(disable_help_flag = true)]
    Run(Box<containers::Run>),
}

impl From<RunArguments> for Arguments {
    fn from(arguments: RunArguments) -> Self {
        let RunArguments { global, command: Run::Run(run), version } = arguments;
        Self { global, command: Command::Containers(containers::Verb::Run(run)), version }
    }
}

/// What every verb has.
#[derive(Args)]
pub(crate) struct Global {
    /// Where images are kept [default: /var/lib/isolab, for an ordinary user `$XDG_DATA_HOME/isolab`]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
    /// Tell each step on standard error: what the kernel is asked for, why, and how long it took
    #[arg(long, global = true)]
    pub(crate) explain: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Containers(containers::Verb),
    /// Look at what a registry has, without fetching it
    #[command(subcommand)]
    Manifest(manifest::Verb),
    /// Write containers to disk while they run (CRIU does it)
    #[command(subcommand)]
    Checkpoint(checkpoint::Verb),
    #[command(flatten)]
    Images(images::Verb),
    /// Make, list and remove volumes
    #[command(subcommand)]
    Volume(volume::Verb),
    /// Make, list and remove networks, and say who is in them
    #[command(subcommand)]
    Network(network::Verb),
    /// Tell which ports of the host lead to a container
    Port(network::Port),
    /// Make an image from a Dockerfile
    Build(build::Build),
    #[command(flatten)]
    Registry(registry::Verb),
    /// docker's newer form of the verbs of containers
    #[command(subcommand)]
    Container(groups::Container),
    /// Show and clear what there is in all
    #[command(subcommand)]
    System(system::Verb),
    Info(system::Info),
    Version(system::Version),
}
