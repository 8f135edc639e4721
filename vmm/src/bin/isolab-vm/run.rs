//! The verb `run`: a machine from its start to its end.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isolab_vmm::api::{Attendant, Socket};
use isolab_vmm::confine::{Duties, confine};
use isolab_vmm::guest::app::App;
use isolab_vmm::guest::bare::Bare;
use isolab_vmm::guest::linux::Linux;
use isolab_vmm::guest::{Guest, GuestError};
use isolab_vmm::machine::pc::{self, Pc};
use isolab_vmm::machine::{Config, Ended, Machine};
use isolab_vmm::memory::let_go_of_program;

use crate::cli::Run;
use crate::devices;
use crate::failure::Failure;

/// How long a guest has to end by itself where nobody has said otherwise, as with docker.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Makes the machine, runs it, and returns the status to end with.
pub(crate) fn run(run: &Run) -> Result<u8, Failure> {
    let config = Config { memory: run.memory, timeout: run.timeout };
    match (&run.inside.bare, &run.inside.app, &run.inside.kernel) {
        (Some(name), _, _) => {
            let words: Vec<String> = run.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let guest = name.parse().and_then(|name| Bare::new(name, &words)).map_err(GuestError::from)?;
            live(run, &config, guest)
        }
        (_, Some(path), _) => {
            live(run, &config, App::open(path, &run.arguments, &environment(&run.env)).map_err(GuestError::from)?)
        }
        (_, _, Some(kernel)) => boot_linux(run, kernel),
        (None, None, None) => unreachable!("clap requires one of the three"),
    }
}

/// `NAME=VALUE` as it stands; `NAME` alone with the monitor's own value, where it has one.
pub(crate) fn environment(wanted: &[OsString]) -> Vec<OsString> {
    let own = |name: &OsString| {
        std::env::var_os(name).map(|value| {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            pair
        })
    };
    let given = |word: &OsString| word.as_encoded_bytes().contains(&b'=');
    wanted.iter().filter_map(|word| if given(word) { Some(word.clone()) } else { own(word) }).collect()
}

fn live(run: &Run, config: &Config, guest: impl Guest) -> Result<u8, Failure> {
    let (_socket, attendant) = attendant(run.api.as_deref())?;
    let mut attendant = attendant.saving_when_ready(run.snapshot_to.clone());
    let machine = Machine::boot(config, guest, io::stdout())?;
    confine(Duties { saves: run.api.is_some() || run.snapshot_to.is_some(), ..Duties::default() })?;
    Ok(status(machine.resume_under(&mut attendant)?))
}

/// Who answers for the machine: at `socket`, where one is named, until what is returned is dropped.
pub(crate) fn attendant(socket: Option<&Path>) -> Result<(Option<Socket>, Attendant), Failure> {
    let Some(path) = socket else { return Ok((None, Attendant::default())) };
    let (socket, attendant) = Socket::listen(path).map_err(|error| Failure::Listen(path.to_owned(), error))?;
    Ok((Some(socket), attendant))
}

/// A machine with an operating system; this command's terminal is its.
fn boot_linux(run: &Run, kernel: &Path) -> Result<u8, Failure> {
    let Run { memory, timeout, linux, .. } = run;
    let guest = Linux::open(kernel, linux.initrd.as_deref(), &linux.cmdline).map_err(GuestError::from)?;
    let config =
        pc::Config { memory: *memory, cpus: linux.cpus, timeout: *timeout, interpreted: pc::Interpreted::Refuse };
    let pc = Pc::boot(&config, &guest, Box::new(io::stdout()), devices::wirings(linux))?;
    // Where the guest has a terminal of its own, that is what is typed at.
    live_as_pc(pc, !linux.console, run.api.as_deref(), false, linux.grace)
}

/// Runs a PC with this command's terminal as its own, and its serial port typed at or not. It may write down in the end
/// which pages were touched, if `recorded`. Its guest has so long to end by itself when the monitor shall.
pub(crate) fn live_as_pc(
    pc: Pc,
    typed_at: bool,
    api: Option<&Path>,
    recorded: bool,
    grace: Duration,
) -> Result<u8, Failure> {
    let (_socket, mut attendant) = match api {
        Some(path) => {
            let bell = pc.bell();
            // It fails only where it has been rung as often as a u64 counts.
            let ring = move || drop(bell.write(1));
            let listening = Socket::listen_and_ring(path, Arc::new(ring));
            let (socket, attendant) = listening.map_err(|error| Failure::Listen(path.to_owned(), error))?;
            (Some(socket), attendant)
        }
        None => (None, Attendant::default()),
    };
    let typist = io::stdin();
    let _raw = pc::Terminal::raw(typist.as_fd()).map_err(Failure::Terminal)?;
    confine(Duties { threads: true, saves: api.is_some() || recorded, ..Duties::default() })?;
    let_go_of_program();
    Ok(status(pc.resume()?.with_grace(grace).wait_attended(typed_at.then_some(typist.as_fd()), &mut attendant)?))
}

/// The status to end with.
pub(crate) fn status(ended: Ended) -> u8 {
    match ended {
        Ended::Status(status) => status,
        Ended::Off => 0,
        // As a shell tells of it.
        Ended::Signal(signal) => 128_u8.saturating_add(signal as u8),
    }
}
