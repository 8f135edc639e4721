//! The verb `ask`: a word to a machine that listens at a socket.

use std::io::{self, Write};
use std::path::Path;

use isolab_vmm::api::{self, Request};

use crate::cli::Wish;
use crate::failure::Failure;

/// Asks, and prints what is answered; returns the status to end with.
pub(crate) fn ask(socket: &Path, wish: &Wish) -> Result<u8, Failure> {
    let request = match wish {
        Wish::Status => Request::Status,
        Wish::Pause => Request::Pause,
        Wish::Resume => Request::Resume,
        // The machine may run in another folder.
        Wish::Snapshot { to, diff } => {
            Request::Snapshot { to: std::path::absolute(to).unwrap_or_else(|_| to.clone()), diff: *diff }
        }
        Wish::Button => Request::Button,
        Wish::Stop => Request::Stop,
    };
    let answer = serde_json::to_string(&api::ask(socket, &request)?).unwrap_or_default();
    let written = writeln!(io::stdout().lock(), "{answer}");
    written.map_err(|source| Failure::Write { to: "standard output".to_owned(), source })?;
    Ok(0)
}
