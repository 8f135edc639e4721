//! A snapshot's state with anything in it: as a file, and under a header whose checksum is right.
#![no_main]

use isolab_vmm::snapshot::format::{decode, seal};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = decode(data);
    let _ = decode(&seal(data));
});
