//! A driver that does anything to any device.
#![no_main]

#[path = "../../tests/virtio/chaos.rs"]
mod chaos;

libfuzzer_sys::fuzz_target!(|data: &[u8]| chaos::drive(data));
