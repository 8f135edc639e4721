//! A stage: its steps, one by one, each a layer or a change of what the image says.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::info_span;

use super::Site;
use super::cache::{Key, Layer, Outcome};
use super::dockerfile::{Command, Copy, Dockerfile, Instruction, MountKind, Run, RunMount, Stage, Step};
use super::error::{BuildError, io_error};
use super::files::Copier;
use super::layers::Stack;
use super::mask;
use super::merged::Merged;
use super::metadata::Making;
use super::mounts::Held;
use super::remote::{Fetched, is_address};
use super::scope::Scope;
use crate::container::Ending;
use crate::engine::document::Step as History;
use crate::engine::{Container, Mount, Network, Place, Wishes};
use crate::image::Digest;

/// Where the runtime mounts something, outer folders last. What a RUN step leaves there is only a place to mount on.
const MOUNT_POINTS: [&str; 7] = ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc", "dev", "proc", "sys"];

/// A stage that is being built.
struct Builder<'a> {
    site: &'a Site<'a>,
    file: &'a Dockerfile,
    built: &'a [Option<Stack>],
    stack: Stack,
    making: Making<'a>,
    name: String,
}

/// Builds a stage upon `base`, a stage before it or an image.
pub(super) fn build(
    site: &Site<'_>,
    file: &Dockerfile,
    number: usize,
    stage: &Stage,
    base: &str,
    built: &[Option<Stack>],
) -> Result<Stack, BuildError> {
    check_platform(site, stage)?;
    let failed = |source| BuildError::Step { line: stage.line, text: format!("FROM {base}"), source: Box::new(source) };
    let earlier = super::earlier(file, base, number).and_then(|earlier| built.get(earlier).cloned().flatten());
    let stack = match earlier {
        Some(stack) => stack,
        None if base == "scratch" => Stack::scratch(),
        None => Stack::of_image(site.store, base).map_err(failed)?,
    };
    let mut document = stack.document.clone();
    // What the base put off is done now, and by this image only.
    let put_off = std::mem::take(&mut document.config.on_build);
    let making =
        Making { document, scope: Scope::default(), globals: &site.globals, escape: site.escape, own_command: false };
    let name = stage.name.clone().unwrap_or_else(|| number.to_string());
    let mut builder = Builder { site, file, built, stack, making, name };
    let mut triggers = Vec::new();
    for text in &put_off {
        let mut step = Dockerfile::parse_step(text)?;
        step.line = stage.line;
        triggers.push(step);
    }
    let of = triggers.len() + stage.steps.len();
    for (number, step) in triggers.iter().chain(&stage.steps).enumerate() {
        site.progress.step(&builder.name, number + 1, of, &step.text);
        let wrap = |source| BuildError::Step { line: step.line, text: step.text.clone(), source: Box::new(source) };
        builder.step(step).map_err(wrap)?;
    }
    Ok(builder.stack)
}

fn check_platform(site: &Site<'_>, stage: &Stage) -> Result<(), BuildError> {
    let Some(asked) = &stage.platform else { return Ok(()) };
    let asked = site.globals.substitute(asked, site.escape, stage.line)?;
    let own = site.globals.substitute("$BUILDPLATFORM", site.escape, stage.line)?;
    if asked == own || format!("linux/{asked}") == own {
        return Ok(());
    }
    Err(BuildError::Platform { line: stage.line, asked, own })
}

/// What a step comes to, before it is done.
enum Work<'a> {
    /// It changes no file.
    Nothing,
    /// A program.
    Run(&'a Run),
    /// Files from another image, or from the build's folder where there is none; and where those that were fetched lie.
    Copy(Box<(Copier, Option<Stack>, Option<Place>)>),
    /// A folder, if it is not there.
    Folder(String),
}

impl<'a> Builder<'a> {
    /// One step: what it is, whether it has been done before, and else, done now.
    fn step(&mut self, step: &'a Step) -> Result<(), BuildError> {
        let begun = Instant::now();
        self.making.apply(&step.instruction)?;
        let (what, seen, work) = self.work(step)?;
        let key = self.stack.key.then(&format!("{what}{seen}"));
        let history = |created: &str, empty| History {
            created: Some(created.to_owned()),
            created_by: Some(what.clone()),
            empty_layer: empty,
            ..History::default()
        };
        if let Some(found) = self.site.cache.find(&key)
            && found.layer.clone().is_none_or(|layer| self.push(layer).is_ok())
        {
            self.record(key, history(&found.created, found.layer.is_none()));
            self.site.progress.cached();
            return Ok(());
        }
        let layer = self.work_on(&work)?;
        let result = Outcome { created: self.site.now(), layer };
        if let Some(layer) = &result.layer {
            self.push(layer.clone())?;
        }
        self.site.cache.keep(self.site.store, &key, &result)?;
        self.record(key, history(&result.created, result.layer.is_none()));
        self.tell(begun.elapsed(), result.layer.as_ref());
        Ok(())
    }

