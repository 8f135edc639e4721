//! The tree as a squashfs: compressed, small, and nobody can write to it.
//!
//! squashfs-tools make it, of an archive on their standard input; no library that is kept well writes attributes and hard
//! links yet.

use std::fs;
use std::io::{BufWriter, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::disk::{DiskError, DiskPacking, io_error};
use super::{archive, walk};
use crate::image::{Changed, LayerError};

const PROGRAM: &str = "sqfstar";
const PACKAGE: &str = "squashfs-tools";

pub(super) fn write(layers: &[PathBuf], packing: DiskPacking, to: &Path) -> Result<(), DiskError> {
    let top = layers.first().map(|top| fs::metadata(top).map_err(io_error("look at", top))).transpose()?;
    let (mode, uid, gid) = top.map_or((0o755, 0, 0), |top| (top.mode() & 0o7777, top.uid(), top.gid()));
    let own = super::own_user();
    let owner = |id: u32| if own.is_some() { 0 } else { id }.to_string();
    let mut command = Command::new(PROGRAM);
    command.args(["-quiet", "-no-progress", "-exit-on-error", "-reproducible", "-comp", packing.name()]);
    command.args(["-root-mode", &format!("{mode:o}"), "-root-uid", &owner(uid), "-root-gid", &owner(gid)]).arg(to);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Its own time and that of the root, for which sqfstar 4.5 takes the clock's whatever -root-time says. What is newer
    // would be made as old as this, so it is as new as the newest.
    command.env("SOURCE_DATE_EPOCH", newest(layers)?.to_string());
    let missing = |source| DiskError::Program { program: PROGRAM, package: PACKAGE, source };
    let mut child = command.spawn().map_err(missing)?;
    let written = match child.stdin.take() {
        Some(input) => archive(layers, BufWriter::with_capacity(256 << 10, input)),
        None => Ok(Changed::default()),
    };
    let mut told = String::new();
    if let Some(mut errors) = child.stderr.take() {
        // What is no text is told as far as it is.
        let _ = errors.read_to_string(&mut told);
    }
    let status = child.wait().map_err(missing)?;
    // Whoever stops reading has a reason, which says more than that nobody reads any more.
    if !status.success() {
        return Err(DiskError::Failed { program: PROGRAM, told: told.trim().to_owned() });
    }
    written?;
    Ok(())
}

/// When the youngest file of the tree was last changed, in seconds since 1970; none has a later time in 32 bits.
fn newest(layers: &[PathBuf]) -> Result<u32, LayerError> {
    let mut newest = 0;
    walk(layers, &mut |entry| {
        newest = newest.max(entry.described.modified);
        Ok::<_, LayerError>(())
    })?;
    Ok(u32::try_from(newest).unwrap_or(u32::MAX))
}
