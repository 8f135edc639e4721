//! The smallest kernel that a monitor boots by the Linux 64-bit boot protocol: it prints a text on the serial port and
//! asks for a reset.
//!
//! Entered in long mode with interrupts off and low memory identity-mapped (Documentation/arch/x86/boot.rst, "64-bit Boot
//! Protocol"), which is all that it needs: it uses no stack and touches no memory but its own text.

/// Where it is loaded, in bytes: 1 MiB, above what a monitor keeps for boot parameters and page tables.
pub const BASE: u64 = 0x10_0000;
const HEADERS: usize = 64 + 56;

/// The instructions; `lea` counts from the one after it, `TEXT` bytes away.
const CODE: [u8; 30] = [
    0x48, 0x8d, 0x35, 0x17, 0x00, 0x00, 0x00, //  lea  rsi, [rip + 23]   the text behind the code
    0x66, 0xba, 0xf8, 0x03, //                    mov  dx, 0x3f8         COM1's data port
    0xac, //                                next: lodsb
    0x84, 0xc0, //                                test al, al
    0x74, 0x03, //                                jz   end
    0xee, //                                      out  dx, al
    0xeb, 0xf8, //                                jmp  next
    0xb0, 0xfe, //                           end: mov  al, 0xfe          pulse the reset line
    0xe6, 0x64, //                                out  0x64, al          keyboard controller's command port
    0xf4, //                                halt: hlt
    0xeb, 0xfd, //                                jmp  halt
    0x90, 0x90, 0x90, 0x90, //                    nop                    up to the text
];

/// The kernel that prints `text`, as a static x86-64 ELF with one segment (System V ABI, chapters 4 and 5).
pub fn printing(text: &[u8]) -> Vec<u8> {
    let size = (HEADERS + CODE.len() + text.len() + 1) as u64;
    let mut file = Vec::with_capacity(size as usize);
    // e_ident: 64 bits, little-endian, version 1.
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(2_u16.to_le_bytes()); // e_type: EXEC
    file.extend(62_u16.to_le_bytes()); // e_machine: x86-64
    file.extend(1_u32.to_le_bytes()); // e_version
    file.extend((BASE + HEADERS as u64).to_le_bytes()); // e_entry: right behind the headers
    file.extend(64_u64.to_le_bytes()); // e_phoff
    file.extend(0_u64.to_le_bytes()); // e_shoff: no sections
    file.extend(0_u32.to_le_bytes()); // e_flags
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes()); // sizes and counts of headers: ehsize, phentsize, phnum, shentsize, shnum, shstrndx
    }
    file.extend(1_u32.to_le_bytes()); // p_type: LOAD
    file.extend(7_u32.to_le_bytes()); // p_flags: readable, writable, executable
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(CODE);
    file.extend(text);
    file.push(0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_finds_the_text_right_behind_itself() {
        let displacement = usize::from(CODE[3]);
        assert_eq!(7 + displacement, CODE.len());
        let file = printing(b"hello\n");
        let entry = u64::from_le_bytes(file[24..32].try_into().unwrap());
        let offset = (entry - BASE) as usize;
        assert_eq!(&file[offset..offset + CODE.len()], CODE);
        assert_eq!(&file[offset + 7 + displacement..], b"hello\n\0");
    }

    #[test]
    fn its_one_segment_is_the_whole_file() {
        let file = printing(b"x");
        let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        assert_eq!(&file[..4], b"\x7fELF");
        assert_eq!((word(32), word(64 + 32), word(64 + 40)), (64, file.len() as u64, file.len() as u64));
    }
}
