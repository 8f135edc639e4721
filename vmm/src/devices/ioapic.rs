//! The I/O APIC: where the interrupt lines of devices end, and which processor is told of which.
//!
//! It is a table of 24 lines. The kernel writes into it which vector of which processor a line means; here each line that is
//! in use becomes a route of KVM's, a message to a processor's local APIC. So this part of the interrupt controller need not
//! be in the host's kernel: a device signals an eventfd, KVM looks up the route and delivers, and nobody comes by here.
//! (Intel 82093AA data sheet, 3.2; KVM API, `KVM_SET_GSI_ROUTING`.)

use std::sync::Arc;

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::bus::Window;

/// How many lines there are.
pub const LINES: usize = 24;
/// Where its registers lie on every PC.
pub const ADDRESS: u64 = 0xfec0_0000;

/// The two registers that can be reached: which other register is meant, and its value.
const SELECT: u64 = 0x00;
const VALUE: u64 = 0x10;

/// Registers by number. Two for each line follow.
const ID: u32 = 0;
const VERSION: u32 = 1;
const ARBITRATION: u32 = 2;
const FIRST_LINE: u32 = 0x10;

/// Version 1.1 has no register to end interrupts by, which only levels would need; and the number of the last line.
const VERSION_VALUE: u32 = 0x11 | (LINES as u32 - 1) << 16;

/// A line's bit that says it must not interrupt.
const MASKED: u64 = 1 << 16;
/// A line's bits that only the chip changes: "being delivered", "a level waits for its end".
const READ_ONLY: u64 = 1 << 12 | 1 << 14;

/// Where routes go: KVM, or in a test nobody.
pub(crate) trait Router: Send {
    /// From now on each line that is in `routes` means this message, and no other line means anything.
    fn route(&mut self, routes: &[Route]);
}

/// What a line means to KVM: the number of the line, and a message-signalled interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) line: u32,
    pub(crate) address: u32,
    pub(crate) data: u32,
}

impl Route {
    /// The message that a line's entry describes (Intel SDM volume 3, "Message Signalled Interrupts").
    fn of(line: u32, entry: u64) -> Self {
        let low = entry as u32;
        let destination = (entry >> 56) as u32;
        let logical = low >> 11 & 1;
        let level = low >> 15 & 1;
        Self {
            line,
            address: 0xfee0_0000 | destination << 12 | logical << 2,
            // Vector and kind of delivery stand at the same bits in both; a level is asserted.
            data: low & 0x7ff | level << 15 | level << 14,
        }
    }
}

/// KVM's table of routes.
pub(crate) struct KvmRoutes(pub(crate) Arc<VmFd>);

impl Router for KvmRoutes {
    fn route(&mut self, routes: &[Route]) {
        let entries: Vec<_> = routes.iter().map(entry).collect();
        let set = KvmIrqRouting::from_entries(&entries).map(|table| self.0.set_gsi_routing(&table));
        if !matches!(set, Ok(Ok(()))) {
            // The guest will miss interrupts, and say so itself.
            warn!("KVM does not take {} interrupt routes: {set:?}", routes.len());
        }
    }
}

fn entry(route: &Route) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi: route.line, type_: KVM_IRQ_ROUTING_MSI, ..kvm_irq_routing_entry::default() };
    entry.u.msi = kvm_irq_routing_msi { address_lo: route.address, data: route.data, ..kvm_irq_routing_msi::default() };
    entry
}

/// What a snapshot keeps of the chip.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    select: u32,
    id: u32,
    lines: Vec<u64>,
}

/// The chip.
pub(crate) struct IoApic<R> {
    select: u32,
    id: u32,
    lines: [u64; LINES],
    routes: Vec<Route>,
    router: R,
}

impl<R: Router> IoApic<R> {
    /// As it comes out of reset: every line masked.
    pub(crate) fn new(router: R) -> Self {
        Self { select: 0, id: 0, lines: [MASKED; LINES], routes: Vec::new(), router }
    }

