//! A bundle: the folder with `config.json`, read once and checked before anything is done (OCI runtime specification,
//! bundle.md and config.md).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};
use tracing::info_span;

use super::handed::Handed;
use super::labels;
use super::net_devices::{self, NetDevice};
use super::seccomp::{DEFAULT, Profile, SECCOMP};
use super::treatment::Treatment;

/// The annotation that asks for an overlay root file system: absolute folders, the uppermost first, joined by colons; a
/// colon or backslash that belongs to a path has a backslash before it.
pub const OVERLAY_LOWER: &str = "org.isolab.overlay.lower";
/// The folder that the container's changes go to; a private tmpfs takes them where this is absent.
pub const OVERLAY_UPPER: &str = "org.isolab.overlay.upper";
/// The folder that overlayfs works in, on the same file system as the upper one.
pub const OVERLAY_WORK: &str = "org.isolab.overlay.work";
/// `true` where nobody needs the changes once the container has ended: then its end does not wait for the disk.
pub const OVERLAY_VOLATILE: &str = "org.isolab.overlay.volatile";
/// The annotation, `true` or `false`, that shows the overlay's files to the container under the ids of its new user namespace:
/// what belongs to number 0 on the disk is its root's. The upper folder and the work folder must lie in one folder.
pub const OVERLAY_IDMAP: &str = "org.isolab.overlay.idmap";

/// A configuration that has been read and checked.
#[derive(Debug)]
pub struct Bundle {
    pub(crate) folder: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) process: Process,
    /// Whether the configuration has no `process`: it can be created, and waits for a start that is refused.
    pub(crate) nothing_to_run: bool,
    pub(crate) linux: Linux,
    pub(crate) root: Root,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) treatment: Treatment,
    /// The `SELinux` context of files that are made for the container; nothing where nobody would read it.
    pub(crate) file_label: Option<String>,
    pub(crate) warnings: Vec<String>,
    /// The configuration as it was read.
    pub(crate) text: Vec<u8>,
    /// What the caller hands over beside it.
    pub(crate) handed: Handed,
}

/// Where the container's root file system comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// The folder that it is, or that the overlay is mounted upon.
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
    pub(crate) overlay: Option<Overlay>,
}

/// Folders to be seen as one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    /// Never written; the uppermost first.
    pub(crate) lower: Vec<PathBuf>,
    /// Where changes go, and the folder overlayfs works in; nothing for a tmpfs.
    pub(crate) upper: Option<(PathBuf, PathBuf)>,
    /// Whether nobody needs the changes afterwards.
    pub(crate) volatile: bool,
    /// Whether its files have other owners than on the disk (see `outside_overlay`).
    pub(crate) maps_ids: bool,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The bundle's folder is missing or closed to us.
    #[error("cannot open the bundle {}", .path.display())]
    Folder {
        /// The folder as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration is missing or closed to us.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration is not JSON, or not of the shape that the specification gives it.
    #[error("{} is no container configuration", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where, with line and column.
        source: serde_json::Error,
    },
    /// A value that the specification or this runtime does not allow.
    #[error("{} says {field}: {problem}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The path of the value inside the file.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A refusal before the file's name is known.
pub(super) type Refusal = (String, String);

pub(super) fn refuse<T>(field: &str, problem: impl Into<String>) -> Result<T, Refusal> {
    Err((field.to_owned(), problem.into()))
}

impl Bundle {
    /// Reads and checks the bundle in `folder`.
    pub fn load(folder: &Path) -> Result<Self, BundleError> {
        let _span = info_span!(
            "bundle.load",
            call = "read(config.json)",
            why = "one file says all that the container shall be; it is checked before anything is done"
        )
        .entered();
        let folder = folder.canonicalize().map_err(|source| BundleError::Folder { path: folder.to_owned(), source })?;
        let path = folder.join("config.json");
        let text = crate::spans::fault().map_err(io::Error::from).and_then(|()| fs::read(&path));
        let text = text.map_err(|source| BundleError::Read { path: path.clone(), source })?;
        let (spec, warnings) = parse(&text).map_err(|source| BundleError::Parse { path: path.clone(), source })?;
        let checked = Self::check(folder, spec, warnings);
        let bundle = checked.map_err(|(field, problem)| BundleError::Refused { path, field, problem })?;
        Ok(Self { text, ..bundle })
    }

    /// Adds what the caller hands over; `environment` is added to the program's.
    pub fn hand(&mut self, handed: Handed, environment: Vec<String>) {
        if !environment.is_empty() {
            let env = self.process.env_mut().get_or_insert_default();
            env.extend(environment);
        }
        self.handed = handed;
    }

