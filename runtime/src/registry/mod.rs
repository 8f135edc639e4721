//! Registries: where images are kept for others to fetch, and how they are fetched.
//!
//! [`server`] keeps a registry in a folder and speaks the OCI distribution specification 1.1 over HTTP; [`client`] speaks it
//! to any registry.

pub mod client;
pub mod server;