    fn tell(&self, took: Duration, layer: Option<&Layer>) {
        let short = |layer: &Layer| layer.diff_id.split(':').next_back().unwrap_or_default().chars().take(12).collect();
        let told: Option<(String, u64)> = layer.map(|layer| (short(layer), layer.size));
        self.site.progress.done(took, told.as_ref().map(|(id, size)| (id.as_str(), *size)));
    }

    fn push(&mut self, layer: Layer) -> Result<(), BuildError> {
        // The document that grows is the stage's own; the stack's follows at each step's end.
        Ok(self.stack.push(self.site.store, layer)?)
    }

    fn record(&mut self, key: Key, history: History) {
        let document = &mut self.making.document;
        document.rootfs.diff_ids.clone_from(&self.stack.document.rootfs.diff_ids);
        document.created.clone_from(&history.created);
        document.history.push(history);
        self.stack.document = document.clone();
        self.stack.key = key;
    }

    /// What a step does: as its image's history tells it, what else it sees, and as work. Both texts are the same only if
    /// the step is.
    fn work(&self, step: &'a Step) -> Result<(String, String, Work<'a>), BuildError> {
        match &step.instruction {
            Instruction::Run(run) => {
                let given = self.making.scope.environment(&self.making.document.config);
                let given: Vec<String> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let count =
                    if given.is_empty() { String::new() } else { format!("|{} {} ", given.len(), given.join(" ")) };
                let mut what = format!("RUN {count}{}", self.making.command(&run.command).join(" "));
                for document in &run.documents {
                    what.push_str(&document.below());
                }
                Ok((what, self.seen(run)?, Work::Run(run)))
            }
            Instruction::Copy(copy) => {
                let (copier, place) = self.copier(copy)?;
                let from = copy.from.as_deref().map(|from| self.source(from)).transpose()?;
                let content = match &from {
                    // A stage's files are known by its layers.
                    Some(stack) => stack.document.rootfs.diff_ids.join(","),
                    None => copier.digest(&self.site.context.root, &self.site.context.ignore)?,
                };
                let what = format!("{} # {content}", step.text);
                Ok((what, String::new(), Work::Copy(Box::new((copier, from, place)))))
            }
            Instruction::Workdir(_) => {
                let path = self.making.document.config.working_dir.clone();
                Ok((format!("WORKDIR {path}"), String::new(), Work::Folder(path)))
            }
            _ => Ok((step.text.clone(), String::new(), Work::Nothing)),
        }
    }

    fn work_on(&self, work: &Work<'_>) -> Result<Option<Layer>, BuildError> {
        match work {
            Work::Nothing => Ok(None),
            Work::Run(run) => self.run(run),
            Work::Copy(work) => self.copy(&work.0, work.1.as_ref()),
            Work::Folder(path) => {
                let place = self.place()?;
                let root = self.stack.open(&place)?;
                Copier::folder(root.root(), path)?;
                drop(root);
                self.stack.add(self.site.store, &place.upper, self.site.request.epoch)
            }
        }
    }

    fn place(&self) -> Result<Place, BuildError> {
        let folders = self.stack.folders();
        Ok(Place::make(&self.site.data(), folders.first().map(PathBuf::as_path))?)
    }

    /// The stage or image that files come from.
    fn source(&self, from: &str) -> Result<Stack, BuildError> {
        let stage = self.file.stage(from).and_then(|number| self.built.get(number).cloned().flatten());
        stage.map_or_else(|| Stack::of_image(self.site.store, from), Ok)
    }

    /// What a RUN sees besides the image, as far as another build may find other files there.
    fn seen(&self, run: &Run) -> Result<String, BuildError> {
        let mut seen = String::new();
        for mount in &run.mounts {
            seen.extend(["\n", &mount.text]);
            let MountKind::Bind { from, source, .. } = &mount.kind else { continue };
            let content = if let Some(from) = from {
                self.source(&self.making.word(from)?)?.document.rootfs.diff_ids.join(",")
            } else {
                let (sources, context) = (vec![self.making.word(source)?], self.site.context);
                Copier { sources, ..Copier::default() }.digest(&context.root, &context.ignore)?
            };
            seen.extend([" # ", &content]);
        }
        Ok(seen)
    }

