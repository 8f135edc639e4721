//! The first process in the machine: makes it one in which programs feel at home, runs the command, and tells the host all
//! about it.
//!
//! The kernel panics when its first process ends, and the host ends the machine as soon as it has the last frame. So
//! [`init`] never returns: having said the last thing it knows, it waits to be ended.

mod command;
mod files;
mod port;
mod system;

use std::fs;
use std::io;
use std::sync::Arc;

use port::Port;

use super::wire::{Frame, REQUEST, Request};

/// What the first process could not do.
#[derive(Debug, thiserror::Error)]
enum InitError {
    /// A step failed on a thing.
    #[error("cannot {attempt} {what}: {source}")]
    Step { attempt: &'static str, what: String, source: io::Error },
    /// There is no port to the host.
    #[error("there is no port to the host: {0}")]
    NoPort(&'static str),
}

impl InitError {
    fn step<E: Into<io::Error>>(attempt: &'static str, what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Step { attempt, what, source: source.into() }
    }
}

/// Runs the machine. Does not return.
pub fn init() -> ! {
    match prepare() {
        Ok((port, request)) => {
            let last = work(&port, &request).unwrap_or_else(|error| Frame::Failed(error.to_string()));
            say(port.send(&last));
        }
        // Nobody hears us but the console, which the host shows when nothing else comes.
        Err(error) => eprintln!("testbed: {error}"),
    }
    system::power_off()
}

/// 1. A system: file systems, modules, a port to the host.
fn prepare() -> Result<(Arc<Port>, Request), InitError> {
    system::make_root_a_mount()?;
    system::mount_all()?;
    system::open_console()?;
    let text = fs::read(REQUEST).map_err(InitError::step("read", REQUEST))?;
    let request: Request = serde_json::from_slice(&text).map_err(InitError::step("understand", REQUEST))?;
    for module in &request.modules {
        system::load(module)?;
    }
    let port = Arc::new(Port::open()?);
    port.beat();
    Ok((port, request))
}

/// 2. The command, and what it leaves.
fn work(port: &Arc<Port>, request: &Request) -> Result<Frame, InitError> {
    system::enable_controllers()?;
    system::bring_loopback_up()?;
    let status = command::run(&request.command, port)?;
    files::send(port)?;
    Ok(Frame::Ended(status))
}

fn say(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        eprintln!("testbed: cannot speak to the host: {error}");
    }
}
