//! The verb `run`: a machine from its start to its end.

use std::ffi::OsString;
use std::io;

use isolab_vmm::guest::app::App;
use isolab_vmm::guest::bare::Bare;
use isolab_vmm::guest::{Guest, GuestError};
use isolab_vmm::machine::{Config, Ended, Machine};

use crate::cli::Run;
use crate::failure::Failure;

/// Makes the machine, runs it, and returns the status to end with.
pub(crate) fn run(run: &Run) -> Result<u8, Failure> {
    let config = Config { memory: run.memory, timeout: run.timeout };
    match (&run.inside.bare, &run.inside.app) {
        (Some(name), _) => {
            let words: Vec<String> = run.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let guest = name.parse().and_then(|name| Bare::new(name, &words)).map_err(GuestError::from)?;
            live(&config, guest)
        }
        (_, Some(path)) => {
            live(&config, App::open(path, &run.arguments, &environment(&run.env)).map_err(GuestError::from)?)
        }
        (None, None) => unreachable!("clap requires one of the two"),
    }
}

/// `NAME=VALUE` as it stands; `NAME` alone with the monitor's own value, where it has one.
fn environment(wanted: &[OsString]) -> Vec<OsString> {
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

fn live(config: &Config, guest: impl Guest) -> Result<u8, Failure> {
    Ok(match Machine::boot(config, guest, io::stdout())?.resume()? {
        Ended::Status(status) => status,
        // As a shell tells of it.
        Ended::Signal(signal) => 128_u8.saturating_add(signal as u8),
    })
}
