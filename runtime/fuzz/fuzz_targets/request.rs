//! A request to a registry with anything in it.
#![no_main]

#[path = "../../tests/image/chaos.rs"]
mod chaos;

use std::sync::LazyLock;

/// One for all inputs. A fuzzer leaves without dropping it: its folder `isolab-chaos-*` in memory is yours to remove.
static SERVED: LazyLock<chaos::Served> = LazyLock::new(chaos::Served::start);

libfuzzer_sys::fuzz_target!(|data: &[u8]| SERVED.request(data));
