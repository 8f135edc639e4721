//! A processor's state, read and written in the one order that is right.
//!
//! | # | what | why there |
//! |---|---|---|
//! | 1 | CPUID | KVM checks the special registers, XCR0 and the model-specific registers against it |
//! | 2 | run state | a processor that waits to be started takes no events |
//! | 3 | general registers | `KVM_SET_REGS` forgets a pending exception: so before the events |
//! | 4 | special registers | they hold the address of the local APIC, and CR4, without which there is no XCR0 |
//! | 5 | XCR0, then the vector registers | which register sets there are decides what the second writes |
//! | 6 | debug registers | - |
//! | 7 | local APIC | after the special registers, which switch it on |
//! | 8 | model-specific registers | after the local APIC: a timer's deadline set before it is dropped, and a guest that sleeps never wakes; the time stamp counter before that deadline, which is compared with it |
//! | 9 | events | last: everything before may clear them |
//!
//! Reading goes the other way round where it matters: the run state first, for asking it makes KVM take in what has come
//! for a processor that halts, and the events after all else.

use std::arch::x86_64::__cpuid;
use std::sync::LazyLock;
use std::time::Duration;

use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuFd};
use tracing::info_span;

use super::raw::Raw;
use super::state::{VcpuState, xsave};
use crate::vcpu::{Vcpu, VcpuError};

/// The time stamp counter, and the deadline of the timer that is compared with it.
const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

fn failed(attempt: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError::Kvm { attempt, source }
}

/// The model-specific registers that this KVM can save, in the order in which they must be restored.
pub(crate) fn msrs_to_save(kvm: &Kvm) -> Result<Vec<u32>, VcpuError> {
    let list = kvm.get_msr_index_list().map_err(failed("ask which model-specific registers there are for"))?;
    let mut indices = list.as_slice().to_vec();
    // A deadline is compared with the counter when it is set: the counter comes first, the deadline last.
    indices.sort_by_key(|index| match *index {
        MSR_TSC => 0,
        MSR_TSC_DEADLINE => 2,
        _ => 1,
    });
    Ok(indices)
}

/// Reads all of a processor that stands still, with nothing left to complete (see `Vcpu::settle`).
pub(crate) fn read(vcpu: &mut Vcpu, msrs: &[u32]) -> Result<VcpuState, VcpuError> {
    let _span = info_span!(
        "snapshot.vcpu",
        call = "ioctl(KVM_GET_MP_STATE), ioctl(KVM_GET_REGS), ...",
        why = "a processor is its registers, and what is on its way to it: interrupts, exceptions, a timer"
    )
    .entered();
    let list = |entries: &[kvm_cpuid_entry2]| entries.iter().copied().map(Raw).collect();
    let (cpuid, seen) = (list(vcpu.told()), list(vcpu.seen()?.as_slice()));
    let fd: &VcpuFd = vcpu.fd();
    let mp_state = fd.get_mp_state().map_err(failed("read the run state of"))?;
    let regs = fd.get_regs().map_err(failed("read the registers of"))?;
    let sregs = fd.get_sregs().map_err(failed("read the special registers of"))?;
    let vectors = fd.get_xsave().map_err(failed("read the vector registers of"))?;
    let xcrs = fd.get_xcrs().map_err(failed("read XCR0 of"))?;
    let debugregs = fd.get_debug_regs().map_err(failed("read the debug registers of"))?;
    let lapic = fd.get_lapic().map_err(failed("read the local APIC of"))?;
    let msrs = read_msrs(fd, msrs)?;
    let events = fd.get_vcpu_events().map_err(failed("read the events of"))?;
    Ok(VcpuState {
        tsc_khz: fd.get_tsc_khz().unwrap_or(0),
        cpuid,
        seen,
        mp_state: Raw(mp_state),
        regs: Raw(regs),
        sregs: Raw(sregs),
        xcrs: Raw(xcrs),
        xsave: Raw(vectors.region),
        debugregs: Raw(debugregs),
        lapic: Raw(lapic),
        msrs,
        events: Raw(events),
    })
}

/// Reads those of the registers that this processor has.
fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<(u32, u64)>, VcpuError> {
    let mut found = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while let [first, ..] = rest {
        let entries: Vec<_> = rest.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
        let mut msrs = Msrs::from_entries(&entries).map_err(|_| VcpuError::Msr(*first))?;
        // KVM stops at the first register that this processor does not have: its guest can't have set that one.
        let count = fd.get_msrs(&mut msrs).map_err(failed("read the model-specific registers of"))?;
        found.extend(msrs.as_slice().iter().take(count).map(|entry| (entry.index, entry.data)));
        rest = rest.get(count + 1..).unwrap_or_default();
    }
    Ok(found)
}

