use super::*;
use linux_loader::elf::{PF_R, PF_W};
use proptest::prelude::*;
use std::io::Write;

/// A file header of a program for this machine, with `count` program headers right behind it.
fn header(kind: u16, entry: u64, count: u16) -> Elf64_Ehdr {
    let mut header = Elf64_Ehdr {
        e_type: kind,
        e_machine: EM_X86_64,
        e_entry: entry,
        e_phoff: 64,
        e_phentsize: 56,
        e_phnum: count,
        ..Elf64_Ehdr::default()
    };
    header.e_ident[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', ELFCLASS64, ELFDATA2LSB]);
    header
}

fn load(address: u64, offset: u64, in_file: u64, in_memory: u64, flags: u32) -> Elf64_Phdr {
    Elf64_Phdr {
        p_type: PT_LOAD,
        p_flags: flags,
        p_offset: offset,
        p_vaddr: address,
        p_filesz: in_file,
        p_memsz: in_memory,
        p_align: PAGE,
        ..Elf64_Phdr::default()
    }
}

/// A file of three pages with these headers.
fn file(header: &Elf64_Ehdr, table: &[Elf64_Phdr]) -> Vec<u8> {
    let mut bytes = header.as_slice().to_vec();
    for header in table {
        bytes.extend(header.as_slice());
    }
    bytes.resize(3 * PAGE as usize, 0);
    bytes
}

fn read(bytes: &[u8]) -> Result<Elf, ElfError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Elf::read(&file)
}

fn read_loads(kind: u16, entry: u64, loads: &[Elf64_Phdr]) -> Result<Elf, ElfError> {
    read(&file(&header(kind, entry, loads.len() as u16), loads))
}

const CODE: u32 = PF_R | PF_X;

#[test]
fn a_fixed_program_lies_where_it_was_linked() {
    let loads = [load(0x40_0000, 0, 0x1100, 0x1100, CODE), load(0x40_2100, 0x2100, 0x10, 0x5000, PF_R | PF_W)];
    let elf = read_loads(ET_EXEC, 0x40_1000, &loads).unwrap();
    assert_eq!(elf.entry, 0x40_1000);
    assert_eq!(elf.headers, Some(0x40_0040));
    assert_eq!(elf.end(), 0x40_8000);
    assert_eq!(elf.memory(), 0x2000 + 0x6000);
    assert_eq!(elf.segments[1].rights, Rights::READ_WRITE);
}

#[test]
fn a_position_independent_program_lies_above_the_monitors_pages() {
    let elf = read_loads(ET_DYN, 0x100, &[load(0, 0, 0x1100, 0x1100, CODE)]).unwrap();
    assert_eq!((elf.entry, elf.headers), (RESERVED_END + 0x100, Some(RESERVED_END + 0x40)));
    let mut wide = load(0, 0, 0x1100, 0x1100, CODE);
    wide.p_align = 1 << 21;
    assert_eq!(read_loads(ET_DYN, 0x100, &[wide]).unwrap().entry, (1 << 21) + 0x100);
}

#[test]
fn segments_that_share_a_page_are_fine_and_segments_that_share_a_byte_are_not() {
    let first = load(0x40_0000, 0, 0x1100, 0x1100, CODE);
    assert!(read_loads(ET_EXEC, 0x40_0000, &[first, load(0x40_1100, 0x1100, 0x10, 0x10, PF_R)]).is_ok());
    let overlapping = read_loads(ET_EXEC, 0x40_0000, &[first, load(0x40_10ff, 0x10ff, 0x10, 0x10, PF_R)]);
    assert!(matches!(overlapping, Err(ElfError::Overlap(0x40_0000, 0x40_1100, 0x40_10ff, 0x40_110f))));
}

#[test]
fn every_wrong_kind_of_file_is_named() {
    let loads = [load(0x40_0000, 0, 0x1100, 0x1100, CODE)];
    let with = |change: &dyn Fn(&mut Elf64_Ehdr)| {
        let mut header = header(ET_EXEC, 0x40_0000, 1);
        change(&mut header);
        read(&file(&header, &loads)).unwrap_err().to_string()
    };
    assert_eq!(with(&|h| h.e_machine = EM_AARCH64), "it is for another machine: 64-bit ARM, not x86-64");
    assert_eq!(with(&|h| h.e_ident[EI_CLASS] = 1), "its class is 1, not 2 (64-bit)");
    assert_eq!(with(&|h| h.e_ident[EI_DATA] = 2), "its byte order is 2, not 1 (little-endian)");
    assert_eq!(with(&|h| h.e_type = ET_REL), "it is a relocatable object, not a program");
    assert_eq!(with(&|h| h.e_type = ET_CORE), "it is a core dump, not a program");
    assert_eq!(with(&|h| h.e_entry = 0x50_0000), "its entry point 0x500000 lies in no executable segment");
    assert!(with(&|h| h.e_phnum = 0).starts_with("it has 0 program headers of 56 bytes"));
    assert!(with(&|h| h.e_phentsize = 32).starts_with("it has 1 program headers of 32 bytes"));
    assert!(with(&|h| h.e_phoff = u64::MAX).starts_with("it is truncated: its table of program headers"));
    assert_eq!(read(b"#!/bin/sh\n").unwrap_err().to_string(), "it is no ELF file: it begins with 23 21 2f 62");
    assert_eq!(read(b"").unwrap_err().to_string(), "it is no ELF file: it begins with 00 00 00 00");
    assert_eq!(
        read(b"\x7fELF").unwrap_err().to_string(),
        "it is truncated: its header ends at byte 64, the file at byte 4"
    );
}

