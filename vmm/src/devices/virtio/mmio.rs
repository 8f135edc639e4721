//! A device's registers, laid out in a page of the guest's address space (virtio 1.2, section 4.2).
//!
//! The driver looks who is there, agrees with the device on what both can do, says where in memory its queues are, and
//! from then on writes only here to ring the bell, and even that KVM catches. [`Transport`] is one device's page. Nothing a
//! guest writes to it is believed, and nothing does harm beyond the device.

use std::io;
use std::sync::Arc;

use tracing::{debug, info_span};
use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::bindings::virtio_mmio as register;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::config::ConfigSpace;
use super::events::Events;
use super::line::Line;
use super::queue::Ring;
use super::state::{Queue, State};
use super::worker::{Active, Worker};
use super::{Fault, VirtioDevice};
use crate::memory::Memory;

/// How much of the guest's address space a device's registers take, in bytes.
pub const WINDOW: u64 = 0x1000;
/// Where in it the bell is: a write of a queue's index here is what an ioeventfd catches.
pub const NOTIFY: u64 = register::VIRTIO_MMIO_QUEUE_NOTIFY as u64;
/// "virt", as a little-endian number.
const MAGIC: u32 = 0x7472_6976;
/// The layout without the leftovers of before the standard.
const VERSION: u32 = 2;
/// "ISOL": nothing looks at it.
const VENDOR: u32 = 0x4c4f_5349;
/// Where the configuration space begins.
const CONFIG: u64 = register::VIRTIO_MMIO_CONFIG as u64;
/// What every device here can do: it follows the standard, takes tables of descriptors, and spares bells and interrupts.
pub const COMMON_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Why a device could not be made, or made again.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A bell could not be had.
    #[error("cannot make an event for a queue of the {kind} device")]
    Event {
        /// Which device.
        kind: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was saved is of another device.
    #[error("what was saved of a device is not of this {0} device")]
    Foreign(&'static str),
    /// What was saved can't be gone on with.
    #[error("the {kind} device can't go on from what was saved")]
    Restore {
        /// Which device.
        kind: &'static str,
        /// Why.
        source: Fault,
    },
}

/// Where the device is.
enum Labour {
    /// Here: no driver has set it up, or it was reset.
    Idle(Box<dyn VirtioDevice>),
    /// Here, set up, and nobody works: the machine is paused.
    Still(Box<Active>),
    /// With its thread.
    Working(Worker),
    /// Lost with a thread that died. Its registers are there, and it does nothing.
    Lost,
}

/// One device's registers, and the device.
pub struct Transport {
    kind: u32,
    name: &'static str,
    offered: u64,
    sizes: Vec<u16>,
    memory: Memory,
    line: Arc<Line>,
    config: Arc<ConfigSpace>,
    bells: Vec<EventFd>,
    registers: Registers,
    labour: Labour,
    paused: bool,
}

/// What the driver has written.
#[derive(Debug, Clone, Default)]
struct Registers {
    device_select: u32,
    driver_select: u32,
    features: u64,
    queue_select: u32,
    queues: Vec<Queue>,
}

impl Registers {
    fn new(sizes: &[u16]) -> Self {
        let queues = sizes.iter().map(|size| Queue { size: u32::from(*size), ..Queue::default() }).collect();
        Self { queues, ..Self::default() }
    }
}

/// Halves of a 64-bit number, as the registers have them.
fn half(number: u64, select: u32) -> u32 {
    match select {
        0 => number as u32,
        1 => (number >> 32) as u32,
        _ => 0,
    }
}

fn set_low(number: &mut u64, low: u32) {
    *number = *number & !0xffff_ffff | u64::from(low);
}

fn set_high(number: &mut u64, high: u32) {
    *number = *number & 0xffff_ffff | u64::from(high) << 32;
}

impl Transport {
    /// A device's registers after power-on. `irq` is what the device's interrupt line hangs on.
    pub fn new(device: Box<dyn VirtioDevice>, memory: Memory, irq: EventFd) -> Result<Self, TransportError> {
        let kind = device.kind();
        let sizes = device.queue_sizes().to_vec();
        let event = |source| TransportError::Event { kind: kind.name(), source };
        let bells = sizes.iter().map(|_| EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)).collect::<Result<_, _>>();
        let line = Arc::new(Line::new(irq));
        let config = device.config();
        config.connect(&line);
        Ok(Self {
            kind: kind as u32,
            name: kind.name(),
            offered: device.features() | COMMON_FEATURES,
            registers: Registers::new(&sizes),
            sizes,
            memory,
            line,
            config,
            bells: bells.map_err(event)?,
            labour: Labour::Idle(device),
            paused: false,
        })
    }

    /// One event for each queue: written to whenever the guest writes the queue's index to [`NOTIFY`].
    pub fn queue_events(&self) -> &[EventFd] {
        &self.bells
    }

    /// What kind of device it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The guest reads from the page.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset.checked_sub(CONFIG) {
            Some(offset) => self.config.read(offset, data),
            None if data.len() == 4 && offset.is_multiple_of(4) => {
                data.copy_from_slice(&self.get(offset as u32).to_le_bytes());
            }
            None => debug!("virtio {}: a read of {} bytes at register {offset:#x}", self.name, data.len()),
        }
    }

    /// The guest writes to the page.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset.checked_sub(CONFIG), <[u8; 4]>::try_from(data)) {
            (Some(offset), _) => self.config.write(offset, data),
            (None, Ok(data)) if offset.is_multiple_of(4) => self.set(offset as u32, u32::from_le_bytes(data)),
            (None, _) => debug!("virtio {}: a write of {} bytes at register {offset:#x}", self.name, data.len()),
        }
    }

    fn get(&self, offset: u32) -> u32 {
        let registers = &self.registers;
        let selected = registers.queues.get(registers.queue_select as usize);
        match offset {
            register::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            register::VIRTIO_MMIO_VERSION => VERSION,
            register::VIRTIO_MMIO_DEVICE_ID => self.kind,
            register::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            register::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered, registers.device_select),
            register::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                self.sizes.get(registers.queue_select as usize).map_or(0, |size| u32::from(*size))
            }
            register::VIRTIO_MMIO_QUEUE_READY => selected.map_or(0, |queue| u32::from(queue.ready)),
            register::VIRTIO_MMIO_INTERRUPT_STATUS => self.line.pending(),
            register::VIRTIO_MMIO_STATUS => self.line.status(),
            // No shared memory: a region that is not there has all ones for a length (section 4.2.2).
            register::VIRTIO_MMIO_SHM_LEN_LOW..=register::VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            register::VIRTIO_MMIO_CONFIG_GENERATION => self.config.generation(),
            _ => 0,
        }
    }

    fn set(&mut self, offset: u32, value: u32) {
        let registers = &mut self.registers;
        match offset {
            register::VIRTIO_MMIO_DEVICE_FEATURES_SEL => registers.device_select = value,
            register::VIRTIO_MMIO_DRIVER_FEATURES_SEL => registers.driver_select = value,
            register::VIRTIO_MMIO_QUEUE_SEL => registers.queue_select = value,
            register::VIRTIO_MMIO_QUEUE_NOTIFY => self.ring(value),
            register::VIRTIO_MMIO_INTERRUPT_ACK => self.line.acknowledge(value),
            register::VIRTIO_MMIO_STATUS => self.set_status(value),
            register::VIRTIO_MMIO_DRIVER_FEATURES => self.accept(value),
            _ => self.set_up_queue(offset, value),
        }
    }

    /// A bell that KVM has not caught, because nobody has asked it to.
    fn ring(&self, queue: u32) {
        if let Some(bell) = self.bells.get(queue as usize) {
            let _ = bell.write(1); // it can fail only where it was rung already, billions of times
        }
    }

    /// The driver accepts features: until it has said that it is done with that.
    fn accept(&mut self, value: u32) {
        if self.line.status() & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        match self.registers.driver_select {
            0 => set_low(&mut self.registers.features, value),
            1 => set_high(&mut self.registers.features, value),
            _ => {}
        }
    }

    /// The driver describes the selected queue: until it has said that it is ready.
    fn set_up_queue(&mut self, offset: u32, value: u32) {
        if self.line.status() & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            return;
        }
        let Some(queue) = self.registers.queues.get_mut(self.registers.queue_select as usize) else { return };
        match offset {
            register::VIRTIO_MMIO_QUEUE_READY => queue.ready = value & 1 != 0,
            // Section 4.2.2.2: the others are for a queue that is not ready.
            _ if queue.ready => {}
            register::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            register::VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            register::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            register::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut queue.available, value),
            register::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut queue.available, value),
            register::VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut queue.used, value),
            register::VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut queue.used, value),
            _ => {}
        }
    }

    /// The driver takes the next step of the start (section 3.1.1), or begins anew.
    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let before = self.line.status();
        let mut new = value & !before & (ACKNOWLEDGED | READY | VIRTIO_CONFIG_S_FAILED);
        if new & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.features_fit() {
            debug!("virtio {}: the driver accepts features {:#x}", self.name, self.registers.features);
            new &= !VIRTIO_CONFIG_S_FEATURES_OK; // the driver reads this back, and so learns that it may not go on
        }
        let all = ACKNOWLEDGED | VIRTIO_CONFIG_S_FEATURES_OK;
        if new & VIRTIO_CONFIG_S_DRIVER_OK != 0 && (before | new) & all != all {
            new &= !VIRTIO_CONFIG_S_DRIVER_OK;
        }
        self.line.add_status(new);
        if new & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.activate();
        }
    }

    fn features_fit(&self) -> bool {
        let accepted = self.registers.features;
        accepted & !self.offered == 0 && accepted & 1 << VIRTIO_F_VERSION_1 != 0
    }

    /// The driver is ready: the device begins.
    fn activate(&mut self) {
        let _span = info_span!(
            "virtio.activate",
            call = "clone3(CLONE_THREAD)",
            why = "the driver has said where its queues are; from here on a thread of the device's own serves them"
        )
        .entered();
        let device = match std::mem::replace(&mut self.labour, Labour::Lost) {
            Labour::Idle(device) => device,
            other => return self.labour = other,
        };
        match self.assemble(device) {
            Ok(active) => self.employ(active),
            Err((device, fault)) => {
                self.labour = Labour::Idle(device);
                self.break_down(&fault);
            }
        }
    }

    /// Puts a device together with the queues that its driver has set up.
    fn assemble(&self, device: Box<dyn VirtioDevice>) -> Result<Box<Active>, (Box<dyn VirtioDevice>, Fault)> {
        let mut device = device;
        match self.connect(device.as_mut()) {
            Ok((rings, events, bells)) => {
                Ok(Box::new(Active { device, rings, events, bells, line: Arc::clone(&self.line) }))
            }
            Err(fault) => {
                device.reset();
                Err((device, fault))
            }
        }
    }

    fn connect(&self, device: &mut dyn VirtioDevice) -> Result<(Vec<Ring>, Events, Vec<EventFd>), Fault> {
        let event_index = self.registers.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let events = Events::new().map_err(Fault::host("make an epoll descriptor"))?;
        let mut rings = Vec::with_capacity(self.bells.len());
        let mut bells = Vec::with_capacity(self.bells.len());
        for (index, ((bell, most), state)) in self.bells.iter().zip(&self.sizes).zip(&self.registers.queues).enumerate()
        {
            rings.push(Ring::new(index, *most, *state, event_index, (&self.memory, &self.line, bell))?);
            events.add_queue(bell, index).map_err(Fault::host("wait for a queue"))?;
            bells.push(bell.try_clone().map_err(Fault::host("share a queue's event"))?);
        }
        device.activate(self.registers.features, &events).map_err(Fault::host("start the device"))?;
        Ok((rings, events, bells))
    }

    /// Gives a device that is set up a thread, unless the machine is paused.
    fn employ(&mut self, active: Box<Active>) {
        if self.paused || self.line.status() & VIRTIO_CONFIG_S_NEEDS_RESET != 0 {
            self.labour = Labour::Still(active);
            return;
        }
        self.labour = match Worker::start(*active) {
            Ok(worker) => Labour::Working(worker),
            Err((active, source)) => {
                self.break_down(&Fault::Host { attempt: "start the device's thread", source });
                Labour::Still(active)
            }
        };
    }

    fn break_down(&self, fault: &Fault) {
        self.line.complain(self.name, fault);
        let _ = self.line.needs_reset(); // a guest that can't be interrupted can't be helped either
    }

    /// As after power-on (section 2.4). The device's thread has ended when this returns.
    fn reset(&mut self) {
        self.stop();
        self.labour = match std::mem::replace(&mut self.labour, Labour::Lost) {
            Labour::Still(active) => {
                let mut device = active.device;
                device.reset();
                Labour::Idle(device)
            }
            other => other,
        };
        self.registers = Registers::new(&self.sizes);
        self.line.set_status(0);
        self.line.set_pending(0);
    }

    /// Takes the device back from its thread.
    fn stop(&mut self) {
        if let Labour::Working(_) = self.labour
            && let Labour::Working(worker) = std::mem::replace(&mut self.labour, Labour::Lost)
            && let Some(active) = worker.stop()
        {
            self.labour = Labour::Still(Box::new(active));
        }
    }

    /// Lets the device stand still: what it has begun is done, what it has not stays in the queues.
    pub fn pause(&mut self) {
        self.paused = true;
        self.stop();
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.paused = false;
        if let Labour::Still(_) = self.labour
            && let Labour::Still(active) = std::mem::replace(&mut self.labour, Labour::Lost)
        {
            self.employ(active);
        }
    }

    /// Lets a paused device do, in the calling thread, all that it can do at once: for whoever wants no thread, as tests.
    pub fn turn(&mut self) {
        if let Labour::Still(active) = &mut self.labour {
            active.turn();
        }
    }

    /// What has to be kept of the device; it is paused, and stays so.
    pub fn save(&mut self) -> State {
        self.pause();
        if let Labour::Still(active) = &mut self.labour {
            active.device.settle(&mut active.rings);
            self.registers.queues = active.rings.iter().map(Ring::state).collect();
        }
        let (config, generation) = self.config.save();
        State {
            kind: self.kind,
            status: self.line.status(),
            interrupts: self.line.pending(),
            device_select: self.registers.device_select,
            driver_select: self.registers.driver_select,
            features: self.registers.features,
            queue_select: self.registers.queue_select,
            config,
            generation,
            queues: self.registers.queues.clone(),
        }
    }

    /// A device as it was when it was saved, paused. `device` is a new one, made as the saved one was.
    pub fn restore(
        device: Box<dyn VirtioDevice>,
        memory: Memory,
        irq: EventFd,
        state: &State,
    ) -> Result<Self, TransportError> {
        let mut transport = Self::new(device, memory, irq)?;
        transport.go_on(state)?;
        Ok(transport)
    }

    /// Makes a device that no driver has set up yet what it was when it was saved; it is paused.
    pub fn go_on(&mut self, state: &State) -> Result<(), TransportError> {
        let name = self.name;
        let same = state.kind == self.kind
            && state.queues.len() == self.sizes.len()
            && state.features & !self.offered == 0
            && self.config.restore(&state.config, state.generation);
        if !same {
            return Err(TransportError::Foreign(name));
        }
        self.paused = true;
        self.registers = Registers {
            device_select: state.device_select,
            driver_select: state.driver_select,
            features: state.features,
            queue_select: state.queue_select,
            queues: state.queues.clone(),
        };
        self.line.set_status(state.status);
        self.line.set_pending(state.interrupts);
        if let Labour::Idle(_) = self.labour
            && state.status & VIRTIO_CONFIG_S_DRIVER_OK != 0
            && let Labour::Idle(mut device) = std::mem::replace(&mut self.labour, Labour::Lost)
        {
            device.restored();
            let active = self.assemble(device);
            let active = active.map_err(|(_, source)| TransportError::Restore { kind: name, source })?;
            self.labour = Labour::Still(active);
        }
        Ok(())
    }

    /// Brings what the device has written where a reader of its files finds it; it is paused, and stays so.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pause();
        match &mut self.labour {
            Labour::Idle(device) => device.flush(),
            Labour::Still(active) => active.device.flush(),
            Labour::Working(_) | Labour::Lost => Ok(()),
        }
    }

    /// Raises the interrupt line again if the guest has not answered yet: after the guest's interrupt controller is restored.
    pub fn remind(&self) -> io::Result<()> {
        self.line.remind()
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.stop();
    }
}

const ACKNOWLEDGED: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
const READY: u32 = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
