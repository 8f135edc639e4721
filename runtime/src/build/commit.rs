//! An image of what a container has become: its upper folder is one more layer.

use std::path::PathBuf;

use oci_spec::image::{Descriptor, MediaType};
use tracing::info_span;

use super::cache::Layer;
use super::dockerfile::{Dockerfile, Instruction};
use super::error::BuildError;
use super::layers::Stack;
use super::metadata::Making;
use super::scope::{Globals, Scope};
use crate::container::{rfc3339, since_epoch};
use crate::engine::document::{Step, set_variable};
use crate::engine::{Document, Engine, Record, RunConfig};
use crate::image::{Digest, ImageError, Reference, Store};

/// How an image is made of a container.
#[derive(Debug, Default)]
pub struct CommitRequest {
    /// What the image shall be called.
    pub name: Option<Reference>,
    /// What its history says of it.
    pub message: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Instructions of a Dockerfile that change no file.
    pub changes: Vec<String>,
    /// Whether its processes are left to go on meanwhile: then what they write just now may be in it by halves.
    pub running: bool,
}

/// Makes an image of a container: the layers that it stands on, and one of what it has changed. Answers the image's id.
pub fn commit(engine: &Engine, container: &str, request: &CommitRequest) -> Result<Digest, BuildError> {
    let _span = info_span!(
        "engine.commit",
        call = "read(2), write(2), rename(2)",
        why = "what a container has written lies in one folder; as an archive that folder is a layer"
    )
    .entered();
    let changes = instructions(&request.changes)?; //                 1. what can be refused is refused first
    let store = engine.store();
    let mut locked = engine.lock(container)?;
    let record = locked.record.clone();
    let _shared = store.shared()?; //                                 (nobody takes layers away meanwhile)
    let mut stack = Stack::scratch();
    if let Some(descriptor) = engine.image_of(&record)? {
        stack = Stack::of_manifest(store, &record.image.name, &descriptor)?; // 2. the layers below
    }
    for layer in &record.image.clones {
        let blob = layer.blob.parse().map_err(ImageError::from)?;
        let (size, media_type) = (store.size(&blob)?, MediaType::ImageLayerGzip.to_string());
        let (diff_id, blob) = (layer.diff_id.clone(), layer.blob.clone());
        stack.push(store, Layer { diff_id, blob, size, media_type })?;
    }
    stack.document.config = configuration(&record);
    let changed_files = |record: &Record| -> Result<Option<Layer>, BuildError> {
        let (folders, skip) = (engine.seen(record)?, engine.scaffolding(record)?);
        if record.image.own {
            return Ok(Some(Stack::add_whole(store, &folders)?)); //      (all of it is its own)
        }
        let upper = folders.first().cloned().unwrap_or_else(PathBuf::new);
        stack.add_without(store, &upper, None, &skip)
    };
    let layer = if request.running {
        changed_files(&record)?
    } else {
        engine.while_still(&mut locked, changed_files)?? //              3. the layer, while nobody writes
    };
    drop(locked);
    let now = rfc3339(since_epoch());
    let empty_layer = layer.is_none();
    if let Some(layer) = layer {
        stack.push(store, layer)?;
    }
    let mut document = changed(stack.document.clone(), &changes)?; //  4. what the user says
    if let Some(author) = &request.author {
        document.author = Some(author.clone());
    }
    document.created = Some(now.clone());
    document.history.push(Step {
        created: Some(now),
        created_by: Some(record.command().join(" ")),
        author: request.author.clone(),
        comment: request.message.clone(),
        empty_layer,
    });
    stack.document = document;
    let id = stack.finish(store, request.name.as_slice())?; //         5. the image, and its name
    engine.note(&record, "commit", &[("imageID", id.to_string())]);
    Ok(id)
}

/// Makes another image of one, by instructions of a Dockerfile that change no file. Answers its id. The store must be held
/// [shared](Store::shared).
pub fn change(
    store: &Store,
    image: &Descriptor,
    changes: &[String],
    names: &[Reference],
) -> Result<Digest, BuildError> {
    let changes = instructions(changes)?;
    let mut stack = Stack::of_manifest(store, image.digest().as_ref(), image)?;
    stack.document = changed(stack.document.clone(), &changes)?;
    stack.finish(store, names)
}

/// Refuses instructions that [`change`] would refuse.
pub fn check_changes(changes: &[String]) -> Result<(), BuildError> {
    instructions(changes).map(drop)
}

fn instructions(texts: &[String]) -> Result<Vec<Instruction>, BuildError> {
    let mut all = Vec::new();
    for text in texts {
        let step = Dockerfile::parse_step(text)?;
        match step.instruction {
            Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::Env(_)
            | Instruction::Expose(_)
            | Instruction::Label(_)
            | Instruction::Onbuild(_)
            | Instruction::StopSignal(_)
            | Instruction::User(_)
            | Instruction::Volume(_)
            | Instruction::Workdir(_)
            | Instruction::Healthcheck(_)
            | Instruction::Shell(_) => all.push(step.instruction),
            _ => {
                let form = "one of CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, \
                            VOLUME and WORKDIR";
                return Err(BuildError::Value { what: "--change", value: text.clone(), form });
            }
        }
    }
    Ok(all)
}

/// What a container of the new image runs where nothing else is said: what this one did.
fn configuration(record: &Record) -> RunConfig {
    let (mut config, wishes) = (record.config.clone(), &record.wishes);
    if let Some(entrypoint) = &wishes.entrypoint {
        config.entrypoint = Some(entrypoint.clone()).filter(|words| !words.is_empty());
        config.cmd = None;
    }
    if !wishes.command.is_empty() {
        config.cmd = Some(wishes.command.clone());
    }
    for (name, value) in &wishes.environment {
        set_variable(&mut config.env, name, value);
    }
    config.labels.extend(wishes.labels.clone());
    if let Some(user) = &wishes.user {
        config.user.clone_from(user);
    }
    if let Some(folder) = &wishes.folder {
        config.working_dir.clone_from(folder);
    }
    if let Some(signal) = &wishes.stop_signal {
        config.stop_signal.clone_from(signal);
    }
    config.healthcheck = wishes.health.clone().or(config.healthcheck);
    config
}

/// Does instructions that change no file.
fn changed(document: Document, changes: &[Instruction]) -> Result<Document, BuildError> {
    let globals = Globals::none();
    let mut making = Making { document, scope: Scope::default(), globals: &globals, escape: '\\', own_command: false };
    for instruction in changes {
        making.apply(instruction)?;
    }
    Ok(making.document)
}