    fn get(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_VALUE,
            register => self.half(register).map_or(0, |(line, shift)| (self.lines[line] >> shift) as u32),
        }
    }

    fn set(&mut self, value: u32) {
        if self.select == ID {
            self.id = value & 0x0f00_0000;
        }
        let Some((line, shift)) = self.half(self.select) else { return };
        let keep = self.lines[line] & (!(0xffff_ffff << shift) | READ_ONLY);
        self.lines[line] = keep | u64::from(value) << shift & !READ_ONLY;
        self.tell();
    }

    /// The line that a register belongs to, and where in its entry the register's half begins.
    #[expect(clippy::unused_self, reason = "what the registers are is this chip's")]
    fn half(&self, register: u32) -> Option<(usize, u32)> {
        let at = register.checked_sub(FIRST_LINE)? as usize;
        (at / 2 < LINES).then_some((at / 2, if at.is_multiple_of(2) { 0 } else { 32 }))
    }

    /// Hands KVM the routes, where they have changed: it waits until no interrupt can be using the old ones.
    fn tell(&mut self) {
        let lines = (0..).zip(&self.lines).filter(|(_, entry)| **entry & MASKED == 0);
        let routes: Vec<_> = lines.map(|(line, entry)| Route::of(line, *entry)).collect();
        if routes != self.routes {
            self.router.route(&routes);
            self.routes = routes;
        }
    }
}

impl<R: Router> Window for IoApic<R> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => self.select,
            VALUE => self.get(),
            _ => 0,
        };
        data.fill(0);
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 4];
        bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        let value = u32::from_le_bytes(bytes);
        match offset {
            SELECT => self.select = value & 0xff,
            VALUE => self.set(value),
            _ => {}
        }
    }

    fn save(&mut self) -> Option<serde_json::Value> {
        Some(serde_json::json!(Saved { select: self.select, id: self.id, lines: self.lines.to_vec() }))
    }

    fn restore(&mut self, saved: &serde_json::Value) -> Result<(), String> {
        let saved = Saved::deserialize(saved).map_err(|error| error.to_string())?;
        let lines = <[u64; LINES]>::try_from(saved.lines).map_err(|lines| format!("it has {} lines", lines.len()))?;
        (self.select, self.id, self.lines) = (saved.select & 0xff, saved.id & 0x0f00_0000, lines);
        self.tell();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Told = Arc<Mutex<Vec<Vec<Route>>>>;

    struct Listener(Told);

    impl Router for Listener {
        fn route(&mut self, routes: &[Route]) {
            self.0.lock().unwrap().push(routes.to_vec());
        }
    }

    fn chip() -> (IoApic<Listener>, Told) {
        let told = Told::default();
        (IoApic::new(Listener(told.clone())), told)
    }

    fn write(chip: &mut IoApic<Listener>, register: u32, value: u32) {
        chip.write(SELECT, &register.to_le_bytes());
        chip.write(VALUE, &value.to_le_bytes());
    }

    fn read(chip: &mut IoApic<Listener>, register: u32) -> u32 {
        chip.write(SELECT, &register.to_le_bytes());
        let mut data = [0; 4];
        chip.read(VALUE, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn it_says_how_many_lines_it_has() {
        assert_eq!(read(&mut chip().0, VERSION) >> 16, 23);
    }

    #[test]
    fn a_line_becomes_a_message_when_it_is_unmasked_and_only_then() {
        let (mut chip, told) = chip();
        write(&mut chip, 0x10 + 2 * 5 + 1, 3 << 24);
        write(&mut chip, 0x10 + 2 * 5, 0x1_0031);
        assert!(told.lock().unwrap().is_empty(), "masked");
        write(&mut chip, 0x10 + 2 * 5, 0x0831);
        let route = Route { line: 5, address: 0xfee0_3004, data: 0x31 };
        assert_eq!(told.lock().unwrap().as_slice(), [vec![route]]);
        write(&mut chip, 0x10 + 2 * 5, 0x0831);
        assert_eq!(told.lock().unwrap().len(), 1, "nothing has changed");
        write(&mut chip, 0x10 + 2 * 5, 0x1_0831);
        assert_eq!(told.lock().unwrap().last(), Some(&vec![]));
        assert_eq!(read(&mut chip, 0x10 + 2 * 5), 0x1_0831);
        assert_eq!(read(&mut chip, 0x10 + 2 * 5 + 1), 3 << 24);
    }

    #[test]
    fn bits_that_only_the_chip_changes_stay() {
        let (mut chip, _) = chip();
        write(&mut chip, 0x10, 0xffff_ffff);
        assert_eq!(read(&mut chip, 0x10) & (READ_ONLY as u32), 0);
    }

    #[test]
    fn registers_that_are_not_there_are_zero_and_take_anything() {
        let (mut chip, told) = chip();
        for register in [3, 0xf, 0x40, 0xff, 0xffff_ffff] {
            write(&mut chip, register, 0xffff_ffff);
            assert_eq!(read(&mut chip, register), 0);
        }
        chip.write(0x20, &[1]);
        chip.write(0x10, &[1, 2, 3, 4, 5, 6, 7, 8]);
        chip.read(0xfff, &mut [0; 8]);
        assert!(told.lock().unwrap().is_empty());
    }
}
