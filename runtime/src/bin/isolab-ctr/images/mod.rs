//! The verbs of images.

mod disk;
mod files;
mod filter;
mod picture;
mod show;

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Subcommand;
use isolab_runtime::build;
use isolab_runtime::engine::{Engine, EngineError};
use isolab_runtime::image::{Digest, Manifest, Reference, Store};

use crate::print;
use crate::voice::Failure;
use filter::Filter;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List images
    Images {
        /// Print ids only
        #[arg(long, short)]
        quiet: bool,
        /// Print ids and digests whole
        #[arg(long)]
        no_trunc: bool,
        /// By a template, or `json`
        #[arg(long)]
        format: Option<String>,
        /// Only those with dangling=true|false, reference=PATTERN, label=NAME[=VALUE], before=IMAGE or since=IMAGE
        #[arg(long, short, value_name = "NAME=VALUE")]
        filter: Vec<Filter>,
        /// Only those called so
        #[arg(value_name = "REPOSITORY[:TAG]")]
        name: Option<String>,
    },
    /// Give an image another name
    Tag {
        /// The image's name or id
        source: String,
        /// The new name
        target: Reference,
    },
    /// Take images' names away, and the images with their last name
    Rmi {
        /// Also an image that has several names and is named by its id
        #[arg(long, short)]
        force: bool,
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Print all that is known of containers or images, as JSON
    Inspect {
        /// By a template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        /// Names or ids; a container comes before an image of the same name
        #[arg(required = true, value_name = "NAME")]
        images: Vec<String>,
    },
    /// Show the steps that an image was made by, and the layer of each
    History {
        /// Print ids and steps whole
        #[arg(long)]
        no_trunc: bool,
        /// The image's name or id
        image: String,
    },
    /// Work on one image
    #[command(subcommand)]
    Image(OneImage),
    /// Write images to one file that docker, podman and others load
    Save {
        /// The file [default: standard output]
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Read images from a file that `save` or another engine wrote
    Load {
        /// The file, packed or not [default: standard input]
        #[arg(long, short)]
        input: Option<PathBuf>,
        /// Print nothing
        #[arg(long, short)]
        quiet: bool,
    },
    /// Make an image of a file system in an archive
    Import(files::Import),
    /// Remove what killed commands left, images without a name, and all that neither an image nor a build's cache needs
    Prune {
        /// Also images with a name that no container is of, and what builds keep for the next one
        #[arg(long, short)]
        all: bool,
        /// For docker's scripts: nothing is asked
        #[arg(long, short)]
        force: bool,
    },
    /// Check every stored byte and every reference; change nothing
    Fsck,
}

#[derive(Subcommand)]
#[command(
    after_help = "Besides, the verbs of images as docker groups them: `image ls` is `images`, `image rm` is `rmi`, and so on."
)]
pub(crate) enum OneImage {
    /// Draw an image's stack: what each layer adds, hides and shares
    Layers {
        /// Tell which layer a path comes from
        #[arg(long, value_name = "PATH")]
        owner: Option<PathBuf>,
        /// The image's name or id
        image: String,
    },
    /// Write an image's files as a disk or an initramfs that a machine can boot from
    Export(disk::Export),
}

pub(crate) fn obey(verb: &Verb, engine: &Engine) -> Result<u8, Failure> {
    let store = engine.store();
    match verb {
        Verb::Images { quiet, no_trunc, format, filter, name } => {
            let chosen = filter::choose(store, filter, name.as_deref())?;
            show::list(store, &chosen, *quiet, *no_trunc, format.as_deref())?;
        }
        Verb::Tag { source, target } => store.tag(source, target)?,
        Verb::Rmi { force, images } => remove(store, images, *force)?,
        Verb::Inspect { format, images } => show::inspect(engine, images, format.as_deref())?,
        Verb::History { no_trunc, image } => show::history(store, image, *no_trunc)?,
        Verb::Image(OneImage::Layers { owner: None, image }) => picture::draw(store, image)?,
        Verb::Image(OneImage::Layers { owner: Some(path), image }) => picture::owner(store, image, path)?,
        Verb::Image(OneImage::Export(export)) => export.obey(store)?,
        Verb::Save { output, images } => files::save(store, output.as_deref(), images)?,
        Verb::Load { input, quiet } => files::load(store, input.as_deref(), *quiet)?,
        Verb::Import(import) => import.obey(store)?,
        Verb::Prune { all, .. } => prune(engine, *all)?,
        Verb::Fsck => return check(store),
    }
    Ok(0)
}

