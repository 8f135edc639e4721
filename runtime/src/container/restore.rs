//! Bringing a container back from disk (runc's command line; criu(8)).
//!
//! The runtime makes what it makes for every container: the name, the limits, the network namespace, the root. Into that
//! CRIU puts the processes, each with the number, the memory and the descriptors that it had, and lets them go on.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxNamespaceType;
use tracing::info_span;

use super::bundle::Bundle;
use super::cgroup::Version;
use super::channel::pair;
use super::checkpoint::fit;
use super::criu::{Criu, CriuOptions, NETWORK, Outside, Stream, failed, mount_key};
use super::error::ContainerError;
use super::hooks::run_poststart;
use super::id::ContainerId;
use super::lifecycle::Runtime;
use super::limits::Limits;
use super::overlay::OverlayPlan;
use super::signals::Signals;
use super::spawn::InitProcess;
use super::state::{ProcessId, RESTORED, Record};
use super::sys::mount::{Change, attribute, set_attributes};
use super::sys::process::{Ending, before_exec, inheritable, pidfd_open};
use crate::network::{Namespace, NetworkError};

/// How a container is brought back.
#[derive(Debug, Clone, Default)]
pub struct Restore {
    /// What both ways have in common.
    pub options: CriuOptions,
    /// Whether it outlives the command.
    pub detach: bool,
}

impl Runtime {
    /// Brings a container back, under this name and from this bundle. Waits for its end and removes it, or, where it is
    /// detached, returns once it goes on: then there is no ending to tell of yet.
    pub fn restore(
        &self,
        id: &ContainerId,
        bundle: &Bundle,
        asked: &Restore,
    ) -> Result<Option<Ending>, ContainerError> {
        fit("restore", id, &bundle.spec)?;
        let outside = Outside::read(&asked.options.images)?; //              1. what has to be handed in
        let signals = Signals::collect().map_err(ContainerError::system("collect", "signals"))?;
        let mut warnings = bundle.warnings().to_vec();
        let limits = Limits::plan(id, bundle, &mut warnings)?;
        let mut record = Record::new(id, bundle, limits.path());
        let folder = self.states().reserve(id, &record)?; //                          2. a name that nobody else has
        folder.keep_config(&bundle.text)?;
        self.warn_of(&warnings);
        let cgroup = limits.make()?; //                                      3. the limits, before anything can exceed them
        let network = if outside.network { Some(network(bundle)?) } else { None };
        let place = folder.path().canonicalize().map_err(failed("open", folder.path()))?;
        let pid_file = place.join(RESTORED);
        let root = Root::plan(bundle)?;
        let result = {
            let criu = command(&outside, bundle, asked, &limits, network.as_ref(), &pid_file)?;
            let _span = info_span!(
                "checkpoint.restore",
                call = "criu restore",
                why = "CRIU makes each process anew, with the number, the memory and the descriptors that it had"
            )
            .entered();
            ContainerError::fault("checkpoint.restore")?;
            criu.run(root) //                                                4. its processes, from the files
        };
        let pid = result.and_then(|()| read_pid(&pid_file));
        // CRIU's file has told all that it had to.
        let _ = std::fs::remove_file(&pid_file);
        let pid = pid?;
        let failed = |source| ContainerError::System { attempt: "hold", on: format!("process {pid}"), source };
        let (wire, _) = pair().map_err(failed)?;
        let mut process = InitProcess::adopt(pid, pidfd_open(pid).map_err(failed)?, wire);
        record.init = ProcessId::of(pid);
        if asked.detach {
            record.owner = None;
        }
        folder.write(&record)?; //                                           5. other commands can find it
        if bundle.process.no_new_privileges() == Some(true) && !has_no_new_privileges(pid) {
            self.warn("this version of CRIU does not bring no_new_privs back: the container can gain privileges");
        }
        run_poststart(&record, &|text| self.warn(text))?;
        bundle.handed.tell_pid(pid)?;
        if asked.detach {
            process.release();
            folder.keep();
            cgroup.into_iter().for_each(super::cgroup::Cgroup::keep);
            return Ok(None);
        }
        let ending = process.await_end(&signals)?; //                        6. its end, or a signal to send on
        self.remove(folder, cgroup, &record)?;
        Ok(Some(ending))
    }
}

/// CRIU's call, and the descriptors that it inherits.
struct Call {
    criu: Criu,
    _handed: Vec<OwnedFd>,
}

