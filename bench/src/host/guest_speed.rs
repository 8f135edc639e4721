//! How fast guest code runs, measured: the same loop on the host, in a guest's kernel mode and in its user mode.
//!
//! A KVM on virtualization hardware runs both natively. One without (`kvm_pvm`), or one inside an emulated machine,
//! looks the same from `/dev/kvm`, and may interpret guest kernel code a thousand times slower. No flag tells; a loop does.
//!
//! The guest has no operating system: long mode is set up from outside, the loop counts `rcx` down, and a store to an
//! address without memory ends the turn (`KVM_EXIT_MMIO`), which works at every privilege level.

use std::arch::asm;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// From this share of the host's speed down, somebody reads each instruction instead of running it: no trap-and-run design
/// costs this much in a loop that never traps.
pub const INTERPRETED: f64 = 0.1;

/// The privilege level at which a guest's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// CPL 0, as its operating system does.
    Kernel,
    /// CPL 3, as its programs do.
    User,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    /// The kernel refused a step of making the machine.
    #[error("cannot {step}")]
    Kvm {
        /// What was attempted.
        step: &'static str,
        /// What the kernel answered.
        source: kvm_ioctls::Error,
    },
    /// There was no memory for the guest.
    #[error("cannot make the guest's memory: {0}")]
    Memory(String),
    /// The guest ended otherwise than by its doorbell.
    #[error("the guest left its loop by {0}")]
    Exit(String),
}

/// Speed of guest code at `mode` against the same loop on the host: 1 is native, below is slower.
///
/// Takes some 20 ms on hardware, and no more where guest code is interpreted: the loop is made shorter instead.
pub fn measure(kvm: &Kvm, mode: Mode) -> Result<f64, SpeedError> {
    let mut guest = Guest::create(kvm, mode)?;
    let entry = best(|| guest.spin(1))?;
    let trial = best(|| guest.spin(TRIAL_TURNS))?;
    let turns = calibrate(trial.saturating_sub(entry));
    let guest = Timing { turns, took: best(|| guest.spin(turns))?.saturating_sub(entry) };
    let host = Timing { turns: HOST_TURNS, took: best(|| Ok(host_spin(HOST_TURNS)))? };
    Ok(ratio(host, guest))
}

/// Turns by which the guest's pace is first taken: 1.3 ms even at 1.5 million instructions a second.
const TRIAL_TURNS: u64 = 1000;
/// Turns of the host's loop: about a millisecond.
const HOST_TURNS: u64 = 2_000_000;
/// How long the guest's loop is to take: long against the entry and exit around it, short for who waits.
const WANTED: Duration = Duration::from_millis(3);

/// So many turns of a loop, and the time they took.
#[derive(Clone, Copy, Debug)]
struct Timing {
    turns: u64,
    took: Duration,
}

impl Timing {
    /// Nanoseconds a turn; never zero, so that a clock too coarse to see the loop gives no infinite speed.
    fn per_turn(self) -> f64 {
        (self.took.as_nanos().max(1) as f64) / self.turns.max(1) as f64
    }
}

/// How fast the guest is, as a share of the host's speed.
fn ratio(host: Timing, guest: Timing) -> f64 {
    host.per_turn() / guest.per_turn()
}

/// How many turns fill the wanted time, given the time that the trial's took.
fn calibrate(trial: Duration) -> u64 {
    let pace = Timing { turns: TRIAL_TURNS, took: trial }.per_turn();
    ((WANTED.as_nanos() as f64 / pace) as u64).clamp(TRIAL_TURNS, 4 * HOST_TURNS)
}

/// The shortest of three times: what disturbs a loop only ever makes it longer.
fn best(mut once: impl FnMut() -> Result<Duration, SpeedError>) -> Result<Duration, SpeedError> {
    Ok(once()?.min(once()?).min(once()?))
}

/// The guest's loop, on the host: the same two instructions.
fn host_spin(turns: u64) -> Duration {
    let start = Instant::now();
    // SAFETY: touches one register that is declared, and the flags.
    unsafe { asm!("2:", "dec {0}", "jnz 2b", inout(reg) turns.max(1) => _, options(nomem, nostack)) };
    start.elapsed()
}

// Guest-physical memory: code, then the page tables. Everything lies in the lowest 64 KiB.
const MEMORY: usize = 0x1_0000;
const CODE: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;
/// Mapped by the guest's page tables, but no memory lies behind it.
const DOORBELL: u32 = 0x20_0000;

/// `again: mov %rbx,%rcx; turn: dec %rcx; jnz turn; mov %eax,DOORBELL; jmp again`
const LOOP: [u8; 17] = {
    let [a, b, c, d] = DOORBELL.to_le_bytes();
    [0x48, 0x89, 0xd9, 0x48, 0xff, 0xc9, 0x75, 0xfb, 0x89, 0x04, 0x25, a, b, c, d, 0xeb, 0xef]
};

/// The smallest machine that can run the loop.
struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    // After the machine, so that it is dropped later: the machine's slot points into it.
    _memory: GuestMemoryMmap,
}

