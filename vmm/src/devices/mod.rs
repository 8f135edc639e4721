//! The devices of a machine, and the bus that finds them by port.
//!
//! Two are enough for a guest of a few instructions: a serial port to speak through, and a port that ends the machine. An
//! operating system wants more of a PC ([`pc`]), and tables that tell of it ([`acpi`]).

pub mod acpi;
mod badge;
pub mod bus;
mod cmos;
pub mod ioapic;
mod lines;
pub mod pc;
mod registers;
mod serial;
pub mod virtio;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};

use vm_superio::Trigger;
use vm_superio::serial::{Error as SerialError, NoEvents, Serial};

use crate::guest::Flow;
pub use badge::{BADGE, GENERATION};
use lines::Lines;
use registers::Registers;

/// First port of the first serial port of every PC ("COM1"); the next seven are its other registers.
pub const SERIAL: u16 = 0x3f8;
const SERIAL_LAST: u16 = SERIAL + 7;
/// A byte written here ends the machine, and is its status. (QEMU's `isa-debug-exit` sits at the same port.)
pub const EXIT: u16 = 0xf4;

/// A device that could not do what the guest asked for.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// What the guest printed could not be passed on.
    #[error("cannot write what the guest prints on its serial port")]
    Console(#[source] io::Error),
    /// Nobody has said what is to be kept of a device.
    #[error("the device at {0:#x} can't be kept in a snapshot")]
    NotSaved(u64),
    /// What the guest has written can't be brought to its disk.
    #[error("cannot write out what the device at {at:#x} has still to write")]
    Flush {
        /// The device's place.
        at: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// What a snapshot says of a device can't be.
    #[error("cannot restore the device {device}: {why}")]
    Restore {
        /// Its name.
        device: String,
        /// What is wrong.
        why: String,
    },
    /// The guest could not be interrupted.
    #[error("cannot raise an interrupt of the guest's")]
    Interrupt(#[source] io::Error),
}

/// These guests ask the serial port whether it is ready; none waits for an interrupt.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// What answers at the machine's ports.
pub struct Board<W: Write> {
    serial: Serial<NoInterrupt, NoEvents, Lines<W>>,
}

impl<W: Write> Board<W> {
    /// A board whose serial port writes to `console`.
    pub fn new(console: W) -> Self {
        Self { serial: Serial::new(NoInterrupt, Lines::new(console)) }
    }

    /// The guest writes to a port: one byte, or several in a row (`rep outsb`) that come in one exit.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Result<Flow, DeviceError> {
        match (port, data) {
            (EXIT, [status, ..]) => Ok(Flow::Exit(*status)),
            (SERIAL..=SERIAL_LAST, _) => {
                for byte in data {
                    self.transmit((port - SERIAL) as u8, *byte)?;
                }
                Ok(Flow::Continue)
            }
            _ => Ok(Flow::Continue), // as on a PC: nobody listens, and nobody complains
        }
    }

    fn transmit(&mut self, register: u8, byte: u8) -> Result<(), DeviceError> {
        match self.serial.write(register, byte) {
            // A full receive buffer in loop-back mode loses the byte, as the real chip does.
            Ok(()) | Err(SerialError::FullFifo) => Ok(()),
            Err(SerialError::IOError(error)) => Err(DeviceError::Console(error)),
            Err(SerialError::Trigger(never)) => match never {},
        }
    }

    /// The guest reads from a port.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        for byte in data {
            *byte = match port {
                SERIAL..=SERIAL_LAST => self.serial.read((port - SERIAL) as u8),
                _ => 0xff, // as on a PC: the lines of a bus that nobody drives are high
            };
        }
    }

    /// Each device's state, by its name.
    pub(crate) fn save(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::from([("serial".to_owned(), Registers::from(self.serial.state()).value())])
    }

    /// A board as it was saved, whose serial port writes to `console`.
    pub(crate) fn restore(saved: &BTreeMap<String, serde_json::Value>, console: W) -> Result<Self, DeviceError> {
        let state = Registers::find(saved)?;
        match Serial::from_state(&state, NoInterrupt, NoEvents, Lines::new(console)) {
            Ok(serial) => Ok(Self { serial }),
            Err(_) => Err(Registers::overfull()),
        }
    }

    /// Passes on what the guest has printed of a line that is not complete.
    pub fn flush(&mut self) -> Result<(), DeviceError> {
        self.serial.writer_mut().pass_on().map_err(DeviceError::Console)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_prints_comes_out() {
        let mut out = Vec::new();
        let mut board = Board::new(&mut out);
        assert_eq!(board.write(SERIAL, b"one\ntw").unwrap(), Flow::Continue);
        board.write(SERIAL, b"o").unwrap();
        board.flush().unwrap();
        drop(board);
        assert_eq!(out, b"one\ntwo");
    }

    #[test]
    fn the_serial_port_says_that_it_can_take_a_byte() {
        let mut status = [0];
        Board::new(io::sink()).read(SERIAL + 5, &mut status);
        assert_eq!(status[0] & 0x60, 0x60, "transmitter empty, holding register empty");
    }

    #[test]
    fn a_byte_at_the_exit_port_ends_the_machine() {
        assert_eq!(Board::new(io::sink()).write(EXIT, &[7]).unwrap(), Flow::Exit(7));
    }

    #[test]
    fn where_nobody_answers_a_guest_reads_ones() {
        let mut data = [0; 4];
        let mut board = Board::new(io::sink());
        assert_eq!(board.write(0x80, &[1]).unwrap(), Flow::Continue);
        board.read(0x80, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn a_console_that_is_gone_is_an_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(matches!(Board::new(Gone).write(SERIAL, b"hello\n"), Err(DeviceError::Console(_))));
    }
}
