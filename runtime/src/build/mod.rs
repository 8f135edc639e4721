//! Building an image: a Dockerfile's instructions, a layer each.
//!
//! [`build`] is the whole of it: read the file, find out which stages the wanted one needs, do the steps of each. What a
//! step changes is what overlayfs has in its upper folder afterwards, whether a program in a container changed it (`RUN`)
//! or a copy (`COPY`): that folder becomes the layer.
//!
//! ```text
//! dockerfile     a text -> stages and steps
//! scope          what a variable's value is, at a place
//! context        the folder that files come from; pattern decides which
//! stage          the steps, one by one; metadata those that change no file, files those that only copy
//! mounts         what a program sees and the image does not have
//! remote         files that lie elsewhere
//! merged         layers seen as one tree, to copy to and from
//! cache          what came of a step the last time
//! layers         folders -> layers -> an image
//! commit         a container -> an image, without a Dockerfile
//! ```

mod cache;
mod commit;
mod context;
pub mod dockerfile;
mod error;
mod files;
mod layers;
mod mask;
mod merged;
mod metadata;
mod mounts;
mod pattern;
mod progress;
mod remote;
mod scope;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use cache::{prune, remove_cache};
pub use commit::{CommitRequest, change, check_changes, commit};
pub use context::Context;
pub use error::BuildError;
pub(crate) use merged::{Merged, own_mounts};
pub use pattern::fits;
pub use progress::{Progress, Silent};

use crate::container::{Runtime, rfc3339, since_epoch};
use crate::image::{Digest, Reference, Store};
use cache::Cache;
use dockerfile::{Dockerfile, Instruction, RunMount};
use layers::Stack;
use scope::Globals;

/// What a user wants built, and how.
#[derive(Debug, Default)]
pub struct Request {
    /// The Dockerfile's text.
    pub text: String,
    /// What the image shall be called.
    pub names: Vec<Reference>,
    /// Values of ARG.
    pub arguments: BTreeMap<String, String>,
    /// The stage to build; the last one where it is absent.
    pub target: Option<String>,
    /// Whether to do again what has been done.
    pub fresh: bool,
    /// Files that programs of the build may see, by their names, and that no image has.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Seconds since 1970: no file of the image shall be newer, and it shall say that it was made then.
    pub epoch: Option<u64>,
}

/// All that a build stands on.
pub(crate) struct Site<'a> {
    store: &'a Store,
    runtime: &'a Runtime,
    context: &'a Context,
    request: &'a Request,
    progress: &'a dyn Progress,
    cache: Cache,
    globals: Globals,
    escape: char,
}

/// Builds an image, names it, and answers its id.
///
/// The calling process gets a mount namespace of its own first: what is mounted during the build is gone with it,
/// however it ends. It must have one thread only.
pub fn build(
    store: &Store,
    runtime: &Runtime,
    context: &Context,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Digest, BuildError> {
    let file = Dockerfile::parse(&request.text)?; //                     1. what is asked for
    let _shared = store.shared()?; //                                    (nobody takes layers away meanwhile)
    let target = match &request.target {
        Some(name) => file.stage(name).ok_or_else(|| BuildError::NoStage { name: name.clone() })?,
        None => file.stages.len() - 1,
    };
    let globals = Globals::read(&file, &request.arguments)?; //          2. values that hold for all stages
    let bases = globals.bases(&file)?;
    let needed = needed(&file, &bases, target)?; //                      3. which of them are needed
    merged::own_mounts()?; //                                            4. mounts that nobody else sees
    let cache = Cache::below(store.root(), request.fresh);
    let site = Site { store, runtime, context, request, progress, cache, globals, escape: file.escape };
    let mut built: Vec<Option<Stack>> = file.stages.iter().map(|_| None).collect();
    for number in &needed {
        let (Some(stage), Some(base)) = (file.stages.get(*number), bases.get(*number)) else { continue };
        let done = stage::build(&site, &file, *number, stage, base, &built)?; // 5. their steps, in order
        if let Some(place) = built.get_mut(*number) {
            *place = Some(done);
        }
    }
    for name in site.globals.unused(&request.arguments) {
        progress.warn(&format!("build argument {name} is declared by no ARG"));
    }
    let stack = built.get_mut(target).and_then(Option::take).unwrap_or_else(Stack::scratch);
    stack.finish(store, &request.names) //                               6. the image, and its names
}

/// The stages that one needs, itself the last.
fn needed(file: &Dockerfile, bases: &[String], target: usize) -> Result<BTreeSet<usize>, BuildError> {
    let mut needed = BTreeSet::new();
    let mut open = vec![target];
    while let Some(number) = open.pop() {
        let Some(stage) = file.stages.get(number).filter(|_| needed.insert(number)) else { continue };
        open.extend(bases.get(number).and_then(|base| earlier(file, base, number)));
        for step in &stage.steps {
            for from in sources(&step.instruction) {
                match file.stage(from) {
                    Some(other) if other < number => open.push(other),
                    Some(_) => return Err(BuildError::Later { line: step.line, name: from.clone() }),
                    None => {}
                }
            }
        }
    }
    Ok(needed)
}

/// The stages or images that an instruction takes files from.
fn sources(instruction: &Instruction) -> Vec<&String> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(RunMount::from).collect(),
        _ => Vec::new(),
    }
}

/// The number of a stage that comes before another, by its name: FROM knows no numbers.
fn earlier(file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    file.stages.iter().take(before).position(|stage| stage.name.as_deref() == Some(&lower))
}

impl Site<'_> {
    /// The time that the image shall say it was made.
    fn now(&self) -> String {
        let epoch = self.request.epoch.map(std::time::Duration::from_secs);
        rfc3339(epoch.unwrap_or_else(since_epoch))
    }

    fn data(&self) -> PathBuf {
        self.store.root().to_owned()
    }
}
