//! The processor: what the guest is told of it, what is in its registers, and how to reach them while it stands still.

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_xcr, kvm_xcrs,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd, VmFd};
use tracing::info_span;

use crate::guest::Entry;

/// Model-specific register: base address of segment FS, where 64-bit Linux programs keep their thread's own data.
const MSR_FS_BASE: u32 = 0xc000_0100;

/// An ioctl on a virtual processor that failed.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM refused.
    #[error("cannot {attempt} the virtual processor")]
    Kvm {
        /// What was attempted.
        attempt: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// KVM took some of the registers only.
    #[error("KVM does not know model-specific register {0:#x}")]
    Msr(u32),
}

fn failed(attempt: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError::Kvm { attempt, source }
}

/// Tells a processor what its `cpuid` instruction answers. Before the special registers and XCR0: KVM checks both against it.
fn identify(fd: &VcpuFd, cpuid: &CpuId) -> Result<(), VcpuError> {
    let _span = info_span!(
        "vcpu.cpuid",
        call = "ioctl(KVM_SET_CPUID2)",
        why = "the guest asks the cpuid instruction what it runs on; this is the answer"
    )
    .entered();
    fd.set_cpuid2(cpuid).map_err(failed("set the CPUID of"))
}

/// Offers XSAVE where KVM lists the states that it saves (leaf 0xD). A KVM without hardware beneath it was seen to list them
/// and to leave the bit out of leaf 1; its guest's `cpuid` shows the host's AVX all the same, and a program would have to take
/// it for forbidden, since CR4.OSXSAVE cannot be set without the bit.
fn offer_xsave(cpuid: &mut [kvm_cpuid_entry2]) {
    const XSAVE: u32 = 1 << 26;
    const X87_SSE: u32 = 3;
    if leaf(cpuid, 0xd, 0).eax & X87_SSE == X87_SSE {
        cpuid.iter_mut().filter(|entry| entry.function == 1).for_each(|entry| entry.ecx |= XSAVE);
    }
}

/// One virtual processor: a thread's worth of registers that KVM can run.
pub struct Vcpu {
    fd: VcpuFd,
    shared_registers: bool,
    /// What its guest was told that it is.
    told: CpuId,
}

impl Vcpu {
    /// Makes the processor, tells it who it is, and returns what the guest will be told too.
    pub fn create(kvm: &Kvm, vm: &VmFd) -> Result<(Self, CpuId), VcpuError> {
        let cpuid = Self::supported(kvm)?;
        let vcpu = Self::create_as(kvm, vm, &cpuid)?;
        Ok((vcpu, cpuid))
    }

    /// What a guest can be told of its processor: what host and KVM can do.
    pub fn supported(kvm: &Kvm) -> Result<CpuId, VcpuError> {
        let _span = info_span!(
            "kvm.cpuid",
            call = "ioctl(KVM_GET_SUPPORTED_CPUID)",
            why = "the guest will ask the cpuid instruction what it runs on: first the host is asked what there can be"
        )
        .entered();
        let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("ask what the host offers"))?;
        offer_xsave(cpuid.as_mut_slice());
        Ok(cpuid)
    }

    /// Makes the processor and tells it who it is.
    pub fn create_as(kvm: &Kvm, vm: &VmFd, cpuid: &CpuId) -> Result<Self, VcpuError> {
        let mut fd = Self::make(vm, 0)?;
        // With KVM_CAP_SYNC_REGS the general registers lie in the shared page at each exit: no ioctl to read or write them.
        let shared_registers = kvm.check_extension(Cap::SyncRegs);
        if shared_registers {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        identify(&fd, cpuid)?;
        Ok(Self { fd, shared_registers, told: cpuid.clone() })
    }

    /// Makes one of several processors, and tells it who it is. Its registers are not in the shared page: a guest with a kernel
    /// of its own is not asked for them at its exits.
    pub(crate) fn create_one_of(vm: &VmFd, number: u8, cpuid: CpuId) -> Result<Self, VcpuError> {
        let fd = Self::make(vm, number)?;
        identify(&fd, &cpuid)?;
        Ok(Self { fd, shared_registers: false, told: cpuid })
    }

    fn make(vm: &VmFd, number: u8) -> Result<VcpuFd, VcpuError> {
        let _span = info_span!(
            "vcpu.create",
            call = "ioctl(KVM_CREATE_VCPU), mmap(2)",
            why = "one processor: its registers lie in the kernel, and a page shared with it tells why it stopped"
        )
        .entered();
        vm.create_vcpu(u64::from(number)).map_err(failed("create"))
    }

    /// What its guest was told that it is.
    pub(crate) fn told(&self) -> &[kvm_cpuid_entry2] {
        self.told.as_slice()
    }

    /// What its guest sees that it is. Where KVM has no hardware beneath it that stops the `cpuid` instruction, that is
    /// the host's own processor, whatever was told.
    pub(crate) fn seen(&self) -> Result<CpuId, VcpuError> {
        self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(failed("read the CPUID of"))
    }

    /// Lets KVM finish what the last exit has begun (a load that was answered, a port that was read), without running the
    /// guest: what is read of the processor from here on is whole.
    pub(crate) fn settle(&mut self) -> Result<(), VcpuError> {
        let asked = self.fd.get_kvm_run().immediate_exit;
        self.fd.set_kvm_immediate_exit(1);
        let settled = match self.fd.run() {
            Err(error) if error.errno() == libc::EINTR => Ok(()),
            Err(source) => Err(VcpuError::Kvm { attempt: "settle", source }),
            Ok(_) => Ok(()),
        };
        self.fd.set_kvm_immediate_exit(asked);
        settled
    }

    /// The special registers as they come out of reset, or as they are now.
    pub fn sregs(&self) -> Result<kvm_sregs, VcpuError> {
        self.fd.get_sregs().map_err(failed("read the special registers of"))
    }

    /// Sets everything that a guest starts with.
    pub fn enter(&mut self, entry: &Entry) -> Result<(), VcpuError> {
        self.fd.set_sregs(&entry.sregs).map_err(failed("set the special registers of"))?;
        if let Some(value) = entry.xcr0 {
            // After CR4 (in the special registers): without CR4.OSXSAVE there is no XCR0.
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..kvm_xcrs::default() };
            xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value };
            self.fd.set_xcrs(&xcrs).map_err(failed("set XCR0 of"))?;
        }
        self.set_msrs(&entry.msrs)?;
        self.fd.set_regs(&entry.regs).map_err(failed("set the registers of"))
    }

    /// Sets model-specific registers, by index.
    pub(crate) fn set_msrs(&self, wanted: &[(u32, u64)]) -> Result<(), VcpuError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> =
            wanted.iter().map(|&(index, data)| kvm_msr_entry { index, data, ..kvm_msr_entry::default() }).collect();
        let Ok(msrs) = Msrs::from_entries(&entries) else {
            return Err(VcpuError::Msr(wanted.first().map_or(0, |(index, _)| *index)));
        };
        // The ioctl stops at the first register that it does not know, and says how many it has set.
        let set = self.fd.set_msrs(&msrs).map_err(failed("set the model-specific registers of"))?;
        wanted.get(set).map_or(Ok(()), |(index, _)| Err(VcpuError::Msr(*index)))
    }

    /// The processor itself, for the run loop.
    pub(crate) fn fd(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// The registers, while the processor stands still.
    pub fn stopped(&mut self) -> Result<Cpu<'_>, VcpuError> {
        let regs = if self.shared_registers {
            self.fd.sync_regs_mut().regs
        } else {
            self.fd.get_regs().map_err(failed("read the registers of"))?
        };
        Ok(Cpu { regs, changed: false, vcpu: self })
    }
}

