//! The serial port of a machine with an operating system: it interrupts, and can be typed at.

use std::io::{self, Write};
use std::sync::Arc;

use vm_superio::Trigger;
use vm_superio::serial::{Error as SerialError, Serial, SerialEvents, SerialState};
use vmm_sys_util::eventfd::EventFd;

use super::DeviceError;
use super::lines::Lines;
use super::registers::Registers;

/// What the guest prints goes here.
pub type Console = Box<dyn Write + Send>;

/// An interrupt line: KVM raises it when this is written to.
pub(super) struct Interrupt(pub(super) EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells whoever waits for the port: there is room for what is typed, or the beginning of a line to show.
pub(super) struct Notice(pub(super) Arc<EventFd>);

impl Notice {
    fn give(&self) {
        // Fails only where as many have been given and not taken as a u64 counts.
        let _ = self.0.write(1);
    }
}

impl SerialEvents for Notice {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        self.give();
    }
}

/// A 16550A.
pub(super) struct Port {
    chip: Serial<Interrupt, Notice, Lines<Console>>,
}

impl Port {
    pub(super) fn new(interrupt: EventFd, notice: Arc<EventFd>, console: Console) -> Self {
        Self { chip: Serial::with_events(Interrupt(interrupt), Notice(notice), Lines::new(console)) }
    }

    /// The port as it was saved. Where an interrupt was raised and not answered yet, it is raised again.
    pub(super) fn restore(&mut self, state: &SerialState) -> Result<(), DeviceError> {
        let Self { chip } = self;
        // The chip can't be changed in place, and its parts can't be taken out of it: so they are put into the new one.
        let console = std::mem::replace(chip.writer_mut(), Lines::new(Box::new(io::sink())));
        let interrupt = Interrupt(chip.interrupt_evt().0.try_clone().map_err(DeviceError::Interrupt)?);
        let notice = Notice(chip.events().0.clone());
        *chip = match Serial::from_state(state, interrupt, notice, console) {
            Ok(chip) => chip,
            Err(SerialError::Trigger(error)) => return Err(DeviceError::Interrupt(error)),
            Err(_) => return Err(Registers::overfull()),
        };
        Ok(())
    }

    /// What a snapshot keeps of it.
    pub(super) fn save(&self) -> Registers {
        self.chip.state().into()
    }

    pub(super) fn write(&mut self, register: u8, byte: u8) -> Result<(), DeviceError> {
        let before = self.chip.writer().is_empty();
        let written = self.chip.write(register, byte);
        if before && !self.chip.writer().is_empty() {
            self.chip.events().give();
        }
        answer(written)
    }

    pub(super) fn read(&mut self, register: u8) -> u8 {
        self.chip.read(register)
    }

    /// How many bytes can be typed now.
    pub(super) fn room(&self) -> usize {
        self.chip.fifo_capacity()
    }

    /// Types at it.
    pub(super) fn type_in(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        answer(self.chip.enqueue_raw_bytes(bytes).map(drop))
    }

    /// Whether a line has begun that is not shown yet.
    pub(super) fn has_part(&self) -> bool {
        !self.chip.writer().is_empty()
    }

    pub(super) fn flush(&mut self) -> Result<(), DeviceError> {
        self.chip.writer_mut().pass_on().map_err(DeviceError::Console)
    }
}

fn answer(result: Result<(), SerialError<io::Error>>) -> Result<(), DeviceError> {
    match result {
        // A full receive buffer in loop-back mode loses the byte, as the real chip does.
        Ok(()) | Err(SerialError::FullFifo) => Ok(()),
        Err(SerialError::IOError(error)) => Err(DeviceError::Console(error)),
        Err(SerialError::Trigger(error)) => Err(DeviceError::Interrupt(error)),
    }
}