    /// Mounts what a RUN wants to see.
    fn hold(&self, run: &Run) -> Result<Held, BuildError> {
        let mut held = Held::default();
        let data = self.site.data();
        for mount in &run.mounts {
            let target = self.making.word(&mount.target)?;
            let at = RunMount::place(&self.making.absolute("."), &target);
            if at.as_os_str().is_empty() {
                return Err(BuildError::Value { what: "--mount", value: target, form: "a place below the root" });
            }
            held.add(&data, mount, &at, &self.site.request.secrets, || self.place())?;
            let MountKind::Bind { from, source, writable } = &mount.kind else { continue };
            let (source, place) = (self.making.word(source)?, self.place()?);
            let from = from.as_deref().map(|from| self.source(&self.making.word(from)?)).transpose()?;
            let view = match (from, writable) {
                (Some(stack), true) => Some(stack.open(&place)?),
                (Some(stack), false) => Some(stack.view(&place)?),
                (None, writable) => self.folder_view(*writable, &place)?,
            };
            let tree = view.as_ref().map_or(self.site.context.root.as_path(), Merged::root).to_owned();
            held.bind(&tree, &source, &at, *writable)?;
            held.keep(view, place);
        }
        Ok(held)
    }

    /// The build's folder as a step may see it; nothing where that is the folder as it lies there.
    fn folder_view(&self, writable: bool, place: &Place) -> Result<Option<Merged>, BuildError> {
        let context = self.site.context;
        let mut layers = vec![context.root.clone()];
        let hidden = mask::hidden(context)?;
        if !hidden.is_empty() {
            let above = place.folder().join("mask");
            mask::write(context, &hidden, &above)?;
            layers.insert(0, above);
        }
        let at = place.folder().join("root");
        if writable {
            return Merged::writable(&layers, &place.upper, &place.work, &at).map(Some);
        }
        (layers.len() > 1).then(|| Merged::readable(&layers, &place.empty, &at)).transpose()
    }

    /// Fetches the sources that lie elsewhere.
    fn fetch(&self, copy: &Copy, sources: &mut Vec<String>) -> Result<(Vec<Fetched>, Option<Place>), BuildError> {
        let form = "the digest of one file that is fetched";
        let checksum = copy.checksum.as_deref().map(|text| self.making.word(text)).transpose()?;
        let wrong = |value: &String| BuildError::Value { what: "--checksum", value: value.clone(), form };
        let addresses: Vec<String> = sources.iter().filter(|one| copy.add && is_address(one)).cloned().collect();
        if let Some(value) = checksum.as_ref().filter(|_| addresses.len() != 1 || sources.len() != 1) {
            return Err(wrong(value));
        }
        if addresses.is_empty() {
            return Ok((Vec::new(), None));
        }
        sources.retain(|one| !is_address(one));
        let place = self.place()?;
        let fetch = |(number, address): (usize, &String)| super::remote::fetch(address, place.folder(), number);
        let fetched = addresses.iter().enumerate().map(fetch).collect::<Result<Vec<_>, _>>()?;
        if let (Some(value), Some(file)) = (&checksum, fetched.first()) {
            let expected: Digest = value.parse().map_err(|_| wrong(value))?;
            let content = fs::read(&file.path).map_err(io_error("read", &file.path))?;
            if !expected.verify(&content) {
                let address = addresses.first().cloned().unwrap_or_default();
                return Err(BuildError::Checksum { address, found: file.digest.to_string() });
            }
        }
        Ok((fetched, Some(place)))
    }

    fn copier(&self, copy: &Copy) -> Result<(Copier, Option<Place>), BuildError> {
        let mut documents = Vec::new();
        for document in &copy.documents {
            let text = if document.expand {
                let (scope, config) = (&self.making.scope, &self.making.document.config);
                scope.document(&document.text, config, self.site.escape).map_err(BuildError::Variable)?
            } else {
                document.text.clone()
            };
            documents.push((document.name.clone(), text));
        }
        let to = self.making.word(&copy.to)?;
        let owner = copy.chown.as_deref().map(|text| self.making.word(text)).transpose()?;
        let mode = copy.chmod.as_deref().map(|text| self.making.word(text)).transpose()?;
        let mut sources = self.making.words(&copy.sources)?;
        let (fetched, place) = self.fetch(copy, &mut sources)?;
        let copier = Copier {
            add: copy.add,
            sources,
            documents,
            fetched,
            into_folder: to.ends_with('/') || to == "." || to.ends_with("/."),
            to: self.making.absolute(&to),
            owner: owner
                .map(|text| crate::engine::identify(&text, &self.stack.folders()).map(|it| own(&text, &it)))
                .transpose()?,
            mode: mode.map(|text| octal(&text)).transpose()?,
            exclude: self.making.words(&copy.exclude)?,
            keeps_owner: copy.from.is_some(),
            epoch: self.site.request.epoch,
        };
        Ok((copier, place))
    }

