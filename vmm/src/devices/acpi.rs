//! The tables that tell an operating system what its machine has (ACPI 6.5, chapter 5).
//!
//! A kernel finds a root pointer, which points to a list, which points to tables. One of them holds a program: objects that
//! the kernel's interpreter reads, among them each device with its addresses and its interrupt. Distribution kernels find
//! virtio devices by these, and by nothing else.
//!
//! The machine is "hardware-reduced": it has none of the chips that ACPI was made for in 1996, so a kernel looks for no
//! interrupt controller of 1981, no timer of 1981, and no power-management block, and does not wait for them.

use acpi_tables::aml::{
    Arg, Device, EISAName, Equal, IO, If, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path,
    ResourceTemplate, Return, Scope, Zero,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::bus::WINDOW;
use super::{SERIAL, cmos, ioapic, pc};
use crate::guest::linux::layout::{ACPI, ACPI_END, GENERATION};
use crate::memory::Memory;

/// Who made the tables, in the fields that ask for it.
const OEM: [u8; 6] = *b"ISOLAB";
const TABLE: [u8; 8] = *b"ISOLABPC";
const REVISION: u32 = 1;

/// Where every processor finds its local APIC.
const LOCAL_APIC: u32 = 0xfee0_0000;

/// `IAPC_BOOT_ARCH`: there are devices that can only be found here; there is no VGA. That the bit for a keyboard controller
/// is not set saves the kernel looking for a keyboard.
const BOOT_ARCHITECTURE: u16 = 1 | 1 << 2;

/// A virtio device, as the tables tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Described {
    /// The first address of its page.
    pub(crate) base: u32,
    /// Its interrupt line.
    pub(crate) line: u32,
}

/// Why the tables could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// More than fits where a kernel looks for them.
    #[error("the ACPI tables of so many devices take {0} bytes, and there is no room for them")]
    TooLarge(u64),
    /// Guest memory is out of reach.
    #[error("cannot write the ACPI tables to guest memory")]
    Write(#[from] GuestMemoryError),
}

/// Writes all tables to where a kernel looks for them.
pub(crate) fn write(memory: &Memory, cpus: u8, devices: &[Described]) -> Result<(), AcpiError> {
    // The root pointer first, at the address that the kernel is told; but it is known only when all else has its place.
    let mut shelf = Shelf { memory, next: (ACPI + Rsdp::len() as u64).next_multiple_of(16) };
    let dsdt = shelf.put(dsdt(devices).as_slice())?;
    let fadt = shelf.put(&bytes(&fadt(dsdt)))?;
    let madt = shelf.put(&bytes(&madt(cpus)))?;
    let mut list = XSDT::new(OEM, TABLE, REVISION);
    list.add_entry(fadt);
    list.add_entry(madt);
    let list = shelf.put(&bytes(&list))?;
    memory.guest().write_slice(&bytes(&Rsdp::new(OEM, list)), GuestAddress(ACPI))?;
    Ok(())
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Lays one table behind the other.
struct Shelf<'a> {
    memory: &'a Memory,
    next: u64,
}

impl Shelf<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        let (at, end) = (self.next, self.next + table.len() as u64);
        if end > ACPI_END {
            return Err(AcpiError::TooLarge(end - ACPI));
        }
        self.memory.guest().write_slice(table, GuestAddress(at))?;
        self.next = end.next_multiple_of(16);
        Ok(at)
    }
}

/// A register at a port.
fn port(at: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(at))
}

/// What the machine as a whole is like.
fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut table = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        .flag(Flags::ResetRegSup)
        // Neither button is a fixed chip.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    table.century = cmos::CENTURY;
    table.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    table.reset_reg = port(pc::RESET);
    table.reset_value = pc::RESET_VALUE;
    table.sleep_control_reg = port(pc::SLEEP_CONTROL);
    table.sleep_status_reg = port(pc::SLEEP_STATUS);
    table.finalize()
}

/// Its processors, and where interrupts go.
fn madt(cpus: u8) -> MADT {
    let mut table = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(LOCAL_APIC));
    for cpu in 0..cpus {
        table.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, ioapic::ADDRESS as u32, 0));
    table
}

/// Its devices.
fn dsdt(devices: &[Described]) -> Sdt {
    let mut program = Vec::new();
    // \_S5: the sleep type that means "off".
    let off = pc::OFF;
    Name::new("_S5_".into(), &Package::new(vec![&off, &off, &Zero {}, &Zero {}])).to_aml_bytes(&mut program);
    let serial = Serial;
    let clock = Clock;
    let virtio: Vec<_> = (0..).zip(devices).map(|(number, device)| Virtio { number, device: *device }).collect();
    let (generation, renewal) = (Generation, Renewal);
    let (button, press) = (Button, Press);
    let mut all: Vec<&dyn Aml> = vec![&serial, &clock, &generation, &renewal, &button, &press];
    all.extend(virtio.iter().map(|device| device as &dyn Aml));
    Scope::new("_SB_".into(), all).to_aml_bytes(&mut program);
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    table.append_slice(&program);
    table
}

/// The serial port, by the name that Plug and Play gave it.
struct Serial;

