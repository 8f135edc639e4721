//! CRIU, which writes processes to disk and brings them back (criu(8)), as a command that we run.
//!
//! It knows processes, and not what a container is to its runtime. So it is told what of a container is not the container's
//! own ("external"): binds, masks, standard streams, the network. That is noted beside its images, in [`Outside`], since
//! whoever restores has to hand each of them in again.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::id::ContainerId;
use super::mountinfo::{Mount, mounts};

/// What was noted beside CRIU's images.
const NOTE: &str = "isolab.json";
/// Where system programs are that an ordinary user's PATH lacks.
const ELSEWHERE: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// By which name CRIU knows the network namespace that is handed in.
pub(super) const NETWORK: &str = "isolab-network";
/// The last lines of its log that tell of errors.
const LINES: usize = 3;

/// What both ways have in common.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of CRIU's command line, and none implies another")]
pub struct CriuOptions {
    /// The folder of the images.
    pub images: PathBuf,
    /// The folder of CRIU's log; that of the images where it is not said.
    pub work: Option<PathBuf>,
    /// Whether connections that stand are taken along.
    pub tcp_established: bool,
    /// Whether Unix sockets may have their other end outside.
    pub external_sockets: bool,
    /// Whether it may belong to a session of the terminal outside.
    pub shell_job: bool,
    /// Whether locks of files are taken along.
    pub file_locks: bool,
    /// What is done about cgroups.
    pub cgroups: ManageCgroups,
}

/// What CRIU does about cgroups (criu(8), `--manage-cgroups`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ManageCgroups {
    /// Uses those that are there, as this runtime makes them with their limits.
    #[default]
    Soft,
    /// Sets the limits of all of them to what they were.
    Full,
    /// None may be there.
    Strict,
    /// Nothing: processes stay in the cgroup of whoever restores.
    Ignore,
}

/// Why a container could not be written to disk or brought back.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No such program.
    #[error("cannot find criu, which writes processes to disk")]
    NoCriu,
    /// The container has something that cannot be taken along.
    #[error("cannot {attempt} container {id}: {reason}")]
    Unfit {
        /// Which way.
        attempt: &'static str,
        /// The container.
        id: ContainerId,
        /// What it has.
        reason: &'static str,
    },
    /// A file or folder.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The note beside the images is not ours.
    #[error("{} does not tell of a container", path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// CRIU gave up.
    #[error("criu {verb} failed: {words}")]
    Failed {
        /// What it was told to do.
        verb: &'static str,
        /// Its last words.
        words: String,
        /// All of them.
        log: PathBuf,
    },
}

impl CheckpointError {
    /// What to try next.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoCriu => {
                Some("install CRIU (Debian: criu), and see whether it fits the kernel with: criu check".to_owned())
            }
            Self::Failed { log, .. } => Some(format!(
                "see {}; a CRIU that is older than the kernel may not know it: ask with criu check",
                log.display()
            )),
            _ => None,
        }
    }
}

/// For `map_err`: a file or folder.
pub(super) fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { attempt, path, source }
}

/// What of a container is not its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outside {
    /// Mounts of the host's file systems: where, and from where.
    pub(super) mounts: Vec<(PathBuf, PathBuf)>,
    /// Standard streams that no mount of the container shows.
    pub(super) streams: Vec<Stream>,
    /// Whether it has a network namespace of its own, or another's.
    pub(super) network: bool,
}

/// A standard stream, as it has to be handed in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    /// The descriptor.
    pub(super) number: i32,
    /// CRIU's name for what it was.
    pub(super) name: String,
    /// The file that it was, and how it was opened; nothing for a pipe.
    pub(super) file: Option<(PathBuf, i32)>,
}

impl Outside {
    /// Looks at the process `pid`; also returns the number of its network namespace.
    pub(super) fn of(pid: i32) -> Result<(Self, Option<u64>), CheckpointError> {
        let read = |path: String| fs::read_to_string(&path).map_err(failed("read", Path::new(&path)));
        let inside = read(format!("/proc/{pid}/mountinfo"))?;
        let host = read("/proc/self/mountinfo".to_owned())?;
        let network = |of: &str| fs::metadata(format!("/proc/{of}/ns/net")).map(|found| found.ino()).ok();
        let number = network(&pid.to_string()).filter(|number| network("self") != Some(*number));
        let mut streams: Vec<Stream> = Vec::new();
        for number in 0..3 {
            let seen = stream(pid, number, &inside);
            // Two of one and the same are handed in once.
            streams.extend(seen.filter(|seen| streams.iter().all(|other| other.name != seen.name)));
        }
        let outside = Self { mounts: outside_mounts(&inside, &host), streams, network: number.is_some() };
        Ok((outside, number))
    }

