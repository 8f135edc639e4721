//! Taking rights away where the processor may remember them.
//!
//! A change in the guest's page tables is not seen at once. Hardware with nested paging caches translations (the TLB); a
//! KVM without it keeps shadow tables of its own, and does not notice a store to the guest's tables that comes from the
//! monitor. What both do notice is a change of the *host's* mapping of a frame: the kernel then drops every shadow entry
//! and flushes every cached translation that leads to it (an MMU notifier, `Documentation/virt/kvm/locking.rst`). So the
//! frame's host pages are made inaccessible for an instant and then accessible again: their contents stay, and the next
//! access of the guest walks its tables afresh.

use std::ops::Range;

use nix::errno::Errno;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Makes the guest's next access to `frames` (page aligned guest-physical addresses) look into its page tables.
///
/// # Errors
/// What mprotect(2) says; the guest must not run on then.
pub(super) fn forget(memory: &GuestMemoryMmap, frames: &Range<u64>) -> Result<(), Errno> {
    let length = (frames.end - frames.start) as usize;
    // The slice proves that the whole range is one piece of guest memory.
    let slice = memory.get_slice(GuestAddress(frames.start), length).map_err(|_| Errno::EFAULT)?;
    let host = slice.ptr_guard_mut().as_ptr().cast();
    for protection in [libc::PROT_NONE, libc::PROT_READ | libc::PROT_WRITE] {
        // SAFETY: the range is mapped guest memory and stays so. The one thread that accesses it is this one, and it
        // does not before the second turn has made it accessible again; should that turn fail, the monitor ends.
        Errno::result(unsafe { libc::mprotect(host, length, protection) })?;
    }
    Ok(())
}
