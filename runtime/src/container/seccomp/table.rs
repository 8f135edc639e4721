//! What system calls are called, and their numbers, on the three architectures that an x86-64 kernel serves.
//!
//! The tables are those of the `syscalls` crate (generated from the kernel's; no dependencies): `libc` lacks names, and
//! `seccompiler` has no i386. They are sorted by name when this is compiled, since a profile of 400 names is looked up
//! at each start.

/// What the kernel calls x86-64 in `struct seccomp_data` (`AUDIT_ARCH_X86_64`, linux/audit.h).
pub(super) const AUDIT_X86_64: u32 = 0xc000_003e;
/// What it calls i386 (`AUDIT_ARCH_I386`).
pub(super) const AUDIT_I386: u32 = 0x4000_0003;
/// The bit that tells a call of x32 (32-bit pointers, 64-bit registers) from one of x86-64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A way of making system calls, with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    X32,
    I386,
}

/// One of the crate's tables, sorted by name. A macro, since its tables are types without a trait in common.
macro_rules! table {
    ($Sysno:ty) => {{
        let mut table = [("", 0); <$Sysno>::count()];
        let (mut index, mut number) = (0, 0);
        while number <= <$Sysno>::last().id() as usize {
            if let Some(call) = <$Sysno>::new(number) {
                table[index] = (call.name(), number as u32);
                index += 1;
            }
            number += 1;
        }
        sorted(table)
    }};
}
use super::condition::Rule;

type Entry = (&'static str, u32);

impl Architecture {
    /// Its calls, sorted by name.
    fn calls(self) -> &'static [Entry] {
        match self {
            Self::X86_64 => &X86_64,
            Self::X32 => &X32,
            Self::I386 => &I386,
        }
    }

    /// How many calls it has.
    pub(super) fn count(self) -> usize {
        self.calls().len()
    }

    /// The number of a call; `None` where this architecture has no such call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let index = self.calls().binary_search_by_key(&name, |(name, _)| name).ok()?;
        self.calls().get(index).map(|(_, number)| *number)
    }

    /// The rules of each call that this architecture has, with its number. The rules are sorted by name, as the table is:
    /// one walk along both finds what belongs together.
    pub(super) fn numbered<'a>(self, rules: &'a [Rule<'a>]) -> Vec<(u32, &'a [Rule<'a>])> {
        let mut calls = self.calls().iter().peekable();
        let number = |rules: &'a [Rule<'a>]| {
            let name = rules.first()?.name;
            while calls.next_if(|(call, _)| *call < name).is_some() {}
            calls.next_if(|(call, _)| *call == name).map(|(_, number)| (*number, rules))
        };
        rules.chunk_by(|one, next| one.name == next.name).filter_map(number).collect()
    }
}

const X86_64: [Entry; syscalls::x86_64::Sysno::count()] = table!(syscalls::x86_64::Sysno);
static I386: [Entry; syscalls::x86::Sysno::count()] = table!(syscalls::x86::Sysno);

static X32: [Entry; X86_64.len()] = x32(X86_64);

/// The calls whose x32 number is not x86-64's: those with pointers inside of what their arguments point to
/// (`arch/x86/entry/syscalls/syscall_64.tbl`, from 512 on).
const X32_OWN: [Entry; 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// x86-64's table as x32 sees it.
const fn x32<const N: usize>(mut table: [Entry; N]) -> [Entry; N] {
    let mut index = 0;
    while index < N {
        let mut own = 0;
        while own < X32_OWN.len() {
            if same(table[index].0.as_bytes(), X32_OWN[own].0.as_bytes()) {
                table[index].1 = X32_OWN[own].1;
            }
            own += 1;
        }
        table[index].1 |= X32_BIT;
        index += 1;
    }
    table
}

/// Sorts by name, while compiling (Shell's method: short, and quick enough for the compiler's patience).
const fn sorted<const N: usize>(mut table: [Entry; N]) -> [Entry; N] {
    let mut gap = N / 2;
    while gap > 0 {
        let mut next = gap;
        while next < N {
            let mut at = next;
            while at >= gap && before(table[at].0.as_bytes(), table[at - gap].0.as_bytes()) {
                let lifted = table[at];
                table[at] = table[at - gap];
                table[at - gap] = lifted;
                at -= gap;
            }
            next += 1;
        }
        gap /= 2;
    }
    table
}

/// Whether `a` comes before `b` in the order of their bytes; `Ord` can't be used while compiling.
const fn before(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    a.len() < b.len()
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    !before(a, b) && !before(b, a)
}

#[cfg(test)]
mod tests {
    use super::{Architecture, I386, X32, X86_64};

    #[test]
    fn the_tables_are_in_order() {
        assert!(X86_64.is_sorted() && I386.is_sorted() && X32.is_sorted());
    }

    #[test]
    fn calls_have_the_numbers_that_the_kernel_knows() {
        use Architecture::{I386, X32, X86_64};
        assert_eq!(X86_64.number("execve"), Some(libc::SYS_execve as u32));
        assert_eq!(X86_64.number("clone3"), Some(libc::SYS_clone3 as u32));
        assert_eq!(I386.number("execve"), Some(11));
        assert_eq!(I386.number("socketcall"), Some(102));
        assert_eq!(X86_64.number("socketcall"), None);
        assert_eq!(X32.number("execve"), Some(0x4000_0000 + 520));
        assert_eq!(X32.number("read"), Some(0x4000_0000));
        assert_eq!(X86_64.number("no_such_call"), None);
    }
}
