//! The container's process: its program, who it is, and what it may do (OCI runtime specification, config.md, "Process").

use std::ffi::{CString, NulError};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, SFlag, fstat, stat, umask};
use nix::unistd::{AccessFlags, Gid, Uid, access, chdir, fchown};
use oci_spec::runtime::{PosixRlimitType, Process};
use tracing::info_span;

use super::capabilities::CapabilityPlan;
use super::home::Home;
use super::listener::Listener;
use super::report::{At, Failure, Step};
use super::seccomp::Filter;
use super::sys::credentials;
use super::sys::process::{Strings, execute, prctl, working_directory_is_inside};
use super::sys::terminal::standard_streams;

/// Where programs are looked for when the container's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything about the process, in the form that the kernel takes.
pub(crate) struct ProcessPlan {
    pub(crate) arguments: Strings,
    environment: Strings,
    /// Whether the environment says where the user lives.
    has_home: bool,
    /// Where the program may be: the path given, or its name in each folder of PATH.
    candidates: Vec<CString>,
    pub(crate) working_directory: CString,
    user: u32,
    group: u32,
    /// Nothing where the user namespace forbids the call.
    groups: Option<Vec<Gid>>,
    mask: Mode,
    pub(crate) limits: Vec<(PosixRlimitType, u64, u64)>,
    capabilities: CapabilityPlan,
    no_new_privileges: bool,
    seccomp: Option<Filter>,
    /// Who decides about the calls that the filter leaves open.
    pub(crate) listener: Option<Listener>,
}

impl ProcessPlan {
    /// Reads the wishes of `process`. `groups_allowed`: whether setgroups(2) may be called.
    pub(crate) fn new(
        process: &Process,
        capabilities: CapabilityPlan,
        seccomp: Option<Filter>,
        groups_allowed: bool,
    ) -> Result<Self, NulError> {
        let texts = |list: &Option<Vec<String>>| {
            list.iter().flatten().cloned().map(CString::new).collect::<Result<Vec<_>, _>>()
        };
        let user = process.user();
        let groups = user.additional_gids().iter().flatten().map(|id| Gid::from_raw(*id)).collect();
        Ok(Self {
            candidates: candidates(process)?,
            arguments: Strings::new(texts(process.args())?),
            environment: Strings::new(texts(process.env())?),
            has_home: process.env().iter().flatten().any(|variable| variable.starts_with("HOME=")),
            working_directory: CString::new(process.cwd().as_os_str().as_bytes())?,
            user: user.uid(),
            group: user.gid(),
            groups: groups_allowed.then_some(groups),
            mask: Mode::from_bits_truncate(user.umask().unwrap_or(0o022)),
            limits: process.rlimits().iter().flatten().map(|limit| (limit.typ(), limit.soft(), limit.hard())).collect(),
            capabilities,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            seccomp,
            listener: None,
        })
    }

    /// Where the user lives, if the environment does not say it. Looked up inside the container's root, before the
    /// filter is installed.
    pub(crate) fn home(&self) -> Option<Home> {
        (!self.has_home).then(|| Home::of(self.user))
    }

