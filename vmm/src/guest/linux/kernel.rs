//! The kernel's file: what form it has, what it needs, and how it comes into memory.
//!
//! A `bzImage` is what distributions ship: a small program that unpacks the kernel, with a header that says how to start it
//! (`Documentation/arch/x86/boot.rst`). A `vmlinux` is what a linker made, an ELF file, with nothing to unpack; where it has
//! a note for PVH, it can be entered without even page tables.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader, PvhBootCapability};
use vm_memory::GuestAddress;

use super::LinuxError;
use super::layout::HIGH;
use crate::memory::Memory;

/// Where the header of a bzImage begins.
const HEADER: u64 = 0x1f1;
/// The 64-bit entry of a bzImage lies so far behind its start.
const ENTRY_64: u64 = 0x200;
/// `setup_header.xloadflags`: it has that entry.
const XLF_KERNEL_64: u16 = 1;
/// The first protocol that can say so.
const PROTOCOL_64: u16 = 0x20c;
/// What fits on the command line of a kernel that does not say (`COMMAND_LINE_SIZE` less the byte at its end).
const COMMAND_LINE: u64 = 2047;

/// Why a file is no kernel for this machine.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file can't be opened or read.
    #[error("cannot read the kernel {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither of the two forms.
    #[error("{} is no Linux kernel for this machine: {why}", path.display())]
    NoKernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It ends before the kernel does.
    #[error("the kernel {} is truncated: it has {length} bytes of {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is there.
        length: u64,
        /// What its headers tell of.
        expected: u64,
    },
    /// It does not fit.
    #[error("the kernel needs memory up to {needed} MiB, and the machine has {available}")]
    TooLarge {
        /// The end of what it needs, in MiB.
        needed: u64,
        /// The end of the memory, in MiB.
        available: u64,
    },
    /// The loader refused it.
    #[error("cannot load the kernel {}: {why}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What it said.
        why: String,
    },
}

/// A kernel's file that has been looked at.
#[derive(Debug)]
pub(super) struct Kernel {
    path: PathBuf,
    file: File,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Its header, as it lies in the file.
    BzImage(Box<setup_header>),
    /// Where its memory ends.
    Elf { end: u64 },
}

/// A kernel that lies in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    /// How it is entered.
    pub(super) start: Start,
    /// The end of the memory that it uses before it knows its memory map.
    pub(super) end: u64,
    /// The header for the zero page: a bzImage's own, or one that says the little which a vmlinux must be told.
    pub(super) header: setup_header,
}

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// In 64-bit mode, at this address.
    Long(u64),
    /// In 32-bit mode without paging, as Xen's PVH has it.
    Pvh(u64),
}

