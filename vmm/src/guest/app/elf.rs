//! The file that holds a program: which of its bytes go where, and with which rights.
//!
//! Of the whole ELF format a loader needs two tables' worth: the file header says where the program headers are, and each
//! program header of type `PT_LOAD` says "these bytes of the file, at this address, with these rights, and zeroes after
//! them up to that length" (System V ABI, chapter 5). Everything here is read from a file that may be anything, so every
//! number is checked before it is believed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, ET_CORE,
    ET_DYN, ET_EXEC, ET_REL, Elf64_Ehdr, Elf64_Phdr, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_PHDR,
};
use thiserror::Error;
use vm_memory::ByteValued;

use super::rights::Rights;
use super::{PAGE, RESERVED_END, USER_END, page_down, page_up};

/// Linux reads no more program headers than fit into 64 KiB (`fs/binfmt_elf.c`, `load_elf_phdrs`).
const HEADERS_MAX: usize = 65536 / size_of::<Elf64_Phdr>();
/// The largest alignment of a segment that is honoured: larger ones exist in no real program.
const ALIGN_MAX: u64 = 1 << 30;

/// Why a file is not a program that can run here.
#[derive(Debug, Error)]
pub enum ElfError {
    /// The file cannot be read.
    #[error("cannot read its headers")]
    Read(#[source] io::Error),
    /// Another kind of file.
    #[error("it is no ELF file: it begins with {}", hex(.0))]
    Magic([u8; 4]),
    /// A 32-bit program.
    #[error("its class is {0}, not 2 (64-bit)")]
    Class(u8),
    /// A big-endian program.
    #[error("its byte order is {0}, not 1 (little-endian)")]
    ByteOrder(u8),
    /// A program for another processor.
    #[error("it is for another machine: {}, not x86-64", machine(*.0))]
    Machine(u16),
    /// An object, a core dump, or unknown.
    #[error("it is {}, not a program", kind(*.0))]
    Kind(u16),
    /// It asks for a dynamic loader.
    #[error("it is dynamic: it asks for the loader {0}, which asks for shared libraries")]
    Dynamic(String),
    /// The file ends too early.
    #[error("it is truncated: {part} ends at byte {end}, the file at byte {length}")]
    Truncated {
        /// The part that is not whole.
        part: String,
        /// Where that part should end, in bytes.
        end: u64,
        /// How long the file is, in bytes.
        length: u64,
    },
    /// A count or a size that no program has.
    #[error("it has {count} program headers of {size} bytes; 1 to {HEADERS_MAX} of 56 bytes were expected")]
    Headers {
        /// How many.
        count: u16,
        /// The size of each, in bytes.
        size: u16,
    },
    /// No `PT_LOAD` at all.
    #[error("it has nothing to load: no PT_LOAD program header")]
    Empty,
    /// A segment that holds more of the file than of memory, or lies off its page.
    #[error("segment {0:#x} is malformed: {1}")]
    Segment(u64, &'static str),
    /// Two segments claim the same bytes.
    #[error("segments {0:#x}-{1:#x} and {2:#x}-{3:#x} overlap")]
    Overlap(u64, u64, u64, u64),
    /// Over the pages that hold the system call stub and the tables.
    #[error("segment {0:#x}-{1:#x} lies over the monitor's own pages, {first:#x}-{RESERVED_END:#x}", first = 0)]
    Reserved(u64, u64),
    /// Beyond what a program can address.
    #[error("segment {0:#x} does not end below {USER_END:#x}, where the addresses of programs end")]
    TooHigh(u64),
    /// The first instruction lies in no executable segment.
    #[error("its entry point {0:#x} lies in no executable segment")]
    Entry(u64),
}

impl ElfError {
    /// What to try next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Dynamic(_) => Some("link it statically: gcc -static, or rustc -C target-feature=+crt-static"),
            Self::Magic([b'#', b'!', ..]) => {
                Some("it is a script: name its interpreter's ELF file instead, if that is static")
            }
            Self::Machine(_) | Self::Class(_) | Self::ByteOrder(_) => Some("build it for x86_64-linux"),
            Self::Kind(ET_REL) => Some("link it first: gcc -static"),
            Self::Reserved(..) => Some("link it at 0x400000, the linker's default, or as a static-pie"),
            Self::Truncated { .. } => Some("copy or build the file again"),
            _ => None,
        }
    }
}

/// One stretch of memory that the program starts with. Addresses are final: a load base is already added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it begins in the program's memory; not page aligned.
    pub(super) address: u64,
    /// How long it is in memory, in bytes; what is beyond `file_length` is zero.
    pub(super) length: u64,
    /// Where it begins in the file, in bytes.
    pub(super) file_offset: u64,
    /// How much of it is in the file, in bytes.
    pub(super) file_length: u64,
    /// What the program may do there.
    pub(super) rights: Rights,
}

impl Segment {
    /// The bytes that it covers.
    pub(super) fn bytes(&self) -> Range<u64> {
        self.address..self.address + self.length
    }

