//! The OCI distribution specification 1.1, a statement at a time.
//!
//! Each file is a section of the specification, each function a part of one. A statement stands in its words, shortened,
//! before the answers that have to bear it out; all of a function are tried, and those that do not hold are told together.

mod asking;
mod discovery;
mod management;
mod pull;
mod push_blobs;
mod push_manifests;
mod whole;

use libtest_mimic::{Failed, Trial};

use super::lab::Lab;
use super::needs::trial;
use asking::Spec;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const BYTES: &str = "application/octet-stream";
const REPOSITORY: &str = "team/app";

type Section = fn(&mut Spec) -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let sections: [(&str, Section); 12] = [
        ("support", whole::support),
        ("pulling_blobs", pull::pulling_blobs),
        ("pulling_manifests", pull::pulling_manifests),
        ("pushing_at_once", push_blobs::pushing_at_once),
        ("pushing_in_chunks", push_blobs::pushing_in_chunks),
        ("mounting", push_blobs::mounting),
        ("pushing_manifests", push_manifests::pushing_manifests),
        ("manifests_of_every_kind", push_manifests::manifests_of_every_kind),
        ("subjects_and_referrers", discovery::subjects_and_referrers),
        ("listing_tags", discovery::listing_tags),
        ("deleting", management::deleting),
        ("errors", whole::errors),
    ];
    let each = sections.into_iter().map(|(name, section)| {
        trial(&format!("spec::{name}"), &[], move || {
            let mut lab = Lab::new()?;
            let mut spec = Spec::of(lab.serve(&[])?);
            section(&mut spec)?;
            spec.end()
        })
    });
    each.collect()
}
