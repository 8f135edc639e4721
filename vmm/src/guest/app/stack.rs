//! The first page of the stack: what a kernel tells a program before its first instruction.
//!
//! Upward from the stack pointer (System V ABI, x86-64 supplement, section 3.4.1): the count of arguments, pointers to
//! them, zero, pointers to the environment, zero, the auxiliary vector of pairs, a pair of zeroes; and above all those
//! the texts that they point to. The auxiliary vector is how a C library without a dynamic loader finds its program
//! headers, and how it comes by sixteen random bytes for its stack protector before it can ask for any (getauxval(3)).

use std::ffi::CString;
use std::ops::Range;

use super::PAGE;
use super::elf::Elf;
use super::stub::GENERATION;

/// `AT_MINSIGSTKSZ`, which the C library's headers here do not name.
const AT_MINSIGSTKSZ: u64 = 51;
/// Where the program's generation is: 16 bytes that are others in every machine, also in each that goes on from a
/// snapshot. A number of this lab's own ("gene"), far from Linux's.
const AT_GENERATION: u64 = 0x6765_6e65;
/// What a signal frame takes besides the register state, in bytes; generous.
const SIGNAL_FRAME: u64 = 1024;
/// The unit of times(2).
const CLOCK_TICKS: u64 = 100;

/// What goes on the stack.
pub(super) struct Contents<'a> {
    /// The arguments; the first is the program's own name.
    pub(super) arguments: &'a [CString],
    /// `NAME=VALUE` each.
    pub(super) environment: &'a [CString],
    /// The file that is run.
    pub(super) executable: &'a CString,
    /// What was loaded.
    pub(super) elf: &'a Elf,
    /// Sixteen random bytes.
    pub(super) random: [u8; 16],
    /// CPUID leaf 1, EDX: what the processor can do.
    pub(super) hwcap: u32,
    /// The size of the register state that XSAVE stores, in bytes.
    pub(super) xsave_size: u32,
}

/// A stack that is laid out.
pub(super) struct Laid {
    /// The stack pointer to start with.
    pub(super) pointer: u64,
    /// The bytes from there to the top.
    pub(super) bytes: Vec<u8>,
    /// Where the sixteen random bytes are.
    pub(super) random: u64,
}