    /// The whole pages that it covers.
    pub(super) fn pages(&self) -> Range<u64> {
        page_down(self.address)..page_up(self.address + self.length)
    }
}

/// A checked program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    /// Its first instruction.
    pub(super) entry: u64,
    /// What to load, by rising address, none over another.
    pub(super) segments: Vec<Segment>,
    /// Where its program headers are in memory, if they are: a C library finds its TLS template by them.
    pub(super) headers: Option<u64>,
    /// How many program headers there are.
    pub(super) header_count: u16,
    /// Whether it wants instructions on its stack.
    pub(super) executable_stack: bool,
}

impl Elf {
    /// Reads and checks the headers of `file`: two reads, however large the program is.
    pub(super) fn read(file: &File) -> Result<Self, ElfError> {
        let length = file.metadata().map_err(ElfError::Read)?.len();
        let mut start = Vec::new();
        read_part(file, 0, length.min(64) as usize, &mut start)?;
        let header = file_header(&start, length)?;
        let mut table = Vec::new();
        read_part(file, header.e_phoff, usize::from(header.e_phnum) * size_of::<Elf64_Phdr>(), &mut table)?;
        let mut interpreter = Vec::new();
        if let Some(asked) = program_headers(&table).find(|header| header.p_type == PT_INTERP) {
            let wanted = asked.p_filesz.min(length.saturating_sub(asked.p_offset)).min(256) as usize;
            read_part(file, asked.p_offset, wanted, &mut interpreter)?;
        }
        Self::parse(&header, &table, &interpreter, length)
    }

    /// The program that these headers describe, in a file of `length` bytes.
    fn parse(header: &Elf64_Ehdr, table: &[u8], interpreter: &[u8], length: u64) -> Result<Self, ElfError> {
        if program_headers(table).any(|header| header.p_type == PT_INTERP) {
            let name = interpreter.split(|byte| *byte == 0).next().unwrap_or_default();
            return Err(ElfError::Dynamic(String::from_utf8_lossy(name).escape_debug().collect()));
        }
        let loads: Vec<Elf64_Phdr> =
            program_headers(table).filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0).collect();
        let base = if header.e_type == ET_DYN { load_base(&loads)? } else { 0 };
        let mut segments = loads.iter().map(|load| segment(load, base, length)).collect::<Result<Vec<_>, _>>()?;
        segments.sort_by_key(|segment| segment.address);
        check_overlaps(&segments)?;

        let entry = header.e_entry.wrapping_add(base);
        if !segments.iter().any(|segment| segment.rights.execute && segment.bytes().contains(&entry)) {
            return Err(if segments.is_empty() { ElfError::Empty } else { ElfError::Entry(entry) });
        }
        let headers = headers_in_memory(header, table, &segments, base);
        // Without a PT_GNU_STACK header Linux makes the stack executable for 32-bit programs only.
        let executable_stack =
            program_headers(table).any(|header| header.p_type == PT_GNU_STACK && header.p_flags & PF_X != 0);
        Ok(Self { entry, segments, headers, header_count: header.e_phnum, executable_stack })
    }

    /// The page after the last segment: where brk(2) starts.
    pub(super) fn end(&self) -> u64 {
        self.segments.last().map_or(RESERVED_END, |segment| segment.pages().end)
    }

    /// How many bytes of memory its pages take.
    pub(super) fn memory(&self) -> u64 {
        self.segments.iter().map(|segment| segment.pages().end - segment.pages().start).sum()
    }
}

/// Reads `count` bytes at `offset` into `into`.
fn read_part(file: &File, offset: u64, count: usize, into: &mut Vec<u8>) -> Result<(), ElfError> {
    into.resize(count, 0);
    file.read_exact_at(into, offset).map_err(ElfError::Read)
}

/// Checks the file header, and that the program headers are all there.
fn file_header(start: &[u8], length: u64) -> Result<Elf64_Ehdr, ElfError> {
    let magic = start.first_chunk::<4>().copied().unwrap_or_default();
    if magic != *ELFMAG {
        return Err(ElfError::Magic(magic));
    }
    let mut header = Elf64_Ehdr::default();
    let whole = start.get(..size_of::<Elf64_Ehdr>()).ok_or_else(|| truncated("its header", 64, length))?;
    header.as_mut_slice().copy_from_slice(whole);
    if header.e_ident[EI_CLASS] != ELFCLASS64 {
        return Err(ElfError::Class(header.e_ident[EI_CLASS]));
    }
    if header.e_ident[EI_DATA] != ELFDATA2LSB {
        return Err(ElfError::ByteOrder(header.e_ident[EI_DATA]));
    }
    if header.e_machine != EM_X86_64 {
        return Err(ElfError::Machine(header.e_machine));
    }
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(ElfError::Kind(header.e_type));
    }
    let (count, size) = (header.e_phnum, header.e_phentsize);
    if count == 0 || usize::from(count) > HEADERS_MAX || usize::from(size) != size_of::<Elf64_Phdr>() {
        return Err(ElfError::Headers { count, size });
    }
    let end = header.e_phoff.saturating_add(u64::from(count) * u64::from(size));
    if end > length {
        return Err(truncated("its table of program headers", end, length));
    }
    Ok(header)
}

