//! A machine becomes a snapshot, and a snapshot a machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kvm_bindings::{CpuId, kvm_clock_data};
use kvm_ioctls::{Kvm, VmFd};
use tracing::{debug, info_span};

use super::{BootError, Machine, Paused};
use crate::devices::Board;
use crate::guest::{Any, Guest, GuestState};
use crate::kvm::{self, KvmError, Slots};
use crate::memory::{Loading, Memory, MemoryError, Origin};
use crate::snapshot::folder::Unfinished;
use crate::snapshot::raw::{Raw, hex};
use crate::snapshot::state::State;
use crate::snapshot::{self, Saving, Snapshot, SnapshotError};
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

/// A machine that stands still, whichever kind it is.
pub trait Standing {
    /// Saves the machine as it stands to a new folder at `place`. It stands as before, and can run on.
    fn save_as(&mut self, place: &Path, saving: Saving) -> Result<Saved, SnapshotError>;

    /// The same with all of its memory.
    fn save(&mut self, place: &Path) -> Result<Saved, SnapshotError> {
        self.save_as(place, Saving::Whole)
    }

    /// How many bytes of memory it has.
    fn memory_size(&self) -> u64;

    /// Presses the power button; whether there is one.
    fn press(&mut self) -> bool {
        false
    }
}

impl<G: Guest, W: Write> Standing for Paused<G, W> {
    fn save_as(&mut self, place: &Path, saving: Saving) -> Result<Saved, SnapshotError> {
        let _span = info_span!(
            "snapshot.save",
            call = "-",
            why = "the machine stands still: all that it is lies in memory, registers, devices, and what the guest's servant knows"
        )
        .entered();
        self.vcpu.settle()?; //                                1. nothing is half done
        let _ = self.board.flush(); //                         2. what was printed is the console's, not the snapshot's
        let mut state = describe(Described {
            //                    3. the small part, before anything is written
            processors: std::slice::from_mut(&mut self.vcpu),
            vm: &self.vm,
            memory: self.memory.size(),
            devices: self.board.save(),
            guest: self.guest.save()?,
        })?;
        let snapshot = Unfinished::begin(place, &state.id)?; // 4. a folder that is no snapshot yet
        snapshot.store(&mut state, &self.memory, saving) //    5. the files
    }

    fn memory_size(&self) -> u64 {
        self.memory.size()
    }
}

/// What a machine is described by.
pub(super) struct Described<'a> {
    pub(super) processors: &'a mut [Vcpu],
    pub(super) vm: &'a VmFd,
    pub(super) memory: u64,
    pub(super) devices: BTreeMap<String, serde_json::Value>,
    pub(super) guest: GuestState,
}

/// All of a machine but what is in its memory.
pub(super) fn describe(machine: Described<'_>) -> Result<State, SnapshotError> {
    let msrs = snapshot::vcpu::msrs_to_save(&kvm::open()?)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let read = |vcpu| snapshot::vcpu::read(vcpu, &msrs);
    Ok(State {
        id: new_id()?,
        taken: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        memory: machine.memory,
        vcpus: machine.processors.iter_mut().map(read).collect::<Result<_, _>>()?,
        clock: Raw(machine.vm.get_clock().map_err(clock("read"))?),
        devices: machine.devices,
        guest: machine.guest,
        below: None,
    })
}

impl Unfinished {
    /// Writes the two files, so that they are there together or not at all; and lets the memory go on from there, where
    /// what changes next shall be saved alone.
    pub(super) fn store(self, state: &mut State, memory: &Memory, saving: Saving) -> Result<Saved, SnapshotError> {
        let (bytes, below) = self.write_memory(memory, saving)?; // 1. the large part
        state.below = below;
        self.write_state(state)?; //                                2. the small part
        let place = self.finish()?; //                              3. now it is one
        if saving == Saving::Changes
            && let Err(error) = go_on_from(&place, state, memory)
        //    4. and what the machine has as its memory
        {
            debug!("what changes next is saved with what changed before: {error}");
        }
        Ok(Saved { id: state.id.clone(), bytes })
    }
}

/// Lets `memory` show what of it was just saved at `place`.
fn go_on_from(place: &Path, state: &State, memory: &Memory) -> Result<(), SnapshotError> {
    let _span = info_span!(
        "snapshot.go_on",
        call = "mmap(MAP_PRIVATE|MAP_FIXED)",
        why = "the machine's memory is what was saved of it, until it writes: whatever has a page of its own has changed since"
    )
    .entered();
    let (ranges, beneath) = match &state.below {
        Some(below) => (below.ranges(), memory.origin().as_ref().map_or(0, |origin| origin.depth)),
        None => (std::iter::once(0..memory.size()).collect(), 0),
    };
    let (folder, file) = snapshot::folder::hold(place)?;
    let origin = Origin { id: state.id.clone(), folder, depth: beneath + 1 };
    Ok(memory.go_on_from(file, &ranges, origin)?)
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
    kvm: Arc<Kvm>,
    snapshot: Snapshot,
    /// What each processor is told that it is.
    cpuids: Vec<CpuId>,
}

