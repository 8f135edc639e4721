//! The door to the hypervisor in the kernel: `/dev/kvm` (KVM API, section 2), and the machine behind it.

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};
use nix::errno::Errno;
use tracing::info_span;

use crate::memory::Memory;

/// Interrupt lines that the part of the interrupt controller outside the kernel may have: as many as a PC's IOAPIC.
const LINES: u64 = 24;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` can't be used.
    #[error("cannot open /dev/kvm")]
    Open(#[source] Errno),
    /// KVM refused to make a machine or a part of it.
    #[error("cannot {attempt}")]
    Machine {
        /// What was attempted.
        attempt: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
}

impl KvmError {
    /// The next thing to try, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Open(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Some(
                "this kernel has no KVM: load kvm_intel or kvm_amd, switch virtualization on in the firmware, or, in a \
                 virtual machine, switch nesting on; `isolab-bench doctor` tells which",
            ),
            Self::Open(Errno::EACCES | Errno::EPERM) => {
                Some("your user may not open it: join the group that owns it (often `kvm`), or run as root")
            }
            Self::Machine { source, .. } if source.errno() == libc::EBUSY => {
                Some("another hypervisor holds the processor's virtualization: end it first")
            }
            _ => None,
        }
    }
}

/// Opens `/dev/kvm`.
pub(crate) fn open() -> Result<Kvm, KvmError> {
    let _span = info_span!(
        "kvm.open",
        call = "open(/dev/kvm)",
        why = "the hypervisor is in the kernel; this file is its door, and its permissions say who may make machines"
    )
    .entered();
    Kvm::new().map_err(|error| KvmError::Open(Errno::from_raw(error.errno())))
}

/// Makes a machine with nothing in it.
pub(crate) fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    let _span = info_span!(
        "kvm.create_vm",
        call = "ioctl(KVM_CREATE_VM)",
        why = "an address space for a guest, still without memory and without a processor"
    )
    .entered();
    loop {
        match kvm.create_vm() {
            // KVM gives up where a signal comes in between; nothing was made yet, so it can simply be asked again.
            Err(error) if error.errno() == libc::EINTR => {}
            other => return other.map_err(|source| KvmError::Machine { attempt: "create a virtual machine", source }),
        }
    }
}

/// Gives the machine its memory.
///
/// Before the interrupt controller: a memory slot that comes later has to wait until no processor can be reading the
/// table of slots any more (an SRCU grace period), which was measured at 40 times the cost of both calls in this order.
pub(crate) fn register(vm: &VmFd, memory: &Memory) -> Result<(), KvmError> {
    let _span = info_span!(
        "memory.register",
        call = "ioctl(KVM_SET_USER_MEMORY_REGION)",
        why = "from here on a piece of this process is what the guest takes for its RAM"
    )
    .entered();
    (0..).zip(memory.parts()).try_for_each(|(slot, part)| register_part(vm, slot, part))
}

fn register_part(vm: &VmFd, slot: u32, part: (u64, u64, u64)) -> Result<(), KvmError> {
    let (guest_phys_addr, memory_size, userspace_addr) = part;
    let slot = kvm_userspace_memory_region { slot, flags: 0, guest_phys_addr, memory_size, userspace_addr };
    // SAFETY: the range is a mapping of that size; the machine that holds it is dropped before it (`Paused`, `Pc`).
    unsafe { vm.set_user_memory_region(slot) }
        .map_err(|source| KvmError::Machine { attempt: "give the machine its memory", source })
}

/// How much of its memory a machine has been given: from address 0, as far as its guest can reach.
///
/// Where KVM keeps the guest's page tables itself it takes 8 bytes for each page of a slot, zeroed: 2 ms for 3 GiB, of which
/// most programs use little. A guest whose page tables are the monitor's touches no frame that it was not handed. So it gets
/// a first piece, and what was there once more whenever it needs that: each piece after the first has to wait for the
/// processors, but there are few.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    next: u32,
    /// How much of the memory, from its beginning, the machine has.
    end: u64,
}

/// The first piece, in bytes. Four times as much cost each machine 120 KiB of the host's memory, and each piece more costs 0.2 ms.
const FIRST_PIECE: u64 = 16 << 20;

impl Slots {
    /// Whether the machine has no more than a first piece.
    pub(crate) fn are_small(&self) -> bool {
        self.end <= FIRST_PIECE
    }

    /// Gives the machine at least the memory below address `reach`, as far as it has so much.
    pub(crate) fn extend(&mut self, vm: &VmFd, memory: &Memory, reach: u64) -> Result<(), KvmError> {
        let reach = memory.below(reach);
        if reach <= self.end {
            return Ok(());
        }
        let _span = info_span!(
            "memory.register",
            call = "ioctl(KVM_SET_USER_MEMORY_REGION)",
            why = "from here on a piece of this process is what the guest takes for its RAM"
        )
        .entered();
        let wanted = (reach - self.end).max(self.end).max(FIRST_PIECE);
        let until = (self.end + wanted).min(memory.size());
        // A piece may be of both parts: then it is two.
        let mut before = 0;
        for (start, size, host) in memory.parts() {
            let (from, to) = (self.end.max(before), until.min(before + size));
            if from < to {
                register_part(vm, self.next, (start + (from - before), to - from, host + (from - before)))?;
                self.next += 1;
                self.end = to;
            }
            before += size;
        }
        Ok(())
    }
}

/// Splits the interrupt controller: each processor's own part (the local APIC) in the kernel, the rest here.
///
/// Before the first processor: each gets its local APIC when it is made. The whole controller in the kernel would cost
/// milliseconds when the machine is closed, and these guests have no device that interrupts.
pub(crate) fn split_irqchip(vm: &VmFd) -> Result<(), KvmError> {
    let _span = info_span!(
        "irqchip.split",
        call = "ioctl(KVM_ENABLE_CAP, KVM_CAP_SPLIT_IRQCHIP)",
        why = "the local APIC is where a processor's timer and interrupts meet; in the kernel it needs no exit"
    )
    .entered();
    let capability = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, args: [LINES, 0, 0, 0], ..kvm_enable_cap::default() };
    vm.enable_cap(&capability)
        .map_err(|source| KvmError::Machine { attempt: "put the local APIC into the kernel", source })
}
