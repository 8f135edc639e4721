//! A machine that an operating system runs in: a PC of several processors, with as few devices as it gets by with.
//!
//! [`Pc::boot`] puts it together, [`Pc::resume`] lets its processors run, each on a thread of its own, and [`Running::pause`]
//! gets the machine back as it stands. What the guest wants of a device is done on the thread of the processor that asked,
//! or on a thread of the device; the thread that has made the machine waits for it to end ([`Running::wait`]).

mod attended;
mod cpuid;
mod farewell;
mod identity;
mod input;
mod processor;
mod running;
mod saved;
mod signals;
mod wiring;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use tracing::info_span;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::cpuid::Topology;
pub use self::identity::Uuid;
pub use self::input::Terminal;
pub use self::running::{Paused, Running};
pub(crate) use self::wiring::check as check_wiring;
pub use self::wiring::{Card, Disk, Renewal, Sockets, Wiring, WiringError};
use self::wiring::{Wired, cards};
use super::{BootError, reserve, set_up};
use crate::devices::acpi::{self, Described};
use crate::devices::bus::WINDOW;
use crate::devices::ioapic::LINES;
pub use crate::devices::pc::Console;
use crate::devices::pc::{BUTTON_LINE, Board, FIRST_LINE, FIRST_WINDOW, GENERATION_LINE, SERIAL_LINE};
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::mmio::{NOTIFY, Transport};
use crate::guest::GuestError;
use crate::guest::linux::{Linux, LinuxError, MSRS};
use crate::kvm::{self, KvmError};
use crate::memory::Memory;
use crate::units::Mib;
use crate::vcpu::Vcpu;

/// How many processors a machine can have. Each costs the host a thread; more than it has are slower than as many as it has.
pub const MOST_CPUS: u8 = 64;

/// How many devices it can have: each needs an interrupt line.
pub const MOST_DEVICES: usize = LINES - FIRST_LINE as usize;

/// Three pages that KVM needs where the hardware can't run 16-bit code by itself; below the firmware that every PC has there.
const TASK_STATE: usize = 0xfffb_d000;

/// What a machine shall be.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How much memory the guest has.
    pub memory: Mib,
    /// How many processors.
    pub cpus: u8,
    /// How long it may run, from the first time it is resumed.
    pub timeout: Option<Duration>,
    /// What to do where KVM would interpret the guest's kernel.
    pub interpreted: Interpreted,
}

/// What to do where KVM has no virtualization hardware under it, and interprets what runs in kernel mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpreted {
    /// Say so, and make no machine: no kernel of a distribution gets through its start there, however long it is given.
    Refuse,
    /// Run it: what is inside is small enough.
    Run,
}

/// A machine whose processors stand still. Fields are dropped in this order: KVM lets go of the memory before it is unmapped.
pub struct Pc {
    vcpus: Vec<Vcpu>,
    board: Arc<Board>,
    vm: Arc<VmFd>,
    memory: Memory,
    /// Written to when the thread that waits for the machine should look at it.
    notice: Arc<EventFd>,
    timeout: Option<Duration>,
    own: Own,
}

/// What a machine has that no other has.
struct Own {
    uuid: Uuid,
    /// How often it has gone on from a snapshot.
    generation: u32,
    wired: Vec<Wired>,
    /// The line by which a kernel hears that its machine is another one. While this is open it is KVM's.
    renewal: EventFd,
}

impl Pc {
    /// Puts a machine together with `linux` in it, up to its first instruction. What it prints goes to `console`; the kernel
    /// finds `devices` in this order.
    pub fn boot(config: &Config, linux: &Linux, console: Console, devices: Vec<Wiring>) -> Result<Self, BootError> {
        let random = |source| BootError::Host { attempt: "make a UUID for the machine", source };
        let uuid = Uuid::random().map_err(random)?;
        Self::boot_as(uuid, config, linux, console, devices)
    }