impl Template {
    /// Opens `/dev/kvm` and compares the snapshot's processor with this host's.
    pub fn new(snapshot: Snapshot) -> Result<Self, BootError> {
        let kvm = Arc::new(kvm::open()?);
        let _span = info_span!(
            "restore.check",
            call = "ioctl(KVM_GET_SUPPORTED_CPUID)",
            why = "a guest uses what its processor once said it can; a host that lacks any of it can't take it over"
        )
        .entered();
        let supported = Vcpu::supported(&kvm)?;
        let mut cpuids = Vec::with_capacity(snapshot.state.vcpus.len());
        for vcpu in &snapshot.state.vcpus {
            snapshot::check(&vcpu.cpuid, supported.as_slice()).map_err(SnapshotError::from)?;
            cpuids.push(snapshot::vcpu::cpuid(vcpu)?);
        }
        snapshot::vcpu::is_emulated(); // asked before a server forks, so that no clone has to
        Ok(Self { kvm, snapshot, cpuids })
    }

    /// Whether what goes on from it is a PC ([`super::pc::Pc::restore`]), and no program or built-in guest.
    pub fn is_pc(&self) -> bool {
        matches!(self.snapshot.state.guest, GuestState::Linux(_))
    }

    pub(super) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    pub(super) fn cpuids(&self) -> &[CpuId] {
        &self.cpuids
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
        let ([processor], [cpuid], false) = (state.vcpus.as_slice(), template.cpuids.as_slice(), template.is_pc())
        else {
            return Err(SnapshotError::Kind(state.guest.kind()).into());
        };
        let memory = load(template, loading)?; //                        1. its RAM: addresses that show the file
        let vm = kvm::create_vm(&template.kvm)?; //                      2. an empty machine
        let mut guest = Any::of(&state.guest, &memory)?; //              what its guest's servant knew
        let mut slots = Slots::default();
        slots.extend(&vm, &memory, guest.reach(&memory))?; //            3. its RAM, as for a machine that boots
        kvm::split_irqchip(&vm)?; //                                     4. its interrupt controller
        let mut vcpu = Vcpu::create_as(&template.kvm, &vm, cpuid)?; // 5. its processor, the one it was
        snapshot::check(&processor.seen, vcpu.seen()?.as_slice()).map_err(SnapshotError::from)?;
        same_speed(&mut vcpu, processor.tsc_khz)?;
        snapshot::vcpu::write(vcpu.fd(), processor)?;
        // Its own count goes on; no flag says that it shall jump by the time that has passed.
        set_clock(&vm, &kvm_clock_data { flags: 0, ..state.clock.0 })?; //                                       6. its clock
        let board = Board::restore(&state.devices, console)?; //         7. its devices
        guest.renew(&memory)?; //                                        8. what no two machines may share
        Ok(Paused { vcpu, vm, memory, guest, slots, board, timeout, kvm: template.kvm.clone() })
    }
}

impl<W: Write> Paused<Any, W> {
    /// Lends what runs inside these files, in place of the monitor's own standard three.
    pub(crate) fn lend(&mut self, files: &Arc<[OwnedFd; 3]>) {
        self.guest.lend(files);
    }
}

/// Brings a snapshot's memory back.
pub(super) fn bring(memory: &Memory, template: &Template, loading: Loading) -> Result<(), MemoryError> {
    let snapshot = &template.snapshot;
    let origin = snapshot.origin().map_err(|source| MemoryError::Serve { source })?;
    memory.load(&snapshot.memory, loading, &snapshot.path().join(WORKING_SET), origin)
}

/// The file beside a snapshot's memory that says which pages of it are touched first.
pub const WORKING_SET: &str = "working-set";

fn load(template: &Template, loading: Loading) -> Result<Memory, BootError> {
    let _span = info_span!(
        "restore.memory",
        call = "mmap(MAP_PRIVATE|MAP_FIXED), or read(2)",
        why = "lazily, a page is found in the page cache when it is touched, and copied when it is written; eagerly, all are read now"
    )
    .entered();
    let memory = Memory::map(Mib(template.snapshot.state.memory >> 20))?;
    bring(&memory, template, loading)?;
    Ok(memory)
}

/// A guest that has measured its time stamp counter must find it as fast as it was.
pub(super) fn same_speed(vcpu: &mut Vcpu, saved: u32) -> Result<(), SnapshotError> {
    let host = vcpu.fd().get_tsc_khz().unwrap_or(0);
    match snapshot::check_tsc(saved, host) {
        // KVM can make it so where the processor can scale.
        Err(error) => vcpu.fd().set_tsc_khz(saved).map_err(|_| error.into()),
        Ok(()) => Ok(()),
    }
}

pub(super) fn set_clock(vm: &VmFd, saved: &kvm_clock_data) -> Result<(), SnapshotError> {
    Ok(vm.set_clock(saved).map_err(clock("set"))?)
}
