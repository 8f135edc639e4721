//! A driver, as a guest's kernel has one, without a guest: it talks to a device through its registers and its rings.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use isolab_vmm::devices::virtio::VirtioDevice;
use isolab_vmm::devices::virtio::mmio::{NOTIFY, Transport};
use isolab_vmm::devices::virtio::state::State;
use isolab_vmm::memory::Memory;
use isolab_vmm::units::Mib;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Registers (virtio 1.2, section 4.2.2).
pub(crate) mod register {
    pub(crate) const MAGIC: u64 = 0x00;
    pub(crate) const VERSION: u64 = 0x04;
    pub(crate) const DEVICE: u64 = 0x08;
    pub(crate) const DEVICE_FEATURES: u64 = 0x10;
    pub(crate) const DEVICE_SELECT: u64 = 0x14;
    pub(crate) const DRIVER_FEATURES: u64 = 0x20;
    pub(crate) const DRIVER_SELECT: u64 = 0x24;
    pub(crate) const QUEUE_SELECT: u64 = 0x30;
    pub(crate) const QUEUE_MAX: u64 = 0x34;
    pub(crate) const QUEUE_SIZE: u64 = 0x38;
    pub(crate) const QUEUE_READY: u64 = 0x44;
    pub(crate) const INTERRUPTS: u64 = 0x60;
    pub(crate) const ACKNOWLEDGE: u64 = 0x64;
    pub(crate) const STATUS: u64 = 0x70;
    pub(crate) const DESCRIPTORS: u64 = 0x80;
    pub(crate) const AVAILABLE: u64 = 0x90;
    pub(crate) const USED: u64 = 0xa0;
    pub(crate) const CONFIG: u64 = 0x100;
}

pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;
/// `VIRTIO_F_EVENT_IDX`.
pub(crate) const EVENT_INDEX: u64 = 1 << 29;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Each queue has its rings in 64 KiB of its own, and the buffers come behind all of them.
const RINGS: u64 = 0x1_0000;
const BUFFERS: u64 = 0x40_0000;
const MEMORY: Mib = Mib(32);

/// A request that the driver has made.
#[derive(Debug, Clone)]
struct Request {
    descriptors: Vec<u16>,
    writable: Vec<(u64, usize)>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: u16,
    /// How many bytes the device says that it has written.
    pub(crate) written: usize,
    /// What is in the buffers that it could write to, all of it.
    pub(crate) data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queue {
    size: u16,
    free: Vec<u16>,
    available: u16,
    seen: u16,
    requests: HashMap<u16, Request>,
}

/// The driver's end of a device.
pub(crate) struct Driver {
    pub(crate) transport: Transport,
    pub(crate) memory: Memory,
    irq: EventFd,
    queues: Vec<Queue>,
    features: u64,
    next: u64,
}

impl Driver {
    /// A driver that hasn't begun.
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Self {
        let memory = Memory::map(MEMORY).unwrap();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let transport = Transport::new(device, memory.clone(), irq.try_clone().unwrap()).unwrap();
        Self { transport, memory, irq, queues: Vec::new(), features: 0, next: BUFFERS }
    }

    /// A driver that takes all that the device offers, and has started it.
    pub(crate) fn start(device: Box<dyn VirtioDevice>) -> Self {
        let mut driver = Self::new(device);
        driver.bring_up(u64::MAX);
        driver
    }