    pub(super) fn write(&self, images: &Path) -> Result<(), CheckpointError> {
        let path = images.join(NOTE);
        let text = serde_json::to_vec(self).map_err(|source| CheckpointError::Note { path: path.clone(), source })?;
        fs::write(&path, text).map_err(failed("write", &path))
    }

    pub(super) fn read(images: &Path) -> Result<Self, CheckpointError> {
        let path = images.join(NOTE);
        let text = fs::read(&path).map_err(failed("read", &path))?;
        serde_json::from_slice(&text).map_err(|source| CheckpointError::Note { path, source })
    }
}

/// A standard stream, where it has to be handed in again: a pipe, or a file that no mount of the container shows.
fn stream(pid: i32, number: i32, inside: &str) -> Option<Stream> {
    let path = format!("/proc/{pid}/fd/{number}");
    let target = fs::read_link(&path).ok()?;
    if let Some(pipe) = target.to_str().filter(|name| name.starts_with("pipe:")) {
        return Some(Stream { number, name: pipe.to_owned(), file: None });
    }
    let notes = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let note = |key: &str| notes.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let mount: u64 = note("mnt_id:")?.parse().ok()?;
    let flags = i32::from_str_radix(note("flags:")?, 8).ok()? & (libc::O_ACCMODE | libc::O_APPEND);
    let own = inside.lines().any(|line| line.split(' ').next() == Some(mount.to_string().as_str()));
    let name = format!("file[{mount:x}:{:x}]", fs::metadata(&path).ok()?.ino());
    (target.is_absolute() && !own).then_some(Stream { number, name, file: Some((target, flags)) })
}

/// The mounts below the container's root whose file system the host has mounted too, with a path of it there.
fn outside_mounts(inside: &str, host: &str) -> Vec<(PathBuf, PathBuf)> {
    let host = mounts(host);
    let source = |mount: &Mount| {
        let shown = host.iter().rfind(|other| other.device == mount.device && mount.root.starts_with(&other.root))?;
        let below = mount.root.strip_prefix(&shown.root).ok()?;
        Some(if below.as_os_str().is_empty() { shown.point.clone() } else { shown.point.join(below) })
    };
    // The unified hierarchy is one file system for everybody, and CRIU mounts it itself, in the right namespace.
    let own = |mount: &&Mount| mount.point == Path::new("/") || mount.kind == "cgroup2";
    let others = mounts(inside);
    others.iter().filter(|mount| !own(mount)).filter_map(|mount| Some((mount.point.clone(), source(mount)?))).collect()
}

/// A call of CRIU that is being put together.
pub(super) struct Criu {
    pub(super) command: Command,
    verb: &'static str,
    log: PathBuf,
}

impl Criu {
    /// Begins one. The folders are made where they are missing.
    pub(super) fn new(verb: &'static str, options: &CriuOptions) -> Result<Self, CheckpointError> {
        let images = ready(&options.images)?;
        let work = options.work.as_ref().map(|work| ready(work)).transpose()?.unwrap_or_else(|| images.clone());
        let name = format!("{verb}.log");
        let mut criu = Self {
            command: Command::new(on_path("criu").ok_or(CheckpointError::NoCriu)?),
            verb,
            log: work.join(&name),
        };
        criu.command.arg(verb).arg("--images-dir").arg(&images).arg("--work-dir").arg(&work);
        criu.command.arg("--log-file").arg(&name).arg("-v4");
        let cgroups = match options.cgroups {
            ManageCgroups::Soft => "soft",
            ManageCgroups::Full => "full",
            ManageCgroups::Strict => "strict",
            ManageCgroups::Ignore => "ignore",
        };
        criu.command.arg(format!("--manage-cgroups={cgroups}"));
        if on_path("iptables-restore").is_none() {
            // While connections are looked at, packets are kept away: by one way or the other.
            criu.command.args(["--network-lock", "nftables"]);
        }
        for (asked, word) in [
            (options.tcp_established, "--tcp-established"),
            (options.external_sockets, "--ext-unix-sk"),
            (options.shell_job, "--shell-job"),
            (options.file_locks, "--file-locks"),
        ] {
            criu.switch(asked, word);
        }
        Ok(criu)
    }

