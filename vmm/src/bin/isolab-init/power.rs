//! The power button: the host's way to ask for an end.
//!
//! A machine's button interrupts its kernel, whose driver tells whoever listens: a message of the family `acpi_event` by
//! netlink (netlink(7); the kernel's `drivers/acpi/event.c`). On a desk that is the program which asks "shut down?"; here it
//! is the first process, and it does what `docker stop` does: it sends the program SIGTERM.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use nix::unistd::Pid;

/// The family and its group, by name; their numbers are another boot's.
const FAMILY: &[u8] = b"acpi_event\0";
/// What a button's message begins with: its kind (`struct acpi_genl_event`).
const BUTTON: &[u8] = b"button/power";

/// The family of families, and its request for one by name (`linux/genetlink.h`).
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GROUPS: u16 = 7;
const GROUP_ID: u16 = 2;

/// `struct nlmsghdr` and `struct genlmsghdr`, in bytes.
const HEADERS: usize = 16 + 4;

/// Sends `program` SIGTERM whenever the button is pressed. Where there is no button (no driver, no network in the kernel)
/// nothing happens, and the host ends the machine as it stands.
pub(crate) fn listen_for(program: Pid) {
    let Ok(socket) = join() else { return };
    // A thread for a wait: it ends with the machine.
    let _ = thread::Builder::new().name("power".to_owned()).spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length) = recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            if is_button(message.get(..length).unwrap_or_default()) {
                // It may have ended meanwhile: then the machine ends anyway.
                let _ = kill(program, Signal::SIGTERM);
            }
        }
    });
}

/// A socket that hears the kernel's ACPI events.
fn join() -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let group = group(answer.get(..length).unwrap_or_default()).ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: the option takes a number of four bytes, which lives over the call.
    let joined = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if joined == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// "Which number has the family of this name?"
fn request() -> Vec<u8> {
    let attribute = (4 + FAMILY.len()).next_multiple_of(4);
    let mut bytes = Vec::with_capacity(HEADERS + attribute);
    bytes.extend(((HEADERS + attribute) as u32).to_ne_bytes());
    bytes.extend(CONTROL.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend([0; 8]); // no sequence, and no port: there is one question
    bytes.extend([GET_FAMILY, 1, 0, 0]);
    bytes.extend(((4 + FAMILY.len()) as u16).to_ne_bytes());
    bytes.extend(FAMILY_NAME.to_ne_bytes());
    bytes.extend(FAMILY);
    bytes.resize(HEADERS + attribute, 0);
    bytes
}

/// The number of the family's only group, in the answer.
fn group(answer: &[u8]) -> Option<u32> {
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?));
    let attributes = answer.get(HEADERS..)?;
    find(attributes, FAMILY_ID)?;
    // A list, of which each entry is a list.
    let first = attributes_of(find(attributes, GROUPS)?).next()?.1;
    number(find(first, GROUP_ID)?)
}

fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes_of(attributes).find(|(other, _)| *other == kind).map(|(_, value)| value)
}

/// Attributes, each with a length, a kind and a value, and each on a multiple of four.
fn attributes_of(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// The kind's upper bits say of what form the value is.
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let &[l0, l1, k0, k1, ..] = rest else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & KIND, value))
    })
}

/// Whether a message is of a power button.
fn is_button(message: &[u8]) -> bool {
    let event = message.get(HEADERS..).and_then(|attributes| attributes_of(attributes).next());
    event.is_some_and(|(_, event)| event.starts_with(BUTTON))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_group_is_found_in_the_answer_wherever_it_stands() {
        let entry = [attribute(1, b"acpi_mc_group\0"), attribute(GROUP_ID, &9_u32.to_ne_bytes())].concat();
        let groups = attribute(GROUPS | 0x8000, &attribute(1, &entry));
        let answer = [vec![0; HEADERS], attribute(FAMILY_ID, &[23, 0]), attribute(3, &[1, 0, 0, 0]), groups].concat();
        assert_eq!(group(&answer), Some(9));
        for length in 0..answer.len() - 1 {
            assert_eq!(group(&answer[..length]), None, "cut off at {length}");
        }
    }

    #[test]
    fn only_a_power_button_is_one() {
        let event = |kind: &[u8]| {
            let mut event = kind.to_vec();
            event.resize(44, 0);
            [vec![0; HEADERS], attribute(1, &event)].concat()
        };
        assert!(is_button(&event(b"button/power")));
        assert!(!is_button(&event(b"button/lid")));
        assert!(!is_button(b""));
    }

    #[test]
    fn the_question_has_the_length_that_it_says() {
        let request = request();
        assert_eq!(u32::from_ne_bytes(request[..4].try_into().unwrap()) as usize, request.len());
    }
}
