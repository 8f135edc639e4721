//! A configuration and a manifest with anything in them.
#![no_main]

#[path = "../../tests/image/chaos.rs"]
mod chaos;

libfuzzer_sys::fuzz_target!(|data: &[u8]| chaos::manifest(data));
