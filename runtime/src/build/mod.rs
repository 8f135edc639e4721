//! Building an image: a Dockerfile's instructions, a layer each.

pub mod dockerfile;