impl Guest {
    fn create(kvm: &Kvm, mode: Mode) -> Result<Self, SpeedError> {
        let memory = load().map_err(SpeedError::Memory)?;
        let address =
            memory.get_host_address(GuestAddress(0)).map_err(|error| SpeedError::Memory(error.to_string()))?;
        let vm = kvm.create_vm().map_err(failed("create a machine"))?;
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: address as u64,
        };
        // SAFETY: the range is a mapping of that size which `Guest` keeps longer than the machine.
        unsafe { vm.set_user_memory_region(slot) }.map_err(failed("give the machine its memory"))?;
        let vcpu = vm.create_vcpu(0).map_err(failed("create a vCPU"))?;
        // Before the special registers: KVM checks long mode against what CPUID shows the guest.
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("ask for the supported CPUID"))?;
        vcpu.set_cpuid2(&cpuid).map_err(failed("set the vCPU's CPUID"))?;
        let before = vcpu.get_sregs().map_err(failed("read the special registers"))?;
        vcpu.set_sregs(&long_mode(before, mode)).map_err(failed("set the special registers"))?;
        let registers = kvm_regs { rip: CODE, rflags: 2, ..kvm_regs::default() };
        vcpu.set_regs(&registers).map_err(failed("set the registers"))?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

    /// Runs the loop for so many turns; the time from entry to exit.
    fn spin(&mut self, turns: u64) -> Result<Duration, SpeedError> {
        let mut registers = self.vcpu.get_regs().map_err(failed("read the registers"))?;
        registers.rbx = turns.max(1);
        self.vcpu.set_regs(&registers).map_err(failed("set the registers"))?;
        let start = Instant::now();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::MmioWrite(address, _)) if address == u64::from(DOORBELL) => return Ok(start.elapsed()),
                Ok(VcpuExit::Intr) => {}
                Ok(other) => return Err(SpeedError::Exit(format!("{other:?}"))),
                Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {}
                Err(error) => return Err(SpeedError::Kvm { step: "run the vCPU", source: error }),
            }
        }
    }
}

fn failed(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> SpeedError {
    move |source| SpeedError::Kvm { step, source }
}

/// Guest memory with the loop, and page tables that map the lowest 4 MiB onto themselves, for user code too.
fn load() -> Result<GuestMemoryMmap, String> {
    const PRESENT_WRITABLE_USER: u64 = 0x7;
    const LARGE: u64 = 0x80;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).map_err(|error| error.to_string())?;
    let entries = [
        (PML4, PDPT | PRESENT_WRITABLE_USER),
        (PDPT, PD | PRESENT_WRITABLE_USER),
        (PD, PRESENT_WRITABLE_USER | LARGE),
        (PD + 8, u64::from(DOORBELL) | PRESENT_WRITABLE_USER | LARGE),
    ];
    for (place, entry) in entries {
        memory.write_obj(entry, GuestAddress(place)).map_err(|error| error.to_string())?;
    }
    memory.write_slice(&LOOP, GuestAddress(CODE)).map_err(|error| error.to_string())?;
    Ok(memory)
}

/// 64-bit long mode with paging, entered from outside: no descriptor table is ever read, as nothing loads a segment.
fn long_mode(mut registers: kvm_sregs, mode: Mode) -> kvm_sregs {
    const CR0: u64 = 0x8005_0033; // PG, AM, WP, NE, ET, MP, PE
    const CR4_PAE: u64 = 0x20;
    const EFER: u64 = 0x500; // LMA, LME
    let (level, code, data) = match mode {
        Mode::Kernel => (0, 0x10, 0x18),
        Mode::User => (3, 0x33, 0x2b),
    };
    let flat = kvm_segment { limit: u32::MAX, present: 1, dpl: level, s: 1, g: 1, ..kvm_segment::default() };
    registers.cs = kvm_segment { selector: code, type_: 11, l: 1, ..flat };
    let data = kvm_segment { selector: data, type_: 3, db: 1, ..flat };
    (registers.ss, registers.ds, registers.es) = (data, data, data);
    (registers.fs, registers.gs) = (data, data);
    // VMX refuses to enter a guest without a busy TSS (Intel SDM, volume 3, section 27.3.1.2).
    registers.tr = kvm_segment { selector: 0x40, type_: 11, limit: 0x67, present: 1, ..kvm_segment::default() };
    registers.cr0 = CR0;
    registers.cr3 = PML4;
    registers.cr4 = CR4_PAE;
    registers.efer = EFER;
    registers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(turns: u64, nanos: u64) -> Timing {
        Timing { turns, took: Duration::from_nanos(nanos) }
    }

    #[test]
    fn a_guest_as_fast_as_its_host_has_speed_one() {
        let speed = ratio(timing(2_000_000, 800_000), timing(5_000_000, 2_000_000));
        assert!((speed - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_interpreted_guest_is_slower_by_the_ratio_of_a_turns_time() {
        let speed = ratio(timing(1_000_000, 400_000), timing(1000, 1_333_333));
        assert!((speed - 0.0003).abs() < 1e-6);
    }

    #[test]
    fn a_clock_that_saw_nothing_gives_no_infinite_speed() {
        assert!(ratio(timing(1000, 500), timing(1000, 0)).is_finite());
        assert!(ratio(timing(0, 0), timing(0, 0)).is_finite());
    }

    #[test]
    fn the_loop_is_as_long_as_the_guest_is_fast() {
        assert_eq!(calibrate(Duration::from_millis(30)), TRIAL_TURNS, "a very slow guest still turns a thousand times");
        assert_eq!(calibrate(Duration::from_micros(100)), 30_000);
        assert_eq!(calibrate(Duration::ZERO), 4 * HOST_TURNS);
    }
}