    /// Has the container join a network namespace that is there, where it would have had a new one.
    pub(crate) fn lend_network(&mut self, path: &Path) {
        let all = self.linux.namespaces_mut().iter_mut().flatten();
        for namespace in all.filter(|one| one.typ() == LinuxNamespaceType::Network) {
            namespace.set_path(Some(path.to_owned()));
        }
    }

    /// What the author of the bundle should hear of, though the container starts.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn check(folder: PathBuf, spec: Spec, mut warnings: Vec<String>) -> Result<Self, Refusal> {
        check_version(spec.version())?;
        let nothing_to_run = spec.process().is_none();
        let process = spec.process().clone().unwrap_or_else(idle);
        if !nothing_to_run {
            check_process(&process)?;
        }
        let linux = spec.linux().clone().unwrap_or_else(empty_linux);
        check_namespaces(&spec, &linux)?;
        super::statements::check(&spec, &process, &linux)?;
        check_profile(&spec)?;
        let net_devices = net_devices::plan(&linux)?;
        let treatment = Treatment::plan(&process, &linux).map_err(|(field, problem)| (field.to_owned(), problem))?;
        let root = check_root(&folder, &spec)?;
        let file_label = labels::for_files(linux.mount_label().as_ref(), &mut warnings);
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let field = format!("mounts[{index}].destination");
            if without_nul(mount.destination().as_os_str().as_encoded_bytes()).is_none() {
                return refuse(&field, "has a NUL byte");
            }
            if !mount.destination().components().any(|part| matches!(part, std::path::Component::Normal(_))) {
                return refuse(&field, "must name a folder below the root");
            }
        }
        Ok(Self {
            folder,
            spec,
            process,
            nothing_to_run,
            linux,
            root,
            net_devices,
            treatment,
            file_label,
            warnings,
            text: Vec::new(),
            handed: Handed::default(),
        })
    }
}

/// Parses, forgiving capability names that nobody knows: the specification says to warn of those, not to fail.
fn parse(text: &[u8]) -> Result<(Spec, Vec<String>), serde_json::Error> {
    let error = match serde_json::from_slice(text) {
        Ok(spec) => return Ok((spec, Vec::new())),
        Err(error) => error,
    };
    // The types know no unknown capability. Only here, where they refused, is the slower way worth its time.
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(text) else { return Err(error) };
    let mut unknown = Vec::new();
    if let Some(sets) = value.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut) {
        for names in sets.values_mut().filter_map(serde_json::Value::as_array_mut) {
            names.retain(|name| {
                let known = serde_json::from_value::<oci_spec::runtime::Capability>(name.clone()).is_ok();
                if let (false, Some(name)) = (known, name.as_str()) {
                    unknown.push(name.to_owned());
                }
                known || !name.is_string()
            });
        }
    }
    unknown.sort();
    unknown.dedup();
    if unknown.is_empty() {
        return Err(error);
    }
    let spec = serde_json::from_value(value).map_err(|_| error)?;
    Ok((spec, unknown.iter().map(|name| format!("capability {name} is unknown and is left out")).collect()))
}

/// Reads the configuration that a container of the bundle in `folder` was made with.
pub(crate) fn read_kept(folder: &Path, text: &[u8]) -> Result<Spec, BundleError> {
    let read = parse(text).map_err(|source| BundleError::Parse { path: folder.join("config.json"), source });
    read.map(|(spec, _)| spec)
}

/// Reads a file with a process and nothing else; with what its author should hear of.
pub(crate) fn read_process(path: &Path) -> Result<(Process, Vec<String>), BundleError> {
    let text = fs::read(path).map_err(|source| BundleError::Read { path: path.to_owned(), source })?;
    let failed = |source| BundleError::Parse { path: path.to_owned(), source };
    process_of(&serde_json::from_slice(&text).map_err(failed)?, path)
}

/// The same of what was read from `path`.
pub(crate) fn process_of(process: &serde_json::Value, path: &Path) -> Result<(Process, Vec<String>), BundleError> {
    let failed = |source| BundleError::Parse { path: path.to_owned(), source };
    let whole = serde_json::json!({ "ociVersion": "1.0.0", "process": process }).to_string();
    let (spec, warnings) = parse(whole.as_bytes()).map_err(failed)?;
    let missing =
        || BundleError::Refused { path: path.to_owned(), field: "process".to_owned(), problem: "missing".to_owned() };
    Ok((spec.process().clone().ok_or_else(missing)?, warnings))
}