/// A processor that stands still at an exit, with its registers at hand.
pub struct Cpu<'a> {
    vcpu: &'a mut Vcpu,
    regs: kvm_regs,
    changed: bool,
}

impl Cpu<'_> {
    /// The general registers.
    pub fn regs(&self) -> &kvm_regs {
        &self.regs
    }

    /// The general registers, to change them; [`Cpu::commit`] hands them back.
    pub fn regs_mut(&mut self) -> &mut kvm_regs {
        self.changed = true;
        &mut self.regs
    }

    /// The special registers.
    pub fn sregs(&self) -> Result<kvm_sregs, VcpuError> {
        self.vcpu.sregs()
    }

    /// Sets the special registers.
    pub fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), VcpuError> {
        self.vcpu.fd.set_sregs(sregs).map_err(failed("set the special registers of"))
    }

    /// Sets one model-specific register.
    pub fn set_msr(&mut self, index: u32, value: u64) -> Result<(), VcpuError> {
        self.vcpu.set_msrs(&[(index, value)])
    }

    /// Sets the base of segment FS. By its model-specific register: that saves reading and writing all special registers.
    pub fn set_fs_base(&mut self, address: u64) -> Result<(), VcpuError> {
        self.set_msr(MSR_FS_BASE, address)
    }

    /// Hands changed registers back, to be in force when the processor runs on.
    pub fn commit(self) -> Result<(), VcpuError> {
        if !self.changed {
            return Ok(());
        }
        if self.vcpu.shared_registers {
            self.vcpu.fd.sync_regs_mut().regs = self.regs;
            self.vcpu.fd.set_sync_dirty_reg(SyncReg::Register);
            return Ok(());
        }
        self.vcpu.fd.set_regs(&self.regs).map_err(failed("set the registers of"))
    }
}

/// What one CPUID leaf answers; zeroes where the guest's processor does not have it.
pub fn leaf(cpuid: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    cpuid.iter().find(|entry| entry.function == function && entry.index == index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{kvm_cpuid_entry2, leaf, offer_xsave};

    #[test]
    fn xsave_is_offered_where_its_states_are_listed() {
        let entry = |function, eax, ecx| kvm_cpuid_entry2 { function, eax, ecx, ..Default::default() };
        let offered = |mut cpuid: Vec<_>| {
            offer_xsave(&mut cpuid);
            leaf(&cpuid, 1, 0).ecx
        };
        assert_eq!(offered(vec![entry(1, 0, 1), entry(0xd, 0xe7, 0)]), 1 << 26 | 1);
        assert_eq!(offered(vec![entry(1, 0, 1), entry(0xd, 0, 0)]), 1);
        assert_eq!(offered(vec![entry(1, 0, 1)]), 1);
    }
}
