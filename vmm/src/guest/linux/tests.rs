use std::io::Write;

use tempfile::NamedTempFile;
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::*;
use crate::units::Mib;

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// A bzImage of one setup sector and 32 bytes of code.
fn bz_image(change: impl Fn(&mut linux_loader::loader::bootparam::setup_header)) -> Vec<u8> {
    let mut header = linux_loader::loader::bootparam::setup_header {
        setup_sects: 1,
        syssize: 2,
        boot_flag: 0xaa55,
        header: 0x5372_6448,
        version: 0x20f,
        loadflags: 1,
        xloadflags: 1,
        cmdline_size: 100,
        initrd_addr_max: 0x7fff_ffff,
        pref_address: 0x100_0000,
        init_size: 0x10_0000,
        ..Default::default()
    };
    change(&mut header);
    let mut bytes = vec![0; 1024 + 32];
    bytes[0x1f1..0x1f1 + header.as_slice().len()].copy_from_slice(header.as_slice());
    bytes[1024..].fill(7);
    bytes
}

/// A vmlinux of one segment, with or without the note of PVH.
fn vmlinux(at: u64, memory: u64, note: bool) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 2 * 56];
    bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(24, &at.to_le_bytes()); // the entry
    put(32, &64_u64.to_le_bytes()); // the program headers
    put(54, &56_u16.to_le_bytes());
    put(56, &(1 + u16::from(note)).to_le_bytes());
    put(64, &1_u32.to_le_bytes());
    put(64 + 8, &256_u64.to_le_bytes());
    put(64 + 24, &at.to_le_bytes());
    put(64 + 32, &16_u64.to_le_bytes());
    put(64 + 40, &memory.to_le_bytes());
    put(120, &4_u32.to_le_bytes());
    put(120 + 8, &272_u64.to_le_bytes());
    put(120 + 32, &20_u64.to_le_bytes());
    bytes.resize(256, 0);
    bytes.extend([9; 16]);
    bytes.extend([4_u32, 4, 18].map(u32::to_le_bytes).concat());
    bytes.extend(b"Xen\0");
    bytes.extend(0x10_0040_u32.to_le_bytes());
    bytes
}

fn open(kernel: &[u8], command_line: &str) -> Result<Linux, LinuxError> {
    Linux::open(file(kernel).path(), None, command_line)
}

fn load(linux: &Linux, mib: u64) -> Result<(Memory, Entry), GuestError> {
    let memory = Memory::map(Mib(mib)).unwrap();
    let entry = linux.load(&memory, &kvm_sregs::default())?;
    Ok((memory, entry))
}

#[test]
fn a_bz_image_lies_at_1_mib_and_is_entered_in_64_bit_mode() {
    let (memory, entry) = load(&open(&bz_image(|_| ()), "").unwrap(), 32).unwrap();
    assert_eq!(entry.regs.rip, 0x10_0200);
    assert_eq!(memory.guest().read_obj::<u8>(GuestAddress(0x10_001f)).unwrap(), 7);
}

#[test]
fn a_vmlinux_is_entered_as_pvh_where_it_has_the_note() {
    let (memory, entry) = load(&open(&vmlinux(0x20_0000, 4096, false), "").unwrap(), 32).unwrap();
    assert_eq!((entry.regs.rip, entry.regs.rsi), (0x20_0000, 0x7000));
    assert_eq!(memory.guest().read_obj::<u8>(GuestAddress(0x20_000f)).unwrap(), 9);
    let (_, entry) = load(&open(&vmlinux(0x20_0000, 4096, true), "").unwrap(), 32).unwrap();
    assert_eq!((entry.regs.rip, entry.regs.rbx), (0x10_0040, 0x8000));
}

