//! A layer's archive with anything in it.
#![no_main]

#[path = "../../tests/image/chaos.rs"]
mod chaos;

libfuzzer_sys::fuzz_target!(|data: &[u8]| chaos::layer(data));
