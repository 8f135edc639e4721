//! A machine becomes a snapshot, and a snapshot a machine.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VmFd};
use tracing::info_span;

use super::{BootError, Machine, Paused};
use crate::devices::Board;
use crate::guest::{Any, Guest};
use crate::kvm::{self, KvmError};
use crate::memory::{Loading, Memory};
use crate::snapshot::folder::Unfinished;
use crate::snapshot::raw::{Raw, hex};
use crate::snapshot::state::State;
use crate::snapshot::{self, Snapshot, SnapshotError};
use crate::units::Mib;
use crate::vcpu::Vcpu;

/// What a snapshot came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The name that no other has.
    pub id: String,
    /// How many bytes of memory hold anything, and were written.
    pub bytes: u64,
}

impl<G: Guest, W: Write> Paused<G, W> {
    /// Saves the machine as it stands to a new folder at `place`. It stands as before, and can run on.
    pub fn save(&mut self, place: &Path) -> Result<Saved, SnapshotError> {
        let _span = info_span!(
            "snapshot.save",
            call = "-",
            why = "the machine stands still: all that it is lies in memory, registers, devices, and what the guest's servant knows"
        )
        .entered();
        self.vcpu.settle()?; //                                1. nothing is half done
        let _ = self.board.flush(); //                         2. what was printed is the console's, not the snapshot's
        let state = self.state()?; //                          3. the small part, before anything is written
        let snapshot = Unfinished::begin(place, &state.id)?; // 4. a folder that is no snapshot yet
        let bytes = snapshot.write_memory(&self.memory)?; //   5. the large part
        snapshot.write_state(&state)?;
        snapshot.finish()?; //                                 6. now it is one
        Ok(Saved { id: state.id, bytes })
    }

    /// All but the memory.
    fn state(&mut self) -> Result<State, SnapshotError> {
        let msrs = snapshot::vcpu::msrs_to_save(&kvm::open()?)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(State {
            id: new_id()?,
            taken: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            memory: self.memory.size(),
            vcpus: vec![snapshot::vcpu::read(&mut self.vcpu, &msrs)?],
            clock: Raw(self.vm.get_clock().map_err(clock("read"))?),
            devices: self.board.save(),
            guest: self.guest.save()?,
        })
    }
}

fn clock(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    let attempt = if what == "read" { "read the machine's clock" } else { "set the machine's clock" };
    move |source| KvmError::Machine { attempt, source }
}

/// A name that no other snapshot has.
fn new_id() -> Result<String, SnapshotError> {
    Ok(hex(&crate::random::bytes::<16>().map_err(SnapshotError::Random)?))
}

/// A snapshot with all that can be known before a machine is made of it. Whoever makes many keeps one.
#[derive(Debug)]
pub struct Template {
    kvm: Kvm,
    snapshot: Snapshot,
    cpuid: CpuId,
}

impl Template {
    /// Opens `/dev/kvm` and compares the snapshot's processor with this host's.
    pub fn new(snapshot: Snapshot) -> Result<Self, BootError> {
        let kvm = kvm::open()?;
        let _span = info_span!(
            "restore.check",
            call = "ioctl(KVM_GET_SUPPORTED_CPUID)",
            why = "a guest uses what its processor once said it can; a host that lacks any of it can't take it over"
        )
        .entered();
        let [vcpu] = snapshot.state.vcpus.as_slice() else {
            // Machines with several processors are another kind (`linux`), and are not kept by this version.
            return Err(SnapshotError::from(crate::guest::GuestError::NotSaved).into());
        };
        snapshot::check(&vcpu.cpuid, Vcpu::supported(&kvm)?.as_slice()).map_err(SnapshotError::from)?;
        let cpuid = snapshot::vcpu::cpuid(vcpu)?;
        Ok(Self { kvm, snapshot, cpuid })
    }

    /// The same with its memory in a file of this process's own, which nobody can change any more.
    pub fn in_memory(mut self) -> std::io::Result<Self> {
        self.snapshot.take_in()?;
        Ok(self)
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Machine {
    /// Makes a machine that goes on where a snapshot stood, up to its next instruction: the same as after
    /// [`Machine::boot`], with another past. What it prints goes to `console`.
    pub fn restore<W: Write>(
        template: &Template,
        loading: Loading,
        timeout: Option<std::time::Duration>,
        console: W,
    ) -> Result<Paused<Any, W>, BootError> {
        let state = &template.snapshot.state;
        let [processor] = state.vcpus.as_slice() else {
            return Err(SnapshotError::from(crate::guest::GuestError::NotSaved).into());
        };
        let memory = load(template, loading)?; //                        1. its RAM: addresses that show the file
        let vm = kvm::create_vm(&template.kvm)?; //                      2. an empty machine
        kvm::register(&vm, &memory)?; //                                 3. its RAM, as for a machine that boots
        kvm::split_irqchip(&vm)?; //                                     4. its interrupt controller
        let mut vcpu = Vcpu::create_as(&template.kvm, &vm, &template.cpuid)?; // 5. its processor, the one it was
        snapshot::check(&processor.seen, vcpu.seen()?.as_slice()).map_err(SnapshotError::from)?;
        same_speed(&mut vcpu, processor.tsc_khz)?;
        snapshot::vcpu::write(vcpu.fd(), processor)?;
        set_clock(&vm, state)?; //                                       6. its clock
        let board = Board::restore(&state.devices, console)?; //         7. its devices
        let mut guest = Any::of(&state.guest, &memory)?; //         8. what its guest's servant knew
        guest.renew(&memory)?; //                                        9. what no two machines may share
        Ok(Paused { vcpu, vm, memory, guest, board, timeout })
    }
}

fn load(template: &Template, loading: Loading) -> Result<Memory, BootError> {
    let _span = info_span!(
        "restore.memory",
        call = "mmap(MAP_PRIVATE|MAP_FIXED), or read(2)",
        why = "lazily, a page is found in the page cache when it is touched, and copied when it is written; eagerly, all are read now"
    )
    .entered();
    let memory = Memory::map(Mib(template.snapshot.state.memory >> 20))?;
    memory.load(&template.snapshot.memory, loading)?;
    Ok(memory)
}

/// A guest that has measured its time stamp counter must find it as fast as it was.
fn same_speed(vcpu: &mut Vcpu, saved: u32) -> Result<(), SnapshotError> {
    let host = vcpu.fd().get_tsc_khz().unwrap_or(0);
    match snapshot::check_tsc(saved, host) {
        // KVM can make it so where the processor can scale.
        Err(error) => vcpu.fd().set_tsc_khz(saved).map_err(|_| error.into()),
        Ok(()) => Ok(()),
    }
}

fn set_clock(vm: &VmFd, state: &State) -> Result<(), SnapshotError> {
    let mut saved = state.clock.0;
    // Its own count goes on; no flag says that it shall jump by the time that has passed.
    saved.flags = 0;
    Ok(vm.set_clock(&saved).map_err(clock("set"))?)
}