impl Aml for Serial {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let id = EISAName::new("PNP0501");
        let ports = IO::new(SERIAL, SERIAL, 0, 8);
        let line = Interrupt::new(true, true, false, false, pc::SERIAL_LINE);
        Device::new(
            Path::new("COM1"),
            vec![
                &Name::new("_HID".into(), &id),
                &Name::new("_UID".into(), &Zero {}),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &line])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The clock, which never interrupts.
struct Clock;

impl Aml for Clock {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let id = EISAName::new("PNP0B00");
        let ports = IO::new(cmos::SELECT, cmos::SELECT, 0, 2);
        Device::new(
            Path::new("RTC0"),
            vec![&Name::new("_HID".into(), &id), &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports]))],
        )
        .to_aml_bytes(sink);
    }
}

/// Sixteen bytes that are others when the machine is another one (Microsoft, "Virtual Machine Generation ID").
struct Generation;

impl Aml for Generation {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (low, high) = (GENERATION as u32, 0_u32);
        let names: [&dyn Aml; 2] = [&"VM_Gen_Counter", &"VMGENCTR"];
        Device::new(
            Path::new("VGEN"),
            vec![
                &Name::new("_HID".into(), &"ISOL0001"),
                &Name::new("_CID".into(), &Package::new(names.to_vec())),
                &Name::new("_DDN".into(), &"VM_Gen_Counter"),
                &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What tells a kernel that they are: an interrupt, which the tables translate (ACPI 6.5, section 5.6.9, "Generic Event
/// Device").
struct Renewal;

impl Aml for Renewal {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let line = Interrupt::new(true, true, false, false, pc::GENERATION_LINE);
        let (number, changed) = (pc::GENERATION_LINE, 0x80_u8);
        let generation = Path::new("\\_SB_.VGEN");
        let notify = Notify::new(&generation, &changed);
        Device::new(
            Path::new("GEDG"),
            vec![
                &Name::new("_HID".into(), &"ACPI0013"),
                &Name::new("_UID".into(), &Zero {}),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&line])),
                &Method::new("_EVT".into(), 1, true, vec![&If::new(&Equal::new(&Arg(0), &number), vec![&notify])]),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The power button.
struct Button;

impl Aml for Button {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Device::new(Path::new("PWRB"), vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C"))]).to_aml_bytes(sink);
    }
}

/// What tells a kernel that somebody presses it: an interrupt, which the tables translate (ACPI 6.5, section 5.6.9, "Generic
/// Event Device").
struct Press;

impl Aml for Press {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let line = Interrupt::new(true, true, false, false, pc::BUTTON_LINE);
        let (number, pressed) = (pc::BUTTON_LINE, 0x80_u8);
        let button = Path::new("\\_SB_.PWRB");
        let notify = Notify::new(&button, &pressed);
        Device::new(
            Path::new("GEDB"),
            vec![
                &Name::new("_HID".into(), &"ACPI0013"),
                &Name::new("_UID".into(), &pc::BUTTON_LINE),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&line])),
                &Method::new("_EVT".into(), 1, true, vec![&If::new(&Equal::new(&Arg(0), &number), vec![&notify])]),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// A virtio device: Linux's driver for virtio-mmio knows this name.
struct Virtio {
    number: u8,
    device: Described,
}

impl Aml for Virtio {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let window = Memory32Fixed::new(true, self.device.base, WINDOW as u32);
        // An edge: an interrupt is a message, and nobody holds a line (see `ioapic`).
        let line = Interrupt::new(true, true, false, false, self.device.line);
        let always = 0x0f_u8;
        Device::new(
            Path::new(&format!("V{:03}", self.number)),
            vec![
                &Name::new("_HID".into(), &"LNRO0005"),
                &Name::new("_UID".into(), &self.number),
                &Name::new("_CCA".into(), &acpi_tables::aml::One {}),
                &Method::new("_STA".into(), 0, false, vec![&Return::new(&always)]),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window, &line])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Mib;

    const DEVICES: [Described; 2] =
        [Described { base: 0xd000_0000, line: 5 }, Described { base: 0xd000_1000, line: 6 }];

    fn read(memory: &Memory, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory.guest().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn number(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// A table with the header that all have; its bytes must sum up to nothing.
    fn table(memory: &Memory, at: u64) -> Vec<u8> {
        let length = u32::from_le_bytes(read(memory, at, 8)[4..].try_into().unwrap());
        let bytes = read(memory, at, length as usize);
        assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{:?}", &bytes[..4]);
        bytes
    }

    #[test]
    fn from_the_root_pointer_every_table_is_found_and_sound() {
        let memory = Memory::map(Mib(4)).unwrap();
        write(&memory, 3, &DEVICES).unwrap();
        let root = read(&memory, ACPI, 36);
        assert_eq!(&root[..8], b"RSD PTR ");
        let list = table(&memory, number(&root, 24));
        assert_eq!((&list[..4], list.len()), (&b"XSDT"[..], 36 + 16));
        let fadt = table(&memory, number(&list, 36));
        assert_eq!(&fadt[..4], b"FACP");
        assert_ne!(u32::from_le_bytes(fadt[112..116].try_into().unwrap()) & 1 << 20, 0, "hardware-reduced");
        let dsdt = table(&memory, number(&fadt, 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(dsdt.windows(8).filter(|bytes| bytes == b"LNRO0005").count(), 2);
        let madt = table(&memory, number(&list, 44));
        assert_eq!((&madt[..4], madt.len()), (&b"APIC"[..], 44 + 3 * 8 + 12));
    }

    #[test]
    fn the_tables_of_the_largest_machine_have_room() {
        let memory = Memory::map(Mib(4)).unwrap();
        write(&memory, crate::machine::pc::MOST_CPUS, &[DEVICES[0]; ioapic::LINES]).unwrap();
    }
}
