//! Terminals: the calls of pty(7), `ioctl_tty(2)` and termios(3), and how a descriptor travels over a socket (unix(7)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// How many rows and columns a terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

fn ioctl(terminal: &impl AsFd, request: libc::c_ulong, argument: usize) -> nix::Result<libc::c_long> {
    // SAFETY: private to this file: each caller passes what the request takes, a number or the address of a live value.
    super::check(unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_fd().as_raw_fd(), request, argument) })
}

/// Lets the other side of a new pair be opened (`TIOCSPTLCK`).
pub(crate) fn unlock(master: &impl AsFd) -> nix::Result<()> {
    let locked: libc::c_int = 0;
    ioctl(master, libc::TIOCSPTLCK, (&raw const locked) as usize).map(drop)
}

/// The pair's number: N of `/dev/pts/N` (`TIOCGPTN`).
pub(crate) fn number(master: &impl AsFd) -> nix::Result<i32> {
    let mut number: libc::c_uint = 0;
    ioctl(master, libc::TIOCGPTN, (&raw mut number) as usize)?;
    Ok(number as i32)
}

/// The other side of the pair, without a path that somebody could have put something else at (`TIOCGPTPEER`, Linux 4.13).
pub(crate) fn peer(master: &impl AsFd) -> nix::Result<OwnedFd> {
    let opened = ioctl(master, libc::TIOCGPTPEER, (libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) as usize)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(opened as RawFd) })
}

/// Makes it the terminal of the calling process's session, which must have none (`TIOCSCTTY`).
pub(crate) fn take_control(terminal: &impl AsFd) -> nix::Result<()> {
    ioctl(terminal, libc::TIOCSCTTY, 0).map(drop)
}

/// The window's size (`TIOCGWINSZ`); an error where this is no terminal.
pub(crate) fn size(terminal: &impl AsFd) -> nix::Result<Size> {
    let mut found = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(terminal, libc::TIOCGWINSZ, (&raw mut found) as usize)?;
    Ok(Size { rows: found.ws_row, columns: found.ws_col })
}

/// Sets the window's size; the kernel tells the programs in it by `SIGWINCH` (`TIOCSWINSZ`).
pub(crate) fn set_size(terminal: &impl AsFd, size: Size) -> nix::Result<()> {
    let wanted = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(terminal, libc::TIOCSWINSZ, (&raw const wanted) as usize).map(drop)
}

/// How a terminal treats what passes through it (termios(3)).
#[derive(Clone, Copy)]
pub(crate) struct Settings(libc::termios);

/// The settings of a terminal; an error where this is none.
pub(crate) fn settings(terminal: &impl AsFd) -> nix::Result<Settings> {
    // SAFETY: a structure of integers, which the call fills.
    let mut found: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: `found` outlives the call.
    Errno::result(unsafe { libc::tcgetattr(terminal.as_fd().as_raw_fd(), &raw mut found) })?;
    Ok(Settings(found))
}

/// Changes the settings of a terminal at once.
pub(crate) fn set_settings(terminal: &impl AsFd, settings: &Settings) -> nix::Result<()> {
    let descriptor = terminal.as_fd().as_raw_fd();
    // SAFETY: the structure was filled by tcgetattr(3) and outlives the call.
    Errno::result(unsafe { libc::tcsetattr(descriptor, libc::TCSANOW, &raw const settings.0) }).map(drop)
}

impl Settings {
    /// The same, but every byte passes as it is: no echo, no lines, no signals.
    pub(crate) fn raw(mut self) -> Self {
        // SAFETY: changes the fields of one structure.
        unsafe { libc::cfmakeraw(&raw mut self.0) };
        self
    }

    /// The byte that means "end of file" when a line begins with it.
    pub(crate) fn end_of_file(&self) -> u8 {
        self.0.c_cc[libc::VEOF]
    }
}

/// Makes it standard input, output and error (dup3(2)).
pub(crate) fn become_standard(terminal: &impl AsFd) -> nix::Result<()> {
    for standard in 0..=2 {
        // SAFETY: numbers; what was open there is closed, which is the purpose.
        super::check(unsafe { libc::syscall(libc::SYS_dup3, terminal.as_fd().as_raw_fd(), standard, 0) })?;
    }
    Ok(())
}

/// Standard input, output and error. Without the buffers that the library's own would allocate at their first use.
pub(crate) fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: the Rust runtime opens them at the start of every program where the caller has not, and nothing closes them.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Whether a descriptor with this number is open and would survive execve(2): nothing of ours would.
pub(crate) fn is_inherited(number: RawFd) -> bool {
    // SAFETY: two numbers; a number that is no descriptor is an error and nothing else.
    matches!(super::check(unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD, 0) }), Ok(0))
}

/// Room for one descriptor in a control message: a `cmsghdr` and the number, aligned as both want it (cmsg(3)).
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptor: RawFd,
    padding: u32,
}

/// What `cmsg_len` says: the header and one number, without the padding.
const CONTROL_LENGTH: usize = std::mem::size_of::<libc::cmsghdr>() + std::mem::size_of::<RawFd>();

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: a structure of integers and pointers, for which zero is "none".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = std::ptr::from_mut(control).cast();
    message.msg_controllen = std::mem::size_of::<Control>();
    message
}

fn rights(descriptor: RawFd) -> Control {
    // SAFETY: three integers.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    header.cmsg_len = CONTROL_LENGTH;
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    Control { header, descriptor, padding: 0 }
}

/// Sends a copy of `descriptor` with a few words (`SCM_RIGHTS`).
pub(crate) fn send_descriptor(socket: &impl AsFd, words: &[u8], descriptor: &impl AsFd) -> nix::Result<()> {
    let mut part = libc::iovec { iov_base: words.as_ptr().cast_mut().cast(), iov_len: words.len() };
    let mut control = rights(descriptor.as_fd().as_raw_fd());
    let message = message(&mut part, &mut control);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `message` points at values on this stack, and sendmsg(2) only reads them.
    super::check(unsafe { libc::syscall(libc::SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL) }).map(drop)
}

/// Receives a descriptor that lies ready.
pub(crate) fn receive_descriptor(socket: &impl AsFd) -> nix::Result<OwnedFd> {
    let mut words = [0_u8; 64];
    let mut part = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: words.len() };
    let mut control = rights(-1);
    let mut message = message(&mut part, &mut control);
    let (socket, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT);
    // SAFETY: `message` points at values on this stack, with their sizes.
    super::check(unsafe { libc::syscall(libc::SYS_recvmsg, socket, &raw mut message, flags) })?;
    if message.msg_controllen < CONTROL_LENGTH || control.header.cmsg_type != libc::SCM_RIGHTS || control.descriptor < 0
    {
        return Err(Errno::ENOMSG);
    }
    // SAFETY: the kernel has put a new descriptor there, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(control.descriptor) })
}
