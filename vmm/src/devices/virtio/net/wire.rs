//! Where a card's cable leads: to a tap, or to a socket of another program.
//!
//! A tap is a network interface whose other end is a file: what the host's kernel sends out of the interface is read from
//! the file, what is written to the file has arrived at the interface. Bridges, addresses and routes are the host's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};
use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
};

use super::super::queue::Buffer;
use crate::interface;
use crate::memory::Memory;

/// `<linux/if_tun.h>`
mod tun {
    use nix::{ioctl_write_int_bad, ioctl_write_ptr, ioctl_write_ptr_bad, request_code_write};

    ioctl_write_ptr_bad!(set_interface, request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
    ioctl_write_int_bad!(set_offload, request_code_write!(b'T', 208, size_of::<libc::c_uint>()));
    ioctl_write_ptr!(set_header_size, b'T', 216, libc::c_int);

    pub(super) const CHECKSUM: libc::c_int = 0x01;
    pub(super) const TSO4: libc::c_int = 0x02;
    pub(super) const TSO6: libc::c_int = 0x04;
    pub(super) const TSO_ECN: libc::c_int = 0x08;
}

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// A name that no interface can have.
    #[error("{0:?} can't be the name of a network interface: 1 to 15 characters, without slash, colon and blanks")]
    Name(String),
    /// The host's kernel has no taps, or not for this user.
    #[error("cannot open /dev/net/tun")]
    Device(#[source] io::Error),
    /// Somebody else has it.
    #[error("the tap {0} is in use by another program")]
    Taken(String),
    /// There is an interface of this name that is something else.
    #[error("the network interface {0} is no tap")]
    NoTap(String),
    /// It can't be a port of that bridge.
    #[error("cannot plug a tap into the bridge {bridge}")]
    Bridge {
        /// Which.
        bridge: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be had.
    #[error("cannot attach to the tap {name}")]
    Attach {
        /// Which.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl TapError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Device(error) if error.kind() == io::ErrorKind::NotFound => Some("modprobe tun".to_owned()),
            Self::Attach { name, source } if source.raw_os_error() == Some(libc::EPERM) => Some(format!(
                "as root: ip tuntap add {name} mode tap vnet_hdr user $USER makes one that this user may use"
            )),
            Self::Bridge { bridge, source } if source.raw_os_error() == Some(libc::ENODEV) => {
                Some(format!("ip link add {bridge} type bridge && ip link set {bridge} up makes one"))
            }
            Self::Taken(_) => Some("each machine needs a tap of its own; a bridge joins them".to_owned()),
            _ => None,
        }
    }
}

/// A tap that is ours.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Attaches to the tap of this name. Where there is none, and the user may, one is made that goes away with us.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let strange = |letter: u8| letter == b'/' || letter == b':' || !letter.is_ascii_graphic();
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(strange) || name.contains('%') {
            return Err(TapError::Name(name.to_owned()));
        }
        Self::attach(name).map(|(tap, _)| tap)
    }

    /// Makes a tap with a name of the kernel's choice, plugs it into a bridge, and switches it on. It goes away with us.
    pub fn on_bridge(bridge: &str) -> Result<Self, TapError> {
        let (tap, name) = Self::attach("isolab%d")?;
        let join = |source| TapError::Bridge { bridge: bridge.to_owned(), source };
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        let socket = socket.map_err(|error| join(error.into()))?;
        let mut request = interface::request(&name);
        interface::ask(&socket, libc::SIOCGIFINDEX, &mut request).map_err(join)?;
        // SAFETY: the kernel has just filled in the number.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        let mut request = interface::request(bridge);
        request.ifr_ifru.ifru_ifindex = index;
        interface::ask(&socket, BRIDGE_ADD, &mut request).map_err(join)?;
        let mut request = interface::request(&name);
        interface::ask(&socket, libc::SIOCGIFFLAGS, &mut request).map_err(join)?;
        // SAFETY: the kernel has just filled in the flags.
        unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
        interface::ask(&socket, libc::SIOCSIFFLAGS, &mut request).map_err(join)?;
        Ok(tap)
    }

    /// Attaches to a tap, and returns it with its name.
    fn attach(name: &str) -> Result<(Self, String), TapError> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
        let file = file.map_err(TapError::Device)?;
        let attach = |error: Errno| match error {
            Errno::EBUSY => TapError::Taken(name.to_owned()),
            Errno::EINVAL => TapError::NoTap(name.to_owned()),
            other => TapError::Attach { name: name.to_owned(), source: other.into() },
        };
        let mut request = interface::request(name);
        // Frames as on Ethernet, no header of the tap's own, but the one that says what is left to do.
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: the request is an `ifreq`, which is what TUNSETIFF takes.
        unsafe { tun::set_interface(file.as_raw_fd(), (&raw mut request).cast_const()) }.map_err(attach)?;
        let size = super::HEADER as libc::c_int;
        // SAFETY: the number lives over the call.
        unsafe { tun::set_header_size(file.as_raw_fd(), &raw const size) }.map_err(attach)?;
        // The kernel has put in the name that it has chosen.
        let chosen = request.ifr_name.iter().map(|letter| *letter as u8).take_while(|letter| *letter != 0).collect();
        Ok((Self(file), String::from_utf8(chosen).unwrap_or_default()))
    }
}

