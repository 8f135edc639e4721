//! A PC becomes a snapshot, and a snapshot a PC.
//!
//! The order is that of [`crate::machine::Machine::restore`], with more of everything: all processors are made before any
//! is written to, for their local APICs send each other messages; then the devices, whose interrupts must find them.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{KVM_CLOCK_REALTIME, kvm_clock_data};
use kvm_ioctls::VmFd;
use tracing::info_span;

use super::wiring::{Wired, renewed};
use super::{
    Console, Disk, Own, Pc, Renewal, Uuid, Wiring, WiringError, chips, event, plug, renewal_line, split_irqchip,
};
use crate::devices::pc::Board;
use crate::devices::virtio::block::{Format, image};
use crate::guest::{GuestState, LinuxState};
use crate::kvm;
use crate::machine::saved::{Described, Saved, Template, bring, describe, same_speed, set_clock};
use crate::machine::{BootError, Standing};
use crate::memory::{Loading, Memory, copy_sparse};
use crate::snapshot::folder::Unfinished;
use crate::snapshot::raw::hex;
use crate::snapshot::{self, Saving, SnapshotError};
use crate::units::Mib;
use crate::vcpu::Vcpu;

impl Standing for Pc {
    fn save_as(&mut self, place: &Path, saving: Saving) -> Result<Saved, SnapshotError> {
        let _span = info_span!(
            "snapshot.save",
            call = "-",
            why =
                "all processors stand still: the machine is their registers, its memory, and the state of its devices"
        )
        .entered();
        let _ = self.board.flush(); //                        1. what was printed is the console's
        let devices = self.board.save()?; //                  2. the devices; what they have written is in their files
        let guest = GuestState::Linux(LinuxState::default());
        let size = self.memory.size();
        let mut state = //                                    3. the processors and the clock
            describe(Described { processors: &mut self.vcpus, vm: &self.vm, memory: size, devices, guest })?;
        let snapshot = Unfinished::begin(place, &state.id)?; // 4. a folder that is no snapshot yet
        let wiring = keep_disks(&self.own.wired, snapshot.folder())?; // 5. the disks, of the same moment
        state.guest = GuestState::Linux(LinuxState { generation: self.own.generation, devices: wiring });
        snapshot.store(&mut state, &self.memory, saving) //   6. the memory, and all of it becomes one
    }

    fn memory_size(&self) -> u64 {
        self.memory.size()
    }

    fn press(&mut self) -> bool {
        self.board.press();
        true
    }
}

/// Copies the disks that the guest may write to beside the state, and names them there; the others are named where they are.
fn keep_disks(wired: &[Wired], folder: &Path) -> Result<Vec<Wiring>, SnapshotError> {
    let _span = info_span!(
        "snapshot.disks",
        call = "ioctl(FICLONE), or copy_file_range(2)",
        why = "what the guest has written to its disks belongs to the same moment as what it knows of them"
    )
    .entered();
    let keep = |(number, Wired { wiring, file }): (usize, &Wired)| match (wiring, file) {
        (Wiring::Disk(disk), Some(file)) => {
            let name = format!("disk-{number}");
            copy_disk(disk, file, &folder.join(&name))?;
            Ok(Wiring::Disk(Disk { path: name.into(), format: Some(disk.format()), ..disk.clone() }))
        }
        _ => Ok(wiring.clone()),
    };
    wired.iter().enumerate().map(keep).collect()
}

fn copy_disk(disk: &Disk, mut from: &File, to: &Path) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::Files { attempt: "copy the disk to", path: to.to_owned(), source };
    if !from.metadata().map_err(failed)?.is_file() {
        return Err(SnapshotError::BlockDevice(disk.path.clone()));
    }
    let mut options = File::options();
    let copy = options.read(true).write(true).create_new(true).mode(0o400).open(to).map_err(failed)?;
    from.rewind().and_then(|()| copy_sparse(from, &copy)).and_then(|()| copy.sync_data()).map_err(failed)?;
    // In another folder a name that begins in its own would lead elsewhere.
    match disk.format() {
        Format::Qcow2 => match image::base_of(to)? {
            Some(base) if base.is_relative() => Err(SnapshotError::RelativeBase(disk.path.clone(), base)),
            _ => Ok(()),
        },
        Format::Raw => Ok(()),
    }
}

