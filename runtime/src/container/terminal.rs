//! A terminal for the container: a pair of ends made from the container's own devpts, of which the program gets one and
//! whoever talks to it the other (OCI runtime specification, config.md, "Process", `terminal`).
//!
//! The image decides what lies below /dev, so nothing is believed that a path says: what was opened as the multiplexer must
//! be one, on a devpts; the program's end is had from the other by the kernel and not by its name; and /dev/console, which
//! shows that end a second time, is mounted from one descriptor upon another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket, socketpair};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknodat};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};
use nix::unistd::{Uid, fchown};
use oci_spec::runtime::Process;
use tracing::info_span;

use super::init::decimal;
use super::inside;
use super::report::{At, Failure, Step};
use super::sys::mount::{attach, clone_tree};
use super::sys::terminal::{
    Size, become_standard, number, peer, receive_descriptor, send_descriptor, set_size, size, take_control, unlock,
};

/// The multiplexer's device number (Documentation/admin-guide/devices.txt).
const MULTIPLEXER: (u64, u64) = (5, 2);

/// A terminal to be made.
#[derive(Debug)]
pub(crate) struct TerminalPlan {
    /// Where the far end is sent: somebody's socket, or the runtime itself.
    to: OwnedFd,
    /// Where the runtime receives it, if it is the runtime that relays.
    here: Option<OwnedFd>,
    size: Option<Size>,
    owner: u32,
}

/// Why there can be no terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// Nobody would hold the other end.
    #[error("a terminal is asked for, but nobody would hold its other end")]
    NoSocket,
    /// A place for a terminal that nobody asked for.
    #[error("a console socket is given, but no terminal is asked for")]
    NotAsked,
    /// Nobody listens.
    #[error("cannot connect to the console socket {}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime's own pair of sockets.
    #[error("cannot make a way for the terminal's other end")]
    Pair(#[source] io::Error),
    /// The other end has not come.
    #[error("the terminal's other end did not arrive")]
    Receive(#[source] io::Error),
}

impl TerminalPlan {
    /// What `process` asks for. Its far end goes to the socket, or, where the command stays, to the command.
    pub(crate) fn new(process: &Process, console: Option<&Path>, stays: bool) -> Result<Option<Self>, TerminalError> {
        let asked = process.terminal() == Some(true);
        let mut wanted = process.console_size().and_then(|asked| {
            let (rows, columns) = (u16::try_from(asked.height()).ok()?, u16::try_from(asked.width()).ok()?);
            (rows > 0 && columns > 0).then_some(Size { rows, columns })
        });
        let (to, here) = match (asked, console) {
            (false, Some(_)) => return Err(TerminalError::NotAsked),
            (false, None) => return Ok(None),
            (true, Some(path)) => (
                connect_to(path)
                    .map_err(|errno| TerminalError::Connect { path: path.to_owned(), source: errno.into() })?,
                None,
            ),
            (true, None) if stays => {
                let flags = SockFlag::SOCK_CLOEXEC;
                let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags);
                let (here, to) = pair.map_err(|errno| TerminalError::Pair(errno.into()))?;
                // The window that it will be seen in, from the first moment on.
                wanted = size(&io::stdin()).ok().or(wanted);
                (to, Some(here))
            }
            (true, None) => return Err(TerminalError::NoSocket),
        };
        Ok(Some(Self { to, here, size: wanted, owner: process.user().uid() }))
    }

    /// Makes the pair, sends the far end away and makes the near one standard input, output and error of the calling
    /// process, which leads a session. Called inside the container's root. Returns the near end.
    pub(crate) fn make(&self) -> Result<OwnedFd, Failure> {
        let _span = info_span!(
            "process.terminal",
            call = "ioctl(TIOCGPTPEER), sendmsg(SCM_RIGHTS)",
            why = "a terminal of the container's own: the program gets one end, whoever talks to it the other"
        )
        .entered();
        let far = multiplexer().at(Step::Terminal)?;
        unlock(&far).at(Step::Terminal)?;
        let near = peer(&far).at(Step::Terminal)?;
        if let Some(wanted) = self.size {
            set_size(&near, wanted).at(Step::Terminal)?;
        }
        if self.owner != 0 {
            // Programs open /dev/tty and /dev/pts/N again by name, as who they are.
            fchown(&near, Some(Uid::from_raw(self.owner)), None).at(Step::Terminal)?;
        }
        let (mut digits, mut name) = ([0; 10], [0_u8; 20]);
        let text = b"/dev/pts/".iter().chain(decimal(number(&far).at(Step::Terminal)?, &mut digits));
        let length = name.iter_mut().zip(text).map(|(slot, byte)| *slot = *byte).count();
        send_descriptor(&self.to, name.get(..length).unwrap_or_default(), &far).at(Step::TerminalSocket)?;
        take_control(&near).at(Step::Terminal)?;
        become_standard(&near).at(Step::Terminal)?;
        Ok(near)
    }

    /// Where the command relays: the far end, once the process has sent it.
    pub(crate) fn receive(&self) -> Result<Option<OwnedFd>, TerminalError> {
        let Some(here) = &self.here else { return Ok(None) };
        receive_descriptor(here).map(Some).map_err(|errno| TerminalError::Receive(errno.into()))
    }
}

/// Shows the terminal at /dev/console too. Both ends of that mount are descriptors: an image, or another container that
/// shares its files, may have put links at either name. A root that cannot take the file has no console.
pub(crate) fn show_console(near: &OwnedFd) -> Result<(), Failure> {
    let dev = open_root().and_then(|root| inside::folder(&root, Path::new("/dev"))).at(Step::Console)?;
    match mknodat(&dev, "console", SFlag::S_IFREG, Mode::from_bits_truncate(0o600), 0) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(Errno::EROFS) => return Ok(()),
        Err(errno) => return Err(Failure::new(Step::Console, 0, errno)),
    }
    let place = inside::open_plain(&dev, Path::new("console"), OFlag::empty()).at(Step::Console)?;
    let shown = clone_tree(near.as_fd(), c"", false).at(Step::Console)?;
    attach(&shown, place.as_fd()).at(Step::Console)
}

fn open_root() -> nix::Result<OwnedFd> {
    nix::fcntl::open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens the multiplexer of the container's devpts, proved to be that.
fn multiplexer() -> nix::Result<OwnedFd> {
    let root = open_root()?;
    let opened = inside::open_device(&root, Path::new("/dev/pts/ptmx"))?;
    let found = fstat(&opened)?;
    let is_device = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
        && found.st_rdev == makedev(MULTIPLEXER.0, MULTIPLEXER.1);
    let is_devpts = fstatfs(&opened)?.filesystem_type() == DEVPTS_SUPER_MAGIC;
    if is_device && is_devpts { Ok(opened) } else { Err(Errno::ENODEV) }
}

/// Connects to a socket at a path of any length: a socket's address has room for 107 bytes only (unix(7)).
fn connect_to(path: &Path) -> nix::Result<OwnedFd> {
    let place = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}", place.as_raw_fd()).as_str())?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}