fn command(
    outside: &Outside,
    bundle: &Bundle,
    asked: &Restore,
    limits: &Limits,
    network: Option<&OwnedFd>,
    pid_file: &Path,
) -> Result<Call, ContainerError> {
    let mut criu = Criu::new("restore", &asked.options)?;
    // As a child of ours, so that we can wait for it; CRIU itself is gone by then.
    criu.command.args(["--restore-detached", "--restore-sibling", "--pidfile"]).arg(pid_file);
    criu.command.arg("--root").arg(&bundle.root.path);
    for (point, source) in &outside.mounts {
        criu.pair("--external", mount_key(point), bind_source(bundle, point).unwrap_or_else(|| source.clone()));
    }
    for group in groups(limits)? {
        criu.command.arg("--cgroup-root").arg(group);
    }
    let mut handed = Vec::new();
    for stream in &outside.streams {
        handed.push((again(stream), stream.name.as_str()));
    }
    if let Some(network) = network {
        handed.push((inheritable(network), NETWORK));
    }
    let mut kept = Vec::new();
    for (copy, name) in handed {
        let copy = copy.map_err(ContainerError::system("hand over", name))?;
        criu.pair("--inherit-fd", format!("fd[{}]", copy.as_raw_fd()), name);
        kept.push(copy);
    }
    Ok(Call { criu, _handed: kept })
}

/// A stream once more: the file that it was, or, where that is gone or it was a pipe, the one of this command.
fn again(stream: &Stream) -> nix::Result<OwnedFd> {
    let opened = stream.file.as_ref().and_then(|(path, flags)| {
        let flags = OFlag::from_bits_truncate(*flags) | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).ok()
    });
    match (opened, stream.number) {
        (Some(file), _) => inheritable(&file),
        (None, 0) => inheritable(&io::stdin()),
        (None, 1) => inheritable(&io::stdout()),
        (None, _) => inheritable(&io::stderr()),
    }
}

impl Call {
    fn run(mut self, root: Root) -> Result<(), ContainerError> {
        before_exec(&mut self.criu.command, move || root.stand_alone());
        Ok(self.criu.run()?)
    }
}

/// The folder on the host that the bundle binds to this place.
fn bind_source(bundle: &Bundle, point: &Path) -> Option<PathBuf> {
    let words = |mount: &oci_spec::runtime::Mount| mount.options().clone().unwrap_or_default();
    let mut all = bundle.spec.mounts().iter().flatten();
    let bind =
        all.rfind(|mount| mount.destination() == point && words(mount).iter().any(|word| word.ends_with("bind")))?;
    bind.source().as_ref().map(|source| bundle.folder.join(source))
}

/// Where the cgroup is in each hierarchy, in CRIU's words: `/path`, and `controllers:/path` for version 1.
fn groups(limits: &Limits) -> Result<Vec<String>, ContainerError> {
    let Some((layout, path)) = limits.place() else { return Ok(Vec::new()) };
    let mut groups = Vec::new();
    for hierarchy in layout.hierarchies() {
        let directory = hierarchy.directory(path)?;
        let below = directory.strip_prefix(hierarchy.mount_point()).unwrap_or(&directory).display().to_string();
        groups.push(match hierarchy.version() {
            Version::V1 => format!("{}:/{below}", hierarchy.controllers().join(",")),
            Version::V2 => format!("/{below}"),
        });
    }
    Ok(groups)
}

/// The network namespace that the container gets: the one that its configuration names, or a new one.
fn network(bundle: &Bundle) -> Result<OwnedFd, ContainerError> {
    let kind = LinuxNamespaceType::Network;
    let path =
        bundle.linux.namespaces().iter().flatten().find(|one| one.typ() == kind).and_then(|one| one.path().as_ref());
    if let Some(path) = path {
        return Ok(OwnedFd::from(File::open(path).map_err(failed("open", path))?));
    }
    let made = Namespace::create()?;
    made.loopback_up()?;
    let copied = made.as_fd().try_clone_to_owned();
    Ok(copied.map_err(|source| NetworkError::Io { attempt: "keep", path: made.path(), source })?)
}

fn has_no_new_privileges(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains("NoNewPrivs:\t1"))
}

fn read_pid(file: &Path) -> Result<Pid, ContainerError> {
    let text = std::fs::read_to_string(file).map_err(failed("read", file))?;
    let number = text.trim().parse().map_err(|_| failed("understand", file)(io::ErrorKind::InvalidData.into()));
    Ok(Pid::from_raw(number?))
}

/// The root, as CRIU wants it: a mount of its own, in a mount namespace that nobody else is in.
struct Root {
    path: CString,
    overlay: Option<OverlayPlan>,
    readonly: bool,
}

impl Root {
    fn plan(bundle: &Bundle) -> Result<Self, ContainerError> {
        let root = &bundle.root;
        let overlay = root.overlay.as_ref().map(|overlay| OverlayPlan::new(overlay, &root.path, false)).transpose()?;
        Ok(Self { path: CString::new(root.path.as_os_str().as_bytes())?, overlay, readonly: root.readonly })
    }

    /// For the process that becomes CRIU: nothing of this is ever seen outside.
    fn stand_alone(&self) -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, c"/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = || nix::fcntl::open(self.path.as_c_str(), flags, Mode::empty());
        if let Some(overlay) = &self.overlay {
            overlay.mount(open()?.as_fd(), &self.path).map_err(|failure| failure.errno)?;
        } else {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(self.path.as_c_str()), self.path.as_c_str(), None::<&str>, bind, None::<&str>)?;
        }
        if self.readonly {
            set_attributes(&open()?, &Change { set: attribute::RDONLY, ..Change::default() }, false)?;
        }
        Ok(())
    }
}
