//! Bringing a program into memory: its segments are mapped, not read.
//!
//! A segment's pages of the file are mapped privately over guest memory, so loading costs the same for a program of 20 KiB
//! and of 20 MiB: the page cache has the bytes, and the first access of the guest brings a page in. A store makes a copy
//! of that page which is the machine's own.

use std::fs::File;

use tracing::info_span;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::elf::{Elf, Segment};
use super::space::{Space, SpaceError};
use super::{AppError, PAGE, page_down, page_up};
use crate::memory::Memory;

/// Loads every segment of `elf` from `file`, and starts the heap after the last.
pub(super) fn load(memory: &Memory, space: &mut Space, file: &File, elf: &Elf) -> Result<(), AppError> {
    let _span = info_span!(
        "elf.map",
        call = "mmap(MAP_PRIVATE|MAP_FIXED)",
        why = "the program's segments become pages of guest memory without being read"
    )
    .entered();
    let (needed, available) = (elf.memory(), space.available());
    if needed > available {
        return Err(AppError::TooLarge { needed, available });
    }
    for segment in &elf.segments {
        place(memory, space, file, segment)?;
    }
    space.start_heap(elf.end());
    Ok(())
}

/// Loads one segment.
fn place(memory: &Memory, space: &mut Space, file: &File, segment: &Segment) -> Result<(), AppError> {
    let run = space.give_run(memory, &segment.pages(), segment.rights)?;
    if segment.file_length == 0 {
        return Ok(());
    }
    // The file's bytes lie at the same place in their page as the segment's: `elf` has checked that.
    let lead = segment.address % PAGE;
    let mapped = page_up(lead + segment.file_length);
    memory
        .map_file(GuestAddress(run.start), file, page_down(segment.file_offset), mapped)
        .map_err(SpaceError::Memory)?;
    // After the last byte of the segment the mapped page shows what the file has there, or zeroes where it ends; the
    // program was promised zeroes. (A segment that is all file keeps the rest of the page, as under Linux.)
    let end = lead + segment.file_length;
    if segment.length > segment.file_length && end < mapped {
        let zeroes = vec![0; (mapped - end) as usize];
        memory
            .guest()
            .write_slice(&zeroes, GuestAddress(run.start + end))
            .map_err(|source: GuestMemoryError| AppError::Write { what: "the zeroes after a segment", source })?;
    }
    Ok(())
}