#[test]
fn what_is_no_kernel_is_refused_with_what_is_wrong() {
    let refused = |kernel: &[u8], part: &str| {
        let error = open(kernel, "").unwrap_err();
        assert!(error.to_string().contains(part), "{error} should tell of {part:?}");
    };
    refused(b"", "neither a bzImage nor an ELF file");
    refused(b"#!/bin/sh\n", "neither a bzImage nor an ELF file");
    refused(&[0x1f, 0x8b, 8, 0], "compressed");
    refused(&bz_image(|header| header.xloadflags = 0), "64-bit mode");
    refused(&bz_image(|header| header.version = 0x206), "64-bit mode");
    refused(&bz_image(|header| header.syssize = 3000), "truncated: it has 1056 bytes of 49024");
    refused(&bz_image(|_| ())[..600], "truncated: it has 600 bytes of");
    refused(&vmlinux(0x1000, 4096, false), "below 1 MiB");
    refused(&vmlinux(0x20_0000, 8, false), "larger in the file");
    refused(&vmlinux(0x20_0000, 4096, false)[..260], "truncated: it has 260 bytes of 272");
    refused(&vmlinux(0x20_0000, 4096, false)[..100], "truncated");
    refused(&vmlinux(0x20_0000, 4096, false)[..40], "truncated: it has 40 bytes of 64");
    let mut arm = vmlinux(0x20_0000, 4096, false);
    arm[18] = 183;
    refused(&arm, "no x86-64 executable");
    let missing = Linux::open(Path::new("/nowhere/vmlinuz"), None, "").unwrap_err();
    assert!(missing.to_string().contains("cannot read the kernel /nowhere/vmlinuz"));
    assert!(matches!(Linux::open(Path::new("/"), None, ""), Err(LinuxError::Kernel(KernelError::NoKernel { .. }))));
}

#[test]
fn a_kernel_larger_than_memory_is_refused_with_how_much_it_needs() {
    let linux = open(&bz_image(|header| header.init_size = 64 << 20), "").unwrap();
    let error = load(&linux, 32).unwrap_err();
    assert!(error.to_string().contains("needs memory up to 80 MiB, and the machine has 32"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--memory 144")));
    assert!(load(&linux, 128).is_ok());
    for end in [u64::MAX, u64::MAX - 0x20_0000] {
        assert!(load(&open(&vmlinux(0x20_0000, end, false), "").unwrap(), 32).is_err());
    }
}

#[test]
fn a_command_line_is_as_long_as_the_kernel_takes_and_no_longer() {
    assert!(open(&bz_image(|_| ()), &"x".repeat(100)).is_ok());
    let error = open(&bz_image(|_| ()), &"x".repeat(101)).unwrap_err();
    assert!(matches!(error, LinuxError::CommandLine { length: 101, most: 100 }), "{error}");
    assert!(open(&vmlinux(0x20_0000, 4096, true), &"x".repeat(2048)).is_err());
    assert!(matches!(open(&bz_image(|_| ()), "a\0b"), Err(LinuxError::ZeroByte)));
}

#[test]
fn an_initial_file_system_lies_at_the_end_of_memory_or_is_refused() {
    let kernel = file(&bz_image(|_| ()));
    let initrd = file(&[5; 5000]);
    let linux = Linux::open(kernel.path(), Some(initrd.path()), "").unwrap();
    let (memory, _) = load(&linux, 32).unwrap();
    assert_eq!(memory.guest().read_obj::<u8>(GuestAddress((32 << 20) - 8192)).unwrap(), 5);
    let large = file(&[]);
    large.as_file().set_len(16 << 20).unwrap();
    let linux = Linux::open(kernel.path(), Some(large.path()), "").unwrap();
    let error = load(&linux, 32).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("at least 1 MiB more")), "{:?}", error.hint());
    let refused = |path: &Path| Linux::open(kernel.path(), Some(path), "").unwrap_err().to_string();
    assert!(refused(file(&[]).path()).contains("empty"));
    assert!(refused(Path::new("/")).contains("no regular file"));
    assert!(refused(Path::new("/nowhere")).contains("cannot read the initial file system"));
}
