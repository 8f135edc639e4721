//! The steps from a bare kernel to a system.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout};

use super::InitError;

/// A file system to mount: its type, where, its options.
type Mount = (&'static str, &'static str, &'static str);

/// In the order in which each finds its mount point. Nothing on `/run` and `/tmp`: the root is in memory already, and files
/// may have been forwarded there.
const MOUNTS: [Mount; 7] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    // newinstance is the default since Linux 4.7; ptmxmode lets /dev/ptmx be a link to pts/ptmx.
    ("devpts", "/dev/pts", "mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("mqueue", "/dev/mqueue", ""),
    ("cgroup2", "/sys/fs/cgroup", "nsdelegate"),
];

const CGROUPS: &str = "/sys/fs/cgroup";

/// Puts a mount of the root file system over the root.
///
/// `pivot_root(2)`, which every container runtime calls, refuses to move a root that is not itself mounted on something, and
/// the file system that the kernel unpacks its archive into is not.
pub(super) fn make_root_a_mount() -> Result<(), InitError> {
    let step = || InitError::step::<Errno>("mount the root over", "itself");
    let none = None::<&str>;
    // On a folder first: a mount on "/" itself would lie beneath the path that everybody walks.
    mount(Some("/"), "/root", none, MsFlags::MS_BIND, none).map_err(step())?;
    chdir("/root").map_err(step())?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(step())?;
    chroot(".").map_err(step())?;
    chdir("/").map_err(step())?;
    // As systemd leaves it, and as container runtimes expect to find it.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).map_err(step())
}

/// Mounts what programs expect.
pub(super) fn mount_all() -> Result<(), InitError> {
    for (kind, place, options) in MOUNTS {
        if !Path::new(place).exists() {
            fs::create_dir(place).map_err(InitError::step("make", place))?;
        }
        mount(Some(kind), place, Some(kind), MsFlags::empty(), Some(options))
            .map_err(InitError::step::<Errno>("mount", place))?;
    }
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    for (target, place) in links {
        std::os::unix::fs::symlink(target, place).map_err(InitError::step("link", place))?;
    }
    Ok(())
}

/// Makes the console our standard streams: the kernel's archive may have had none to give us.
pub(super) fn open_console() -> Result<(), InitError> {
    let console = File::options().read(true).write(true).open("/dev/console");
    let console = console.map_err(InitError::step("open", "/dev/console"))?;
    let step = || InitError::step::<Errno>("use", "/dev/console");
    dup2_stdin(&console).map_err(step())?;
    dup2_stdout(&console).map_err(step())?;
    dup2_stderr(&console).map_err(step())
}

/// Loads a module whose dependencies are loaded.
pub(super) fn load(path: &str) -> Result<(), InitError> {
    let file = File::open(path).map_err(InitError::step("open", path))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        // A driver without its device says so, and is not needed then.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        Err(error) => Err(InitError::step("load", path)(error)),
    }
}

/// Hands every controller down to the groups below the root.
pub(super) fn enable_controllers() -> Result<(), InitError> {
    let list = format!("{CGROUPS}/cgroup.controllers");
    let control = format!("{CGROUPS}/cgroup.subtree_control");
    let controllers = fs::read_to_string(&list).map_err(InitError::step("read", list))?;
    let enable = controllers.split_whitespace().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    fs::write(&control, &enable).map_err(InitError::step("enable the controllers in", control))
}

/// Brings the loopback interface up: netdevice(7), `SIOCSIFFLAGS`.
pub(super) fn bring_loopback_up() -> Result<(), InitError> {
    let step = || InitError::step::<io::Error>("bring up", "lo");
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(step()(io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zero is a valid `ifreq`: an empty name, and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call, which reads it.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(step()(io::Error::last_os_error())),
    }
}

/// Switches the machine off. The host does so too as soon as it has heard the last frame, and whoever is first may be.
pub(super) fn power_off() -> ! {
    // A frame that the host has not taken yet would be lost with the machine.
    thread::sleep(Duration::from_secs(5));
    // Returns only where it fails, and then the host ends the machine.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    loop {
        thread::park();
    }
}
