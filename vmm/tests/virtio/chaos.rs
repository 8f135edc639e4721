//! Drivers that do anything, and images with anything in them: bytes in, and nothing must come of it.
//!
//! The bytes are a list of steps. A step that makes sense is as likely as one that doesn't, so that a fuzzer soon finds its
//! way behind a device's start. `cargo fuzz` calls these functions with bytes that it thinks up, and the tests with those
//! it has kept.
#![allow(dead_code, reason = "each of those who include this file uses a part of it")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use isolab_vmm::devices::virtio::VirtioDevice;
use isolab_vmm::devices::virtio::balloon::Balloon;
use isolab_vmm::devices::virtio::block::{self, Block, Format, Options};
use isolab_vmm::devices::virtio::console::Console;
use isolab_vmm::devices::virtio::mmio::{NOTIFY, Transport};
use isolab_vmm::devices::virtio::net::{Net, Wire};
use isolab_vmm::devices::virtio::rng::Rng;
use isolab_vmm::devices::virtio::vsock::Vsock;
use isolab_vmm::guest::linux::Linux;
use isolab_vmm::memory::Memory;
use isolab_vmm::units::Mib;
use kvm_bindings::kvm_sregs;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const MEMORY: u64 = 2 << 20;
/// The rings of queue n are at n + 1 times this; buffers from the fifth on.
const STRIDE: u64 = 0x1_0000;
const BUFFERS: u64 = 5 * STRIDE;
const FEATURES_OK: u32 = 11;

/// What is left of the bytes.
struct Steps<'d>(&'d [u8]);

impl Steps<'_> {
    fn number(&mut self, bytes: usize) -> u64 {
        let (front, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        front.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }
}

/// What is at the other end of a device.
enum Other {
    Nobody,
    Wire(UnixDatagram),
    Keyboard(std::io::PipeWriter),
    Programs(Vec<UnixStream>),
}

struct World {
    folder: tempfile::TempDir,
    kind: u8,
    other: Other,
    memory: Memory,
    available: [u16; 4],
}

impl World {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        self.other = Other::Nobody;
        match self.kind % 7 {
            0 => Box::new(Rng::new()),
            1 | 2 => {
                let path = self.folder.path().join("disk");
                File::create(&path).and_then(|file| file.set_len(64 << 10)).unwrap();
                let read_only = self.kind % 7 == 2;
                let disk = block::open(&Options { path, read_only, format: Some(Format::Raw) }).unwrap();
                Box::new(Block::new(disk, read_only, "disk"))
            }
            3 => {
                let (ours, theirs) = UnixDatagram::pair().unwrap();
                theirs.set_nonblocking(true).unwrap();
                self.other = Other::Wire(theirs);
                Box::new(Net::new(Wire::Socket(ours.into()), "02:00:00:00:00:02".parse().unwrap()))
            }
            4 => {
                let (input, keyboard) = std::io::pipe().unwrap();
                self.other = Other::Keyboard(keyboard);
                let output = File::options().write(true).open("/dev/null").unwrap();
                Box::new(Console::new(Some(input.into()), output.into()))
            }
            5 => Box::new(Balloon::new().0),
            _ => {
                let path = self.folder.path().join("vsock");
                let _ = std::fs::remove_file(&path);
                self.other = Other::Programs(Vec::new());
                Box::new(Vsock::new(3, &path).unwrap())
            }
        }
    }

    /// The host's side does something.
    fn stir(&mut self, byte: u8) {
        let text = [b'x'; 300];
        let text = &text[..=usize::from(byte)];
        match &mut self.other {
            Other::Nobody => {}
            Other::Wire(wire) => {
                let _ = wire.send(text);
                let _ = wire.recv(&mut [0; 100]);
            }
            Other::Keyboard(keyboard) => {
                if byte < 200 {
                    let _ = keyboard.write_all(&text[..text.len().min(16)]);
                }
            }
            Other::Programs(programs) => match byte % 4 {
                0 if programs.len() < 8 => {
                    if let Ok(mut stream) = UnixStream::connect(self.folder.path().join("vsock")) {
                        let _ = writeln!(stream, "CONNECT {}", byte / 4);
                        programs.push(stream);
                    }
                }
                1 => drop(programs.pop()),
                _ => {
                    if let Some(stream) = programs.last_mut() {
                        let _ = stream.set_nonblocking(true);
                        let _ = stream.write(text);
                    }
                }
            },
        }
    }
}

