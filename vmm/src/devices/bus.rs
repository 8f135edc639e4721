//! The bus that finds a device by an address in memory.
//!
//! A page of guest-physical addresses without memory behind it belongs to one device: an access to it stops the processor,
//! and ends here. Several processors can be here at once, at different devices; a device sees one at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::DeviceError;
use super::virtio::mmio::Transport;
use super::virtio::state::State;

/// What a device is called in a snapshot.
fn name(base: u64) -> String {
    format!("{base:#x}")
}

/// How many addresses a device has.
pub const WINDOW: u64 = 4096;

/// A device behind a window of guest-physical addresses.
pub(crate) trait Window: Send {
    /// The guest reads at `offset` in the window.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// The guest writes there.
    fn write(&mut self, offset: u64, data: &[u8]);
    /// The machine stands still: whoever works on the device's behalf does so too.
    fn pause(&mut self) {}
    /// The machine goes on.
    fn resume(&mut self) {}
    /// The machine stands still, and files of the device's are to be read by others.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// What a snapshot keeps of the device; nothing where nobody has said.
    fn save(&mut self) -> Option<serde_json::Value> {
        None
    }
    /// Makes the device what it was, or says why that can't be.
    fn restore(&mut self, _saved: &serde_json::Value) -> Result<(), String> {
        Err("it can't be restored".to_owned())
    }
}

impl Window for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        Transport::read(self, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        Transport::write(self, offset, data);
    }

    fn pause(&mut self) {
        Transport::pause(self);
    }

    fn resume(&mut self) {
        Transport::resume(self);
    }

    fn flush(&mut self) -> io::Result<()> {
        Transport::flush(self)
    }

    fn save(&mut self) -> Option<serde_json::Value> {
        serde_json::to_value(Transport::save(self)).ok()
    }

    fn restore(&mut self, saved: &serde_json::Value) -> Result<(), String> {
        let state = State::deserialize(saved).map_err(|error| error.to_string())?;
        self.go_on(&state).map_err(|error| crate::chain(&error))?;
        // The interrupt controller, which was plugged first, knows by now which processor the line belongs to.
        self.remind().map_err(|error| error.to_string())
    }
}

/// Windows by their first address.
#[derive(Default)]
pub(crate) struct Bus {
    windows: Vec<(u64, Mutex<Box<dyn Window>>)>,
}

impl Bus {
    /// Puts a device at `base`, a multiple of [`WINDOW`] that nobody has yet.
    pub(crate) fn put(&mut self, base: u64, device: impl Window + 'static) {
        debug_assert!(base.is_multiple_of(WINDOW) && self.find(base).is_none());
        self.windows.push((base, Mutex::new(Box::new(device))));
    }

    /// The guest reads at an address without memory.
    pub(crate) fn read(&self, at: u64, data: &mut [u8]) {
        match self.find(at) {
            Some((offset, device)) => device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data),
            None => data.fill(0xff), // as on a PC: where nobody answers, the lines are high
        }
    }

    /// The guest writes to an address without memory.
    pub(crate) fn write(&self, at: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(at) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
    }

    /// What a snapshot keeps of each device, by its first address.
    pub(crate) fn save(&self) -> Result<BTreeMap<String, serde_json::Value>, DeviceError> {
        let keep = |(base, device): &(u64, Mutex<Box<dyn Window>>)| {
            let saved = device.lock().unwrap_or_else(PoisonError::into_inner).save();
            Ok((name(*base), saved.ok_or(DeviceError::NotSaved(*base))?))
        };
        self.windows.iter().map(keep).collect()
    }

    /// Makes each device what it was.
    pub(crate) fn restore(&self, saved: &BTreeMap<String, serde_json::Value>) -> Result<(), DeviceError> {
        for (base, device) in &self.windows {
            let fail = |why: String| DeviceError::Restore { device: name(*base), why };
            let value = saved.get(&name(*base)).ok_or_else(|| fail("it is missing".to_owned()))?;
            device.lock().unwrap_or_else(PoisonError::into_inner).restore(value).map_err(fail)?;
        }
        Ok(())
    }

    /// Brings what the devices have written where a reader of their files finds it.
    pub(crate) fn flush(&self) -> Result<(), DeviceError> {
        let flush = |(base, device): &(u64, Mutex<Box<dyn Window>>)| {
            let flushed = device.lock().unwrap_or_else(PoisonError::into_inner).flush();
            flushed.map_err(|source| DeviceError::Flush { at: *base, source })
        };
        self.windows.iter().try_for_each(flush)
    }

    /// Lets every device stand still.
    pub(crate) fn pause(&self) {
        self.each(|device| device.pause());
    }

    /// Lets every device go on.
    pub(crate) fn resume(&self) {
        self.each(|device| device.resume());
    }

    fn each(&self, act: impl Fn(&mut dyn Window)) {
        for (_, device) in &self.windows {
            act(&mut **device.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn find(&self, at: u64) -> Option<(u64, &Mutex<Box<dyn Window>>)> {
        let window = self.windows.iter().find(|(base, _)| *base == at - at % WINDOW);
        window.map(|(base, device)| (at - base, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(u8);

    impl Window for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + offset as u8);
        }

        fn write(&mut self, _: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    #[test]
    fn an_access_reaches_the_device_it_belongs_to_and_else_nobody() {
        let mut bus = Bus::default();
        bus.put(0x1000, Echo(1));
        bus.put(0x3000, Echo(3));
        bus.write(0x3ff0, &[7]);
        bus.write(0x2000, &[9]);
        let read = |at| {
            let mut data = [0];
            bus.read(at, &mut data);
            data[0]
        };
        assert_eq!([read(0x1000), read(0x1001), read(0x3000)], [1, 2, 7]);
        assert_eq!([read(0xfff), read(0x2000), read(0x4000), read(u64::MAX)], [0xff; 4]);
    }
}
