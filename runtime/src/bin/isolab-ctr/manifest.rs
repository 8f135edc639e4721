//! `manifest`: what a registry has under a name, without fetching the image.

use clap::Subcommand;
use isolab_runtime::image::Reference;
use isolab_runtime::registry::client::manifest;
use serde_json::json;

use crate::print;
use crate::registry::Way;
use crate::voice::Failure;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Print the manifest that a registry has under a name, or the index of several
    Inspect {
        #[command(flatten)]
        way: Way,
        /// With its digest and its size
        #[arg(long, short)]
        verbose: bool,
        /// [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
        image: Reference,
    },
}

pub(crate) fn obey(verb: &Verb) -> Result<u8, Failure> {
    let Verb::Inspect { way, verbose, image } = verb;
    let found = manifest(&way.connect(&image.registry)?, image)?;
    let told = if *verbose {
        json!({ "Ref": image.to_string(), "Digest": found.digest.to_string(), "Size": found.size, "Manifest": found.document })
    } else {
        found.document
    };
    print::text(&format!("{told:#}\n"))?;
    Ok(0)
}
