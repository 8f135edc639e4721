//! Machines for operating systems: what such a machine does at the hands of a kernel, and how it ends.
//!
//! A distribution's kernel takes a KVM with virtualization hardware, or an emulated one ([`stock`]). So most of these are kernels
//! of a few instructions, made here, which a KVM that interprets them can run too ([`tiny`]).

mod answers;
#[path = "linux/confined.rs"]
mod confined;
#[path = "linux/copies.rs"]
mod copies;
#[path = "linux/devices_go_on.rs"]
mod devices_go_on;
#[path = "linux/generation.rs"]
mod generation;
#[path = "linux/goes_on.rs"]
mod goes_on;
#[path = "linux/guests.rs"]
mod guests;
#[path = "linux/hostile.rs"]
mod hostile;
mod needs;
#[path = "linux/resident.rs"]
mod resident;
#[path = "linux/smaps.rs"]
mod smaps;
#[path = "linux/stock.rs"]
mod stock;
#[path = "linux/tiny.rs"]
mod tiny;
mod walls;

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed};

use needs::{Done, trial};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [stock::IN_THE_GUEST] => return stock::in_the_guest(),
        [confined::CONFINED, machine, deed] => {
            let status = confined::be(machine, deed).map_or_else(
                |error| {
                    eprintln!("{error:?}");
                    1
                },
                |()| 0,
            );
            std::process::exit(status);
        }
        _ => {}
    }
    // One after the other: a process has one set of signals, so it can listen on behalf of one machine.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = [
        tiny::trials(),
        confined::trials(),
        hostile::trials(),
        goes_on::trials(),
        stock::trials(),
        resident::trials(),
        devices_go_on::trials(),
        generation::trials(),
        copies::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}

fn isolab_vm(words: &[&str]) -> Result<Output, Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-vm"));
    Ok(command.args(words).stdin(Stdio::null()).output()?)
}

/// A console that remembers what was printed on it.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