    /// Becomes who the process shall be, with no right beyond what it was given. Called inside the container's root.
    pub(crate) fn restrict(&self) -> Result<(), Failure> {
        umask(self.mask);
        for (index, (kind, soft, hard)) in self.limits.iter().enumerate() {
            setrlimit(resource(*kind), *soft, *hard).at_index(Step::Rlimit, index)?;
        }
        if self.user != 0 {
            self.own_pipes();
        }
        // As root where that helps: a user's own folder may be all it can enter, or one that only root can.
        let early = chdir(self.working_directory.as_c_str());
        // Without no_new_privs only a privileged process may install a filter, so it must come first then.
        if !self.no_new_privileges {
            self.install_filter()?;
        }
        self.drop_privileges()?;
        if early.is_err() {
            chdir(self.working_directory.as_c_str()).at(Step::WorkingDirectory)?;
        }
        match working_directory_is_inside() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::new(Step::WorkingDirectoryOutside, 0, Errno::EXDEV)),
            Err(errno) => Err(Failure::new(Step::WorkingDirectoryOutside, 0, errno)),
        }
    }

    /// A program opens its standard streams again by name, as /dev/stdout; a pipe that root made would not let it. Whoever
    /// has handed in a file, on the other hand, wants to keep it.
    fn own_pipes(&self) {
        for stream in standard_streams() {
            let kind = fstat(stream).map(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT);
            if kind == Ok(SFlag::S_IFIFO) {
                // What cannot be given away, as an ordinary user cannot, stays as it was handed in.
                let _ = fchown(stream, Some(Uid::from_raw(self.user)), None);
            }
        }
    }

    fn drop_privileges(&self) -> Result<(), Failure> {
        let _span = info_span!(
            "process.privileges",
            call = "prctl(2), setresuid(2), capset(2)",
            why = "root's power comes in pieces; the process keeps only those it was given, as the user it was given"
        )
        .entered();
        self.capabilities.limit()?;
        // A change of user from 0 to another would empty the permitted set before it can be set.
        let keeps = self.user != 0;
        if keeps {
            prctl(libc::PR_SET_KEEPCAPS, 1, 0).at(Step::User)?;
        }
        if let Some(groups) = &self.groups {
            credentials::set_groups(groups).at(Step::User)?;
        }
        credentials::set_group(self.group).at(Step::User)?;
        credentials::set_user(self.user).at(Step::User)?;
        if keeps {
            prctl(libc::PR_SET_KEEPCAPS, 0, 0).at(Step::User)?;
        }
        self.capabilities.hold()?;
        if self.no_new_privileges {
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).at(Step::NoNewPrivileges)?;
        }
        Ok(())
    }

    /// Finds the program as the user who will run it.
    pub(crate) fn find_program(&self) -> Result<&CString, Failure> {
        let mut worst = Failure::new(Step::ProgramMissing, 0, Errno::ENOENT);
        for candidate in &self.candidates {
            match executable(candidate) {
                Ok(()) => return Ok(candidate),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => worst = Failure::new(Step::ProgramDenied, 0, errno),
            }
        }
        Err(worst)
    }

    /// Installs the filter last where it can be, and becomes the program. Returns only what went wrong.
    pub(crate) fn execute(&self, program: &CString, home: Option<&Home>) -> Failure {
        if self.no_new_privileges
            && let Err(failure) = self.install_filter()
        {
            return failure;
        }
        let _span = info_span!(
            "process.exec",
            call = "execve(2)",
            why = "the process becomes the program; every descriptor of the runtime closes at that moment"
        )
        .entered();
        if let Err(errno) = crate::spans::fault() {
            return Failure::new(Step::Execute, 0, errno);
        }
        match execute(program, &self.arguments, &self.environment, home.map(Home::variable)) {
            Errno::ENOENT => Failure::new(Step::ProgramMissing, 0, Errno::ENOENT),
            errno => Failure::new(Step::Execute, 0, errno),
        }
    }

    fn install_filter(&self) -> Result<(), Failure> {
        let Some(filter) = &self.seccomp else { return Ok(()) };
        let _span = info_span!(
            "process.seccomp",
            call = "seccomp(SET_MODE_FILTER)",
            why = "the kernel asks this filter before each system call of the program; what it needn't do, it can't"
        )
        .entered();
        if !filter.notifies() {
            return filter.install().at(Step::Seccomp);
        }
        let asked = filter.install_with_listener().at(Step::Seccomp)?;
        let listener = self.listener.as_ref().ok_or_else(|| Failure::new(Step::SeccompListener, 0, Errno::ENOTCONN))?;
        listener.tell(&asked).at(Step::SeccompListener)
    }
}

/// Whether the calling user may execute what is there.
fn executable(path: &CString) -> nix::Result<()> {
    access(path.as_c_str(), AccessFlags::X_OK)?;
    let kind = SFlag::from_bits_truncate(stat(path.as_c_str())?.st_mode) & SFlag::S_IFMT;
    // A folder passes access(2): for folders the same bit means "may be entered".
    if kind == SFlag::S_IFREG { Ok(()) } else { Err(Errno::EACCES) }
}

/// The paths to try for the program, in order.
fn candidates(process: &Process) -> Result<Vec<CString>, NulError> {
    let program = process.args().iter().flatten().next().map(String::as_str).unwrap_or_default();
    if program.contains('/') {
        return Ok(vec![CString::new(program)?]);
    }
    let path = process.env().iter().flatten().find_map(|variable| variable.strip_prefix("PATH="));
    let folders = path.unwrap_or(DEFAULT_PATH).split(':');
    folders
        .map(|folder| {
            CString::new(if folder.is_empty() { format!("./{program}") } else { format!("{folder}/{program}") })
        })
        .collect()
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

#[cfg(test)]
mod tests {
    use super::candidates;
    use oci_spec::runtime::ProcessBuilder;

    fn tried(program: &str, environment: &[&str]) -> Vec<String> {
        let environment: Vec<String> = environment.iter().map(|text| (*text).to_owned()).collect();
        let process =
            ProcessBuilder::default().args(vec![program.to_owned()]).env(environment).build().expect("a process");
        candidates(&process).expect("no NUL in it").iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_name_is_looked_for_in_each_folder_of_path() {
        assert_eq!(tried("sh", &["X=1", "PATH=/a::/b"]), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(tried("sh", &[]).len(), 6);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(tried("./sh", &["PATH=/a"]), ["./sh"]);
    }
}