fn set(transport: &mut Transport, offset: u64, value: u32) {
    transport.write(offset, &value.to_le_bytes());
}

fn get(transport: &Transport, offset: u64) -> u32 {
    let mut data = [0; 4];
    transport.read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// A start as the specification has it, with all features or fewer.
fn bring_up(transport: &mut Transport, world: &mut World, refused: u64) {
    for status in [0, 1, 3] {
        set(transport, 0x70, status);
    }
    for half in [0_u32, 1] {
        set(transport, 0x14, half);
        set(transport, 0x24, half);
        // The standard itself can't be refused.
        let refused = if half == 0 { refused as u32 } else { 0 };
        let offered = get(transport, 0x10) & !refused;
        set(transport, 0x20, offered);
    }
    set(transport, 0x70, FEATURES_OK);
    for queue in 0..3_u32 {
        set(transport, 0x30, queue);
        let size = get(transport, 0x34).min(16);
        let at = (STRIDE * u64::from(queue + 1)) as u32;
        for (register, value) in [
            (0x38, size),
            (0x80, at),
            (0x84, 0),
            (0x90, at + 0x4000),
            (0x94, 0),
            (0xa0, at + 0x8000),
            (0xa4, 0),
            (0x44, 1),
        ] {
            set(transport, register, value);
        }
        let zeroes = vec![0; STRIDE as usize];
        let _ = world.memory.guest().write_slice(&zeroes, GuestAddress(at.into()));
    }
    world.available = [0; 4];
    set(transport, 0x70, FEATURES_OK | 4);
}

/// A descriptor, of which each part may be anything.
fn describe(world: &World, steps: &mut Steps) {
    let queue = u64::from(steps.byte() % 4);
    let index = steps.byte();
    let how = steps.byte();
    let at = match how % 4 {
        0 => steps.number(8),
        1 => MEMORY - steps.number(1),
        _ => BUFFERS + steps.number(2),
    };
    let length = match how / 4 % 4 {
        0 => steps.number(4),
        1 => steps.number(2),
        2 => [44, 16, 12, 512, 1, 48, 4096, 513][usize::from(steps.byte() % 8)],
        _ => steps.number(1),
    };
    let flags = u16::from(how / 16 % 8);
    let next = u16::from(steps.byte());
    let place = STRIDE * (queue + 1) + 16 * u64::from(index);
    let guest = world.memory.guest();
    let _ = guest.write_obj(at, GuestAddress(place));
    let _ = guest.write_obj(length as u32, GuestAddress(place + 8));
    let _ = guest.write_obj(flags, GuestAddress(place + 12));
    let _ = guest.write_obj(next, GuestAddress(place + 14));
}

fn make_available(world: &mut World, queue: usize, head: u16, claim: u16) {
    let at = STRIDE * (queue as u64 + 1) + 0x4000;
    let index = world.available[queue];
    let guest = world.memory.guest();
    let _ = guest.write_obj(head, GuestAddress(at + 4 + 2 * u64::from(index % 16)));
    world.available[queue] = index.wrapping_add(claim);
    let _ = guest.write_obj(world.available[queue], GuestAddress(at + 2));
}

/// A header that a device would understand, where buffers are.
fn header(world: &World, steps: &mut Steps) {
    let at = BUFFERS + steps.number(2);
    let bytes = match world.kind % 7 {
        1 | 2 => {
            let kind = [0_u32, 1, 4, 8, 11, 13, 99, 5][usize::from(steps.byte() % 8)];
            let sector = steps.number(1) * 2;
            [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
        }
        6 => {
            let (from_port, to_port) = (steps.number(1) as u32, steps.number(1) as u32);
            let operation = u16::from(steps.byte() % 9);
            let length = steps.number(1) as u32;
            let to_port = if to_port > 128 { (1 << 30) + to_port % 4 } else { to_port };
            let mut bytes = [3_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat();
            for number in [from_port, to_port, length] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(1_u16.to_le_bytes());
            bytes.extend(operation.to_le_bytes());
            for number in [u32::from(steps.byte() % 4), steps.number(2) as u32, steps.number(1) as u32] {
                bytes.extend(number.to_le_bytes());
            }
            bytes
        }
        _ => steps.number(8).to_le_bytes().to_vec(),
    };
    let _ = world.memory.guest().write_slice(&bytes, GuestAddress(at));
}

/// A driver does what the bytes say.
pub(crate) fn drive(data: &[u8]) {
    let mut steps = Steps(data);
    let memory = Memory::map(Mib(MEMORY >> 20)).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let kind = steps.byte();
    let mut world = World { folder, kind, other: Other::Nobody, memory: memory.clone(), available: [0; 4] };
    let irq = || EventFd::new(EFD_NONBLOCK).unwrap();
    let mut transport = Transport::new(world.device(), memory.clone(), irq()).unwrap();
    transport.pause();
    bring_up(&mut transport, &mut world, 0);
    while !steps.0.is_empty() {
        match steps.byte() % 16 {
            0 => {
                let offset = steps.number(2) & 0x1ff;
                let value = steps.number(4) as u32;
                set(&mut transport, offset, value);
            }
            1 => {
                let offset = steps.number(2);
                let mut data = [0; 8];
                let width = usize::from(steps.byte() % 9);
                transport.read(offset, &mut data[..width]);
                transport.write(offset, &data[..width]);
            }
            2 => {
                let refused = steps.number(4);
                bring_up(&mut transport, &mut world, refused);
            }
            3 => {
                let at = steps.number(3) % MEMORY;
                let bytes = steps.number(8).to_le_bytes();
                let _ = memory.guest().write_slice(&bytes, GuestAddress(at));
            }
            4..=7 => describe(&world, &mut steps),
            8 | 9 => header(&world, &mut steps),
            10 | 11 => {
                let queue = usize::from(steps.byte() % 4);
                let head = u16::from(steps.byte());
                make_available(&mut world, queue, head % 17, if head > 250 { head } else { 1 });
            }
            12 | 13 => {
                set(&mut transport, NOTIFY, u32::from(steps.byte() % 5));
                transport.turn();
            }
            14 => {
                let byte = steps.byte();
                world.stir(byte);
                transport.turn();
            }
            _ => {
                let state = transport.save();
                drop(transport);
                let device = world.device();
                match Transport::restore(device, memory.clone(), irq(), &state) {
                    Ok(restored) => transport = restored,
                    Err(_) => return,
                }
            }
        }
    }
    set(&mut transport, NOTIFY, 0);
    set(&mut transport, NOTIFY, 1);
    transport.turn();
}

/// A small image of six clusters of 512 bytes: header, table of counts, counts, both tables, data.
fn small_image() -> Vec<u8> {
    let mut image = vec![0; 6 * 512];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &9_u32.to_be_bytes()); //               bits of a cluster's size
    put(24, &(64_u64 << 10).to_be_bytes()); //      the disk's size
    put(36, &2_u32.to_be_bytes()); //               entries of the first-level table
    put(40, &(3 * 512_u64).to_be_bytes());
    put(48, &512_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes()); //               clusters of the table of counts
    put(96, &4_u32.to_be_bytes()); //               16 bits a count
    put(100, &104_u32.to_be_bytes()); //            the header's length
    put(512, &(2 * 512_u64).to_be_bytes());
    for cluster in 0..6 {
        put(2 * 512 + 2 * cluster, &1_u16.to_be_bytes());
    }
    put(3 * 512, &((4 * 512_u64) | 1 << 63).to_be_bytes());
    put(4 * 512, &((5 * 512_u64) | 1 << 63).to_be_bytes());
    put(5 * 512, &[7; 512]);
    image
}

/// The image with some bytes changed, as the first half of `data` says, is used as the second half says.
pub(crate) fn image(data: &[u8]) {
    let mut steps = Steps(data);
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("image");
    let file = File::create(&path).unwrap();
    let mut bytes = small_image();
    for _ in 0..steps.byte() % 16 {
        let at = steps.number(2) as usize % bytes.len();
        bytes[at] = steps.byte();
    }
    if steps.byte() > 250 {
        bytes.truncate(steps.number(2) as usize);
    }
    file.write_all_at(&bytes, 0).unwrap();
    drop(file);
    let how = steps.byte();
    use_image(&path, how & 1 != 0, &mut steps);
}

fn use_image(path: &Path, read_only: bool, steps: &mut Steps) {
    let options = Options { path: path.to_owned(), read_only, format: Some(Format::Qcow2) };
    let Ok(disk) = block::open(&options) else { return };
    let memory = Memory::map(Mib(MEMORY >> 20)).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let mut world = World { folder, kind: 1, other: Other::Nobody, memory: memory.clone(), available: [0; 4] };
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let device = Box::new(Block::new(disk, read_only, "image"));
    let mut transport = Transport::new(device, memory, irq).unwrap();
    transport.pause();
    bring_up(&mut transport, &mut world, 0);
    for _ in 0..64 {
        if steps.0.is_empty() {
            break;
        }
        let kind = [0_u32, 1, 1, 4, 11, 13][usize::from(steps.byte() % 6)];
        let sector = steps.number(1) % 128;
        let count = steps.number(1) % 32 + 1;
        request(&mut transport, &mut world, kind, sector, count);
    }
}

/// A request that is as it should be.
fn request(transport: &mut Transport, world: &mut World, kind: u32, sector: u64, count: u64) {
    let head = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let range = [&sector.to_le_bytes()[..], &(count as u32).to_le_bytes(), &[0; 4]].concat();
    let guest = world.memory.guest();
    let _ = guest.write_slice(&head, GuestAddress(BUFFERS));
    let clears = kind == 11 || kind == 13;
    if clears {
        let _ = guest.write_slice(&range, GuestAddress(BUFFERS + 4096));
    }
    let length = if clears { 16 } else { count * 512 };
    let flags: u16 = if kind == 0 { 3 } else { 1 };
    let table = [(BUFFERS, 16, 1_u16, 1_u16), (BUFFERS + 4096, length, flags, 2), (BUFFERS + 0x8_0000, 1, 2, 0)];
    for (index, (at, length, flags, next)) in (0_u64..).zip(table) {
        let place = STRIDE + 16 * index;
        let _ = guest.write_obj(at, GuestAddress(place));
        let _ = guest.write_obj(length as u32, GuestAddress(place + 8));
        let _ = guest.write_obj(flags, GuestAddress(place + 12));
        let _ = guest.write_obj(next, GuestAddress(place + 14));
    }
    make_available(world, 0, 0, 1);
    set(transport, NOTIFY, 0);
    transport.turn();
}

/// A kernel's file with anything in it: it is refused, or it lies in memory and nowhere else.
pub(crate) fn kernel(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(data).expect("room for it");
    if let Ok(linux) = Linux::open(file.path(), None, "console=ttyS0") {
        let memory = Memory::map(Mib(20)).expect("memory");
        let _ = linux.load(&memory, &kvm_sregs::default());
    }
}
