//! The payload, embedded: the bytes that every subject of every run starts.

/// The static ELF that `bench/payload/main.rs` compiles to.
pub const PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isolab-payload"));