impl Pc {
    /// Makes a machine that goes on where a snapshot of one stood, with its processors standing still: another machine, in
    /// all that `renewal` says and in what no two may share. What it prints goes to `console`.
    pub fn restore(
        template: &Template,
        loading: Loading,
        timeout: Option<Duration>,
        console: Console,
        renewal: &Renewal,
    ) -> Result<Self, BootError> {
        let state = &template.snapshot().state;
        let GuestState::Linux(saved) = &state.guest else {
            return Err(SnapshotError::Kind(state.guest.kind()).into());
        };
        let memory = Memory::map(Mib(state.memory >> 20))?; // 1. its RAM
        bring(&memory, template, loading)?;
        let vm = Arc::new(kvm::create_vm(template.kvm())?); //          2. an empty machine
        kvm::register(&vm, &memory)?;
        split_irqchip(&vm)?;
        let mut vcpus = Vec::new(); //                                  3. all its processors
        for (number, cpuid) in (0..).zip(template.cpuids()) {
            vcpus.push(Vcpu::create_one_of(&vm, number, cpuid.clone())?);
        }
        for (vcpu, saved) in vcpus.iter_mut().zip(&state.vcpus) {
            snapshot::check(&saved.seen, vcpu.seen()?.as_slice()).map_err(SnapshotError::from)?;
            same_speed(vcpu, saved.tsc_khz)?;
            snapshot::vcpu::write(vcpu.fd(), saved)?; //                4. as they were
        }
        set_clock(&vm, &by_the_day(state.clock.0))?; //                 5. its clock
        let notice = Arc::new(event()?);
        let mut board = chips(&vm, console, &notice)?; //               6. its devices, whose interrupts find the processors
        let wired = plug_anew(&vm, &memory, &mut board, saved, template.snapshot().path(), renewal)?;
        board.restore(&state.devices)?;
        let random = |source| BootError::Host { attempt: "make a UUID for the machine", source };
        let uuid = renewal.uuid.map_or_else(Uuid::random, Ok).map_err(random)?;
        let generation = saved.generation.wrapping_add(1);
        let own = Own { uuid, generation, wired, renewal: renewal_line(&vm)? };
        own.tell(&memory, &board)?; //                                  7. who it is now
        let ring = |source| BootError::Host { attempt: "tell the guest that its machine is another one", source };
        own.renewal.write(1).map_err(ring)?; //                         8. and that it is another: after the interrupts' routes
        Ok(Self { vcpus, board: Arc::new(board), vm, memory, notice, timeout, own })
    }
}

/// Opens the host's side of all devices anew.
fn plug_anew(
    vm: &VmFd,
    memory: &Memory,
    board: &mut Board,
    saved: &LinuxState,
    folder: &Path,
    renewal: &Renewal,
) -> Result<Vec<Wired>, BootError> {
    let place = Place::make(renewal.disks.as_deref()).map_err(WiringError::Place)?;
    let folder = std::path::absolute(folder).map_err(WiringError::Place)?;
    let devices = renewed(&saved.devices, &folder, renewal, place.path())?;
    Ok(plug(vm, memory, board, devices)?.1)
}

/// Where the overlays of disks go: a folder that stays, or one that is gone as soon as they are open.
enum Place<'a> {
    Stays(&'a Path),
    Goes(PathBuf),
}

impl<'a> Place<'a> {
    fn make(wanted: Option<&'a Path>) -> io::Result<Self> {
        if let Some(path) = wanted {
            return Ok(Self::Stays(path));
        }
        let (parent, name) = (std::env::temp_dir(), hex(&crate::random::bytes::<8>()?));
        remove_remains(&parent);
        let path = parent.join(format!("{PLACE}{}-{name}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self::Goes(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Stays(path) => path,
            Self::Goes(path) => path,
        }
    }
}

/// How the name of a place begins that goes; the process follows.
const PLACE: &str = "isolab-disks-";

/// Removes places of processes that were killed before they could. Where that can't be done, somebody else can.
fn remove_remains(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PLACE)?.split_once('-')).map(|(pid, _)| pid);
        if let Some(pid) = process.and_then(|pid| pid.parse::<u32>().ok())
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Self::Goes(path) = self {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// A clock that goes on by the time that has passed on the host's, where it was kept with that: an operating system takes
/// its time of day from it, and should find it right.
fn by_the_day(mut saved: kvm_clock_data) -> kvm_clock_data {
    saved.flags &= KVM_CLOCK_REALTIME;
    saved
}
