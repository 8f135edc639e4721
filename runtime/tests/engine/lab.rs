//! A root with one image for all trials here, and names that no two of them share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use super::needs::busybox;

/// The command under test.
pub(crate) const CTR: &str = env!("CARGO_BIN_EXE_isolab-ctr");

const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
    RUN mkdir -p /etc /tmp /srv && chmod 1777 /tmp && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd \
    && echo web:x:33:33::/srv:/bin/sh >> /etc/passwd && echo web:x:33: > /etc/group\nENV of=image\nCMD [\"sleep\", \"1000\"]\n";

static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
static FOLDER: Mutex<Option<TempDir>> = Mutex::new(None);

/// What one trial works with. Its containers are gone with it.
pub(crate) struct Lab {
    root: PathBuf,
    prefix: String,
    /// A file system of its own, gone after its containers.
    _mounted: Option<Mounted>,
    /// A folder of its own, gone after that.
    _folder: Option<TempDir>,
}

impl Lab {
    pub(crate) fn new() -> Result<Self, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = ROOT.get_or_init(|| prepare().inspect_err(|error| eprintln!("{error:?}")).ok()).clone();
        let root = root.ok_or("the image could not be built")?;
        let prefix = format!("t{}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { root, prefix, _mounted: None, _folder: None })
    }

    /// One whose root is its own.
    pub(crate) fn apart() -> Result<Self, Failed> {
        Self::make(false)
    }

    /// One whose root is a file system of 14 MiB, of which a file `ballast` takes two.
    pub(crate) fn small() -> Result<Self, Failed> {
        Self::make(true)
    }

    fn make(small: bool) -> Result<Self, Failed> {
        let shared = Self::new()?;
        let folder = tempfile::Builder::new().prefix("isolab-engine-").tempdir()?;
        let image = folder.path().join("image.tar");
        let saved = shared.run(&["save", "-o", &image.display().to_string(), "bb"])?;
        succeed(&saved)?;
        let root = folder.path().join("root");
        let mounted = if small { Some(Mounted::make(&root)?) } else { None };
        let lab = Self { root, prefix: shared.prefix.clone(), _mounted: mounted, _folder: Some(folder) };
        succeed(&lab.run(&["load", "-q", "-i", &image.display().to_string()])?)?;
        Ok(lab)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A container's name that is this trial's alone.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(CTR);
        command.arg("--root").arg(&self.root).args(arguments).stdin(Stdio::null());
        // No trial here is about networks, and none shall make a bridge on the host.
        command.env("ISOLAB_NETWORK", "none");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output, Failed> {
        Ok(self.command(arguments).output()?)
    }

    /// What a command printed, which must end well.
    pub(crate) fn out(&self, arguments: &[&str]) -> Result<String, Failed> {
        Ok(succeed(&self.run(arguments)?)?.0)
    }

    /// Starts a container in the background and answers its name.
    pub(crate) fn detached(&self, name: &str, flags: &[&str], command: &[&str]) -> Result<String, Failed> {
        let name = self.name(name);
        self.out(&[&["run", "-d", "--name", &name], flags, &["bb"], command].concat())?;
        Ok(name)
    }

    /// A part of what `inspect` tells, by its JSON pointer.
    pub(crate) fn inspect(&self, name: &str, part: &str) -> Result<Value, Failed> {
        let all: Value = serde_json::from_str(&self.out(&["inspect", name])?)?;
        Ok(all.pointer(&format!("/0{part}")).cloned().ok_or_else(|| format!("no {part} in {all:#}"))?)
    }

    pub(crate) fn status(&self, name: &str) -> Result<String, Failed> {
        Ok(self.inspect(name, "/State/Status")?.as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn pid(&self, name: &str) -> Result<i32, Failed> {
        Ok(self.inspect(name, "/State/Pid")?.as_i64().unwrap_or_default() as i32)
    }

    /// The folder of a container.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, Failed> {
        let id = self.inspect(name, "/Id")?;
        Ok(self.root.join("containers").join(id.as_str().unwrap_or_default()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let listed = self.command(&["ps", "-aq", "--filter", &format!("name={}-", self.prefix)]).output();
        let ids = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            // A trial that failed has told what was wrong.
            let _ = self.run(&[&["rm", "-f"], ids.as_slice()].concat());
        }
    }
}

/// A file system in memory, unmounted when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn make(folder: &Path) -> Result<Self, Failed> {
        fs::create_dir_all(folder)?;
        nix::mount::mount(Some("small"), folder, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=14m"))?;
        let mounted = Self(folder.to_owned());
        fs::write(folder.join("ballast"), vec![0; 2 << 20])?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn prepare() -> Result<PathBuf, Failed> {
    let folder = tempfile::Builder::new().prefix("isolab-engine-").tempdir()?;
    let (context, root) = (folder.path().join("context"), folder.path().join("root"));
    fs::create_dir(&context)?;
    fs::copy(busybox()?, context.join("busybox"))?;
    fs::write(context.join("Dockerfile"), DOCKERFILE)?;
    let built = Command::new(CTR).arg("--root").arg(&root).args(["build", "-q", "-t", "bb"]).arg(&context).output()?;
    succeed(&built)?;
    *FOLDER.lock().map_err(|_| "poisoned")? = Some(folder);
    Ok(root)
}

/// Removes what the trials shared.
pub(crate) fn tidy() {
    drop(FOLDER.lock().ok().and_then(|mut folder| folder.take()));
}

/// What a command printed on both ways; an error with all of it if it failed.
pub(crate) fn succeed(output: &Output) -> Result<(String, String), Failed> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok((out, err)) } else { Err(format!("{}\n{out}{err}", output.status).into()) }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("found {found:#?}\nexpected {expected:#?}").into()) }
}

pub(crate) fn has(text: &str, part: &str) -> Result<(), Failed> {
    if text.contains(part) { Ok(()) } else { Err(format!("no {part:?} in {text:?}").into()) }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    let begin = Instant::now();
    while !holds()? {
        if begin.elapsed() > Duration::from_secs(20) {
            return Err(format!("in vain: {what}").into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a process is there and has not ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}