/// The program headers in `table`, copied out: a file promises no alignment.
fn program_headers(table: &[u8]) -> impl Iterator<Item = Elf64_Phdr> + '_ {
    table.chunks_exact(size_of::<Elf64_Phdr>()).map(|bytes| {
        let mut header = Elf64_Phdr::default();
        header.as_mut_slice().copy_from_slice(bytes);
        header
    })
}

/// Where a position-independent program goes: as low as its alignment allows, so that its pages, its heap and the
/// monitor's pages share one page table. (Linux picks a random place; here every start is the same.)
fn load_base(loads: &[Elf64_Phdr]) -> Result<u64, ElfError> {
    let lowest = loads.iter().map(|load| page_down(load.p_vaddr)).min().ok_or(ElfError::Empty)?;
    let align = loads.iter().map(|load| load.p_align).max().unwrap_or(0).max(PAGE);
    if !align.is_power_of_two() || align > ALIGN_MAX {
        return Err(ElfError::Segment(lowest, "its alignment is no power of two below 1 GiB"));
    }
    Ok(RESERVED_END.saturating_sub(lowest).next_multiple_of(align))
}

/// Checks one `PT_LOAD` header and adds the load base.
fn segment(load: &Elf64_Phdr, base: u64, length: u64) -> Result<Segment, ElfError> {
    let end = load.p_vaddr.checked_add(base).and_then(|address| address.checked_add(load.p_memsz));
    let Some(end) = end.filter(|end| *end <= USER_END) else {
        return Err(ElfError::TooHigh(load.p_vaddr));
    };
    let address = load.p_vaddr + base;
    if address < RESERVED_END {
        return Err(ElfError::Reserved(address, end));
    }
    if load.p_filesz > load.p_memsz {
        return Err(ElfError::Segment(address, "it holds more of the file than of memory"));
    }
    // A page of a file can only be mapped to a page of memory: both must lie at the same place in their page.
    if load.p_filesz > 0 && load.p_offset % PAGE != address % PAGE {
        return Err(ElfError::Segment(address, "its place in the file and in memory differ by less than a page"));
    }
    let file_end = load.p_offset.saturating_add(load.p_filesz);
    if load.p_filesz > 0 && file_end > length {
        return Err(truncated(&format!("segment {address:#x}"), file_end, length));
    }
    Ok(Segment {
        address,
        length: load.p_memsz,
        file_offset: load.p_offset,
        file_length: load.p_filesz,
        rights: Rights::from_segment(load.p_flags),
    })
}

/// Refuses segments that claim the same bytes. (Two that meet within a page are fine: the later one has the page, as
/// under Linux, and linkers make such files so that either copy of the page holds the bytes of both.)
fn check_overlaps(segments: &[Segment]) -> Result<(), ElfError> {
    for (one, next) in segments.iter().zip(segments.iter().skip(1)) {
        let (one, next) = (one.bytes(), next.bytes());
        if next.start < one.end {
            return Err(ElfError::Overlap(one.start, one.end, next.start, next.end));
        }
    }
    Ok(())
}

/// Where the program headers are in memory: in the segment that holds their bytes of the file, or where `PT_PHDR` says.
fn headers_in_memory(header: &Elf64_Ehdr, table: &[u8], segments: &[Segment], base: u64) -> Option<u64> {
    let end = header.e_phoff + table.len() as u64;
    let holder = segments.iter().find(|segment| {
        segment.file_offset <= header.e_phoff && end <= segment.file_offset.saturating_add(segment.file_length)
    });
    match holder {
        Some(segment) => Some(segment.address + (header.e_phoff - segment.file_offset)),
        None => program_headers(table)
            .find(|header| header.p_type == PT_PHDR)
            .map(|header| header.p_vaddr.wrapping_add(base)),
    }
}

fn truncated(part: &str, end: u64, length: u64) -> ElfError {
    ElfError::Truncated { part: part.to_owned(), end, length }
}

/// Bytes as two hexadecimal digits each.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// The machines a student is likely to meet, by name.
fn machine(number: u16) -> String {
    match number {
        EM_386 => "32-bit x86".to_owned(),
        EM_ARM => "32-bit ARM".to_owned(),
        EM_AARCH64 => "64-bit ARM".to_owned(),
        EM_RISCV => "RISC-V".to_owned(),
        other => format!("machine number {other}"),
    }
}

/// What a file that is no program is.
fn kind(number: u16) -> String {
    match number {
        ET_REL => "a relocatable object".to_owned(),
        ET_CORE => "a core dump".to_owned(),
        other => format!("an ELF file of type {other}"),
    }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