/// What holds for a process of a configuration holds for one that is added later.
pub(crate) fn check_exec(process: &Process) -> Result<(), BundleError> {
    check_process(process).map_err(refused_process)
}

/// How the kernel shall treat a process that is added later to a container of `linux`.
pub(crate) fn treat_exec(process: &Process, linux: Option<&Linux>) -> Result<Treatment, BundleError> {
    let plan = match linux {
        Some(linux) => Treatment::plan(process, linux),
        None => Treatment::plan(process, &empty_linux()),
    };
    plan.map_err(|(field, problem)| refused_process((field.to_owned(), problem)))
}

fn refused_process((field, problem): Refusal) -> BundleError {
    BundleError::Refused { path: PathBuf::from("the process"), field, problem }
}

/// No namespaces and no devices; the type's own default would be a whole ready-made container.
fn empty_linux() -> Linux {
    serde_json::from_str("{}").unwrap_or_default()
}

/// Who is nobody in particular, at the root, and has no program.
fn idle() -> Process {
    // The type's own default would be a shell.
    serde_json::from_str(r#"{"user":{},"cwd":"/"}"#).unwrap_or_default()
}

/// config.md, "Specification version": `SemVer`, of which a whole major version is compatible.
fn check_version(version: &str) -> Result<(), Refusal> {
    match (version, read_version(version)) {
        ("", _) => refuse("ociVersion", "missing"),
        (_, Some((1, ..))) => Ok(()),
        (_, Some(_)) => refuse("ociVersion", format!("{version:?}, but only versions 1.x are understood")),
        (_, None) => refuse("ociVersion", format!("{version:?} is no version such as 1.0.2")),
    }
}

/// The three numbers of a version in the form of `SemVer` 2.0.0; what is behind a dash or a plus only has to be there.
pub(crate) fn read_version(text: &str) -> Option<(u32, u32, u32)> {
    let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !rest.is_empty() && !rest.get(1..)?.split(['.', '+']).all(word) {
        return None;
    }
    let number = |part: &str| {
        let plain = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        part.parse().ok().filter(|_| plain)
    };
    let mut parts = numbers.split('.').map(number);
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

fn without_nul(bytes: &[u8]) -> Option<()> {
    (!bytes.contains(&0)).then_some(())
}

fn check_process(process: &Process) -> Result<(), Refusal> {
    let arguments = process.args().as_deref().unwrap_or_default();
    match arguments.first() {
        None => return refuse("process.args", "missing, so there is nothing to run"),
        Some(first) if first.is_empty() => return refuse("process.args", "the program's name is empty"),
        Some(_) => {}
    }
    for (field, texts) in [("process.args", arguments), ("process.env", process.env().as_deref().unwrap_or_default())] {
        if texts.iter().any(|text| without_nul(text.as_bytes()).is_none()) {
            return refuse(field, "has a NUL byte, which no program can be given");
        }
    }
    if !process.cwd().is_absolute() || without_nul(process.cwd().as_os_str().as_encoded_bytes()).is_none() {
        return refuse("process.cwd", format!("{}, but it must be an absolute path", process.cwd().display()));
    }
    Ok(())
}

/// Namespaces are listed once each, and what is set in a namespace needs that namespace.
fn check_namespaces(spec: &Spec, linux: &Linux) -> Result<(), Refusal> {
    let listed: Vec<LinuxNamespaceType> =
        linux.namespaces().iter().flatten().map(oci_spec::runtime::LinuxNamespace::typ).collect();
    let has = |kind| listed.contains(&kind);
    for (index, kind) in listed.iter().enumerate() {
        if listed.iter().take(index).any(|earlier| earlier == kind) {
            return refuse("linux.namespaces", format!("{kind} is listed twice"));
        }
    }
    if !has(LinuxNamespaceType::Mount) && has(LinuxNamespaceType::User) {
        return refuse(
            "linux.namespaces",
            "there is no mount namespace, and a user namespace may mount nothing in another's",
        );
    }
    if (spec.hostname().is_some() || spec.domainname().is_some()) && !has(LinuxNamespaceType::Uts) {
        return refuse("hostname", "set, but there is no uts namespace: it would rename the host");
    }
    for (field, maps) in [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())] {
        if maps.is_some() && !has(LinuxNamespaceType::User) {
            return refuse(field, "set, but there is no user namespace");
        }
    }
    if linux.time_offsets().is_some() && !has(LinuxNamespaceType::Time) {
        return refuse("linux.timeOffsets", "set, but there is no time namespace");
    }
    for name in linux.sysctl().iter().flat_map(HashMap::keys) {
        let field = format!("linux.sysctl.{name}");
        let name = name.replace('/', ".");
        let needed = match name.split('.').next() {
            _ if name.contains("..") => return refuse(&field, "is no name of a kernel parameter"),
            Some("net") => LinuxNamespaceType::Network,
            Some("fs") if name.starts_with("fs.mqueue.") => LinuxNamespaceType::Ipc,
            Some("kernel") if ["domainname", "hostname"].iter().any(|last| name == format!("kernel.{last}")) => {
                LinuxNamespaceType::Uts
            }
            Some("kernel")
                if name.starts_with("kernel.msg") || name.starts_with("kernel.shm") || name == "kernel.sem" =>
            {
                LinuxNamespaceType::Ipc
            }
            _ => return refuse(&field, "belongs to the whole host, not to a namespace"),
        };
        if !has(needed) {
            return refuse(&field, format!("needs a {needed} namespace: it would change the host"));
        }
    }
    Ok(())
}

/// The annotation stands in place of a profile, and has one value.
fn check_profile(spec: &Spec) -> Result<(), Refusal> {
    let Some(asked) = spec.annotations().as_ref().and_then(|all| all.get(SECCOMP)) else { return Ok(()) };
    match Profile::of(spec) {
        Some(Profile::Given(_)) => refuse(SECCOMP, "set, but linux.seccomp is there as well"),
        Some(Profile::Default) => Ok(()),
        None => refuse(SECCOMP, format!("{asked:?}, but only {DEFAULT:?} is known")),
    }
}

fn check_root(folder: &Path, spec: &Spec) -> Result<Root, Refusal> {
    let Some(root) = spec.root() else { return refuse("root", "missing") };
    if root.path().as_os_str().is_empty() {
        return refuse("root.path", "missing");
    }
    let path = folder.join(root.path());
    check_folder("root.path", &path)?;
    let overlay = check_overlay(spec.annotations().as_ref())?;
    Ok(Root { path, readonly: root.readonly().unwrap_or(false), overlay })
}

fn check_overlay(annotations: Option<&HashMap<String, String>>) -> Result<Option<Overlay>, Refusal> {
    let find = |key: &str| annotations.and_then(|all| all.get(key));
    let Some(lower) = find(OVERLAY_LOWER) else { return Ok(None) };
    let lower = split_escaped(lower);
    for path in &lower {
        check_folder(OVERLAY_LOWER, path)?;
    }
    let upper = match (find(OVERLAY_UPPER), find(OVERLAY_WORK)) {
        (None, None) => None,
        (Some(upper), Some(work)) => {
            check_folder(OVERLAY_UPPER, Path::new(upper))?;
            check_folder(OVERLAY_WORK, Path::new(work))?;
            Some((PathBuf::from(upper), PathBuf::from(work)))
        }
        _ => return refuse(OVERLAY_UPPER, "an upper folder and a work folder must be given together"),
    };
    let says = |key: &str| match find(key).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => refuse(key, "it is true or false"),
    };
    let (volatile, maps_ids) = (says(OVERLAY_VOLATILE)?, says(OVERLAY_IDMAP)?);
    let together = upper.as_ref().is_some_and(|(upper, work)| upper.parent() == work.parent());
    if maps_ids && !together {
        return refuse(OVERLAY_IDMAP, "it takes an upper folder and a work folder that lie in the same folder");
    }
    Ok(Some(Overlay { lower, upper, volatile, maps_ids }))
}