/// Lays the contents out for a stack that covers `stack`. Nothing where they take more than a quarter of it (Linux:
/// `E2BIG`).
pub(super) fn lay_out(contents: &Contents<'_>, stack: &Range<u64>) -> Option<Laid> {
    let mut texts = Texts { bytes: Vec::new() };
    let executable = texts.add(contents.executable.as_bytes_with_nul());
    let platform = texts.add(b"x86_64\0");
    let random = texts.add(&contents.random);
    let arguments: Vec<usize> = contents.arguments.iter().map(|text| texts.add(text.as_bytes_with_nul())).collect();
    let environment: Vec<usize> = contents.environment.iter().map(|text| texts.add(text.as_bytes_with_nul())).collect();

    let text_start = (stack.end - texts.bytes.len() as u64) & !15;
    let at = |offset: usize| text_start + offset as u64;
    let mut words = vec![arguments.len() as u64];
    words.extend(arguments.iter().map(|offset| at(*offset)));
    words.push(0);
    words.extend(environment.iter().map(|offset| at(*offset)));
    words.push(0);
    for [key, value] in auxiliary(contents, at(executable), at(platform), at(random)) {
        words.extend([key, value]);
    }

    // The stack pointer must be a multiple of 16 at the first instruction: compilers rely on it for aligned stores.
    let pointer = (text_start - words.len() as u64 * 8) & !15;
    if stack.end - pointer > (stack.end - stack.start) / 4 {
        return None;
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize((text_start - pointer) as usize, 0);
    bytes.extend(texts.bytes);
    Some(Laid { pointer, bytes, random: at(random) })
}

/// The auxiliary vector. There is no `AT_SYSINFO_EHDR`: no vDSO, so every clock is asked for by a system call.
fn auxiliary(contents: &Contents<'_>, executable: u64, platform: u64, random: u64) -> Vec<[u64; 2]> {
    let elf = contents.elf;
    let mut pairs = Vec::new();
    if let Some(headers) = elf.headers {
        pairs.extend([
            [libc::AT_PHDR, headers],
            [libc::AT_PHENT, size_of::<linux_loader::elf::Elf64_Phdr>() as u64],
            [libc::AT_PHNUM, u64::from(elf.header_count)],
        ]);
    }
    pairs.extend([
        [libc::AT_PAGESZ, PAGE],
        [libc::AT_BASE, 0],
        [libc::AT_FLAGS, 0],
        [libc::AT_ENTRY, elf.entry],
        [libc::AT_UID, 0],
        [libc::AT_EUID, 0],
        [libc::AT_GID, 0],
        [libc::AT_EGID, 0],
        [libc::AT_SECURE, 0],
        [libc::AT_HWCAP, u64::from(contents.hwcap)],
        [libc::AT_HWCAP2, 0],
        [libc::AT_CLKTCK, CLOCK_TICKS],
        [AT_MINSIGSTKSZ, u64::from(contents.xsave_size) + SIGNAL_FRAME],
        [libc::AT_RANDOM, random],
        [libc::AT_PLATFORM, platform],
        [libc::AT_EXECFN, executable],
        [AT_GENERATION, GENERATION],
        [libc::AT_NULL, 0],
    ]);
    pairs
}

/// Texts, one after the other.
struct Texts {
    bytes: Vec<u8>,
}

impl Texts {
    /// Adds one and says where it begins.
    fn add(&mut self, text: &[u8]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(text);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STACK: Range<u64> = 0x10_0000..0x20_0000;

    fn elf() -> Elf {
        Elf {
            entry: 0x40_1000,
            segments: Vec::new(),
            headers: Some(0x40_0040),
            header_count: 4,
            executable_stack: false,
        }
    }

    fn strings(texts: &[String]) -> Vec<CString> {
        texts.iter().map(|text| CString::new(text.as_str()).unwrap()).collect()
    }

    fn laid(arguments: &[CString], environment: &[CString]) -> Option<(u64, Vec<u8>)> {
        let (elf, executable) = (elf(), CString::new("/bin/true").unwrap());
        let contents = Contents {
            arguments,
            environment,
            executable: &executable,
            elf: &elf,
            random: [7; 16],
            hwcap: 1,
            xsave_size: 832,
        };
        lay_out(&contents, &STACK).map(|laid| (laid.pointer, laid.bytes))
    }

    fn word(pointer: u64, bytes: &[u8], at: u64) -> u64 {
        let from = (at - pointer) as usize;
        u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap())
    }

    fn text(pointer: u64, bytes: &[u8], at: u64) -> String {
        let from = &bytes[(at - pointer) as usize..];
        String::from_utf8(from.iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
    }

    #[test]
    fn more_arguments_than_a_quarter_of_the_stack_are_refused() {
        let long = CString::new("x".repeat(0x1_0000)).unwrap();
        assert!(laid(&vec![long.clone(); 3], &[]).is_some());
        assert!(laid(&vec![long; 4], &[]).is_none());
    }

    proptest! {
        /// A program that follows the pointers finds every text, and each key of the auxiliary vector once.
        #[test]
        fn a_program_finds_what_it_was_given(
            arguments in prop::collection::vec("[a-z]{0,9}", 0..6),
            environment in prop::collection::vec("[A-Z]{1,5}=[a-z]{0,9}", 0..6),
        ) {
            let (pointer, bytes) = laid(&strings(&arguments), &strings(&environment)).unwrap();
            prop_assert_eq!(pointer % 16, 0);
            prop_assert_eq!(pointer + bytes.len() as u64 <= STACK.end, true);
            prop_assert_eq!(word(pointer, &bytes, pointer), arguments.len() as u64);
            let mut at = pointer + 8;
            for expected in [&arguments, &environment] {
                for one in expected {
                    prop_assert_eq!(&text(pointer, &bytes, word(pointer, &bytes, at)), one);
                    at += 8;
                }
                prop_assert_eq!(word(pointer, &bytes, at), 0);
                at += 8;
            }
            let mut pairs = std::collections::BTreeMap::new();
            while word(pointer, &bytes, at) != libc::AT_NULL {
                prop_assert!(pairs.insert(word(pointer, &bytes, at), word(pointer, &bytes, at + 8)).is_none());
                at += 16;
            }
            prop_assert_eq!(pairs[&libc::AT_PHDR], 0x40_0040);
            prop_assert_eq!(pairs[&libc::AT_ENTRY], 0x40_1000);
            prop_assert_eq!(text(pointer, &bytes, pairs[&libc::AT_EXECFN]), "/bin/true");
            let random = (pairs[&libc::AT_RANDOM] - pointer) as usize;
            prop_assert_eq!(&bytes[random..random + 16], &[7; 16]);
        }
    }
}