    pub(crate) fn get(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn set(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn set_address(&mut self, offset: u64, address: u64) {
        self.set(offset, address as u32);
        self.set(offset + 4, (address >> 32) as u32);
    }

    pub(crate) fn config<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.transport.read(register::CONFIG + offset, &mut data);
        data
    }

    pub(crate) fn offered(&mut self) -> u64 {
        self.set(register::DEVICE_SELECT, 0);
        let low = self.get(register::DEVICE_FEATURES);
        self.set(register::DEVICE_SELECT, 1);
        u64::from(self.get(register::DEVICE_FEATURES)) << 32 | u64::from(low)
    }

    pub(crate) fn accept(&mut self, features: u64) {
        for half in [0, 1] {
            self.set(register::DRIVER_SELECT, half);
            self.set(register::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.features = features;
    }

    /// The steps of section 3.1.1, with no more features than these.
    pub(crate) fn bring_up(&mut self, wanted: u64) {
        self.set(register::STATUS, 0);
        self.set(register::STATUS, 1);
        self.set(register::STATUS, 3);
        let features = self.offered() & wanted;
        self.accept(features);
        self.set(register::STATUS, 3 | FEATURES_OK);
        assert_eq!(self.get(register::STATUS), 3 | FEATURES_OK);
        self.set_up_queues();
        self.set(register::STATUS, 3 | FEATURES_OK | DRIVER_OK);
    }

    pub(crate) fn set_up_queues(&mut self) {
        self.queues.clear();
        for index in 0.. {
            self.set(register::QUEUE_SELECT, index);
            let size = self.get(register::QUEUE_MAX) as u16;
            if size == 0 {
                break;
            }
            let at = RINGS * u64::from(index + 1);
            let zeroes = vec![0; RINGS as usize];
            self.memory.guest().write_slice(&zeroes, GuestAddress(at)).unwrap();
            self.set(register::QUEUE_SIZE, size.into());
            self.set_address(register::DESCRIPTORS, at);
            self.set_address(register::AVAILABLE, at + 0x4000);
            self.set_address(register::USED, at + 0x8000);
            self.set(register::QUEUE_READY, 1);
            self.queues.push(Queue { size, free: (0..size).rev().collect(), ..Queue::default() });
        }
    }

    /// Room for a buffer. What is given out is not given out again for a long time, and that is enough here.
    fn room(&mut self, length: usize) -> u64 {
        if self.next + length as u64 > MEMORY.bytes() {
            self.next = BUFFERS;
        }
        let at = self.next;
        self.next += (length as u64).next_multiple_of(64);
        at
    }

    fn put<T: vm_memory::ByteValued>(&self, value: T, at: u64) {
        self.memory.guest().write_obj(value, GuestAddress(at)).unwrap();
    }

    fn number(&self, at: u64) -> u16 {
        self.memory.guest().read_obj(GuestAddress(at)).unwrap()
    }

    /// Writes a descriptor, whatever it says.
    pub(crate) fn describe(&self, queue: usize, index: u16, (at, length, flags, next): (u64, u32, u16, u16)) {
        let place = RINGS * (queue as u64 + 1) + 16 * u64::from(index);
        self.put(at, place);
        self.put(length, place + 8);
        self.put(flags, place + 12);
        self.put(next, place + 14);
    }

    /// Lists a descriptor as available, whatever it is.
    pub(crate) fn make_available(&mut self, queue: usize, head: u16) {
        let at = RINGS * (queue as u64 + 1) + 0x4000;
        let (size, available) = (self.queues[queue].size, self.queues[queue].available);
        self.put(head, at + 4 + 2 * u64::from(available % size));
        self.queues[queue].available = available.wrapping_add(1);
        self.put(available.wrapping_add(1), at + 2);
    }

    /// Says how many there are, whatever there is.
    pub(crate) fn claim_available(&self, queue: usize, index: u16) {
        self.put(index, RINGS * (queue as u64 + 1) + 0x4002);
    }

    pub(crate) fn ring(&mut self, queue: usize) {
        self.set(NOTIFY, queue as u32);
    }

    /// Makes a request: buffers with bytes for the device to read, then buffers for it to write to. It isn't rung for.
    pub(crate) fn add(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> u16 {
        let mut parts = Vec::new();
        for bytes in readable {
            let at = self.room(bytes.len());
            self.memory.guest().write_slice(bytes, GuestAddress(at)).unwrap();
            parts.push((at, bytes.len(), 0));
        }
        let mut room = Vec::new();
        for length in writable {
            let at = self.room(*length);
            self.memory.guest().write_slice(&vec![0xee; *length], GuestAddress(at)).unwrap();
            parts.push((at, *length, WRITE));
            room.push((at, *length));
        }
        let free = &mut self.queues[queue].free;
        let descriptors = free.split_off(free.len().checked_sub(parts.len()).expect("the ring is full"));
        for (number, (at, length, flags)) in parts.iter().enumerate() {
            let next = descriptors.get(number + 1);
            let flags = flags | if next.is_some() { NEXT } else { 0 };
            self.describe(queue, descriptors[number], (*at, *length as u32, flags, next.copied().unwrap_or(0)));
        }
        let head = descriptors[0];
        self.queues[queue].requests.insert(head, Request { descriptors, writable: room });
        self.make_available(queue, head);
        head
    }

    /// Makes a request, rings for it, and waits for what comes back.
    pub(crate) fn ask(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> Answer {
        self.add(queue, readable, writable);
        self.ring(queue);
        self.wait(queue)
    }

    /// The request at which the device wants to be rung for (`avail_event`, section 2.7.8).
    pub(crate) fn rings_at(&self, queue: usize) -> u16 {
        self.number(RINGS * (queue as u64 + 1) + 0x8004 + 8 * u64::from(self.queues[queue].size))
    }

    /// How many requests the device says that it is done with, besides those that were looked at.
    pub(crate) fn shown(&self, queue: usize) -> u16 {
        self.number(RINGS * (queue as u64 + 1) + 0x8002).wrapping_sub(self.queues[queue].seen)
    }

    /// The next request that the device is done with, if there is one.
    pub(crate) fn done(&mut self, queue: usize) -> Option<Answer> {
        let at = RINGS * (queue as u64 + 1) + 0x8000;
        let (size, seen) = (self.queues[queue].size, self.queues[queue].seen);
        if self.number(at + 2) == seen {
            return None;
        }
        let entry = at + 4 + 8 * u64::from(seen % size);
        let head = self.number(entry);
        let written: u32 = self.memory.guest().read_obj(GuestAddress(entry + 4)).unwrap();
        self.queues[queue].seen = seen.wrapping_add(1);
        let request = self.queues[queue].requests.remove(&head).expect("the device used what it was not given");
        self.queues[queue].free.extend(request.descriptors);
        let mut data = Vec::new();
        for (at, length) in request.writable {
            let mut part = vec![0; length];
            self.memory.guest().read_slice(&mut part, GuestAddress(at)).unwrap();
            data.extend(part);
        }
        Some(Answer { head, written: written as usize, data })
    }

    /// Waits for the next one, and fails the test if it doesn't come.
    pub(crate) fn wait(&mut self, queue: usize) -> Answer {
        self.wait_for(queue, Duration::from_secs(10)).expect("the device does not answer")
    }

    /// Waits for the next one for so long.
    pub(crate) fn wait_for(&mut self, queue: usize, longest: Duration) -> Option<Answer> {
        let until = std::time::Instant::now() + longest;
        loop {
            // `used_event`: tell me of the very next one.
            let size = self.queues[queue].size;
            let event = RINGS * (queue as u64 + 1) + 0x4004 + 2 * u64::from(size);
            self.put(self.queues[queue].seen, event);
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if let Some(answer) = self.done(queue) {
                return Some(answer);
            }
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return None;
            }
            self.wait_for_interrupt(left);
        }
    }

    /// Waits until the line is raised, and acknowledges; why it was.
    pub(crate) fn wait_for_interrupt(&mut self, longest: Duration) -> u32 {
        // SAFETY: the descriptor is the event's, which outlives the borrow.
        let line = unsafe { BorrowedFd::borrow_raw(self.irq.as_raw_fd()) };
        let timeout = PollTimeout::try_from(longest.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(line, PollFlags::POLLIN)], timeout);
        let _ = self.irq.read();
        let causes = self.get(register::INTERRUPTS);
        self.set(register::ACKNOWLEDGE, causes);
        causes
    }

    /// Waits until the device has given up, and fails the test if it doesn't.
    pub(crate) fn wait_for_break_down(&mut self) {
        for _ in 0..1000 {
            if self.get(register::STATUS) & NEEDS_RESET != 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the device still works");
    }

    /// The machine is saved, ends, and is restored with a new device in place of the old; by way of text, as in a file.
    pub(crate) fn save_and_restore(&mut self, device: impl FnOnce() -> Box<dyn VirtioDevice>) {
        let saved = serde_json::to_string(&self.transport.save()).unwrap();
        let other =
            Transport::new(Box::new(isolab_vmm::devices::virtio::rng::Rng::new()), self.memory.clone(), self.irq())
                .unwrap();
        drop(std::mem::replace(&mut self.transport, other)); // its files are closed before they are opened again
        let state: State = serde_json::from_str(&saved).unwrap();
        self.transport = Transport::restore(device(), self.memory.clone(), self.irq(), &state).unwrap();
        self.transport.remind().unwrap();
        self.transport.resume();
    }

    fn irq(&self) -> EventFd {
        self.irq.try_clone().unwrap()
    }
}
