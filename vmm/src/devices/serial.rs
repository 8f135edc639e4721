//! The serial port of a machine with an operating system: it interrupts, and can be typed at.

use std::io::{self, Write};
use std::sync::Arc;

use vm_superio::Trigger;
use vm_superio::serial::{Error as SerialError, Serial, SerialEvents, SerialState};
use vmm_sys_util::eventfd::EventFd;

use super::DeviceError;
use super::lines::Lines;
use super::registers::Registers;

/// Registers by number, and the bits of them that are looked at here.
const INTERRUPT_ENABLE: u8 = 1;
const INTERRUPT_IDENTIFICATION: u8 = 2;
/// Of both: something was received. Of the second alone: there is nothing to tell.
const ENABLE_RECEIVED: u8 = 1;
const RECEIVED: u8 = 1 << 2;
const NOTHING: u8 = 1;

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
///
/// The chip beneath forgets at the first byte that is read that there was something to read, and tells of it anew only when more
/// is typed. A real one goes on telling until nothing is left, and a driver relies on that: Linux reads 256 bytes at most, asks
/// whether there is more to do, and waits for an interrupt where there is not. One that was told "nothing" while the buffer was
/// full would wait for ever: nothing more could be typed. So it is told here of whatever waits.
pub(super) struct Port {
    chip: Serial<Interrupt, Notice, Lines<Console>>,
}

impl Port {
    pub(super) fn new(interrupt: EventFd, notice: Arc<EventFd>, console: Console) -> Self {
        Self { chip: Serial::with_events(Interrupt(interrupt), Notice(notice), Lines::new(console)) }
    }

    /// The port as it was saved. An interrupt that may have been on its way is raised again: one too many is looked into and
    /// forgotten, one that is missing is waited for.
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
        if self.has_unread() { self.raise() } else { Ok(()) }
    }

    /// What a snapshot keeps of it.
    pub(super) fn save(&self) -> Registers {
        self.chip.state().into()
    }

    pub(super) fn write(&mut self, register: u8, byte: u8) -> Result<(), DeviceError> {
        let before = self.chip.writer().is_empty();
        let told = register == INTERRUPT_ENABLE && self.has_told();
        let written = self.chip.write(register, byte);
        if before && !self.chip.writer().is_empty() {
            self.chip.events().give();
        }
        answer(written)?;
        // The chip thinks that the guest knows; but it may have been told when it did not listen.
        if told && self.has_unread() { self.raise() } else { Ok(()) }
    }

    pub(super) fn read(&mut self, register: u8) -> u8 {
        let value = self.chip.read(register);
        match register {
            INTERRUPT_IDENTIFICATION if self.has_unread() => value & !NOTHING | RECEIVED,
            _ => value,
        }
    }

    /// Whether something waits for a guest that wants to hear of it.
    fn has_unread(&self) -> bool {
        let state = self.chip.state();
        state.interrupt_enable & ENABLE_RECEIVED != 0 && !state.in_buffer.is_empty()
    }

    /// Whether the chip has told of something and has not been asked what it is.
    fn has_told(&self) -> bool {
        self.chip.state().interrupt_identification & RECEIVED != 0
    }

    fn raise(&self) -> Result<(), DeviceError> {
        self.chip.interrupt_evt().trigger().map_err(DeviceError::Interrupt)
    }

    /// How many bytes can be typed now.
    pub(super) fn room(&self) -> usize {
        self.chip.fifo_capacity()
    }

    /// Types at it.
    pub(super) fn type_in(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        let told = self.has_told();
        answer(self.chip.enqueue_raw_bytes(bytes).map(drop))?;
        // Who did not hear it the first time hears it with the next key.
        if told && self.has_unread() { self.raise() } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    const DATA: u8 = 0;
    const LINE_STATUS: u8 = 5;

    /// A port whose guest wants to hear of what is received, and its interrupt line.
    fn port() -> (Port, EventFd) {
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let notice = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let mut port = Port::new(line.try_clone().unwrap(), notice, Box::new(io::sink()));
        port.write(INTERRUPT_ENABLE, ENABLE_RECEIVED).unwrap();
        (port, line)
    }

    fn is_raised(line: &EventFd) -> bool {
        line.read().is_ok()
    }

    /// Does what Linux does when it is interrupted: 256 bytes at most, and again while the port has something to tell.
    fn handle(port: &mut Port, mut typist: impl FnMut(&mut Port)) -> usize {
        let mut taken = 0;
        while port.read(INTERRUPT_IDENTIFICATION) & NOTHING == 0 {
            for _ in 0..256 {
                port.read(DATA);
                taken += 1;
                typist(port);
                if port.read(LINE_STATUS) & 1 == 0 {
                    break;
                }
            }
        }
        taken
    }

    #[test]
    fn a_long_line_is_taken_to_its_end_by_a_driver_that_takes_256_bytes_at_a_time() {
        let (mut port, line) = port();
        let mut left = 330 - port.room();
        port.type_in(&[b'x'; 64]).unwrap();
        assert!(is_raised(&line));
        // Whoever types is quick, but for the moment after the 256th byte.
        let mut count = 0;
        let mut taken = handle(&mut port, |port| {
            count += 1;
            let fits = port.room().min(left);
            if count != 256 && fits > 0 {
                port.type_in(&vec![b'x'; fits]).unwrap();
                left -= fits;
            }
        });
        // Then he waits until the port is empty, and is heard of by the line.
        while left > 0 && port.room() == 64 {
            port.type_in(&vec![b'x'; left.min(64)]).unwrap();
            left = left.saturating_sub(64);
            assert!(is_raised(&line));
            taken += handle(&mut port, |_| {});
        }
        assert_eq!(taken, 330);
    }

    #[test]
    fn a_port_tells_of_what_waits_until_nothing_does() {
        let (mut port, _line) = port();
        port.type_in(b"ab").unwrap();
        for byte in *b"ab" {
            assert_eq!(port.read(INTERRUPT_IDENTIFICATION), 0xc0 | RECEIVED);
            assert_eq!(port.read(DATA), byte);
        }
        assert_eq!(port.read(INTERRUPT_IDENTIFICATION), 0xc0 | NOTHING);
    }

    #[test]
    fn a_restored_port_interrupts_for_what_waits_whatever_was_told_of_it() {
        let (mut saved, _line) = port();
        saved.type_in(b"ab").unwrap();
        saved.read(DATA);
        let (mut port, line) = port();
        port.restore(&saved.chip.state()).unwrap();
        assert!(is_raised(&line));
        assert_eq!(handle(&mut port, |_| {}), 1);
    }

    #[test]
    fn a_guest_that_missed_an_interrupt_gets_another_when_more_is_typed_or_it_listens_anew() {
        let (mut port, line) = port();
        port.type_in(b"a").unwrap();
        assert!(is_raised(&line), "and nobody hears it");
        port.type_in(b"b").unwrap();
        assert!(is_raised(&line));
        port.write(INTERRUPT_ENABLE, 0).unwrap();
        assert!(!is_raised(&line));
        port.write(INTERRUPT_ENABLE, ENABLE_RECEIVED).unwrap();
        assert!(is_raised(&line));
        assert_eq!(handle(&mut port, |_| {}), 2);
    }

    #[test]
    fn a_key_interrupts_once() {
        let (mut port, line) = port();
        port.type_in(b"a").unwrap();
        assert_eq!(line.read().unwrap(), 1);
        assert_eq!(handle(&mut port, |_| {}), 1);
        assert!(!is_raised(&line));
    }
}
