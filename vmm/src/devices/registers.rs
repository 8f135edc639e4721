//! The serial port's registers, as a snapshot keeps them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vm_superio::serial::SerialState;

use super::DeviceError;

/// A 16550A's registers, and what was received and not read yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registers {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    received: Vec<u8>,
}

fn impossible(why: String) -> DeviceError {
    DeviceError::Restore { device: "serial".to_owned(), why }
}

impl Registers {
    /// The port's state in a snapshot.
    pub(super) fn find(saved: &BTreeMap<String, serde_json::Value>) -> Result<SerialState, DeviceError> {
        let value = saved.get("serial").ok_or_else(|| impossible("it is missing".to_owned()))?;
        let registers = Self::deserialize(value).map_err(|error| impossible(error.to_string()))?;
        Ok(registers.into())
    }

    /// The error where there is more received than the chip can hold.
    pub(super) fn overfull() -> DeviceError {
        impossible("it holds more bytes than the chip".to_owned())
    }

    /// As it stands in a snapshot.
    pub(super) fn value(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

impl From<SerialState> for Registers {
    fn from(state: SerialState) -> Self {
        Self {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            received: state.in_buffer,
        }
    }
}

impl From<Registers> for SerialState {
    fn from(registers: Registers) -> Self {
        let [baud_divisor_low, baud_divisor_high] = registers.divisor;
        Self {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable: registers.interrupt_enable,
            interrupt_identification: registers.interrupt_identification,
            line_control: registers.line_control,
            line_status: registers.line_status,
            modem_control: registers.modem_control,
            modem_status: registers.modem_status,
            scratch: registers.scratch,
            in_buffer: registers.received,
        }
    }
}
