//! What a dynamic program needs besides itself: its interpreter and its libraries.
//!
//! The interpreter (the dynamic loader) is asked which libraries it would load, as ldd(1) asks it; it does not start the
//! program for that. A program's own folders and the host's loader configuration are then taken into account by the one
//! who knows how.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The files that a program needs, by their paths on this host; none for what is no dynamic ELF program.
pub(super) fn needed_by(program: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let Some(interpreter) = interpreter(&mut File::open(program)?)? else { return Ok(BTreeSet::new()) };
    let output = Command::new(&interpreter).arg("--list").arg(program).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("{}: {said}", interpreter.display())));
    }
    let mut files = listed(&String::from_utf8_lossy(&output.stdout));
    files.insert(interpreter);
    Ok(files)
}

/// The paths in a loader's list: `libc.so.6 => /lib/libc.so.6 (0x7f...)`, or without an arrow for one it names by path.
fn listed(text: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        let line = line.trim().split(" (0x").next()?;
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    text.lines().filter_map(path).collect()
}

/// The loader that a program names (elf(5), `PT_INTERP`); none in a static one, and in what is no 64-bit ELF file.
fn interpreter(file: &mut (impl Read + Seek)) -> io::Result<Option<PathBuf>> {
    const INTERPRETER: u32 = 3;
    const LONGEST: u64 = 4096;
    let mut header = Vec::new();
    file.by_ref().take(64).read_to_end(&mut header)?;
    let [table, size, count] = [number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2)];
    if header.len() < 64 || !header.starts_with(b"\x7fELF\x02\x01") || size < 56 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(table))?;
    let mut headers = Vec::new();
    file.by_ref().take(size * count).read_to_end(&mut headers)?;
    let found = headers.chunks_exact(size as usize).find(|header| number(header, 0, 4) == u64::from(INTERPRETER));
    let Some(found) = found else { return Ok(None) };
    file.seek(SeekFrom::Start(number(found, 8, 8)))?;
    let mut path = Vec::new();
    file.take(number(found, 32, 8).min(LONGEST)).read_to_end(&mut path)?;
    let path = String::from_utf8_lossy(&path).trim_end_matches('\0').to_owned();
    Ok(Some(PathBuf::from(path)))
}

/// A little-endian number of `length` bytes; 0 beyond the end.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.get(at..at + length).unwrap_or_default();
    field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_dynamic_program_needs_its_loader_and_its_libraries() {
        let files = needed_by(Path::new("/bin/sh")).unwrap();
        let has = |part: &str| files.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(has("/ld-linux") && has("/libc.so"), "{files:?}");
    }

    #[test]
    fn a_static_program_needs_nothing_and_neither_does_a_script() {
        assert!(needed_by(&std::env::current_exe().unwrap()).unwrap().is_empty(), "all of ours are static");
        assert!(needed_by(Path::new("/etc/passwd")).unwrap().is_empty());
    }

    #[test]
    fn a_list_is_read_as_the_loader_writes_it() {
        let text =
            "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x00007f)\n";
        assert_eq!(listed(text), ["/lib/libc.so.6", "/lib64/ld.so.2"].map(PathBuf::from).into());
    }

    #[test]
    fn a_damaged_header_names_no_loader() {
        let mut header = [0xff; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for cut in [0, 5, 6, 40, 64] {
            assert_eq!(interpreter(&mut Cursor::new(header[..cut].to_vec())).ok().flatten(), None, "{cut}");
        }
    }
}