/// `SIOCBRADDIF`: this interface shall be a port of that bridge.
const BRIDGE_ADD: libc::Ioctl = 0x89a2;

/// Where frames go to and come from.
#[derive(Debug)]
pub enum Wire {
    /// A network interface of the host.
    Tap(Tap),
    /// A socket that keeps messages apart (`SOCK_DGRAM`, `SOCK_SEQPACKET`), each one frame, without header.
    Socket(OwnedFd),
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.0.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
        }
    }
}

impl Wire {
    /// Whether frames have a header that says what is left to do with them.
    pub(super) fn has_headers(&self) -> bool {
        matches!(self, Self::Tap(_))
    }

    /// Tells the host's kernel what it may leave to the guest's driver.
    pub(super) fn offload(&self, features: u64) -> io::Result<()> {
        let Self::Tap(tap) = self else { return Ok(()) };
        let mut flags = 0;
        if features & 1 << VIRTIO_NET_F_GUEST_CSUM != 0 {
            // Who cuts a stream into packets has to make their checksums.
            let taken = [
                (VIRTIO_NET_F_GUEST_TSO4, tun::TSO4),
                (VIRTIO_NET_F_GUEST_TSO6, tun::TSO6),
                (VIRTIO_NET_F_GUEST_ECN, tun::TSO_ECN),
            ];
            flags = taken
                .iter()
                .filter(|(feature, _)| features & 1 << feature != 0)
                .fold(tun::CHECKSUM, |flags, (_, flag)| flags | flag);
        }
        // SAFETY: TUNSETOFFLOAD takes a number in place of an address.
        unsafe { tun::set_offload(tap.0.as_raw_fd(), flags) }?;
        Ok(())
    }

    /// Reads a frame with its header, which takes the first `header` bytes; the length of both.
    pub(super) fn read(&self, frame: &mut [u8], header: usize) -> io::Result<usize> {
        match self {
            Self::Tap(tap) => io::Read::read(&mut &tap.0, frame),
            Self::Socket(socket) => {
                let (zeroes, frame) = frame.split_at_mut(header.min(frame.len()));
                zeroes.fill(0);
                let length = recv(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
                if length == 0 {
                    return Err(io::ErrorKind::WouldBlock.into()); // the other end is gone, as with a cable pulled out
                }
                Ok(header + length)
            }
        }
    }

    /// Writes a frame that a guest has put together, header first.
    pub(super) fn write(&self, memory: &Memory, frame: &mut Buffer, header: usize) -> io::Result<()> {
        if !self.has_headers() {
            frame.skip(header);
        }
        frame.vectors(memory).write(self).map(|_| ())
    }
}
