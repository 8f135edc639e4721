//! The life of an image, as the course tells it: built, looked at, brought to a registry, fetched elsewhere, run, built upon.

use std::fs;

use libtest_mimic::{Failed, Trial};

use super::checks::{has, same};
use super::lab::{Lab, done, refused};
use super::needs::trial;
use super::printed::base_archive;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "htpasswd"];
    vec![trial("an_image_lives_from_its_build_to_a_second_image_elsewhere", &needs, life)]
}

/// One layer for the folder, one for the file, one for what a program wrote.
const FIRST: &str = "FROM base:1\nWORKDIR /srv\nCOPY page .\nRUN cat page page > twice\nCMD [\"cat\", \"twice\"]\n";

fn life() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    base(&lab)?;
    let context = lab.text("context");
    fs::create_dir(&context)?;
    fs::write(lab.path("context/page"), "a page\n")?;
    fs::write(lab.path("context/Dockerfile"), FIRST)?;
    let users = lab.htpasswd()?;
    let host = lab.serve(&["--htpasswd", &users])?;
    let name = format!("{host}/course/web:1");

    // Built: a layer an instruction that changes a file, and one for the base.
    done(&mut lab.ctr("store", &["build", "-t", &name, &context]))?;
    let history = done(&mut lab.ctr("store", &["history", &name]))?;
    for step in ["WORKDIR /srv", "COPY page .", "cat page page > twice", "CMD"] {
        has(&history, step)?;
    }
    same(layers(&lab, "store", &name)?.len(), 4)?;

    // Brought to a registry, by who knows the password.
    has(&refused(&mut lab.ctr("store", &["push", &name]))?, "hint: log in: isolab-ctr login")?;
    lab.told(&["login", "--username", "ann", "--password-stdin", &host], "secret\n")?;
    done(&mut lab.ctr("store", &["push", &name]))?;

    // What the registry has can be looked at from anywhere, with the password, and without fetching it.
    let manifest = done(&mut lab.ctr("nowhere", &["manifest", "inspect", "--verbose", &name]))?;
    has(&manifest, "\"Digest\": \"sha256:")?;
    has(&manifest, "\"layers\": [")?;
    same(lab.path("nowhere").exists(), false)?;

    // Fetched into an empty store, and run there.
    done(&mut lab.ctr("elsewhere", &["pull", &name]))?;
    same(done(&mut lab.ctr("elsewhere", &["run", "--rm", &name]))?.as_str(), "a page\na page")?;

    // A second image shares all of the first, in the store too.
    let before = unpacked(&lab)?;
    fs::write(lab.path("context/Dockerfile"), format!("FROM {name}\nRUN echo more >> twice\n"))?;
    done(&mut lab.ctr("elsewhere", &["build", "-t", "second:1", &context]))?;
    same(unpacked(&lab)?, before + 1)?;
    let (first, second) = (layers(&lab, "elsewhere", &name)?, layers(&lab, "elsewhere", "second:1")?);
    same(second.starts_with(&first) && second.len() == first.len() + 1, true)?;
    same(done(&mut lab.ctr("elsewhere", &["run", "--rm", "second:1"]))?.as_str(), "a page\na page\nmore")?;
    has(&done(&mut lab.ctr("elsewhere", &["fsck"]))?, "all well")
}

/// An image `base:1` with a shell, of an archive.
fn base(lab: &Lab) -> Result<(), Failed> {
    base_archive(&lab.path("base.tar"), &["sh", "cat", "echo"])?;
    done(&mut lab.ctr("store", &["import", &lab.text("base.tar"), "base:1"])).map(drop)
}

/// The digests of an image's layers, unpacked, the lowest first.
fn layers(lab: &Lab, store: &str, name: &str) -> Result<Vec<String>, Failed> {
    let told: serde_json::Value = serde_json::from_str(&done(&mut lab.ctr(store, &["inspect", name]))?)?;
    let layers = told[0]["RootFS"]["Layers"].as_array().ok_or("no layers")?;
    Ok(layers.iter().map(|layer| layer.as_str().unwrap_or_default().to_owned()).collect())
}

/// How many layers lie unpacked in the other store.
fn unpacked(lab: &Lab) -> Result<usize, Failed> {
    Ok(fs::read_dir(lab.path("elsewhere/layers"))?.count())
}
