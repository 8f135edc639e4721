//! Who a PC is: what no two machines may share, and where a guest finds it.
//!
//! Firmware of a real PC tells a kernel its UUID by tables in memory (SMBIOS 3.2). A kernel reads them once, at its start;
//! what shows them anew (`/sys/firmware/dmi/tables`) shows a machine that has gone on from a snapshot its new one. Beside them
//! lie the sixteen bytes of the generation ID: a kernel with a driver for them seeds its random numbers anew when they have
//! changed, and is interrupted to look ([`crate::devices::acpi`]).

use std::io;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::guest::linux::layout::{GENERATION, SMBIOS};
use crate::memory::Memory;
use crate::random;

/// Where the structures lie, behind the entry point.
const STRUCTURES: u64 = SMBIOS + 0x40;

/// A UUID (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// A random one (version 4).
    pub fn random() -> io::Result<Self> {
        let mut bytes = random::bytes::<16>()?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    /// As SMBIOS has it (section 7.2.1): the first three fields little-endian.
    fn encoded(self) -> [u8; 16] {
        let mut bytes = self.0;
        for field in [0..4, 4..6, 6..8] {
            if let Some(field) = bytes.get_mut(field) {
                field.reverse();
            }
        }
        bytes
    }
}

impl std::str::FromStr for Uuid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.split('-').collect();
        let bytes = crate::snapshot::raw::unhex(&digits).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| format!("{text:?} is no UUID: 32 hexadecimal digits"))
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(formatter, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Writes the tables with this UUID.
pub(super) fn write_uuid(memory: &Memory, uuid: Uuid) -> Result<(), GuestMemoryError> {
    let structures = structures(uuid);
    memory.guest().write_slice(&structures, GuestAddress(STRUCTURES))?;
    memory.guest().write_slice(&entry_point(structures.len() as u32), GuestAddress(SMBIOS))
}

/// Writes sixteen bytes that no other machine has.
pub(super) fn write_generation(memory: &Memory) -> io::Result<()> {
    let bytes = random::bytes::<16>()?;
    memory.guest().write_slice(&bytes, GuestAddress(GENERATION)).map_err(io::Error::other)
}

/// "64-bit entry point" (section 5.2.2).
fn entry_point(length: u32) -> [u8; 24] {
    let mut bytes = [0; 24];
    let mut put = |at: usize, value: &[u8]| {
        if let Some(there) = bytes.get_mut(at..at + value.len()) {
            there.copy_from_slice(value);
        }
    };
    put(0, b"_SM3_");
    put(6, &[24, 3, 2, 0, 1]); // its length; SMBIOS 3.2.0; this is revision 1 of it
    put(12, &length.to_le_bytes());
    put(16, &STRUCTURES.to_le_bytes());
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[5] = sum.wrapping_neg();
    bytes
}

/// What the system is (section 7.2), and the end (section 7.45). Texts stand behind a structure and are meant by number.
fn structures(uuid: Uuid) -> Vec<u8> {
    let mut bytes = vec![1, 27, 0, 1, 1, 2, 0, 0]; // type, length, handle 0x100, maker, product, no version, no serial number
    bytes.extend(uuid.encoded());
    bytes.extend([6, 0, 0]); // it was woken by its power switch
    bytes.extend(b"isolab\0isolab-vm\0\0");
    bytes.extend([127, 4, 1, 1, 0, 0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Mib;

    #[test]
    fn the_tables_are_found_sound_and_with_their_uuid() {
        let memory = Memory::map(Mib(4)).unwrap();
        let uuid: Uuid = "00112233-4455-4677-8899-aabbccddeeff".parse().unwrap();
        write_uuid(&memory, uuid).unwrap();
        let entry: [u8; 24] = memory.guest().read_obj(GuestAddress(SMBIOS)).unwrap();
        assert_eq!(entry.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let at = u64::from_le_bytes(entry[16..].try_into().unwrap());
        let system: [u8; 27] = memory.guest().read_obj(GuestAddress(at)).unwrap();
        assert_eq!(system[..2], [1, 27]);
        let expected = [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x46, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        assert_eq!(system[8..24], expected);
        assert!(at + u64::from(entry[12]) < GENERATION);
    }

    #[test]
    fn a_uuid_is_read_as_it_is_written() {
        let uuid = Uuid::random().unwrap();
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_eq!(uuid.to_string().as_bytes()[14], b'4');
        assert!("00".parse::<Uuid>().is_err());
    }

    #[test]
    fn no_two_generations_are_the_same() {
        let memory = Memory::map(Mib(4)).unwrap();
        let read = || memory.guest().read_obj::<[u8; 16]>(GuestAddress(GENERATION)).unwrap();
        write_generation(&memory).unwrap();
        let first = read();
        write_generation(&memory).unwrap();
        assert_ne!(first, read());
    }
}