/// Lets so much time pass for a processor that was read: its time stamp counter goes on.
pub(crate) fn pass(state: &mut VcpuState, time: Duration) {
    let ticks = time.as_nanos() * u128::from(state.tsc_khz) / 1_000_000;
    for (_, counter) in state.msrs.iter_mut().filter(|(index, _)| *index == MSR_TSC) {
        *counter = counter.wrapping_add(ticks as u64);
    }
}

/// The CPUID of a state, for a processor that is being made.
pub(crate) fn cpuid(state: &VcpuState) -> Result<CpuId, VcpuError> {
    let entries: Vec<kvm_cpuid_entry2> = state.cpuid.iter().map(|entry| entry.0).collect();
    CpuId::from_entries(&entries)
        .map_err(|_| VcpuError::Kvm { attempt: "list the CPUID of", source: kvm_ioctls::Error::new(libc::E2BIG) })
}

/// Writes all of a processor that was just made with the [`cpuid`] of `state`.
pub(crate) fn write(fd: &VcpuFd, state: &VcpuState) -> Result<(), VcpuError> {
    let _span = info_span!(
        "restore.vcpu",
        call = "ioctl(KVM_SET_MP_STATE), ioctl(KVM_SET_REGS), ...",
        why = "the processor becomes the one that stood still; the order matters, for some parts clear or check others"
    )
    .entered();
    fd.set_mp_state(state.mp_state.0).map_err(failed("set the run state of"))?;
    fd.set_regs(&state.regs.0).map_err(failed("set the registers of"))?;
    fd.set_sregs(&sregs_for(&state.sregs.0, is_emulated())).map_err(failed("set the special registers of"))?;
    fd.set_xcrs(&state.xcrs.0).map_err(failed("set XCR0 of"))?;
    // SAFETY: the structure is as large as KVM_SET_XSAVE reads; a guest with dynamic register sets is none of ours.
    unsafe { fd.set_xsave(&xsave(&state.xsave.0)) }.map_err(failed("set the vector registers of"))?;
    fd.set_debug_regs(&state.debugregs.0).map_err(failed("set the debug registers of"))?;
    fd.set_lapic(&state.lapic.0).map_err(failed("set the local APIC of"))?;
    write_msrs(fd, state)?;
    fd.set_vcpu_events(&state.events.0).map_err(failed("set the events of"))
}

/// The type of a task state that a processor has taken, and of one that none has.
const BUSY: u8 = 11;
const AVAILABLE: u8 = 9;

/// The special registers, as a processor of this host wants them.
///
/// KVM on AMD tells of a task state that it is busy, which it is. QEMU's own processor, in which the testbed's KVM runs, looks
/// for the ports that a program may use only in one that is available (`helper_check_io`), as it is there after the guest's own
/// `ltr`: a guest's first process that was let at a port would die of its next access.
fn sregs_for(saved: &kvm_sregs, emulated: bool) -> kvm_sregs {
    let mut sregs = *saved;
    if emulated && sregs.tr.type_ == BUSY {
        sregs.tr.type_ = AVAILABLE;
    }
    sregs
}

/// Whether this host's processor is QEMU's own: its signature is in the leaf that hypervisors have. Asked once: in a virtual machine
/// the instruction is a stop of its own.
pub(crate) fn is_emulated() -> bool {
    static EMULATED: LazyLock<bool> = LazyLock::new(|| {
        let hypervisor = __cpuid(1).ecx >> 31 != 0;
        let leaf = hypervisor.then(|| __cpuid(0x4000_0000));
        leaf.is_some_and(|leaf| [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == b"TCGTCGTCGTCG")
    });
    *EMULATED
}

fn write_msrs(fd: &VcpuFd, state: &VcpuState) -> Result<(), VcpuError> {
    let counter = state.msrs.iter().find(|(index, _)| *index == MSR_TSC).map_or(0, |(_, value)| *value);
    let entries: Vec<_> = state
        .msrs
        .iter()
        .map(|&(index, data)| {
            // A deadline of 0 is none at all, and a guest whose timer had just gone off would wait for ever: "now" wakes it.
            let data = if index == MSR_TSC_DEADLINE && data == 0 { counter } else { data };
            kvm_msr_entry { index, data, ..kvm_msr_entry::default() }
        })
        .collect();
    let Some(first) = entries.first() else { return Ok(()) };
    let msrs = Msrs::from_entries(&entries).map_err(|_| VcpuError::Msr(first.index))?;
    let set = fd.set_msrs(&msrs).map_err(failed("set the model-specific registers of"))?;
    entries.get(set).map_or(Ok(()), |entry| Err(VcpuError::Msr(entry.index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_emulated_processor_gets_its_task_state_otherwise_than_it_was() {
        let mut saved = kvm_sregs::default();
        saved.tr.type_ = BUSY;
        assert_eq!(sregs_for(&saved, false), saved);
        assert_eq!(sregs_for(&saved, true).tr.type_, AVAILABLE);
        saved.tr.type_ = 3; // of 16 bits
        assert_eq!(sregs_for(&saved, true), saved);
    }
}
