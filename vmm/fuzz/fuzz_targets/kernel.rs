//! A kernel's file with anything in it.
#![no_main]

#[path = "../../tests/virtio/chaos.rs"]
mod chaos;

libfuzzer_sys::fuzz_target!(|data: &[u8]| chaos::kernel(data));
