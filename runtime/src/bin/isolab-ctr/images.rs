//! The verbs of images.

use clap::Subcommand;
use isolab_runtime::image::{Manifest, Reference, Store};

use crate::print;
use crate::voice::Failure;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List images
    Images {
        /// Print ids only
        #[arg(long, short)]
        quiet: bool,
    },
    /// Give an image another name
    Tag {
        /// The image's name or id
        source: String,
        /// The new name
        target: Reference,
    },
}

pub(crate) fn obey(verb: &Verb, store: &Store) -> Result<u8, Failure> {
    match verb {
        Verb::Images { quiet } => list(store, *quiet)?,
        Verb::Tag { source, target } => store.tag(source, target)?,
    }
    Ok(0)
}

fn list(store: &Store, quiet: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    if !quiet {
        rows.push(["REPOSITORY", "TAG", "IMAGE ID", "SIZE"].map(str::to_owned).to_vec());
    }
    for named in store.names()? {
        let manifest = Manifest::read(store, &named.descriptor)?;
        let id = manifest.id().short();
        if quiet {
            rows.push(vec![id]);
            continue;
        }
        let reference = named.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
        let repository = reference.as_ref().map(|one| Reference { tag: None, digest: None, ..one.clone() }.familiar());
        let tag = reference.and_then(|one| one.tag);
        let [repository, tag] = [repository, tag].map(|text| text.unwrap_or_else(|| "<none>".to_owned()));
        let size: u64 = manifest.document().layers().iter().map(oci_spec::image::Descriptor::size).sum();
        rows.push(vec![repository, tag, id, print::size(size)]);
    }
    print::text(&print::columns(&rows))
}
