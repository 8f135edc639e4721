//! The tree as a squashfs: compressed, small, and nobody can write to it.
//!
//! squashfs-tools make it, of an archive on their standard input; no library that is kept well writes attributes and hard
//! links yet.

use std::fs;
use std::io::{BufWriter, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::archive;
use super::disk::{DiskError, DiskPacking, io_error};
use crate::image::Changed;

const PROGRAM: &str = "sqfstar";
const PACKAGE: &str = "squashfs-tools";

pub(super) fn write(layers: &[PathBuf], packing: DiskPacking, to: &Path) -> Result<(), DiskError> {
    let top = layers.first().map(|top| fs::metadata(top).map_err(io_error("look at", top))).transpose()?;
    let (mode, uid, gid) = top.map_or((0o755, 0, 0), |top| (top.mode() & 0o7777, top.uid(), top.gid()));
    let own = super::own_user();
    let owner = |id: u32| if own.is_some() { 0 } else { id }.to_string();
    let mut command = Command::new(PROGRAM);
    command.args(["-quiet", "-no-progress", "-exit-on-error", "-reproducible", "-mkfs-time", "0", "-comp"]);
    command.arg(packing.name()).args(["-root-time", "0", "-root-mode", &format!("{mode:o}")]);
    command.args(["-root-uid", &owner(uid), "-root-gid", &owner(gid)]).arg(to);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // It takes its times from here otherwise, and complains that both are given.
    command.env_remove("SOURCE_DATE_EPOCH");
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