    /// The same with this UUID.
    pub fn boot_as(
        uuid: Uuid,
        config: &Config,
        linux: &Linux,
        console: Console,
        devices: Vec<Wiring>,
    ) -> Result<Self, BootError> {
        check(config)?;
        let memory = reserve(|| Memory::map(config.memory))?; // 1. addresses for its RAM, no page of it yet
        let kvm = kvm::open()?; //                                   2. the hypervisor
        let vm = Arc::new(kvm::create_vm(&kvm)?); //                 3. an empty machine
        kvm::register(&vm, &memory)?; //                             4. its RAM, before anything can be looking at it
        split_irqchip(&vm)?; //                                      5. interrupts: the processors' part in the kernel
        let vcpus = make_processors(&kvm, &vm, config.cpus)?; //     6. its processors, each of which knows who it is
        let notice = Arc::new(event()?);
        let mut board = chips(&vm, console, &notice)?; //            7. the devices that every PC has
        let (described, wired) = plug(&vm, &memory, &mut board, devices)?; // 8. and those that this one has besides
        describe(&memory, config.cpus, &described)?; //              9. the tables that tell of them
        let own = Own { uuid, generation: 0, wired, renewal: renewal_line(&vm)? };
        own.tell(&memory, &board)?; //                              10. who it is
        let board = Arc::new(board);
        let mut pc = Self { vcpus, board, vm, memory, notice, timeout: config.timeout, own };
        pc.load(linux)?; //                                         11. the kernel, and where the first processor starts
        Ok(pc)
    }

    fn load(&mut self, linux: &Linux) -> Result<(), BootError> {
        let _span = info_span!(
            "guest.load",
            call = "none",
            why =
                "what a boot loader would do: the kernel, its first file system, its command line, a map of the memory"
        )
        .entered();
        let Some(first) = self.vcpus.first_mut() else { return Err(BootError::Cpus(0)) };
        let reset = first.sregs()?;
        let entry = linux.load(&self.memory, &reset)?;
        // The others wait for the first to wake them, as on a PC: KVM's local APIC does that.
        set_up(first, &entry)?;
        Ok(())
    }
}

impl Own {
    /// Puts who the machine is where its guest finds it.
    fn tell(&self, memory: &Memory, board: &Board) -> Result<(), BootError> {
        let _span = info_span!(
            "identity.write",
            call = "getrandom(2)",
            why = "a UUID, and a number that is another one in each machine: a kernel that sees it change draws its random numbers anew"
        )
        .entered();
        let host = |source| BootError::Host { attempt: "write who the machine is to its memory", source };
        identity::write_uuid(memory, self.uuid).map_err(std::io::Error::other).map_err(host)?;
        identity::write_generation(memory).map_err(host)?;
        board.introduce(self.generation, self.uuid.to_string(), cards(&self.wired));
        Ok(())
    }
}

fn renewal_line(vm: &VmFd) -> Result<EventFd, BootError> {
    let line = event()?;
    tie(vm, &line, GENERATION_LINE)?;
    Ok(line)
}

fn check(config: &Config) -> Result<(), BootError> {
    if config.cpus == 0 || config.cpus > MOST_CPUS {
        return Err(BootError::Cpus(config.cpus));
    }
    if config.interpreted == Interpreted::Refuse && is_interpreted() {
        return Err(GuestError::from(LinuxError::Interpreted).into());
    }
    Ok(())
}

/// Whether the only KVM here is one of page tables and traps.
fn is_interpreted() -> bool {
    let module = |name: &str| Path::new("/sys/module").join(name).exists();
    module("kvm_pvm") && !module("kvm_amd") && !module("kvm_intel")
}

/// Splits the interrupt controller: each processor's local APIC in the kernel, the I/O APIC here
/// ([`crate::devices::ioapic`]).
///
/// A guest that is told by its tables that it has no interrupt controller of 1981 and no timer of that year
/// ([`crate::devices::acpi`]) misses neither; Linux takes its time from KVM's clock and the local APIC. And the interrupts of
/// devices do not come by here: KVM turns an eventfd into a message to a local APIC by itself. So the controller as a whole in
/// the kernel would bring nothing, and cost: on Linux 6.18 a machine that has it is closed 16 ms later, a machine without
/// after 0.1 ms.
fn split_irqchip(vm: &VmFd) -> Result<(), KvmError> {
    // Where the processor can't run 16-bit code in a guest by itself, KVM does it with these pages.
    vm.set_tss_address(TASK_STATE)
        .map_err(|source| KvmError::Machine { attempt: "set aside pages for 16-bit code", source })?;
    let _span = info_span!(
        "irqchip.split",
        call = "ioctl(KVM_ENABLE_CAP, KVM_CAP_SPLIT_IRQCHIP)",
        why = "each processor's local APIC in the kernel needs no exit; the I/O APIC, set up once, can be here"
    )
    .entered();
    let lines = LINES as u64;
    let capability = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, args: [lines, 0, 0, 0], ..kvm_enable_cap::default() };
    vm.enable_cap(&capability)
        .map_err(|source| KvmError::Machine { attempt: "put the local APICs into the kernel", source })
}