    /// Adds a word where it is asked for.
    pub(super) fn switch(&mut self, asked: bool, word: &str) {
        if asked {
            self.command.arg(word);
        }
    }

    /// Adds `option KEY:VALUE`, of which each part may be any path.
    pub(super) fn pair(&mut self, option: &str, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let mut text = OsString::from(key.as_ref());
        text.push(":");
        text.push(value);
        self.command.arg(option).arg(text);
    }

    /// Runs it to its end.
    pub(super) fn run(mut self) -> Result<(), CheckpointError> {
        let program = PathBuf::from(self.command.get_program());
        let output = self.command.output().map_err(failed("run", &program))?;
        if output.status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let mut words = last_errors(&log);
        if words.is_empty() {
            String::from_utf8_lossy(&output.stderr).trim().clone_into(&mut words);
        }
        if words.is_empty() {
            words = output.status.to_string();
        }
        Err(CheckpointError::Failed { verb: self.verb, words, log: self.log })
    }
}

/// How CRIU names a mount.
pub(super) fn mount_key(point: &Path) -> OsString {
    let mut key = OsString::from("mnt[");
    key.push(point);
    key.push("]");
    key
}

/// Its last lines about errors, without the time and the place in its source.
fn last_errors(log: &str) -> String {
    let errors = log.lines().filter_map(|line| line.split_once("Error (")?.1.split_once("): ")).map(|(_, words)| words);
    let errors: Vec<&str> = errors.filter(|words| !words.starts_with("exited, status")).collect();
    errors.get(errors.len().saturating_sub(LINES)..).unwrap_or_default().join("; ")
}

/// The folder by its whole path; made where it is missing, for nobody else to read: it holds a process's memory.
fn ready(folder: &Path) -> Result<PathBuf, CheckpointError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make", folder))?;
    folder.canonicalize().map_err(failed("open", folder))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(ELSEWHERE.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::super::mountinfo::plain;
    use super::{Outside, Stream, last_errors, outside_mounts};
    use std::path::PathBuf;

    const HOST: &str = "\
22 1 8:1 / / rw shared:1 - ext4 /dev/vda rw
25 22 0:5 / /dev rw shared:4 - devtmpfs devtmpfs rw
29 22 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
30 22 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

    #[test]
    fn what_the_host_has_mounted_too_is_from_outside() {
        let inside = "\
41 31 8:1 /b/rootfs / rw - ext4 /dev/vda rw
42 41 0:40 / /proc rw - proc proc rw
43 42 0:5 /null /proc/kcore rw - devtmpfs devtmpfs rw
44 41 8:1 /a\\040volume /data rw - ext4 /dev/vda rw
45 41 0:24 /isolab-x /sys/fs/cgroup ro - cgroup2 cgroup2 rw
46 41 0:30 /isolab-x /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
47 41 0:41 / /dev rw - tmpfs tmpfs rw
";
        let pair = |to: &str, from: &str| (PathBuf::from(to), PathBuf::from(from));
        let expected = [
            pair("/proc/kcore", "/dev/null"),
            pair("/data", "/a volume"),
            pair("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/isolab-x"),
        ];
        assert_eq!(outside_mounts(inside, HOST), expected);
    }

    #[test]
    fn a_blank_in_a_path_is_a_number() {
        assert_eq!(plain("/a\\040b\\134c"), "/a b\\c");
    }

    #[test]
    fn its_last_words_are_those_about_errors() {
        let log = "(00.1) fine\n(00.2) Error (criu/a.c:1): one\n(00.3) Error (criu/u.c:2): exited, status=1\n\
                   (00.4)      1: Error (criu/b.c:2): mnt: two\n(00.5) Warn  (x): x\n";
        assert_eq!(last_errors(log), "one; mnt: two");
        assert_eq!(last_errors(""), "");
    }

    #[test]
    fn a_note_is_read_as_it_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let note = Outside {
            mounts: vec![("/a".into(), "/b".into())],
            streams: vec![Stream { number: 1, name: "pipe:[7]".to_owned(), file: None }],
            network: true,
        };
        note.write(folder.path()).expect("written");
        assert_eq!(Outside::read(folder.path()).expect("read"), note);
        assert!(Outside::read(std::path::Path::new("/none/such")).is_err());
    }
}