    fn copy(&self, copier: &Copier, from: Option<&Stack>) -> Result<Option<Layer>, BuildError> {
        let _span = info_span!(
            "build.copy",
            call = "openat2(2), write(2)",
            why = "files are written to the layers seen as one tree, where links lead as they will in a container"
        )
        .entered();
        let place = self.place()?;
        let to = self.stack.open(&place)?;
        let context = self.site.context;
        match from {
            Some(stack) => {
                let view = stack.view(&place)?;
                copier.copy(view.root(), &super::pattern::Ignore::default(), to.root(), place.folder())?;
            }
            None => copier.copy(&context.root, &context.ignore, to.root(), place.folder())?,
        }
        drop(to);
        self.stack.add(self.site.store, &place.upper, self.site.request.epoch)
    }

    /// A program in a container; what it wrote is the layer.
    fn run(&self, run: &Run) -> Result<Option<Layer>, BuildError> {
        let folders = self.stack.folders();
        let mut environment = Scope::proxies(self.making.globals);
        environment.extend(self.making.scope.environment(&self.making.document.config));
        let scripts = self.place()?;
        let (words, mut mounts) = self.script(run, &scripts)?;
        let mut held = self.hold(run)?;
        mounts.append(&mut held.mounts);
        let wishes = Wishes {
            entrypoint: Some(words),
            environment,
            hostname: Some("build".to_owned()),
            mounts,
            tmpfs: std::mem::take(&mut held.tmpfs),
            network: if run.network { Network::Host } else { Network::None },
            ..Wishes::default()
        };
        let points: Vec<String> = held.points.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let points: Vec<&str> = points.iter().map(String::as_str).chain(MOUNT_POINTS).collect();
        let missing: Vec<&str> = points.iter().copied().filter(|path| !crate::engine::has(&folders, path)).collect();
        let container = Container::prepare(&self.site.data(), &self.making.document.config, &folders, &wishes)?;
        let ending: Ending = super::progress::told(self.site.progress, || container.run(self.site.runtime))?;
        if ending.code() != 0 {
            return Err(BuildError::Status(ending.code()));
        }
        tidy(container.upper(), &points, &missing, &folders)?;
        self.stack.add(self.site.store, container.upper(), self.site.request.epoch)
    }

    /// The words to run, and what has to be mounted for them: a document that says itself what reads it (`#!`).
    fn script(&self, run: &Run, place: &Place) -> Result<(Vec<String>, Vec<Mount>), BuildError> {
        let Command::Shell(line) = &run.command else { return Ok((self.making.command(&run.command), Vec::new())) };
        let alone = match run.documents.as_slice() {
            [document] if line.trim() == document.word => Some(document),
            _ => None,
        };
        if let Some(document) = alone.filter(|document| document.text.starts_with("#!")) {
            let from = place.folder().join("script");
            fs::write(&from, &document.text).map_err(io_error("write", &from))?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&from, mode).map_err(io_error("change", &from))?;
            let to = Path::new("/dev/pipes").join(&document.name);
            let words = vec![to.to_string_lossy().into_owned()];
            return Ok((words, vec![Mount { from, to, read_only: true, volume: None }]));
        }
        let text = if let Some(document) = alone {
            document.text.clone()
        } else {
            let documents = run.documents.iter().map(super::dockerfile::HereDocument::below);
            std::iter::once(line.clone()).chain(documents).collect()
        };
        Ok((self.making.command(&Command::Shell(text)), Vec::new()))
    }
}

/// The owner that `--chown` means: a user without a group brings none of his own, as docker has it only for numbers.
fn own(text: &str, identity: &crate::engine::Identity) -> (u32, u32) {
    let number = text.parse::<u32>().ok();
    (identity.uid, number.unwrap_or(identity.gid))
}

fn octal(text: &str) -> Result<u32, BuildError> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| BuildError::Value { what: "--chmod", value: text.to_owned(), form: "octal, such as 755" })
}

/// Takes away what only was there to be mounted on, and folders that were touched for it and are as they were.
fn tidy(upper: &Path, points: &[&str], missing: &[&str], folders: &[PathBuf]) -> Result<(), BuildError> {
    for &point in points {
        let path = upper.join(point);
        let Ok(found) = path.symlink_metadata() else { continue };
        let removed = if found.is_file() && found.len() == 0 && missing.contains(&point) {
            fs::remove_file(&path)
        } else if found.is_dir() && fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()) {
            let below = folders.iter().find_map(|folder| folder.join(point).symlink_metadata().ok());
            let same = |below: &fs::Metadata| {
                (below.mode(), below.uid(), below.gid()) == (found.mode(), found.uid(), found.gid())
            };
            if missing.contains(&point) || below.is_some_and(|below| same(&below)) {
                fs::remove_dir(&path)
            } else {
                Ok(())
            }
        } else {
            Ok(())
        };
        removed.map_err(io_error("remove", path))?;
    }
    Ok(())
}
