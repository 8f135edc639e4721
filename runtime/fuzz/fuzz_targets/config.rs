//! The configuration of a container with anything in it.
#![no_main]

#[path = "../../tests/image/chaos.rs"]
mod chaos;

libfuzzer_sys::fuzz_target!(|data: &[u8]| chaos::config(data));
