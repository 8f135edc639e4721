//! The pages of the monitor's own program.
//!
//! Most of a monitor's code sets its machine up, and runs once. The kernel maps each page of it that is touched, and those around
//! it that are in memory anyway, and counts them all as the monitor's (`VmRSS`). Once the machine stands they can go: what is
//! still needed comes back by itself when it runs next, from the kernel's copy of the file.

use tracing::info_span;

use super::PAGE;

unsafe extern "C" {
    /// Where the program's file begins in memory: its headers, then what is only read, then its code (ld(1) and ld.lld(1) make
    /// both symbols).
    static __executable_start: u8;
    /// Where its code ends.
    #[link_name = "etext"]
    static END_OF_TEXT: u8;
}

/// Lets go of the program's pages.
pub fn let_go_of_program() {
    let _span = info_span!(
        "monitor.slim",
        call = "madvise(MADV_DONTNEED)",
        why = "what has set the machine up is not needed any more: only the code that serves it comes back into memory"
    )
    .entered();
    let start = (&raw const __executable_start).addr().next_multiple_of(PAGE as usize);
    // The last page holds whatever comes after the code, too.
    let end = (&raw const END_OF_TEXT).addr() / PAGE as usize * PAGE as usize;
    // Where it fails, the monitor is larger than it need be, and no worse.
    // SAFETY: these pages are mapped from the program's file and never written to: code that lies anywhere has its addresses
    // filled in elsewhere, behind it. So the kernel reads the same bytes again, and whoever runs them does not notice.
    unsafe { libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_has_let_go_of_its_pages_still_runs() {
        let numbers = || (1..=20_u64).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        let before = numbers();
        let_go_of_program();
        assert_eq!(numbers(), before);
    }
}
