//! The devices of a PC, as few as an operating system gets by with.
//!
//! | where | what |
//! |---|---|
//! | port 0x3f8 | a serial port |
//! | port 0x70 | the clock |
//! | port 0x64 | the keyboard controller, of which only the wire to the reset line is left |
//! | port 0x600 | power: off, and reset |
//! | port 0xf4 | the status of what ran inside; ends the machine |
//! | port 0xf5 | who the machine is: [`super::badge`] |
//! | `0xfec0_0000` | the I/O APIC |
//! | from [`FIRST_WINDOW`] | a page for each virtio device |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::badge::{self, Badge};
use super::bus::Bus;
use super::cmos::{self, Cmos};
use super::ioapic::{self, IoApic, KvmRoutes};
use super::registers::Registers;
pub use super::serial::Console;
use super::serial::Port;
use super::{DeviceError, EXIT, SERIAL, SERIAL_LAST};
use crate::guest::linux::init::Card;

/// The interrupt line of the first serial port of every PC.
pub(crate) const SERIAL_LINE: u32 = 4;
/// The line by which a kernel hears that its machine is another one; on old PCs the second serial port's, which is not here.
pub(crate) const GENERATION_LINE: u32 = 3;
/// The power button's line; on old PCs the keyboard's, which is not here.
pub(crate) const BUTTON_LINE: u32 = 1;
/// The page of the first virtio device.
pub const FIRST_WINDOW: u64 = 0xd000_0000;
/// Its interrupt line. Lower ones belong to the devices that every PC has.
pub const FIRST_LINE: u32 = 5;

/// The keyboard controller's port for commands, and for its state.
const KEYBOARD: u16 = 0x64;
/// Its command to pulse the line that resets the processor.
const PULSE_RESET: u8 = 0xfe;

/// ACPI's registers of a machine without the hardware that ACPI once described (ACPI 6.5, section 4.8.3.7).
pub(super) const SLEEP_CONTROL: u16 = 0x600;
pub(super) const SLEEP_STATUS: u16 = 0x601;
pub(super) const RESET: u16 = 0x602;
/// What is written to the last one.
pub(super) const RESET_VALUE: u8 = 1;
/// The sleep type that the tables call "off" (`\_S5`).
pub(super) const OFF: u8 = 5;
/// The bit that says: now.
const SLEEP_ENABLE: u8 = 1 << 5;

/// What the guest wants of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To go on.
    GoOn,
    /// To end with this status.
    Exit(u8),
    /// To be switched off.
    Off,
    /// To start anew.
    Reset,
}

/// All devices of a machine. Its processors share it.
pub(crate) struct Board {
    ports: Mutex<Ports>,
    /// The power button's interrupt.
    button: EventFd,
    /// Devices by their address in memory.
    pub(crate) bus: Bus,
}

struct Ports {
    serial: Port,
    cmos: Cmos,
    badge: Badge,
}

impl Board {
    /// A board with a serial port that writes to `console` and raises its line by `interrupt`, and a power button that
    /// interrupts by `button`; `notice` is written to when somebody should look at the port.
    pub(crate) fn new(
        vm: &Arc<VmFd>,
        console: Console,
        [interrupt, button]: [EventFd; 2],
        notice: Arc<EventFd>,
    ) -> Self {
        let mut bus = Bus::default();
        bus.put(ioapic::ADDRESS, IoApic::new(KvmRoutes(vm.clone())));
        let ports =
            Ports { serial: Port::new(interrupt, notice, console), cmos: Cmos::default(), badge: Badge::default() };
        Self { ports: Mutex::new(ports), button, bus }
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        // A thread that died while it held them left registers, no invariants.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest writes to a port.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> Result<Wish, DeviceError> {
        let Some(&first) = data.first() else { return Ok(Wish::GoOn) };
        match port {
            SERIAL..=SERIAL_LAST => {
                let mut ports = self.ports();
                data.iter().try_for_each(|byte| ports.serial.write((port - SERIAL) as u8, *byte))?;
            }
            cmos::SELECT => self.ports().cmos.select(first),
            EXIT => return Ok(Wish::Exit(first)),
            badge::BADGE => self.ports().badge.rewind(),
            SLEEP_CONTROL if first & SLEEP_ENABLE != 0 && first >> 2 & 7 == OFF => return Ok(Wish::Off),
            RESET if first == RESET_VALUE => return Ok(Wish::Reset),
            KEYBOARD if first == PULSE_RESET => return Ok(Wish::Reset),
            _ => {} // as on a PC: nobody listens, and nobody complains
        }
        Ok(Wish::GoOn)
    }

    /// The guest reads from a port.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        for byte in data {
            *byte = match port {
                SERIAL..=SERIAL_LAST => self.ports().serial.read((port - SERIAL) as u8),
                cmos::VALUE => self.ports().cmos.value(),
                badge::BADGE => self.ports().badge.read(),
                badge::GENERATION => self.ports().badge.generation(),
                // The keyboard controller is never busy, and has nothing to tell; no sleep has been slept.
                KEYBOARD | SLEEP_CONTROL | SLEEP_STATUS => 0,
                _ => 0xff, // as on a PC: the lines of a bus that nobody drives are high
            };
        }
    }

    /// What a snapshot keeps of each device, by its name or place. All stand still.
    pub(crate) fn save(&self) -> Result<BTreeMap<String, serde_json::Value>, DeviceError> {
        self.bus.flush()?;
        let mut saved = self.bus.save()?;
        let ports = self.ports();
        saved.insert("serial".to_owned(), ports.serial.save().value());
        saved.insert("cmos".to_owned(), ports.cmos.selected().into());
        Ok(saved)
    }

    /// Makes each device what it was. The interrupts come first: a device may raise one while it is restored.
    pub(crate) fn restore(&self, saved: &BTreeMap<String, serde_json::Value>) -> Result<(), DeviceError> {
        self.bus.restore(saved)?;
        let mut ports = self.ports();
        ports.serial.restore(&Registers::find(saved)?)?;
        let selected = saved.get("cmos").and_then(serde_json::Value::as_u64).and_then(|value| u8::try_from(value).ok());
        let impossible = || DeviceError::Restore { device: "cmos".to_owned(), why: "it is no register".to_owned() };
        ports.cmos.select(selected.ok_or_else(impossible)?);
        Ok(())
    }

    /// Says who the machine is, to whoever asks inside.
    pub(crate) fn introduce(&self, generation: u32, uuid: String, cards: Vec<Card>) {
        self.ports().badge.issue(generation, uuid, cards);
    }

    /// Presses the power button. What comes of it is the guest's to decide.
    pub(crate) fn press(&self) {
        // Fails only where it has been pressed as often as a u64 counts, and nobody looked.
        let _ = self.button.write(1);
    }

    /// How many bytes can be typed at the serial port now.
    pub(crate) fn room(&self) -> usize {
        self.ports().serial.room()
    }

    /// Types at the serial port.
    pub(crate) fn type_in(&self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.ports().serial.type_in(bytes)
    }

    /// Whether the guest has begun a line that is not shown yet.
    pub(crate) fn has_part(&self) -> bool {
        self.ports().serial.has_part()
    }

    /// Shows what there is of it.
    pub(crate) fn flush(&self) -> Result<(), DeviceError> {
        self.ports().serial.flush()
    }
}
