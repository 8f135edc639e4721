//! What a program may do with a page: the three bits that an ELF segment, mmap(2) and the page tables all have, each in
//! its own order.

use linux_loader::elf::{PF_R, PF_W, PF_X};

/// Read, write, execute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rights {
    /// Loads are allowed.
    pub(super) read: bool,
    /// Stores are allowed.
    pub(super) write: bool,
    /// Instructions may be fetched.
    pub(super) execute: bool,
}

impl Rights {
    /// Nothing at all: `PROT_NONE`.
    pub(super) const NONE: Self = Self { read: false, write: false, execute: false };
    /// Loads only.
    pub(super) const READ: Self = Self { read: true, write: false, execute: false };
    /// Data.
    pub(super) const READ_WRITE: Self = Self { read: true, write: true, execute: false };

    /// From the `prot` of mmap(2) and mprotect(2); nothing where a bit is set that is none of the three.
    pub(super) fn from_prot(prot: u64) -> Option<Self> {
        let has = |bit: i32| prot & bit as u64 != 0;
        let known = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u64;
        (prot & !known == 0).then(|| Self {
            read: has(libc::PROT_READ),
            write: has(libc::PROT_WRITE),
            execute: has(libc::PROT_EXEC),
        })
    }

    /// From the `p_flags` of an ELF program header.
    pub(super) fn from_segment(flags: u32) -> Self {
        Self { read: flags & PF_R != 0, write: flags & PF_W != 0, execute: flags & PF_X != 0 }
    }

    /// Whether no access is allowed.
    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}