fn check_folder(field: &str, path: &Path) -> Result<(), Refusal> {
    if !path.is_absolute() {
        return refuse(field, format!("{}, but it must be an absolute path", path.display()));
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refuse(field, format!("{} is no folder", path.display())),
        Err(error) => refuse(field, format!("{}: {error}", path.display())),
    }
}

/// Splits at colons that have no backslash before them, and takes the backslashes away.
fn split_escaped(text: &str) -> Vec<PathBuf> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let kept = match character {
            ':' => {
                parts.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(last) = parts.last_mut() {
            last.push(kept);
        }
    }
    parts.into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::{Bundle, BundleError, parse, read_version, split_escaped};
    use std::path::PathBuf;

    const GOOD: &str = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},
        "process":{"user":{},"args":["sh"],"cwd":"/"},"linux":{"namespaces":[{"type":"mount"}]}}"#;

    fn load(text: &str) -> Result<Bundle, BundleError> {
        let folder = tempfile::tempdir().expect("a folder for the test");
        std::fs::create_dir(folder.path().join("rootfs")).expect("a root");
        std::fs::write(folder.path().join("config.json"), text).expect("a configuration");
        Bundle::load(folder.path())
    }

    #[test]
    fn a_minimal_configuration_is_taken() {
        let bundle = load(GOOD).expect("it is good");
        assert!(bundle.root.path.ends_with("rootfs") && bundle.warnings.is_empty());
    }

    #[test]
    fn a_wrong_value_is_refused_by_its_name() {
        let table = [
            (r#""ociVersion":"1.0.2""#, r#""ociVersion":"2.0.0""#, "ociVersion"),
            (r#""ociVersion":"1.0.2""#, r#""ociVersion":"1.0""#, "ociVersion"),
            (r#""args":["sh"]"#, r#""args":[]"#, "process.args"),
            (r#""args":["sh"]"#, r#""args":["a\u0000b"]"#, "process.args"),
            (r#""cwd":"/""#, r#""cwd":"tmp""#, "process.cwd"),
            (r#""path":"rootfs""#, r#""path":"nowhere""#, "root.path"),
            (r#"[{"type":"mount"}]"#, r#"[{"type":"user"}]"#, "linux.namespaces"),
            (r#"[{"type":"mount"}]"#, r#"[{"type":"mount"},{"type":"mount"}]"#, "linux.namespaces"),
            (
                r#"[{"type":"mount"}]"#,
                r#"[{"type":"mount"}],"sysctl":{"vm.swappiness":"1"}"#,
                "linux.sysctl.vm.swappiness",
            ),
            (r#"[{"type":"mount"}]"#, r#"[{"type":"mount"}],"sysctl":{"net.x":"1"}"#, "linux.sysctl.net.x"),
            (r#""root""#, r#""hostname":"x","root""#, "hostname"),
            (r#""root""#, r#""annotations":{"org.isolab.overlay.lower":"a"},"root""#, "org.isolab.overlay.lower"),
            (
                r#""root""#,
                r#""annotations":{"org.isolab.overlay.lower":"/","org.isolab.overlay.volatile":"1"},"root""#,
                "org.isolab.overlay.volatile",
            ),
            (r#""root""#, r#""annotations":{"org.isolab.seccomp":"strict"},"root""#, "org.isolab.seccomp"),
            (r#""root""#, r#""mounts":[{"destination":"/"}],"root""#, "mounts[0].destination"),
        ];
        for (old, new, expected) in table {
            match load(&GOOD.replace(old, new)) {
                Err(BundleError::Refused { field, .. }) => assert_eq!(field, expected, "for {new}"),
                other => panic!("{new} gave {other:?}"),
            }
        }
    }

    #[test]
    fn a_version_has_three_numbers_and_may_have_a_word_behind() {
        assert_eq!(read_version("1.0.2"), Some((1, 0, 2)));
        assert_eq!(read_version("1.2.1-rc.1+build.7"), Some((1, 2, 1)));
        for wrong in
            ["", "1", "1.0", "1.0.0.0", "1.x.0", "01.0.0", "1.0.0-", "1.0.0-a..b", "v1.0.0", "1.0.-1", " 1.0.0"]
        {
            assert_eq!(read_version(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn bad_json_is_told_with_its_line() {
        let error = load("{\n  \"ociVersion\": 1.0.2\n}").expect_err("it is not JSON");
        let BundleError::Parse { source, .. } = error else { panic!("not a parse error") };
        assert_eq!(source.line(), 2);
    }

    #[test]
    fn a_folder_without_a_configuration_is_told_so() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        assert!(matches!(Bundle::load(folder.path()), Err(BundleError::Read { .. })));
        assert!(matches!(Bundle::load(&folder.path().join("none")), Err(BundleError::Folder { .. })));
    }

    #[test]
    fn an_unknown_capability_is_warned_of_and_left_out() {
        let text = GOOD.replace(r#""cwd":"/""#, r#""cwd":"/","capabilities":{"bounding":["CAP_KILL","CAP_FLY"]}"#);
        let (spec, warnings) = parse(text.as_bytes()).expect("it is forgiven");
        let sets = spec.process().as_ref().and_then(|process| process.capabilities().clone()).expect("it has sets");
        assert_eq!(sets.bounding().as_ref().map(std::collections::HashSet::len), Some(1));
        assert_eq!(warnings, ["capability CAP_FLY is unknown and is left out"]);
    }

    #[test]
    fn a_colon_can_belong_to_a_folder() {
        assert_eq!(split_escaped(r"/a:/b\:c:/d\\e"), [r"/a", "/b:c", r"/d\e"].map(PathBuf::from));
    }
}