fn remove(store: &Store, images: &[String], force: bool) -> Result<(), Failure> {
    for text in images {
        let found = store.resolve(text)?;
        let digest = Digest::try_from(found.descriptor.digest()).map_err(isolab_runtime::image::ImageError::from)?;
        let all = store.names()?;
        let names = all.iter().filter(|one| one.descriptor.digest() == found.descriptor.digest());
        let names: Vec<&String> = names.filter_map(|one| one.name.as_ref()).collect();
        let by_name = found.name.as_ref().filter(|name| is_called(text, name));
        match by_name {
            Some(name) => {
                store.remove_name(name)?;
                print::text(&format!("Untagged: {}\n", familiar(name)))?;
            }
            None if names.len() > 1 && !force => {
                return Err(Failure::SeveralNames { id: text.clone(), names: names.into_iter().cloned().collect() });
            }
            None => {
                store.remove_manifest(&digest)?;
                for name in names {
                    print::text(&format!("Untagged: {}\n", familiar(name)))?;
                }
            }
        }
    }
    tell(store)
}

/// Whether a text names an image by this name, and not by its id.
fn is_called(text: &str, name: &str) -> bool {
    text == name || text.parse::<Reference>().is_ok_and(|reference| reference.to_string() == name)
}

/// A stored name as docker prints it.
fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Removes what was left over, and the images without a name; with `all`, also those that no container is of.
pub(crate) fn prune(engine: &Engine, all: bool) -> Result<(), Failure> {
    let store = engine.store();
    remove_left_over(engine)?;
    if all {
        let (steps, caches) = build::remove_cache(store)?;
        if steps + caches > 0 {
            print::text(&format!("Deleted: build cache of {steps} steps and {caches} mounts\n"))?;
        }
    }
    // Before anything is removed: a container is of an image by its id, whatever that is called.
    let used: HashSet<String> = engine.list()?.into_iter().map(|record| record.image.id).collect();
    for one in store.names()? {
        let digest = Digest::try_from(one.descriptor.digest()).map_err(isolab_runtime::image::ImageError::from)?;
        let Some(name) = &one.name else {
            store.remove_manifest(&digest)?;
            continue;
        };
        // What cannot be read is no container's, and not worth an error here: fsck tells of it.
        let id = Manifest::read(store, &one.descriptor).map(|manifest| manifest.id().to_string());
        if all && !id.is_ok_and(|id| used.contains(&id)) && store.remove_name(name)? {
            print::text(&format!("Untagged: {}\n", familiar(name)))?;
        }
    }
    tell(store)
}

/// Removes what commands that were killed had in the making: containers, their folders, files of the store and the cache.
fn remove_left_over(engine: &Engine) -> Result<(), Failure> {
    let containers = engine.runtime().prune().map_err(EngineError::from)?;
    // The containers first: their folders are what they stood on.
    let folders = engine.prune()?;
    let files = [build::prune(engine.store().root())?, engine.store().prune()?].concat();
    let lines = containers.iter().map(|id| format!("Deleted: container {id}\n"));
    let paths = folders.iter().chain(&files).map(|path| format!("Deleted: {}\n", path.display()));
    print::text(&lines.chain(paths).collect::<String>())
}

/// Removes what nothing leads to, and says what that was.
fn tell(store: &Store) -> Result<(), Failure> {
    let collected = store.collect()?;
    let mut lines: Vec<String> = collected.blobs.iter().map(|digest| format!("Deleted: {digest}\n")).collect();
    if collected.bytes > 0 {
        lines.push(format!("Space reclaimed: {}\n", print::size(collected.bytes)));
    }
    print::text(&lines.concat())
}

fn check(store: &Store) -> Result<u8, Failure> {
    let verified = store.verify()?;
    for problem in &verified.problems {
        eprintln!("error: {}", isolab_runtime::chain(problem));
    }
    let (images, blobs, size) = (verified.images, verified.blobs, print::size(verified.bytes));
    let wrong = match verified.problems.len() {
        0 => "all well".to_owned(),
        1 => "1 problem".to_owned(),
        several => format!("{several} problems"),
    };
    print::text(&format!("{images} images, {blobs} blobs, {size}: {wrong}\n"))?;
    Ok(u8::from(!verified.problems.is_empty()))
}

/// The bytes of an image's layers, as they are sent.
fn size_of(manifest: &Manifest) -> u64 {
    manifest.document().layers().iter().map(oci_spec::image::Descriptor::size).sum()
}
