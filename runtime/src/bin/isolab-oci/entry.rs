//! Where the command begins: at the C library's `main`.
//!
//! The standard library begins a program by reading its own memory map and setting up handlers that tell of an overflown
//! stack: 17 system calls, and a `run` makes them twice, as the command starts itself a second time out of the containers'
//! reach. Of what it does there, two things matter here and are done here.

use std::ffi::{c_char, c_int};

/// Called by the C library. The arguments are those that `std::env::args` gives.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    open_standard_streams();
    // SAFETY: SIG_IGN is no handler that could run. A reader that has gone is told by a write's error, and no signal, as the
    // one that ends a hook's input early.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // Not a return: what is still in the standard output's buffer is written at `exit` only.
    std::process::exit(i32::from(super::command()))
}

/// Opens /dev/null in the place of a standard stream that is closed. Otherwise the next file that is opened, whatever it
/// is, gets that number, and what is meant for a reader would be written to it, by the container too.
fn open_standard_streams() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array and its length; with a time-out of 0 the call looks and returns.
    let answered = unsafe { libc::poll(streams.as_mut_ptr(), streams.len() as libc::nfds_t, 0) };
    if answered <= 0 {
        return;
    }
    for _ in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // SAFETY: a NUL-terminated path. The lowest free number is taken, which is a closed stream's: in their order.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
}