fn make_processors(kvm: &Kvm, vm: &VmFd, cpus: u8) -> Result<Vec<Vcpu>, BootError> {
    let supported = Vcpu::supported(kvm)?;
    let topology = Topology { cpus, tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer) };
    let make = |number| {
        let vcpu = Vcpu::create_one_of(vm, number, topology.answers(&supported, number))?;
        vcpu.set_msrs(&MSRS)?;
        Ok(vcpu)
    };
    (0..cpus).map(make).collect()
}

fn event() -> Result<EventFd, BootError> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
        .map_err(|source| BootError::Host { attempt: "make an eventfd for an interrupt", source })
}

/// The devices that every PC has.
fn chips(vm: &Arc<VmFd>, console: Console, notice: &Arc<EventFd>) -> Result<Board, BootError> {
    let (interrupt, button) = (event()?, event()?);
    tie(vm, &interrupt, SERIAL_LINE)?;
    tie(vm, &button, BUTTON_LINE)?;
    Ok(Board::new(vm, console, [interrupt, button], notice.clone()))
}

/// Puts virtio devices on their places, and their bells and interrupt lines into KVM.
fn plug(
    vm: &VmFd,
    memory: &Memory,
    board: &mut Board,
    devices: Vec<Wiring>,
) -> Result<(Vec<Described>, Vec<Wired>), BootError> {
    let _span = info_span!(
        "devices.plug",
        call = "ioctl(KVM_IRQFD), ioctl(KVM_IOEVENTFD)",
        why = "guest and device ring for each other by eventfds that KVM passes on: neither waits for the monitor"
    )
    .entered();
    if devices.len() > MOST_DEVICES {
        return Err(BootError::Devices { given: devices.len(), most: MOST_DEVICES });
    }
    let places = (FIRST_LINE..).zip((FIRST_WINDOW..).step_by(WINDOW as usize));
    let (mut described, mut all) = (Vec::with_capacity(devices.len()), Vec::with_capacity(devices.len()));
    for (wiring, (line, base)) in devices.into_iter().zip(places) {
        let (device, wired) = wiring.open()?;
        board.bus.put(base, attach(vm, memory, device, line, base)?);
        described.push(Described { base: base as u32, line });
        all.push(wired);
    }
    Ok((described, all))
}

/// A device's registers, whose interrupt line and bells are KVM's.
fn attach(
    vm: &VmFd,
    memory: &Memory,
    device: Box<dyn VirtioDevice>,
    line: u32,
    base: u64,
) -> Result<Transport, BootError> {
    let interrupt = event()?;
    tie(vm, &interrupt, line)?;
    let transport = Transport::new(device, memory.clone(), interrupt)?;
    for (queue, bell) in (0_u32..).zip(transport.queue_events()) {
        vm.register_ioevent(bell, &IoEventAddress::Mmio(base + NOTIFY), queue)
            .map_err(|source| KvmError::Machine { attempt: "tie a device's bell to an eventfd", source })?;
    }
    Ok(transport)
}

fn tie(vm: &VmFd, interrupt: &EventFd, line: u32) -> Result<(), KvmError> {
    vm.register_irqfd(interrupt, line)
        .map_err(|source| KvmError::Machine { attempt: "tie an interrupt line to an eventfd", source })
}

fn describe(memory: &Memory, cpus: u8, devices: &[Described]) -> Result<(), BootError> {
    let _span = info_span!(
        "acpi.write",
        call = "none",
        why = "tables in memory tell the kernel how many processors it has and where its devices are"
    )
    .entered();
    Ok(acpi::write(memory, cpus, devices)?)
}