#[test]
fn every_wrong_segment_is_named() {
    let with = |segment| read_loads(ET_EXEC, 0x40_0000, &[load(0x40_0000, 0, 0x1100, 0x1100, CODE), segment]);
    assert!(matches!(
        with(load(0x50_0000, 0x2000, 0x2000, 0x2000, PF_R)),
        Err(ElfError::Truncated { end: 0x4000, .. })
    ));
    assert!(matches!(with(load(0x50_0010, 0x20, 0x10, 0x10, PF_R)), Err(ElfError::Segment(0x50_0010, _))));
    assert!(matches!(with(load(0x50_0000, 0, 0x20, 0x10, PF_R)), Err(ElfError::Segment(0x50_0000, _))));
    assert!(matches!(with(load(0x1000, 0, 0x10, 0x10, PF_R)), Err(ElfError::Reserved(0x1000, 0x1010))));
    assert!(matches!(with(load(u64::MAX - 4095, 0, 0x10, 0x2000, PF_R)), Err(ElfError::TooHigh(_))));
    assert!(matches!(with(load(USER_END, 0, 0x10, 0x10, PF_R)), Err(ElfError::TooHigh(_))));
    assert!(matches!(read_loads(ET_EXEC, 0, &[load(0x40_0000, 0, 0, 0, CODE)]), Err(ElfError::Empty)));
}

#[test]
fn a_dynamic_program_is_refused_with_its_loaders_name() {
    let mut bytes = vec![
        Elf64_Phdr { p_type: PT_INTERP, p_offset: 0x2000, p_filesz: 28, ..Elf64_Phdr::default() },
        load(0x40_0000, 0, 0x1100, 0x1100, CODE),
    ];
    let mut whole = file(&header(ET_EXEC, 0x40_0000, 2), &bytes);
    whole[0x2000..0x201c].copy_from_slice(b"/lib64/ld-linux-x86-64.so.2\0");
    let error = read(&whole).unwrap_err();
    assert!(error.to_string().contains("/lib64/ld-linux-x86-64.so.2"), "{error}");
    assert!(error.hint().unwrap().contains("-static"));
    bytes[0].p_offset = u64::MAX;
    assert!(
        matches!(read(&file(&header(ET_EXEC, 0x40_0000, 2), &bytes)), Err(ElfError::Dynamic(name)) if name.is_empty())
    );
}

/// A file header that may be anything but whose first bytes are right, so that the checks behind them are reached too.
fn any_file() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 0..600), prop::bool::ANY).prop_map(|(mut bytes, likely)| {
        if likely && bytes.len() > 64 {
            let good = header(if bytes[0] & 1 == 0 { ET_EXEC } else { ET_DYN }, 0x100, u16::from(bytes[1] % 8));
            bytes[..64].copy_from_slice(good.as_slice());
            let kinds = [PT_LOAD, PT_INTERP, PT_PHDR, PT_GNU_STACK];
            for at in (64..bytes.len().saturating_sub(4)).step_by(56) {
                let kind = kinds[usize::from(bytes[at] % 4)];
                bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever a file holds, reading it ends in a program that keeps its promises or in an error that can be told.
    #[test]
    fn no_file_makes_the_reader_panic(bytes in any_file()) {
        match read(&bytes) {
            Ok(elf) => {
                for segment in &elf.segments {
                    prop_assert!(segment.pages().start >= RESERVED_END && segment.pages().end <= USER_END + PAGE);
                    prop_assert!(segment.file_length <= segment.length);
                }
                prop_assert!(elf.end() >= RESERVED_END);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// The same with program headers whose numbers are likely to be near each other and near the edges.
    #[test]
    fn segments_are_never_over_each_other(
        loads in prop::collection::vec((0_u64..6, 0_u64..4096, 0_u64..9000, 0_u64..9000, 0_u32..8), 1..6),
        dynamic in any::<bool>(),
    ) {
        let headers: Vec<_> = loads
            .into_iter()
            .map(|(page, lead, in_file, in_memory, flags)| load(0xe000 + page * PAGE + lead, lead, in_file, in_memory, flags))
            .collect();
        if let Ok(elf) = read_loads(if dynamic { ET_DYN } else { ET_EXEC }, 0x1_1000, &headers) {
            for pair in elf.segments.windows(2) {
                prop_assert!(pair[0].bytes().end <= pair[1].bytes().start);
            }
            prop_assert!(elf.segments.iter().all(|segment| segment.address >= RESERVED_END));
        }
    }
}
