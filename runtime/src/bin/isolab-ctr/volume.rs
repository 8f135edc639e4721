//! `volume`: files that outlive containers.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use isolab_runtime::engine::{Engine, Volume, WishError};

use crate::format::{Listing, documents, labels, row};
use crate::print;
use crate::voice::Failure;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a volume
    Create {
        /// Note something about it
        #[arg(long, value_name = "NAME[=VALUE]")]
        label: Vec<String>,
        /// Its name; one of 64 digits where none is said
        name: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Print all that is known of volumes
    Inspect {
        /// By a template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        /// Their names
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes, with their files
    Rm {
        /// Be content where there is no such volume
        #[arg(short, long)]
        force: bool,
        /// Their names
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove the volumes without a name that no container has
    Prune {
        /// Also those with a name
        #[arg(short, long)]
        all: bool,
        /// For docker's scripts: nothing is asked
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Args)]
pub(crate) struct Ls {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Only volumes with this: name, label, or dangling=true for those that no container has
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// By a template, or `json`
    #[arg(long)]
    format: Option<String>,
}

pub(crate) fn obey(verb: &Verb, engine: &Engine) -> Result<u8, Failure> {
    match verb {
        Verb::Create { label, name } => {
            let pair = |text: &String| {
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                (name.to_owned(), value.to_owned())
            };
            let volume = engine.create_volume(name.as_deref(), label.iter().map(pair).collect::<BTreeMap<_, _>>())?;
            print::text(&format!("{}\n", volume.name))?;
        }
        Verb::Ls(ls) => ls.obey(engine)?,
        Verb::Inspect { format, names } => {
            let all = names.iter().map(|name| Ok(engine.inspect_volume(&engine.volume(name)?)));
            documents(format.as_deref(), all.collect::<Result<Vec<_>, Failure>>()?)?;
        }
        Verb::Rm { force, names } => return remove(engine, names, *force),
        Verb::Prune { all, .. } => {
            let (removed, bytes) = engine.prune_volumes(*all)?;
            let lines: String = removed.iter().flat_map(|name| ["Deleted: ", name.as_str(), "\n"]).collect();
            print::text(&format!("{lines}Space reclaimed: {}\n", print::size(bytes)))?;
        }
    }
    Ok(0)
}

fn remove(engine: &Engine, names: &[String], force: bool) -> Result<u8, Failure> {
    let mut code = 0;
    for name in names {
        if force && engine.volume(name).is_err() {
            continue;
        }
        match engine.remove_volume(name) {
            Ok(()) => print::text(&format!("{name}\n"))?,
            Err(error) => {
                crate::voice::complain(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

impl Ls {
    fn obey(&self, engine: &Engine) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for volume in engine.volumes()? {
            if !self.shows(engine, &volume)? {
                continue;
            }
            if self.quiet {
                print::text(&format!("{}\n", volume.name))?;
                continue;
            }
            rows.push(row(&[
                ("Driver", "local".to_owned()),
                ("Name", volume.name.clone()),
                ("Mountpoint", engine.volume_data(&volume.name).display().to_string()),
                ("Labels", labels(&volume.labels)),
                ("Scope", "local".to_owned()),
            ]));
        }
        let columns = &[("Driver", "DRIVER"), ("Name", "VOLUME NAME")];
        let more = &[("Mountpoint", "MOUNTPOINT"), ("Labels", "LABELS"), ("Scope", "SCOPE")];
        if self.quiet { Ok(()) } else { Listing { columns, more, rows }.print(self.format.as_deref()) }
    }

    fn shows(&self, engine: &Engine, volume: &Volume) -> Result<bool, Failure> {
        for filter in &self.filter {
            let fits = match filter.split_once('=') {
                Some(("name", part)) => volume.name.contains(part),
                Some(("dangling", wanted @ ("true" | "false" | "1" | "0"))) => {
                    engine.volume_users(&volume.name)?.is_empty() == matches!(wanted, "true" | "1")
                }
                Some(("label", label)) => match label.split_once('=') {
                    Some((name, value)) => volume.labels.get(name).is_some_and(|other| other == value),
                    None => volume.labels.contains_key(label),
                },
                _ => {
                    let expected = "name=TEXT, label=NAME[=VALUE] or dangling=true";
                    return Err(WishError { text: filter.clone(), expected }.into());
                }
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