impl Kernel {
    /// Opens and checks the file; nothing is loaded.
    pub(super) fn open(path: &Path) -> Result<Self, KernelError> {
        let read = |source| KernelError::Read { path: path.to_owned(), source };
        // Asked before it is opened: to open a pipe would wait for its other end.
        if !path.metadata().map_err(read)?.is_file() {
            return Err(refuse(path, "no regular file"));
        }
        let file = File::open(path).map_err(read)?;
        let mut start = [0; 0x208];
        let length = file.read_at(&mut start, 0).map_err(read)?;
        let start = start.get(..length).unwrap_or_default();
        let form = match (start, start.get(0x202..0x206)) {
            ([0x7f, b'E', b'L', b'F', ..], _) => elf(path, &file)?,
            (_, Some(b"HdrS")) => bz_image(path, &file)?,
            ([0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', ..], _) => {
                return Err(refuse(path, "it is compressed as a whole; unpack it first"));
            }
            _ => return Err(refuse(path, "neither a bzImage nor an ELF file")),
        };
        Ok(Self { path: path.to_owned(), file, form })
    }

    /// The longest command line that it takes, in bytes.
    pub(super) fn longest_command_line(&self) -> u64 {
        match &self.form {
            Form::BzImage(header) if header.cmdline_size > 0 => u64::from(header.cmdline_size),
            _ => COMMAND_LINE,
        }
    }

    /// The first address above everything that an initial file system may lie in.
    pub(super) fn initrd_limit(&self, memory: &Memory) -> u64 {
        match &self.form {
            Form::BzImage(header) if header.initrd_addr_max > 0 => {
                memory.below_gap().min(u64::from(header.initrd_addr_max) + 1)
            }
            _ => memory.below_gap(),
        }
    }

    /// The end of the memory that it needs until it manages memory by itself.
    pub(super) fn end(&self) -> u64 {
        match &self.form {
            // It unpacks itself to the address that it prefers, and says how much it needs from there on.
            Form::BzImage(header) => (header.pref_address).max(HIGH).saturating_add(u64::from(header.init_size)),
            Form::Elf { end } => *end,
        }
    }

    /// Brings it into memory.
    pub(super) fn load(&self, memory: &Memory) -> Result<Loaded, KernelError> {
        if self.end() > memory.below_gap() {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(KernelError::TooLarge { needed: mib(self.end()), available: mib(memory.below_gap()) });
        }
        let read = |source| KernelError::Read { path: self.path.clone(), source };
        let mut file = self.file.try_clone().map_err(read)?;
        file.rewind().map_err(read)?;
        let refused = |error| KernelError::Load { path: self.path.clone(), why: format!("{error}") };
        match &self.form {
            Form::BzImage(header) => {
                BzImage::load(memory.guest(), Some(GuestAddress(HIGH)), &mut file, None).map_err(refused)?;
                let mut header = **header;
                header.code32_start = HIGH as u32;
                Ok(Loaded { start: Start::Long(HIGH + ENTRY_64), end: self.end(), header })
            }
            Form::Elf { .. } => {
                let loaded = Elf::load(memory.guest(), None, &mut file, None).map_err(refused)?;
                let start = match loaded.pvh_boot_cap {
                    PvhBootCapability::PvhEntryPresent(entry) => Start::Pvh(entry.0),
                    _ => Start::Long(loaded.kernel_load.0),
                };
                Ok(Loaded { start, end: self.end(), header: header_for_elf() })
            }
        }
    }
}

fn refuse(path: &Path, why: impl Into<String>) -> KernelError {
    KernelError::NoKernel { path: path.to_owned(), why: why.into() }
}

/// What the zero page must hold for a kernel whose file has no such header.
fn header_for_elf() -> setup_header {
    setup_header {
        boot_flag: 0xaa55,
        header: 0x5372_6448,
        version: PROTOCOL_64,
        loadflags: 1,
        ..setup_header::default()
    }
}

/// Looks at the header of a bzImage.
fn bz_image(path: &Path, file: &File) -> Result<Form, KernelError> {
    use vm_memory::ByteValued;
    let read = |source| KernelError::Read { path: path.to_owned(), source };
    let length = file.metadata().map_err(read)?.len();
    let truncated = |expected| KernelError::Truncated { path: path.to_owned(), length, expected };
    let mut header = setup_header::default();
    let header_end = HEADER + size_of::<setup_header>() as u64;
    if length < header_end {
        return Err(truncated(header_end));
    }
    file.read_exact_at(header.as_mut_slice(), HEADER).map_err(read)?;
    let (version, flags) = (header.version, header.xloadflags);
    if version < PROTOCOL_64 || flags & XLF_KERNEL_64 == 0 {
        return Err(refuse(path, "it can't be entered in 64-bit mode (a 32-bit kernel, or one older than 3.8)"));
    }
    let sectors = match header.setup_sects {
        0 => 4, // boot.rst: for backwards compatibility
        sectors => u64::from(sectors),
    };
    let expected = (sectors + 1) * 512 + u64::from(header.syssize) * 16;
    // The size in the header is rounded up to a multiple of 16.
    if length + 16 <= expected {
        return Err(truncated(expected));
    }
    Ok(Form::BzImage(Box::new(header)))
}

/// A field of the program headers of an ELF file: they are what is loaded.
struct Segment {
    kind: u32,
    offset: u64,
    physical: u64,
    in_file: u64,
    in_memory: u64,
}

impl Segment {
    const SIZE: usize = 56;

    fn parse(bytes: &[u8]) -> Self {
        let long = |at: usize| bytes.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_le_bytes);
        Self { kind: long(0) as u32, offset: long(8), physical: long(24), in_file: long(32), in_memory: long(40) }
    }
}

/// Looks at the headers of a vmlinux.
fn elf(path: &Path, file: &File) -> Result<Form, KernelError> {
    let read = |source| KernelError::Read { path: path.to_owned(), source };
    let length = file.metadata().map_err(read)?.len();
    let truncated = |expected| KernelError::Truncated { path: path.to_owned(), length, expected };
    let mut header = [0; 64];
    if length < header.len() as u64 {
        return Err(truncated(header.len() as u64));
    }
    file.read_exact_at(&mut header, 0).map_err(read)?;
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    // Class 2: 64 bits; byte order 1: the low byte first; machine 62: x86-64; types 2 and 3: executables.
    if header[4] != 2 || header[5] != 1 || short(18) != 62 || !matches!(short(16), 2 | 3) {
        return Err(refuse(path, "an ELF file that is no x86-64 executable"));
    }
    if usize::from(short(54)) != Segment::SIZE {
        return Err(refuse(path, "an ELF file whose program headers have an odd size"));
    }
    let table = u64::from_le_bytes(header[32..40].try_into().unwrap_or_default());
    let mut bytes = vec![0; usize::from(short(56)) * Segment::SIZE];
    let table_end = table.saturating_add(bytes.len() as u64);
    if table_end > length {
        return Err(truncated(table_end));
    }
    file.read_exact_at(&mut bytes, table).map_err(read)?;
    let segments: Vec<_> = bytes
        .chunks(Segment::SIZE)
        .map(Segment::parse)
        .filter(|segment| segment.kind == 1 && segment.in_memory > 0)
        .collect();
    let (mut start, mut end) = (u64::MAX, 0);
    for segment in &segments {
        let in_file = segment.offset.saturating_add(segment.in_file);
        if in_file > length {
            return Err(truncated(in_file));
        }
        if segment.in_file > segment.in_memory {
            return Err(refuse(path, "a segment that is larger in the file than in memory"));
        }
        start = start.min(segment.physical);
        end = end.max(segment.physical.saturating_add(segment.in_memory));
    }
    if segments.is_empty() {
        return Err(refuse(path, "an ELF file with nothing to load"));
    }
    // Lower would be over what the monitor puts there.
    if start < HIGH {
        return Err(refuse(path, "it wants to lie below 1 MiB"));
    }
    Ok(Form::Elf { end })
}

impl From<KernelError> for LinuxError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}
